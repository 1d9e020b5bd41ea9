from __future__ import annotations

import os

from kongai.forks import forget_in_children


class Thing:
    def __init__(self) -> None:
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


def test_a_child_starts_over_and_its_parent_does_not() -> None:
    thing = Thing()
    forget_in_children(thing)
    pid = os.fork()
    if pid == 0:
        os._exit(thing.forgotten)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert thing.forgotten == 0
