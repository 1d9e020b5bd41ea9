"""Counters of the server's processes, in memory that all of them see."""

from __future__ import annotations

import enum
import mmap
from typing import TypeAlias

_CELL = 8


class Count(enum.IntEnum):
    """What is counted, of each process."""

    PID = 0
    """Not a count: which process it is; 0 for none."""
    READY = 1
    """1 while it takes connections."""
    ACCEPTED = 2
    """Connections accepted so far."""
    CONNECTIONS = 3
    """Connections open now."""
    TURNED_AWAY = 4
    """Connections refused so far because there were too many."""
    REQUESTS = 5
    """Requests answered so far, refused ones included."""
    EXCHANGES = 6
    """Requests being answered now."""


Row: TypeAlias = memoryview
"""One process's numbers, by `Count`; only that process writes there."""


class Scoreboard:
    """A row of numbers for each of several processes that fork from this one.

    Args:
        processes: how many there are.
    """

    def __init__(self, processes: int = 1) -> None:
        self._width = len(Count) * _CELL
        self._memory = mmap.mmap(-1, processes * self._width)
        self.processes = processes

    def row(self, process: int) -> Row:
        """The numbers of one process, to be written by that one.

        Args:
            process: which, counted from 0.
        """
        start = process * self._width
        return memoryview(self._memory)[start : start + self._width].cast("q")

    def clear(self, process: int) -> None:
        """Forget what a process that is gone was doing; what it has done stays."""
        row = self.row(process)
        for count in (Count.PID, Count.READY, Count.CONNECTIONS, Count.EXCHANGES):
            row[count] = 0

    def each(self, count: Count) -> list[int]:
        """One number of every process."""
        return [self.row(process)[count] for process in range(self.processes)]

    def total(self, count: Count) -> int:
        """One number of all processes together."""
        return sum(self.each(count))
