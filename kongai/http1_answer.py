"""HTTP/1.1 answers as an upstream sends them: bytes in, heads and bodies out.

No sockets. What two readers might understand in two ways is refused: who comes next on
the connection would be given what is not his. Only chunks are left to llhttp
(httptools); about heads it is at once more lenient and more strict than others are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import httptools

MAX_INTERIM_ANSWERS = 10
MAX_HEAD = 65536
"""Bytes of a head; heads of interim answers are none of it."""
MAX_FIELDS = 100
_MAX_SILENCE = 65536
"""Bytes of chunks that bring nothing: what is said beside sizes, and trailers."""
_MAX_DIGITS = 18
_SWITCHING_PROTOCOLS = 101
_NO_BODY = (204, 304)

_find_end = re.compile(rb"\n\r?\n").search
_status_line = re.compile(
    r"HTTP/(1\.[0-9]) ([1-9][0-9][0-9])(?: ([^\x00\r\n]*))?\r?\n"
).match
_FIELD = r"([^\x00-\x20\x7f:]+):([^\x00\r\n]*)\r?\n"
# A field that is continued in another line begins with a blank, and is no longer HTTP
# (RFC 9112, section 5.2).
_find_fields = re.compile(f"^{_FIELD}", re.MULTILINE).findall
is_field = re.compile(_FIELD.encode()).fullmatch
"""Whether a line, its end included, is a field of a head."""
_BEGINNING = b"HTTP/"


class Malformed(Exception):
    """What came is no answer, and would not be one a second time."""


def is_framing_clear(lengths: Sequence[str], codings: Sequence[str]) -> bool:
    """Whether a body's end is in one place for all who read its head, as for nginx.

    Args:
        lengths: the values of all Content-Length fields.
        codings: those of all Transfer-Encoding fields.
    """
    if len(lengths) + len(codings) > 1:
        return False
    if lengths:
        return lengths[0].isascii() and lengths[0].isdigit()
    return not codings or codings[0].lower() == "chunked"


class Head(NamedTuple):
    """The head of a final answer."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    """In the order received, repeated ones apart."""
    keep_alive: bool
    """Whether the upstream takes another request on this connection."""
    length: int | None
    """Bytes of the body, where the head says so."""
    chunked: bool


# As Head() makes it, without the Python function that this calls.
_head: Callable[[tuple[Any, ...]], Head] = partial(tuple.__new__, Head)


class HeadReader:
    """Finds the head of the final answer in the bytes that come; skips interim ones.

    Else the next user of the connection would be given this user's answer. One reader
    does for one answer of a connection after the other.
    """

    __slots__ = ("_data", "interim", "rest")

    def __init__(self) -> None:
        self._data = b""
        self.interim = 0
        """How many interim answers there were so far; none again after a final one."""
        self.rest = b""
        """What came behind the final head."""

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._data or self.interim)

    def feed(self, data: bytes) -> Head | None:
        """Take the next bytes of the connection.

        Returns:
            The head, once it is complete.

        Raises:
            Malformed: it is none.
        """
        start = 0
        if self._data:
            # The end may have begun in the last two bytes of what was there.
            start = max(len(self._data) - 2, 0)
            data = self._data + data
        while True:
            found = _find_end(data, start)
            end = len(data) if found is None else found.end()
            begins = data.startswith(_BEGINNING) or _BEGINNING.startswith(data)
            if end > MAX_HEAD or not begins:
                raise Malformed("no head")
            if found is None:
                self._data = data
                return None
            head = _parsed(data[:end].decode("latin-1"))
            if head.status >= 200:
                self._data, self.interim, self.rest = b"", 0, data[end:]
                return head
            self.interim += 1
            if (
                head.status == _SWITCHING_PROTOCOLS
                or self.interim == MAX_INTERIM_ANSWERS
            ):
                raise Malformed("no final answer")
            data, start = data[end:], 0

    def end(self) -> None:
        """The connection has ended within what might have become a head.

        Raises:
            Malformed: it could not have become one.
        """
        lines = self._data[: self._data.rfind(b"\n") + 1]
        if lines:
            _parsed(lines.decode("latin-1") + "\r\n")


def _parsed(text: str) -> Head:
    """A head whose last line is empty."""
    first = _status_line(text)
    if first is None:
        raise Malformed("not a status line")
    fields = _find_fields(text, first.end())
    # Each field is a whole line, so that no other line is left if their number fits.
    if len(fields) != text.count("\n") - 2 or len(fields) > MAX_FIELDS:
        raise Malformed("not a header")
    version, status, reason = first.groups("")
    headers, options = [], ""
    lengths: list[str] = []
    codings: list[str] = []
    for name, value in fields:
        value = value.strip(" \t")
        headers.append((name, value))
        key = name.lower()
        if key == "content-length":
            lengths.append(value)
        elif key == "transfer-encoding":
            codings.append(value)
        elif key == "connection":
            options += f"{value.lower()},"
    if (lengths or codings) and not is_framing_clear(lengths, codings):
        raise Malformed("ambiguous length")
    if lengths and len(lengths[0]) > _MAX_DIGITS:
        raise Malformed("endless")
    return _head(
        (
            int(status),
            reason.strip(),
            headers,
            "keep-alive" in options if version == "1.0" else "close" not in options,
            int(lengths[0]) if lengths else None,
            bool(codings),
        )
    )


class ByLength:
    """A body of so many bytes."""

    __slots__ = ("_left", "complete", "surplus")
    broken = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        """Whether all of it has come."""
        self.surplus = False
        """Whether more has come than the body; that is nobody's."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection; give those of the body."""
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        self.complete = True
        if left == 0:
            return data
        self.surplus = True
        return data[:left]

    def end(self) -> bool:
        """The connection has ended; whether the body is complete with that."""
        return False


