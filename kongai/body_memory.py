"""How much of clients' bodies a gateway keeps in memory at a time."""

from __future__ import annotations

# The system's own, also under gevent, where threading's costs ten times as much: nobody
# waits while he holds it.
from _thread import RLock

from kongai.errors import Overloaded, RequestRejected

DEFAULT = 256 * 1024 * 1024
"""Bytes."""


class BodyMemory:
    """A budget that all exchanges of a gateway share.

    Args:
        limit: bytes; None for no limit.
    """

    def __init__(self, limit: int | None = DEFAULT) -> None:
        self.held = 0
        """Bytes taken and not given back."""
        self.limit = limit
        self._lock = RLock()

    def take(self, size: int) -> None:
        """Take bytes from the budget.

        Raises:
            Overloaded: there are not so many left.
        """
        with self._lock:
            if self.limit is not None and self.held + size > self.limit:
                raise Overloaded
            self.held += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.held -= size


class Share:
    """What one exchange has of the budget.

    Args:
        memory: the budget.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._held = 0

    def expect(self, size: int) -> None:
        """Refuse so many bytes if there is never room for them; takes none.

        Raises:
            RequestRejected: there are not so many in the whole budget.
        """
        limit = self._memory.limit
        if limit is not None and size > limit:
            raise RequestRejected("Payload too large", status=413, ended="too_large")

    def hold(self, size: int) -> None:
        """Have so many bytes in all; fewer than before changes nothing.

        Raises:
            Overloaded: there are not so many left.
            RequestRejected: there never are.
        """
        if size > self._held:
            self.expect(size)
            self._memory.take(size - self._held)
            self._held = size

    def release(self) -> None:
        """Give everything back."""
        held, self._held = self._held, 0
        if held:
            self._memory.give(held)
