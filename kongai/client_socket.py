"""A client's socket in gevent's event loop: notices who leaves.

The watcher of what can be read wakes who waits for input. While nobody does, it tells a
client that leaves from one that sends more.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from kongai.errors import ClientGone
from kongai.loop_socket import LoopSocket

_LOOK_SECONDS = 0.05
# Linux alone tells a side that was closed from a connection that is gone.
_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP)


class ClientSocket(LoopSocket):
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

    __slots__ = ("_greenlet", "_look_timer", "_watching")

    def __init__(
        self,
        sock: Any,
        hub: Any,
        current: Callable[[], Any],
        poll: Callable[[], select.poll],
    ) -> None:
        super().__init__(sock, hub, current, poll)
        self._greenlet = current()
        self._watching = False
        self._look_timer: Any = None

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self.unwatch()
        super().close()

    def watch(self, *, whole: bool) -> None:
        """Interrupt the greenlet if the client leaves.

        Args:
            whole: whether nothing more is expected of the client. Otherwise what can
                be read may be the rest of its request, and now and then a look has to
                do.
        """
        if whole:
            if self._look_timer is not None:
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

    def _came_early(self) -> None:
        if not self._watching:
            self._stop_listening()
            return
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

    def _start_looking(self) -> None:
        self._stop_looking()
        # Within a request its rest is mostly there in a moment.
        self._waits_first = False
        self._look_timer = self._hub.loop.timer(_LOOK_SECONDS, _LOOK_SECONDS)
        self._look_timer.start(self._look)

    def _stop_looking(self) -> None:
        if self._look_timer is not None:
            self._look_timer.stop()
            self._look_timer.close()
            self._look_timer = None
            self._waits_first = True

    def _look(self) -> None:
        """Ask whether the client has closed its side behind the bytes not yet read."""
        poll = self._poll()
        poll.register(self._sock.fileno(), _CLOSED)
        if poll.poll(0):
            self._stop_looking()
            self._greenlet.throw(ClientGone())
