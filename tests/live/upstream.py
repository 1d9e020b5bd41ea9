"""A scripted HTTP/1.1 upstream on loopback: raw sockets, threads, no framework.

It writes exactly the bytes its script says, so it can be as wrong as a real upstream
on a bad day, and it is strict about what it reads: a request that can be understood
in two ways fails the test.  One connection has two threads::

    peer ──> reader: requests, the peer's leaving ──> scribe: the handler's script
"""

from __future__ import annotations

import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from string import hexdigits
from types import TracebackType
from typing import Any, BinaryIO

from .ports import Listener
from .waiting import wait_until

Headers = Iterable[tuple[str, str]]

JSON = (("Content-Type", "application/json"),)
EVENT_STREAM = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
)


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire, its body put together."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every value of the header, in the order of the wire."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Connection:
    """One accepted connection, as a handler scripts it.

    A second thread reads all the time, so that the peer's leaving is noticed at once
    and not only when the script happens to look.
    """

    def __init__(self, sock: socket.socket, upstream: FakeUpstream) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._upstream = upstream
        self._method = ""
        self._arrived: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = threading.Event()  # by this side
        self._input_over = threading.Event()
        self._left_by_peer = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._scribe = threading.Thread(target=self._answer, daemon=True)

    def start(self) -> None:
        """Read, and answer."""
        self._reader.start()
        self._scribe.start()

    def send(self, data: bytes) -> None:
        """Write the bytes as they are."""
        self._socket.sendall(data)

    def respond(self, status: int, headers: Headers = JSON, body: bytes = b"") -> None:
        """A whole answer, with its Content-Length; to HEAD, only its head."""
        head = _head(status, [*headers, ("Content-Length", str(len(body)))])
        self.send(head if self._method == "HEAD" else head + body)

    def start_stream(self, headers: Headers = EVENT_STREAM, status: int = 200) -> None:
        """The head of an answer whose body follows in chunks."""
        self.send(_head(status, [*headers, ("Transfer-Encoding", "chunked")]))

    def chunk(self, data: bytes) -> None:
        """One chunk, in one write."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The last chunk."""
        self.send(b"0\r\n\r\n")

    def sleep(self, seconds: float) -> None:
        """Let time pass; the script ends here if its upstream is stopped meanwhile."""
        if self._closed.wait(seconds):
            raise ConnectionAbortedError("closed while the script slept")

    def closed_by_peer(self, timeout: float) -> bool:
        """Whether the peer closes or resets within ``timeout``, or has done so."""
        return self._input_over.wait(timeout) and self._left_by_peer

    def reset(self) -> None:
        """End with a TCP reset; what was not delivered is lost."""
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._close(socket.SHUT_RD)

    def close(self) -> None:
        """End in good order, after what was sent."""
        self._close(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Close, and wait for the script to notice."""
        self.close()
        self._scribe.join(5)
        if self._scribe.is_alive():
            self._upstream.errors.append(RuntimeError("a handler does not return"))

    def _close(self, how: int) -> None:
        # A socket stays open while a thread is inside recv(), whatever close() says,
        # so the reader has to come out first.  SHUT_RD wakes it and sends nothing.
        with self._closing:
            if not self._closed.is_set():  # the first to close decides how
                self._left_by_peer = self._left_by_peer or self._peer_is_gone()
                self._closed.set()
                with suppress(OSError):
                    self._socket.shutdown(how)
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._socket.close()

    def _peer_is_gone(self) -> bool:
        """Whether the reader is about to notice it, were it not for our closing."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _read(self) -> None:
        with self._noting_errors(), self._socket.makefile("rb") as stream:
            self._upstream.on_connect(self)
            while request := _read_request(stream):
                self._upstream.requests.append(request)
                self._arrived.put(request)
        with self._closing:
            self._left_by_peer = self._left_by_peer or not self._closed.is_set()
        self._input_over.set()
        self._arrived.put(None)

    def _answer(self) -> None:
        with self._noting_errors():
            while not self._closed.is_set() and (request := self._arrived.get()):
                self._method = request.method
                self._upstream.handler(request, self)
        self.close()

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Keep what goes wrong for the test; a peer that leaves is no error here."""
        try:
            yield
        except Exception as error:
            ours_to_close = isinstance(error, OSError) and self._closed.is_set()
            if not (isinstance(error, ConnectionError) or ours_to_close):
                self._upstream.errors.append(error)


class FakeUpstream:
    """An HTTP/1.1 server on loopback, as right or as wrong as its ``handler``.

    The handler is called with each request, on the thread of its connection; when it
    returns, the connection is kept for the next request unless the handler closed it.
    ``on_connect`` is called before the first byte is read.  An exception in either,
    or a request that is not strictly HTTP, is raised when the ``with`` block ends.
    """

    def __init__(
        self,
        handler: Callable[[Request, Connection], None],
        *,
        on_connect: Callable[[Connection], None] = lambda connection: None,
    ) -> None:
        self.handler = handler
        self.on_connect = on_connect
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.errors: list[Exception] = []
        self._listener = Listener(self._accepted)
        self.port = self._listener.port

    def _accepted(self, sock: socket.socket) -> None:
        connection = Connection(sock, self)
        # Before anybody can have been answered on it.
        self.connections.append(connection)
        connection.start()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for_requests(self, count: int, timeout: float = 5.0) -> list[Request]:
        """Every request so far, once there are at least ``count``."""
        wait_until(lambda: len(self.requests) >= count, f"request {count}", timeout)
        return list(self.requests)

    def __enter__(self) -> FakeUpstream:
        self._listener.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.__exit__(kind, error, traceback)
        for connection in self.connections:
            connection.stop()
        if self.errors and error is None:
            raise self.errors[0]


def _head(status: int, headers: Headers) -> bytes:
    lines = [f"HTTP/1.1 {status} {_reason(status)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _reason(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Overloaded" if status == 529 else "Unknown"


def _read_request(stream: BinaryIO) -> Request | None:
    """The next request, or None when the peer has nothing more to say.

    Strict on purpose: a gateway whose request can be read in two ways is broken.
    """
    if not (line := _read_line(stream, may_end=True)):
        return None
    method, target, version = line.split(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not HTTP/1.1: {line!r}")
    headers = []
    while line := _read_line(stream):
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(f"not a header: {line!r}")
        headers.append((name, value.strip(" \t")))
    request = Request(method, target, tuple(headers), b"")
    lengths = request.values("content-length")
    codings = request.values("transfer-encoding")
    if len(lengths) + len(codings) > 1 or codings not in ([], ["chunked"]):
        raise ValueError(f"ambiguous length: {headers}")
    if codings:
        return replace(request, body=b"".join(_read_chunks(stream)))
    length = _size(lengths[0], 10) if lengths else 0
    return replace(request, body=_read_exactly(stream, length))


def _read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := _size(_read_line(stream).partition(";")[0], 16):
        yield _read_exactly(stream, size)
        if _read_exactly(stream, 2) != b"\r\n":
            raise ValueError("a chunk is longer than its size says")
    while _read_line(stream):  # trailers
        pass


def _read_line(stream: BinaryIO, *, may_end: bool = False) -> str:
    line = stream.readline()
    if line.endswith(b"\r\n"):
        return line[:-2].decode("latin-1")
    if line.endswith(b"\n"):
        raise ValueError(f"a line without CR: {line!r}")
    if line or not may_end:
        raise ConnectionAbortedError("the peer left within a request")
    return ""


def _size(text: str, base: int) -> int:
    if not text or not set(text) <= set(hexdigits):  # int() also takes "-1" and "1_0"
        raise ValueError(f"not a size: {text!r}")
    return int(text, base)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionAbortedError("the peer left within a body")
    return data
