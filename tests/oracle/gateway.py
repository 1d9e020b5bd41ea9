"""A gateway on a real socket, in this process: kongai's own HTTP, on threads."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from kongai import Proxy
from kongai.connection import Connection
from tests.live.ports import Listener


class _Alone:
    """Nobody looks out for clients that leave, and each has a thread of its own."""

    def watch(self, *, whole: bool) -> None:
        pass

    def unwatch(self) -> None:
        pass

    def share(self) -> None:
        pass

    def done(self) -> None:
        pass


class LiveGateway:
    """Serves a proxy on a free loopback port while its ``with`` block runs."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._listener = Listener(self._accepted)
        self.port = self._listener.port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> LiveGateway:
        self._proxy.init_worker()
        self._listener.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.__exit__(kind, error, traceback)
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._proxy.close()

    def exchange(self, raw: bytes, timeout: float = 5.0) -> bytes:
        """Send bytes, say that no more will come, and read until the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as sock:
            sock.sendall(raw)
            received = b""
            with suppress(ConnectionResetError):
                while data := sock.recv(65536):
                    received += data
        return received

    def _accepted(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        address = sock.getpeername()
        threading.Thread(target=self._serve, args=(sock, address), daemon=True).start()

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        environ: dict[str, Any] = {
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.port),
            "SCRIPT_NAME": "",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        refuse = self._proxy.refuse
        Connection(sock, environ, self._proxy, _Alone(), refuse=refuse).serve()