class ByChunks:
    """A body in chunks (RFC 9112, section 7.1); trailers are dropped."""

    __slots__ = (
        "_found",
        "_parser",
        "_silent",
        "_tail",
        "broken",
        "complete",
        "surplus",
    )

    def __init__(self) -> None:
        self.complete = self.surplus = False
        self.broken = False
        """Whether what came is no chunk."""
        self._silent, self._tail = 0, b""
        self._found = _Found()
        self._parser = httptools.HttpResponseParser(self._found)
        # Old servers reserve room for a size before they know it.
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        self._parser.feed_data(_HEAD_OF_CHUNKS)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection; give those of the body."""
        found = self._found
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.broken = not found.complete
            self.surplus = True
        if len(data) >= _END_SIZE:
            self._tail = data
        else:
            self._tail = self._tail[-_END_SIZE:] + data
        if found.complete:
            self.complete = True
            # llhttp passes over empty lines behind the end, as before an answer.
            end = self._tail[-_END_SIZE:]
            if not end.endswith(b"\r\n\r\n") or end[:1] in b"\r\n":
                self.surplus = True
        pieces = found.pieces
        if not pieces:
            self._silent += len(data)
            if self._silent > _MAX_SILENCE:
                self.broken = True
            return b""
        self._silent = 0
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return piece

    def end(self) -> bool:
        """The connection has ended; whether the body is complete with that."""
        return False


# The parser begins with a head, and what the connection is good for is known already.
_HEAD_OF_CHUNKS = (
    b"HTTP/1.1 200\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_END_SIZE = len(b"0\r\n\r\n")


class _Found:
    """What llhttp finds in chunks; it knows nothing of its parser, or nothing of both
    would go before the garbage collector comes."""

    __slots__ = ("complete", "on_body", "pieces")

    def __init__(self) -> None:
        self.complete = False
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.complete = True


class UntilClosed:
    """A body that ends with its connection."""

    __slots__ = ("complete",)
    broken = surplus = False

    def __init__(self) -> None:
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the connection, which are the body's."""
        return data

    def end(self) -> bool:
        """The connection has ended; whether the body is complete with that."""
        self.complete = True
        return True


Body: TypeAlias = ByLength | ByChunks | UntilClosed


def body_of(head: Head, method: str) -> Body:
    """What becomes of the bytes behind a head.

    Args:
        head: the head.
        method: that of the request, for HEAD's answers have none of it.
    """
    if head.status in _NO_BODY or method == "HEAD":
        return ByLength(0)
    if head.length is not None:
        return ByLength(head.length)
    return ByChunks() if head.chunked else UntilClosed()
