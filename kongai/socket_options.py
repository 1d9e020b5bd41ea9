"""What the system is told about clients' sockets."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

_MAX_MILLISECONDS = 2**31 - 1
_NO_MORE = struct.pack("ii", 1, 0)


class Settable(Protocol):
    """A socket."""

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        """Set an option of the socket."""


def send_at_once(sock: Settable) -> None:
    """Else each event of a stream waits for the acknowledgement of the last."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset_on_close(sock: Settable) -> None:
    """Have the connection reset when it is closed, and nothing more delivered."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_MORE)


def notice_silent_deaths(sock: Settable, write_seconds: float) -> None:
    """Let the system find out about peers that vanished without a word.

    Only Linux has the limit of time for what is not acknowledged; names differ.

    Args:
        sock: the socket.
        write_seconds: how long what was written may stay without acknowledgement.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", min(int(write_seconds * 1000), _MAX_MILLISECONDS)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
