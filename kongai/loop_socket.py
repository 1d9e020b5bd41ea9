"""A socket in gevent's event loop that waits at little cost.

gevent's own sockets start and stop a watcher and a timer for each wait. Here a watcher
of what can be read stays started from wait to wait, and a timer runs on over many.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

_READ = 1
"""libev's name of what can be read."""


class LoopSocket:
    """What a connection uses of a socket.

    Args:
        sock: gevent's socket.
        hub: gevent's hub.
        current: tells which greenlet runs.
        poll: makes a poll object of the system's own, not gevent's.
    """

    __slots__ = (
        "_current",
        "_drained",
        "_due",
        "_hub",
        "_listening",
        "_poll",
        "_reader",
        "_receive",
        "_send",
        "_sock",
        "_timeout",
        "_timer",
        "_until",
        "_waits_first",
        "_watcher",
    )

    def __init__(
        self,
        sock: Any,
        hub: Any,
        current: Callable[[], Any],
        poll: Callable[[], select.poll],
    ) -> None:
        self._sock, self._hub, self._current, self._poll = sock, hub, current, poll
        # The system's socket below gevent's, which does not block.
        self._receive, self._send = sock._sock.recv, sock._sock.send
        self._timeout: float | None = sock.gettimeout()
        self._watcher = hub.loop.io(sock.fileno(), _READ)
        self._listening = False
        # Who waits for something to read, and until when.
        self._reader: Any = None
        self._until = inf
        # The last read took all there was: the next one has to wait.
        self._drained = False
        self._waits_first = True
        # One timer is left running over many waits; it is due before any of them ends.
        self._timer: Any = None
        self._due = inf

    def settimeout(self, seconds: float | None) -> None:
        """How long each `recv` and `send` waits."""
        self._timeout = seconds

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As for any socket."""
        self._sock.setsockopt(level, option, value)

    def getpeername(self) -> Any:
        """As for any socket."""
        return self._sock.getpeername()

    def fileno(self) -> int:
        """As for any socket."""
        descriptor: int = self._sock.fileno()
        return descriptor

    def recv(self, size: int) -> bytes:
        """Read what has come, after waiting for something; b"" at the end.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection is broken.
        """
        while True:
            if self._drained:
                if self._reader is not None:
                    raise RuntimeError("somebody else reads from this socket already")
                if not self._listening:
                    self._listen()
                if self._timeout is None:
                    self._until = inf
                else:
                    self._until = time.monotonic() + self._timeout
                    if self._until < self._due:
                        self._start_timer(self._timeout)
                self._reader = self._current()
                try:
                    self._hub.switch()
                finally:
                    self._reader = None
            try:
                data: bytes = self._receive(size)
            except BlockingIOError:
                self._drained = True
            else:
                self._drained = len(data) < size and self._waits_first
                return data

    def arrivals(self) -> Callable[[], Sequence[Any]]:
        """What tells by its truth whether there is anything to read, be it the end."""
        poll = self._poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return partial(poll.poll, 0)

    def send(self, data: bytes | memoryview) -> int:
        """Write as much as there is room for, after waiting for some.

        Raises:
            TimeoutError: nothing was taken in time.
            OSError: the connection is broken.
        """
        try:
            sent: int = self._send(data)
        except BlockingIOError:
            self._sock.settimeout(self._timeout)
            sent = self._sock.send(data)
        return sent

    def shutdown(self, how: int) -> None:
        """As for any socket."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close it; a second time does nothing. Who waits for it waits no longer."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher, self._listening = None, False
        self._stop_timer()
        self._sock.close()
        if self._reader is not None:
            self._hub.loop.run_callback(self._give_up, self._reader)

    def _give_up(self, reader: Any) -> None:
        if self._reader is reader:
            reader.throw(OSError(errno.EBADF, "closed by somebody else"))

    def _listen(self) -> None:
        if self._watcher is None:
            raise OSError(errno.EBADF, "closed")
        self._listening = True
        self._watcher.start(self._readable)

    def _stop_listening(self) -> None:
        """What can be read would be told again at each turn of the event loop."""
        self._listening = self._drained = False
        self._watcher.stop()

    def _readable(self) -> None:
        """Runs in the event loop, so only while all greenlets wait."""
        if self._reader is not None:
            self._reader.switch()
        else:
            self._came_early()

    def _came_early(self) -> None:
        """Something came that nobody waits for; it stays where it is."""
        self._stop_listening()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._due = time.monotonic() + seconds
        self._timer = self._hub.loop.timer(seconds)
        self._timer.start(self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
            self._due = inf

    def _time_is_up(self) -> None:
        """Runs in the event loop, perhaps for a wait that is long over."""
        self._stop_timer()
        if self._reader is None:
            return
        left = self._until - time.monotonic()
        if left <= 0:
            self._reader.throw(TimeoutError("timed out"))
        elif left < inf:
            self._start_timer(max(left, 0.001))
