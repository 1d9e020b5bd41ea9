"""`wsgi.input`: a request's body, read from its connection as it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from kongai.http1 import Message


class RequestInput:
    """The body of one request, its framing undone; reads like a file.

    It is none of Python's own (`io.RawIOBase`), which cost more to make and to let go
    than most bodies to read.

    Args:
        message: the request; its pieces are taken from here.
        receive: waits for more of it.
        go_ahead: tells the client to send its body; called at most once, and only if
            the client waits for that (RFC 9110, section 10.1.1).
    """

    __slots__ = ("_awaited", "_go_ahead", "_message", "_receive", "closed")

    def __init__(
        self,
        message: Message,
        receive: Callable[[Message], None],
        go_ahead: Callable[[], None],
    ) -> None:
        self.closed = False
        """Whether somebody has closed it; the body is read to its end all the same."""
        self._message = message
        self._receive = receive
        self._go_ahead = go_ahead
        self._awaited = message.awaits_go_ahead

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the body's end; all of it without a size."""
        if size is None or size < 0:
            size = sys.maxsize
            if self._message.complete:
                body = b"".join(self._message.chunks)
                self._message.chunks.clear()
                return body
        pieces = []
        while size and (piece := self._next(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read1(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes, as many as have come; b"" at the body's end."""
        return self._next(sys.maxsize if size is None or size < 0 else size)

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, at most `size` bytes of it; b"" at the body's end."""
        left = sys.maxsize if size is None or size < 0 else size
        pieces = []
        while left and (piece := self._next(left)):
            end = piece.find(b"\n") + 1
            if end:
                if end < len(piece):
                    self._message.chunks.insert(0, piece[end:])
                pieces.append(piece[:end])
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Read lines: all of them, or about as many as `hint` bytes have."""
        lines = []
        left = hint if hint is not None and hint > 0 else sys.maxsize
        while left > 0 and (line := self.readline()):
            lines.append(line)
            left -= len(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at most as much as fits; 0 at the body's end."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        """Always; what is around a file may ask."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Note it; the connection has the use of what is left."""
        self.closed = True

    def _next(self, size: int) -> bytes:
        message = self._message
        chunks = message.chunks
        while not chunks and not message.complete:
            if self._awaited:
                self._awaited = False
                self._go_ahead()
            self._receive(message)
        if not chunks:
            return b""
        data = chunks.pop(0)
        if len(data) > size:
            chunks.insert(0, data[size:])
            data = data[:size]
        return data
