"""What a process that was forked must not share with its parent is begun anew there."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forgetful(Protocol):
    """What has threads, locks or open files, which stay behind in the parent."""

    def forget(self) -> None:
        """Start over: runs in the child, before anything else does."""


_known: WeakSet[Forgetful] = WeakSet()


def forget_in_children(thing: Forgetful) -> None:
    """Have a thing, as long as it lives, start over in every process that is forked."""
    _known.add(thing)


def _forget_all() -> None:
    for thing in list(_known):
        thing.forget()


os.register_at_fork(after_in_child=_forget_all)
