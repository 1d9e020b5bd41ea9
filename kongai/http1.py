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
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache

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
# A name, an address or one in brackets; then perhaps a port (RFC 3986, section 3.2.2).
_LABEL = r"[\w~%!$&'()*+,;=-]+"
_HOST = rf"(?:\[[0-9A-Za-z:.%~_-]+\]|\.?{_LABEL}(?:\.{_LABEL})*\.?)(?::[0-9]*)?"
_is_host = re.compile(_HOST, re.ASCII).fullmatch
_is_absolute = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*://{_HOST}(?:[/?#].*)?", re.ASCII
).fullmatch


@dataclass(slots=True)
class Message:
    """One request as it comes in; the body may still be on its way."""

    method: str = ""
    target: str = ""
    version: str = "1.1"
    headers: list[tuple[str, str]] = field(default_factory=list)
    keep_alive: bool = False
    """Whether the client wants to use the connection again."""
    head_complete: bool = False
    chunks: deque[bytes] = field(default_factory=deque)
    """The body's bytes that have come and were not taken yet."""
    complete: bool = False
    """Whether the whole request has come."""

    def header(self, name: str) -> str | None:
        """The first header of this name, which is given in lower case."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class RequestParser:
    """Turns a connection's bytes into requests, whatever the cuts.

    Requests appear in `messages` as soon as their head is there; a pipelined one waits
    behind the one before it.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._message = Message()
        self._head_size = 0
        # Bytes that came since the parser last began a request or gave out a body's.
        self._silent = 0
        # Bytes that came since the head was complete, and what of them was the body.
        self._wire = self._payload = 0
        self._pieces: list[bytes] = []
        # Where the line of the request that is coming must be found.
        self._lines = b""
        # How much of that is the body of the request before.
        self._passed = 0
        self._line_known = False
        self._refusal: Refused | None = None
        self._begun = False

    @property
    def in_head(self) -> bool:
        """Whether a request has begun to come whose head is not complete yet."""
        return self._begun and not self._message.head_complete

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
        # What has no end yet is counted in between, so not too much at a time.
        for start in range(0, len(data), MAX_HEAD_SIZE):
            self._feed(data[start : start + MAX_HEAD_SIZE])

    def _feed(self, data: bytes) -> None:
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
                    raise self._refusal or _bad_request() from error
                break
        finally:
            self._give_out()
        if self._line_known or not self._begun:
            self._forget_lines()
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
        self._head_size = self._silent = self._wire = self._payload = 0
        self._begun = True
        self._line_known = False

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with a piece of the target."""
        self._message.method = self._parser.get_method().decode("ascii")
        self._message.target += url.decode("latin-1")
        self._head_size += len(url)
        if len(self._message.target) > MAX_LINE_SIZE:
            self._refuse(Refused("URI too long", status=414))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, with a whole header, or a trailer: that is dropped."""
        headers = self._message.headers
        if not self._line_known:
            self._check_line()
        size = len(name) + len(value)
        self._head_size += size + 4
        if not self._message.head_complete:
            text = value.decode("latin-1").rstrip(" \t")
            headers.append((name.decode("latin-1"), text))
        if (
            len(headers) > MAX_HEADERS
            or size > MAX_LINE_SIZE
            or self._head_size > MAX_HEAD_SIZE
        ):
            self._refuse(_too_large())

    def on_headers_complete(self) -> None:
        """Called by the parser, when the head is there."""
        message = self._message
        if not self._line_known:
            self._check_line()
        message.keep_alive = self._parser.should_keep_alive()
        self._head_size += len(message.method) + len("  HTTP/1.1\r\n\r\n")
        refusal = _objection(message)
        if refusal is None and self._head_size > MAX_HEAD_SIZE:
            refusal = _too_large()
        if refusal is not None:
            self._refuse(refusal)
        message.head_complete = True
        self._wire = self._payload = 0
        self.messages.append(message)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, with a piece of the body, its framing undone."""
        self._pieces.append(body)
        self._passed = self._lines.find(body, self._passed) + len(body)
        self._payload += len(body)
        self._silent = 0

    def on_message_complete(self) -> None:
        """Called by the parser, when the whole request has come."""
        self._give_out()
        self._message.complete = True

    def _give_out(self) -> None:
        """Let the body's bytes be taken: small chunks together, each would cost 40."""
        if self._pieces:
            self._message.chunks.append(b"".join(self._pieces))
            self._pieces.clear()

    def _check_line(self) -> None:
        """Refuse a request line that is not exactly one of HTTP/1.

        llhttp takes RTSP/1.0 and ICE/1.0 for HTTP/1.0, and several spaces for one. It
        does not tell, so the line has to be where the bytes are.
        """
        self._line_known = True
        message = self._message
        message.version = self._parser.get_http_version()
        if message.version not in ("1.0", "1.1"):
            self._refuse(Refused("HTTP version not supported", status=505))
        line = f"{message.method} {message.target} HTTP/{message.version}\r\n"
        start = self._lines.find(line.encode("latin-1"), self._passed)
        if start < 0:
            self._refuse(_bad_request())
        self._lines = self._lines[start + len(line) :]
        self._passed = 0

    def _forget_lines(self) -> None:
        self._lines, self._passed = b"", 0

    def _refuse(self, refusal: Refused) -> None:
        # An exception out of a callback is wrapped by the parser: keep the real one.
        self._refusal = refusal
        raise refusal


def _objection(message: Message) -> Refused | None:
    """What is wrong with a head that llhttp takes."""
    if message.method == "CONNECT":
        return Refused("Method not allowed", status=405)
    target, old = message.target, message.version == "1.0"
    found: dict[str, str] = {}
    codings = []
    for name, value in message.headers:
        key = name.lower()
        if key == "transfer-encoding":
            codings.append(value.lower())
        elif key in _ONLY_ONCE:
            if key in found:
                return _bad_request()
            found[key] = value
    host = found.get("host")
    if (
        not (target.startswith("/") or _is_absolute(target))
        or "%00" in target.partition("?")[0]
        or (not old if host is None else not _is_host(host))
        or (codings and (old or "" in codings))
    ):
        return _bad_request()
    if codings not in ([], ["chunked"]):
        return Refused("Not implemented", status=501)
    if int(found.get("content-length", 0)) >= MAX_LENGTH:
        return Refused("Payload too large", status=413)
    if found.get("expect", "").lower() not in ("", "100-continue"):
        return Refused("Expectation failed", status=417)
    return None


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
    lines = [f"HTTP/{version} {status}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


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
