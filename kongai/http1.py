"""HTTP/1.1 for the server: bytes in, requests out; answers in, bytes out. No sockets.

The parser is llhttp (httptools), which refuses nearly everything that nginx refuses.
What it leaves to its user is done here: exactly one Host (RFC 9112, section 3.2), and a
bound on the head. After a refusal the connection must be closed, for nobody can know
where the next request would start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import httptools

from kongai.errors import RequestRejected

MAX_HEAD_SIZE = 64 * 1024
"""Bytes of a request's line and headers together."""
MAX_HEADERS = 100
"""Fields of a request's head."""


class Refused(RequestRejected):
    """The bytes are not a request that this server takes.

    Args:
        status: what to answer.
        message: Kong's text for it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, status=status)


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
        self.upgraded = False
        """Whether the client asked to leave HTTP: this was its last request."""
        self._parser = httptools.HttpRequestParser(self)
        self._message = Message()
        self._head_size = 0
        self._refusal: Refused | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            Refused: they are not HTTP, or not acceptable.
        """
        if not self._message.head_complete:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgraded = True
        except httptools.HttpParserError as error:
            raise self._refusal or Refused(400, "Bad request") from error
        if not self._message.head_complete and self._head_size > MAX_HEAD_SIZE:
            raise _too_large()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._message = Message()
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with a piece of the target."""
        self._message.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, with a whole header."""
        headers = self._message.headers
        headers.append((name.decode("latin-1"), value.decode("latin-1")))
        self._head_size += len(name) + len(value) + 4
        if len(headers) > MAX_HEADERS or self._head_size > MAX_HEAD_SIZE:
            self._refuse(_too_large())

    def on_headers_complete(self) -> None:
        """Called by the parser, when the head is there."""
        message = self._message
        message.method = self._parser.get_method().decode("ascii")
        message.version = self._parser.get_http_version()
        message.keep_alive = self._parser.should_keep_alive()
        if message.version not in ("1.0", "1.1"):
            self._refuse(Refused(505, "HTTP version not supported"))
        hosts = [v for name, v in message.headers if name.lower() == "host"]
        if len(hosts) > 1 or (not hosts and message.version == "1.1"):
            self._refuse(Refused(400, "Bad request"))
        message.head_complete = True
        self.messages.append(message)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, with a piece of the body, its framing undone."""
        self._message.chunks.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser, when the whole request has come."""
        self._message.complete = True

    def _refuse(self, refusal: Refused) -> None:
        # An exception out of a callback is wrapped by the parser: keep the real one.
        self._refusal = refusal
        raise refusal


def _too_large() -> Refused:
    return Refused(431, "Request header or cookie too large")


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
