"""Connections that wait for their next request, and are not kept for too long."""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import Generic, Protocol, TypeVar

IDLE_SECONDS = 30.0
"""How long a connection is kept for the next request."""
SWEEP_SECONDS = 1.0
"""How often is looked for those that were kept for so long."""


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Close it."""


Kept = TypeVar("Kept", bound=Closable)


class IdleConnections(Generic[Kept]):
    """A pool's connections: the last to come is the next to go.

    urllib3 takes it for a queue. Its usual one is Python's, which gevent replaces by
    one of its own, so that there is no way to look for old connections in both.

    There is no lock, which would cost more than the rest: each step on a deque is one,
    and what another thread may do in between harms nobody.

    Args:
        maxsize: how many are kept.
    """

    def __init__(self, maxsize: int) -> None:
        self._size = maxsize
        self._waiting: deque[tuple[float, Kept]] = deque()

    def push(self, connection: Kept) -> bool:
        """Keep a connection; whether there is room for it."""
        if len(self._waiting) >= self._size:
            return False
        self._waiting.append((time.monotonic(), connection))
        return True

    def pop(self) -> Kept | None:
        """The connection that came last; None if there is none."""
        try:
            return self._waiting.pop()[1] if self._waiting else None
        except IndexError:  # another thread has just taken the last one
            return None

    def put(self, connection: Kept | None, block: bool = False) -> None:
        """Keep a connection; None, urllib3's word for one to be made, is not kept.

        Raises:
            queue.Full: there are enough.
        """
        if connection is not None and not self.push(connection):
            raise queue.Full

    def get(self, block: bool = False, timeout: float | None = None) -> Kept:
        """The connection that came last; does not wait for one.

        Raises:
            queue.Empty: there is none.
        """
        connection = self.pop()
        if connection is None:
            raise queue.Empty
        return connection

    def qsize(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def close(self) -> None:
        """Close all, and keep none any more."""
        self._size = 0
        while (connection := self.pop()) is not None:
            connection.close()

    def close_older(self, than: float) -> None:
        """Close those that have been here since before a monotonic second."""
        while self._waiting:
            try:
                since, connection = self._waiting.popleft()
            except IndexError:  # another thread has just taken the last one
                return
            if since > than:
                self._waiting.appendleft((since, connection))
                return
            connection.close()
