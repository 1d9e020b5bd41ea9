"""`wsgi.input`: a request's body, read from its connection as it is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from kongai.http1 import Message


class RequestInput(io.RawIOBase):
    """The body of one request, its framing undone.

    Args:
        message: the request; its pieces are taken from here.
        receive: waits for more of it.
        go_ahead: tells the client to send its body; called at most once, and only if
            the client waits for that (RFC 9110, section 10.1.1).
    """

    def __init__(
        self,
        message: Message,
        receive: Callable[[Message], None],
        go_ahead: Callable[[], None],
    ) -> None:
        self._message = message
        self._receive = receive
        self._go_ahead = go_ahead
        expect = message.header("expect") or ""
        self._awaited = expect.lower() == "100-continue" and message.version == "1.1"

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at most as much as fits; 0 at the body's end."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        chunks, message = self._message.chunks, self._message
        while not chunks and not message.complete:
            if self._awaited:
                self._awaited = False
                self._go_ahead()
            self._receive(message)
        if not chunks:
            return b""
        data = chunks.popleft()
        if len(data) > size:
            chunks.appendleft(data[size:])
            data = data[:size]
        return data

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the body's end; all of it without a size."""
        if size is None or size < 0:
            return self.readall()
        pieces = []
        while size and (piece := self._next(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read1(self, size: int) -> bytes:
        """Read at most `size` bytes, as many as have come; b"" at the body's end."""
        return self._next(size)
