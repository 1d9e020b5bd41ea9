"""Loopback ports: where somebody listens, where nobody does, or nobody accepts."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType


class Listener:
    """Listens on a free port while its ``with`` block runs.

    ``accepted`` is called with each connection, on the one thread that accepts.
    """

    def __init__(self, accepted: Callable[[socket.socket], object]) -> None:
        self._accepted = accepted
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        with suppress(OSError):  # a last connection is what wakes accept() everywhere
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            sock, _ = self._socket.accept()
            if self._stopping:
                sock.close()
                return
            self._accepted(sock)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port on which connections neither open nor fail."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            assert waiting.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS)
        yield server.getsockname()[1]
