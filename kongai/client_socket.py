"""A client's socket in gevent's event loop: waits cheaply, notices who leaves.

gevent's own sockets start and stop a watcher and a timer for each wait. Here one
watcher of what can be read stays started from request to request: it wakes who waits
for input. While nobody does, it tells a client that leaves from one that sends more.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from math import inf
from typing import Any

from kongai.errors import ClientGone

_LOOK_SECONDS = 0.05
# Linux alone tells a side that was closed from a connection that is gone.
_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP)
_READ = 1
"""libev's name of what can be read."""


class ClientSocket:
    """What a connection uses of a socket, and the look-out for its client.

    A client that has sent its request and then closes makes its socket readable. A
    write would notice only the second time, and a silent upstream lets nothing be
    written at all. A client that shuts down its sending side only counts as gone, as it
    does for nginx.

    Args:
        sock: gevent's socket.
        hub: gevent's hub.
        current: tells which greenlet runs; the present one is interrupted when the
            client leaves.
        poll: makes a poll object of the system's own, not gevent's.
    """

    __slots__ = (
        "_current",
        "_drained",
        "_due",
        "_greenlet",
        "_hub",
        "_listening",
        "_look_timer",
        "_poll",
        "_reader",
        "_receive",
        "_send",
        "_sock",
        "_timeout",
        "_timer",
        "_until",
        "_watching",
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
        self._greenlet = current()
        # The system's socket below gevent's, which does not block.
        self._receive, self._send = sock._sock.recv, sock._sock.send
        self._timeout: float | None = None
        self._watcher = hub.loop.io(sock.fileno(), _READ)
        self._listening = False
        # Who waits for something to read, and until when.
        self._reader: Any = None
        self._until = inf
        # The last read took all there was: the next one has to wait.
        self._drained = False
        # One timer is left running over many waits; it is due before any of them ends.
        self._timer: Any = None
        self._due = inf
        self._watching = False
        self._look_timer: Any = None

    def settimeout(self, seconds: float | None) -> None:
        """How long each `recv` and `send` waits."""
        self._timeout = seconds

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As for any socket."""
        self._sock.setsockopt(level, option, value)

    def recv(self, size: int) -> bytes:
        """Read what has come, after waiting for something; b"" at the end.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection is broken.
        """
        while True:
            if self._drained:
                self._wait()
            try:
                data: bytes = self._receive(size)
            except BlockingIOError:
                self._drained = True
            else:
                # Not so within a request: its rest is mostly there in a moment.
                self._drained = len(data) < size and self._look_timer is None
                return data

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
        """Close it; a second time does nothing."""
        self.unwatch()
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._stop_timer()
        self._sock.close()

    def watch(self, *, whole: bool) -> None:
        """Interrupt the greenlet if the client leaves.

        Args:
            whole: whether nothing more is expected of the client. Otherwise what can
                be read may be the rest of its request, and now and then a look has to
                do.
        """
        if whole:
            self._stop_looking()
            self._watching = True
            if not self._listening:
                self._listen()
        else:
            self._watching = False
            self._start_looking()

    def unwatch(self) -> None:
        """Do not interrupt any more."""
        self._watching = False
        if self._look_timer is not None:
            self._stop_looking()

    def _listen(self) -> None:
        self._listening = True
        self._watcher.start(self._readable)

    def _wait(self) -> None:
        """Wait until something can be read."""
        if self._reader is not None:
            raise RuntimeError("somebody else reads from this client already")
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

    def _readable(self) -> None:
        """Runs in the event loop, so only while all greenlets wait."""
        if self._reader is not None:
            self._reader.switch()
        elif not self._watching:
            self._stop_listening()
        else:
            self._tell_end_from_more()

    def _tell_end_from_more(self) -> None:
        try:
            data = self._receive(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            # The next request, sent early. It can wait, but keeps the socket readable,
            # so from now on a look at the clock has to do.
            self._stop_listening()
            self._start_looking()
        else:
            self._stop_listening()
            self._greenlet.throw(ClientGone())

    def _stop_listening(self) -> None:
        """What can be read would be told again at each turn of the event loop."""
        self._listening = self._drained = False
        self._watcher.stop()

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

    def _start_looking(self) -> None:
        self._stop_looking()
        self._look_timer = self._hub.loop.timer(_LOOK_SECONDS, _LOOK_SECONDS)
        self._look_timer.start(self._look)

    def _stop_looking(self) -> None:
        if self._look_timer is not None:
            self._look_timer.stop()
            self._look_timer.close()
            self._look_timer = None

    def _look(self) -> None:
        """Ask whether the client has closed its side behind the bytes not yet read."""
        poll = self._poll()
        poll.register(self._sock.fileno(), _CLOSED)
        if poll.poll(0):
            self._stop_looking()
            self._greenlet.throw(ClientGone())
