"""HTTP/1.1 for the server: bytes in, requests out; answers in, bytes out. No sockets.

The parser is llhttp (httptools), which refuses nearly everything that nginx refuses.
What it leaves to its user is done here: exactly one Host (RFC 9112, section 3.2) and
no credential twice, a target that is a path, no protocol but HTTP, no transfer coding
but `chunked`, no expectation but `100-continue`, and bounds on the head and on what a
body is wrapped in. After a refusal the connection must be closed, for nobody can know
where the next request would start. An offer to upgrade is passed over, as HTTP allows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import NoReturn, TypeVar

import httptools

from kongai.errors import Refused

MAX_HEAD_SIZE = 64 * 1024
"""Bytes of a request's head: its line and headers, the empty line included."""
MAX_LINE_SIZE = 16 * 1024
"""Bytes of a request's target, and of a field's name and value together."""
MAX_HEADERS = 100
"""Fields of a request's head."""
MAX_LENGTH = 10**12
"""What a Content-Length must be below, in bytes; what fits into it fits everywhere."""
# A body may come in chunks of one byte, which takes five bytes more. Nobody but an
# attacker wraps much more than that around it, and keeps us busy for nothing.
_MAX_OVERHEAD = 8
# Of two, the gateway and the upstream might each believe another one.
_ONLY_ONCE = frozenset(
    ("host", "authorization", "x-api-key", "content-type", "content-length", "expect")
)
_LOOKED_AT = _ONLY_ONCE | {"transfer-encoding"}
# A name, an address or one in brackets; then perhaps a port (RFC 3986, section 3.2.2).
_LABEL = r"[\w~%!$&'()*+,;=-]+"
_HOST = rf"(?:\[[0-9A-Za-z:.%~_-]+\]|\.?{_LABEL}(?:\.{_LABEL})*\.?)(?::[0-9]*)?"
_is_host = re.compile(_HOST, re.ASCII).fullmatch
_is_absolute = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*://{_HOST}(?:[/?#].*)?", re.ASCII
).fullmatch

# The first line from here that is a request's, be it a good one. No line of a head, of
# a trailer or of what is around chunks can look like it, only one of a body.
_find_line = re.compile(
    rb"(?:[^\n]*\n)*?\r*([A-Z_-]+ +[^ \r\n]+ +[A-Z]+/[0-9.]+\r\n)"
).match

_Name = TypeVar("_Name", str, bytes)
_Known = TypeVar("_Known")


class KnownNames(dict[_Name, _Known]):
    """What there is to know of fields' names; the same few come all the time.

    Args:
        look_at: finds out what there is to know of a name.
    """

    _MOST, _LONGEST = 1024, 64

    def __init__(self, look_at: Callable[[_Name], _Known]) -> None:
        super().__init__()
        self._look_at: Callable[[_Name], _Known] = look_at

    def __missing__(self, name: _Name) -> _Known:
        known = self._look_at(name)
        # What else clients think of is not to fill the memory.
        if len(self) < self._MOST and len(name) <= self._LONGEST:
            self[name] = known
        return known


def _text_and_meaning(name: bytes) -> tuple[str, str | None]:
    """A field's name as it was sent, and in lower case if it is looked at here."""
    text = name.decode("latin-1")
    lower = text.lower()
    return text, lower if lower in _LOOKED_AT else None


_names = KnownNames(_text_and_meaning)


@dataclass(slots=True)
class Message:
    """One request as it comes in; the body may still be on its way."""

    method: str = ""
    target: str = ""
    version: str = "1.1"
    headers: list[tuple[str, str]] = field(default_factory=list)
    keep_alive: bool = False
    """Whether the client wants to use the connection again."""
    awaits_go_ahead: bool = False
    """Whether the client may wait to be told to send its body."""
    head_complete: bool = False
    chunks: list[bytes] = field(default_factory=list)
    """The body's bytes that have come and were not taken yet."""
    complete: bool = False
    """Whether the whole request has come."""


