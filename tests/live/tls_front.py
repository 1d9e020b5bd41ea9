"""TLS in front of a scripted upstream: what it does to bytes is done over TLS, too.

A reset of the upstream's becomes a reset, its closing a closing, and the other way
round. What goes wrong before the upstream is asked, the `Front` does by itself.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .ports import Listener

CERTIFICATES = Path(__file__).resolve().parents[1] / "certificates"
_SIZE = 65536

Greeting = Callable[[socket.socket], None]


def reset(sock: socket.socket) -> None:
    """End with a TCP reset."""
    with suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


class Front:
    """Listens on a free port of loopback while its ``with`` block runs.

    Args:
        port: where the upstream is.
        certificate: which of `tests/certificates` is shown.
        instead: what is done with a connection in place of a handshake.
    """

    def __init__(
        self,
        port: int,
        certificate: str = "server.pem",
        *,
        instead: Greeting | None = None,
    ) -> None:
        self._upstream = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / certificate)
        self._instead = instead
        self._listener = Listener(self._accepted)
        self.port = self._listener.port

    def __enter__(self) -> Front:
        self._listener.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.__exit__(kind, error, traceback)

    def _accepted(self, sock: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
        thread.start()

    def _serve(self, plain: socket.socket) -> None:
        if self._instead is not None:
            self._instead(plain)
            return
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except OSError:  # who does not trust us leaves
            plain.close()
            return
        address = ("127.0.0.1", self._upstream)
        with client, socket.create_connection(address) as upstream:
            for sock in (client, upstream):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                relay(client, upstream)
            except OSError:
                reset(client)
                reset(upstream)


def relay(client: socket.socket, upstream: socket.socket) -> None:
    """Pass bytes on in both directions until one side has closed."""
    while True:
        there = isinstance(client, ssl.SSLSocket) and client.pending()
        readable = [client] if there else []
        if not readable:
            readable, _, _ = select.select([client, upstream], [], [])
        for source, sink in ((client, upstream), (upstream, client)):
            if source in readable:
                data = source.recv(_SIZE)
                if not data:
                    return
                sink.sendall(data)
