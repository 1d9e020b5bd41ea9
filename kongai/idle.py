"""Connections that wait for their next request, and are not kept for too long."""

from __future__ import annotations

import queue
import threading
import time
from typing import Protocol


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Close it."""


class IdleConnections:
    """A pool's connections: the last to come is the next to go.

    urllib3 takes it for a queue. Its usual one is Python's, which gevent replaces by
    one of its own, so that there is no way to look for old connections in both.

    Args:
        maxsize: how many are kept.
    """

    def __init__(self, maxsize: int) -> None:
        self._size, self._lock = maxsize, threading.Lock()
        self._waiting: list[tuple[float, Closable]] = []

    def put(self, connection: Closable | None, block: bool = False) -> None:
        """Keep a connection; None, urllib3's word for one to be made, is not kept.

        Raises:
            queue.Full: there are enough.
        """
        if connection is None:
            return
        with self._lock:
            if len(self._waiting) >= self._size:
                raise queue.Full
            self._waiting.append((time.monotonic(), connection))

    def get(self, block: bool = False, timeout: float | None = None) -> Closable:
        """The connection that came last; does not wait for one.

        Raises:
            queue.Empty: there is none.
        """
        with self._lock:
            if not self._waiting:
                raise queue.Empty
            return self._waiting.pop()[1]

    def qsize(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def close_older(self, than: float) -> None:
        """Close those that have been here since before a monotonic second."""
        with self._lock:
            old = [entry for entry in self._waiting if entry[0] <= than]
            del self._waiting[: len(old)]
        for _, connection in old:
            connection.close()
