"""The head of an upstream's answer, read more strictly than the library does."""

from __future__ import annotations

import http.client
import select
import socket
import time
from contextlib import suppress
from typing import Any

from kongai.http1_answer import (
    MAX_HEAD,
    MAX_INTERIM_ANSWERS,
    is_field,
    is_framing_clear,
)

_MAX_LINE = 65536
"""Bytes of a line of a head, which are the standard library's limit."""
_END = (b"\r\n", b"\n")
_CHUNK_END = b"\r\n"


class Malformed(http.client.HTTPException):
    """What came is no answer, and would not be one a second time."""


class _Lines:
    """The lines of a head; knows the last one, which has to be empty.

    All of them have to come within the time that there is for the first byte.
    """

    def __init__(self, stream: Any, sock: socket.socket) -> None:
        self.last = b""
        self.close = stream.close
        self._read = stream.readline
        self._socket = sock
        self._timeout = sock.gettimeout()
        self.begin()

    def begin(self) -> None:
        """Begin a head: its first line is a status, and its time starts now."""
        self._in_status = self._next_is_status = True
        self._size = 0
        self._until = time.monotonic() + (self._timeout or 0)

    def readline(self, limit: int = -1) -> bytes:
        if self._timeout is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the head does not end")
            self._socket.settimeout(left)
        self.last = self._read(limit)
        self._size += len(self.last)
        if self._size > MAX_HEAD:
            raise Malformed("the head is too large")
        whole = self.last.endswith(b"\n")
        self._in_status = self._next_is_status
        # The library's own skipping of a 100 goes on to another status line.
        self._next_is_status = self.last in _END
        in_fields = whole and not self._in_status and not self._next_is_status
        if in_fields and not is_field(self.last):
            raise Malformed("not a header")
        return self.last

    def broken_off(self) -> bool:
        """Whether the connection ended within what might have become a head."""
        begun = not self._in_status or self.last[:5] == b"HTTP/"[: len(self.last)]
        return begun and not self.last.endswith(b"\n") and len(self.last) <= _MAX_LINE

    def done(self) -> None:
        """Leave the socket as it was."""
        if self._socket.fileno() >= 0:
            self._socket.settimeout(self._timeout)


class Answer(http.client.HTTPResponse):
    """An answer that skips all interim ones, and whose head is whole.

    The standard library skips 100 only and takes a 103 for the answer; on a connection
    that is used again, the next user would then get this user's answer. It also takes
    a head that breaks off, or goes wrong, as if the rest of it were not there.
    """

    fp: Any

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._socket = sock

    def _close_conn(self) -> None:
        # What comes behind an answer is nobody's; the next user must not be given it.
        if self.fp is not None and not self.will_close and self._says_more():
            with suppress(OSError):
                # It may be gone by itself.
                self._socket.shutdown(socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]

    def speaks_within(self, seconds: float) -> bool:
        """Whether more of the body, or its end, comes within this time.

        Args:
            seconds: how long to wait for it.
        """
        if self.fp is None or self._socket.fileno() < 0:
            return True
        # What ends the last chunk has come with it, and is nothing new.
        known = len(_CHUNK_END) if self.chunk_left == 0 else 0
        if len(self._said()) > known:
            return True
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def _says_more(self) -> bool:
        return bool(self._said())

    def _said(self) -> bytes:
        """What has come already and is not read yet, or some of it."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            said: bytes = self.fp.peek(1)
        except OSError:
            return b""
        finally:
            self._socket.settimeout(timeout)
        return said

    def begin(self) -> None:
        """Read the head."""
        stream, lines = self.fp, _Lines(self.fp, self._socket)
        self.fp = lines
        try:
            self._find_final_head(lines)
        finally:
            lines.done()
            if self.fp is lines:
                self.fp = stream

    def _find_final_head(self, lines: _Lines) -> None:
        for _ in range(MAX_INTERIM_ANSWERS):
            self._read_head(lines)
            if self.status >= 200:
                return
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                break
            self.headers = self.msg = None  # type: ignore[assignment]
            lines.begin()
        raise Malformed("no final answer")

    def _read_head(self, lines: _Lines) -> None:
        try:
            super().begin()
            if lines.last in _END:
                _check_framing(self.msg)
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            if not lines.broken_off():
                raise Malformed("not an answer") from error
        if lines.broken_off():
            raise http.client.HTTPException("half a head")


def _check_framing(head: http.client.HTTPMessage) -> None:
    lengths = head.get_all("Content-Length", [])
    codings = head.get_all("Transfer-Encoding", [])
    if not is_framing_clear(lengths, codings):
        raise Malformed("ambiguous length")
