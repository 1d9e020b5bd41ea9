from __future__ import annotations

import os

from kongai.scoreboard import Count, Scoreboard


def test_each_process_has_a_row() -> None:
    board = Scoreboard(3)
    board.row(0)[Count.REQUESTS] += 2
    board.row(2)[Count.REQUESTS] += 5
    assert board.each(Count.REQUESTS) == [2, 0, 5]
    assert board.total(Count.REQUESTS) == 7
    assert board.each(Count.ACCEPTED) == [0, 0, 0]


def test_a_child_counts_where_its_parent_sees_it() -> None:
    board = Scoreboard(2)
    pid = os.fork()
    if pid == 0:
        board.row(1)[Count.ACCEPTED] += 42
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.total(Count.ACCEPTED) == 42


def test_what_a_process_was_doing_ends_with_it() -> None:
    board = Scoreboard(1)
    row = board.row(0)
    for count in Count:
        row[count] = 3
    board.clear(0)
    assert {count for count in Count if row[count]} == {
        Count.ACCEPTED,
        Count.TURNED_AWAY,
        Count.REQUESTS,
    }
