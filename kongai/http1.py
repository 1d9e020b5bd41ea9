"""HTTP/1.1 for the server: bytes in, requests out; answers in, bytes out. No sockets.

The parser is llhttp (httptools), which refuses nearly everything that nginx refuses.
What it leaves to its user is done here: exactly one Host (RFC 9112, section 3.2) and
no credential twice, a target that is a path, no transfer coding but `chunked`, and a
bound on the head. After a refusal the connection must be closed, for nobody can know
where the next request would start. An offer to upgrade is passed over, as HTTP allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache

import httptools

from kongai.errors import Refused

MAX_HEAD_SIZE = 64 * 1024
"""Bytes of a request's head: its line and headers, the empty line included."""
MAX_HEADERS = 100
"""Fields of a request's head."""
# Of two, the gateway and the upstream might each believe another one.
_ONLY_ONCE = ("host", "authorization", "x-api-key", "content-type", "expect")


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
        self._refusal: Refused | None = None

    @property
    def method(self) -> str:
        """The method of the request that is coming; empty if there is none yet."""
        return "" if self._message.complete else self._message.method

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            Refused: they are not HTTP, or not acceptable.
        """
        self._silent += len(data)
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_offer() + data[upgrade.args[0] :]
                continue
            except httptools.HttpParserError as error:
                raise self._refusal or Refused("Bad request", status=400) from error
            break
        if self._silent > MAX_HEAD_SIZE:
            raise _too_large()

    def _without_offer(self) -> bytes:
        """The head of the last request once more, for a parser that stays with HTTP.

        After an offer to upgrade llhttp takes what follows for another protocol, even
        the request's own body.
        """
        message = self.messages.pop()
        self._parser = httptools.HttpRequestParser(self)
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
        self._head_size = self._silent = 0

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with a piece of the target."""
        self._message.target += url.decode("latin-1")
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, with a whole header, or a trailer: that is dropped."""
        headers = self._message.headers
        self._head_size += len(name) + len(value) + 4
        if not self._message.head_complete:
            text = value.decode("latin-1").rstrip(" \t")
            headers.append((name.decode("latin-1"), text))
        if len(headers) > MAX_HEADERS or self._head_size > MAX_HEAD_SIZE:
            self._refuse(_too_large())

    def on_headers_complete(self) -> None:
        """Called by the parser, when the head is there."""
        message = self._message
        message.method = self._parser.get_method().decode("ascii")
        message.version = self._parser.get_http_version()
        message.keep_alive = self._parser.should_keep_alive()
        self._head_size += len(message.method) + len("  HTTP/1.1\r\n\r\n")
        refusal = _objection(message)
        if refusal is None and self._head_size > MAX_HEAD_SIZE:
            refusal = _too_large()
        if refusal is not None:
            self._refuse(refusal)
        message.head_complete = True
        self.messages.append(message)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, with a piece of the body, its framing undone."""
        self._message.chunks.append(body)
        self._silent = 0

    def on_message_complete(self) -> None:
        """Called by the parser, when the whole request has come."""
        self._message.complete = True

    def _refuse(self, refusal: Refused) -> None:
        # An exception out of a callback is wrapped by the parser: keep the real one.
        self._refusal = refusal
        raise refusal


def _objection(message: Message) -> Refused | None:
    """What is wrong with a head that llhttp takes."""
    if message.version not in ("1.0", "1.1"):
        return Refused("HTTP version not supported", status=505)
    if message.method == "CONNECT":
        return Refused("Method not allowed", status=405)
    fields = [(name.lower(), value) for name, value in message.headers]
    names = [name for name, _ in fields]
    hosts = [value for name, value in fields if name == "host"]
    codings = [value.lower() for name, value in fields if name == "transfer-encoding"]
    path = message.target.partition("?")[0]
    if (
        any(names.count(name) > 1 for name in _ONLY_ONCE)
        or (not hosts and message.version == "1.1")
        or any(not host or set(host) & set(" \t/") for host in hosts)
        or not (path.startswith("/") or "://" in path)
        or "%00" in path
        or (codings and message.version == "1.0")
        or "" in codings
    ):
        return Refused("Bad request", status=400)
    if codings not in ([], ["chunked"]):
        return Refused("Not implemented", status=501)
    return None


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