class RequestParser:
    """Turns a connection's bytes into requests, whatever the cuts.

    Requests appear in `messages` as soon as their head is there; a pipelined one waits
    behind the one before it.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        # The body's pieces, their framing undone, come straight from the parser.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = httptools.HttpRequestParser(self)
        self._message = Message()
        # The fields that have come and were not looked at yet.
        self._fields: list[tuple[bytes, bytes]] = []
        # Those of the head that say how it is to be taken, by name in lower case.
        self._telling: list[tuple[str, str]] = []
        self._head_size = 0
        # A connection's requests mostly have the same Host.
        self._host: str | None = None
        # Bytes that came since the parser last began a request or gave out a body's.
        self._silent = 0
        # Bytes that came since the head was complete, and what of them was the body.
        self._wire = self._payload = 0
        # What has come of a head, where its line must be found.
        self._lines = b""
        # How much of that is known, and what bodies come behind it.
        self._passed = 0
        self._bodies: list[bytes] = []
        # Whether it begins somewhere in the request before.
        self._torn = False
        self._line_known = False
        self._refusal: Refused | None = None
        self._begun = False
        self.in_head = False
        """Whether a request has begun to come whose head is not complete yet."""

    @property
    def coming(self) -> Message | None:
        """The request that is coming, or was refused, as far as it is known.

        None until its target is there.
        """
        message = self._message
        return message if message.target and not message.complete else None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            Refused: they are not HTTP, or not acceptable.
        """
        if len(data) > MAX_HEAD_SIZE:
            # What has no end yet is counted in between, so not too much at a time.
            for start in range(0, len(data), MAX_HEAD_SIZE):
                self.feed(data[start : start + MAX_HEAD_SIZE])
            return
        self._silent += len(data)
        self._wire += len(data)
        try:
            while data:
                self._lines += data
                try:
                    self._parser.feed_data(data)
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_offer() + data[upgrade.args[0] :]
                    continue
                except httptools.HttpParserError as error:
                    if self._refusal is None and self._fields:
                        # What is wrong with them came before what stopped the parser.
                        self._look_at_fields()
                    raise self._refusal or _bad_request() from error
                break
            if self._fields:
                self._look_at_fields()
        finally:
            if self._pieces:
                self._give_out()
        if not self.in_head:
            self._forget_lines()
            self._torn = self._begun and not self._message.complete
        if self._silent > MAX_HEAD_SIZE:
            raise _too_large()
        overhead = self._wire - self._payload
        if overhead > MAX_HEAD_SIZE + _MAX_OVERHEAD * self._payload:
            raise _bad_request()

    def _without_offer(self) -> bytes:
        """The head of the last request once more, for a parser that stays with HTTP.

        After an offer to upgrade llhttp takes what follows for another protocol, even
        the request's own body.
        """
        message = self.messages.pop()
        self._parser = httptools.HttpRequestParser(self)
        self._forget_lines()
        fields = [
            f"{name}: {value}"
            for name, value in message.headers
            if name.lower() != "upgrade"
        ]
        line = f"{message.method} {message.target} HTTP/{message.version}"
        return "\r\n".join([line, *fields, "", ""]).encode("latin-1")

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._message = Message()
        self._telling = []
        self._head_size = self._silent = self._wire = self._payload = 0
        self._begun = self.in_head = True
        self._line_known = False

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with a piece of the target."""
        self._message.method = self._parser.get_method().decode("ascii")
        self._message.target += url.decode("latin-1")
        self._head_size += len(url)
        if len(self._message.target) > MAX_LINE_SIZE:
            self._refuse(Refused("URI too long", status=414))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, with a whole header or trailer, so do little."""
        self._fields.append((name, value))

    def _look_at_fields(self) -> None:
        """Take what has come into the head; trailers are only counted."""
        if not self._line_known:
            self._check_line()
        fields, self._fields = self._fields, []
        message, known, telling = self._message, _names, self._telling
        headers, before = message.headers, self._head_size
        size, count = before, len(fields)
        for name, value in fields:
            size += len(name) + len(value) + 4
        self._head_size = size
        # A head that is less than a field may be needs no look at each.
        if size > MAX_LINE_SIZE or len(headers) + count > MAX_HEADERS:
            count = self._count_acceptable(fields, before)
        if not message.head_complete:
            # The one that is too much is for the record.
            for name, value in fields[: count + 1]:
                text, meaning = known[name]
                decoded = value.decode("latin-1").rstrip(" \t")
                headers.append((text, decoded))
                if meaning is not None:
                    telling.append((meaning, decoded))
        if count < len(fields):
            self._refuse(_too_large())

    def _count_acceptable(self, fields: list[tuple[bytes, bytes]], size: int) -> int:
        """How many of the fields come before one that is too much for a head."""
        trailing = self._message.head_complete
        room = MAX_HEADERS - len(self._message.headers)
        for count, (name, value) in enumerate(fields):
            own = len(name) + len(value)
            size += own + 4
            many = count >= room and not trailing
            if many or own > MAX_LINE_SIZE or size > MAX_HEAD_SIZE:
                return count
        return len(fields)

    def on_headers_complete(self) -> None:
        """Called by the parser, when the head is there."""
        message = self._message
        self._look_at_fields()
        message.keep_alive = self._parser.should_keep_alive()
        self._head_size += len(message.method) + len("  HTTP/1.1\r\n\r\n")
        refusal = self._objection(message)
        if refusal is None and self._head_size > MAX_HEAD_SIZE:
            refusal = _too_large()
        if refusal is not None:
            self._refuse(refusal)
        message.head_complete, self.in_head = True, False
        # Where its body or the next request begins.
        self._passed = self._lines.find(b"\r\n\r\n", self._passed - 2) + 4
        self._wire = self._payload = 0
        self.messages.append(message)

    def on_message_complete(self) -> None:
        """Called by the parser, when the whole request has come."""
        if self._fields:
            self._look_at_fields()
        if self._pieces:
            self._give_out()
        self._message.complete = True

    def _give_out(self) -> None:
        """Let the body's bytes be taken: small chunks together, each would cost 40."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._message.chunks.append(body)
        self._payload += len(body)
        self._silent = 0
        self._bodies += pieces
        pieces.clear()

    def _check_line(self) -> None:
        """Refuse a request line that is not exactly one of HTTP/1.

        llhttp takes RTSP/1.0 and ICE/1.0 for HTTP/1.0, and several spaces for one. It
        does not tell, so the line has to be where the bytes are.
        """
        message = self._message
        self._line_known = True
        message.version = self._parser.get_http_version()
        if message.version not in ("1.0", "1.1"):
            self._refuse(Refused("HTTP version not supported", status=505))
        text = f"{message.method} {message.target} HTTP/{message.version}\r\n"
        line, lines = text.encode("latin-1"), self._lines
        if lines.startswith(line) and not self._torn and not self._passed:
            self._passed = len(line)
            return
        for body in self._bodies:
            self._passed = lines.find(body, self._passed) + len(body)
        self._bodies.clear()
        if self._torn and not self._passed:
            # In a trailer or so: whatever that line looks like, it is none of ours.
            self._passed = lines.find(b"\n") + 1
        found = _find_line(lines, self._passed)
        if found is None or found[1] != line:
            self._refuse(_bad_request())
        self._passed = found.end()

    def _forget_lines(self) -> None:
        self._lines, self._passed, self._torn = b"", 0, False
        self._bodies.clear()

    def _objection(self, message: Message) -> Refused | None:
        """What is wrong with a head that llhttp takes."""
        if message.method == "CONNECT":
            return Refused("Method not allowed", status=405)
        target, old = message.target, message.version == "1.0"
        found: dict[str, str] = {}
        codings = []
        for name, value in self._telling:
            if name == "transfer-encoding":
                codings.append(value.lower())
            elif name in found:
                return _bad_request()
            else:
                found[name] = value
        host = found.get("host")
        if (
            not (target.startswith("/") or _is_absolute(target))
            or ("%00" in target and "%00" in target.partition("?")[0])
            or (host is None and not old)
            or (host != self._host and not self._is_fine_host(host))
            or (codings and (old or "" in codings))
        ):
            return _bad_request()
        if codings not in ([], ["chunked"]):
            return Refused("Not implemented", status=501)
        if int(found.get("content-length", 0)) >= MAX_LENGTH:
            return Refused("Payload too large", status=413)
        if "expect" in found:
            if found["expect"].lower() not in ("", "100-continue"):
                return Refused("Expectation failed", status=417)
            message.awaits_go_ahead = found["expect"] != "" and not old
        return None

    def _is_fine_host(self, host: str | None) -> bool:
        if host is not None:
            if not _is_host(host):
                return False
            self._host = host
        return True

    def _refuse(self, refusal: Refused) -> NoReturn:
        # An exception out of a callback is wrapped by the parser: keep the real one.
        self._refusal = refusal
        raise refusal


def _bad_request() -> Refused:
    return Refused("Bad request", status=400)


def _too_large() -> Refused:
    return Refused("Request header or cookie too large", status=431)


def response_head(
    version: str, status: str, headers: Iterable[tuple[str, str]]
) -> bytes:
    """The bytes of an answer's status line and headers.

    Args:
        version: the protocol version to answer with, ``1.1``.
        status: code and reason, as WSGI has it.
        headers: the fields, in order.
    """
    lines = [f"HTTP/{version} {status}"]
    for name, value in headers:
        lines.append(f"{name}: {value}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """A piece of a body in chunked coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


@lru_cache(maxsize=1)
def date(now: int) -> str:
    """A Date header's value, made once a second.

    Args:
        now: seconds since the epoch.
    """
    return formatdate(now, usegmt=True)
