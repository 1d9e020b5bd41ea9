"""One request's trip through the gateway, and what travels with it.

An `Exchange` is made when a request is accepted and ends when its record is written.
Plugins read and change it; the fields stand in the order in which they are filled.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from werkzeug.datastructures import Headers

from kongai.body_memory import BodyMemory, Share
from kongai.consumers import NOBODY, Consumers
from kongai.errors import (
    BodyIncomplete,
    KongAIError,
    RequestRejected,
    UpstreamError,
)
from kongai.incoming import body_stream, content_length
from kongai.log_fields import LogFields
from kongai.plugin import NO_PLUGINS, Chain, Plugin
from kongai.tls import TLS, USUAL

if TYPE_CHECKING:
    from werkzeug.wrappers import Request, Response

    from kongai.entities import Consumer, KeyAuthCredential, Route, Service
    from kongai.llm.call import Call
    from kongai.llm.formats import ErrorFormat
    from kongai.load_balancing import LoadBalancer
    from kongai.router import Match

_READ_SIZE = 65536
_PORT = re.compile(r":[^]]*\Z")


@dataclass(slots=True, repr=False)
class UpstreamRequest:
    """What is sent to an upstream: an address, a head and a body.

    Nothing is added on the way: no default header, no cookie, no normalisation of
    the target.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: str
    """The request target, path and query, exactly as it goes on the wire."""
    headers: list[tuple[str, str]]
    body: bytes | Iterable[bytes] | None = None
    connect_timeout: float = 60.0
    """Seconds to wait for a connection."""
    write_timeout: float = 60.0
    """Seconds to wait until the upstream takes the next piece of the request."""
    read_timeout: float = 60.0
    """Seconds to wait for the next bytes of the answer, the first ones included."""
    verify: bool | str = True
    """Whether to verify the upstream's certificate, or the path of a CA bundle."""
    tls: TLS = USUAL
    """Who may vouch for the upstream in place of these, and what it is shown."""


@dataclass(slots=True, repr=False)
class UpstreamResponse:
    """An upstream's answer, its body still on the way."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    """In the order received, repeated ones apart."""
    chunks: Iterator[bytes]
    """The body as it arrives; raises `UpstreamError` when it breaks off."""
    close: Callable[[], None]
    """Gives the connection back, or closes it if the body was not read to its end."""
    peer: tuple[str, int] | None = None
    """Address and port of the upstream's end of the connection."""
    speaks_within: Callable[[float], bool] | None = None
    """Waits for so many seconds, and says whether something came; None where the
    transport can only wait until it does."""
    whole: Callable[[], bool] | None = None
    """Whether all of the body has come, so that nothing of it has to be waited for;
    None where the transport can't tell."""


@dataclass(slots=True)
class Try:
    """One attempt to reach an upstream, as the record lists it under `tries`."""

    started_ns: int
    """Nanoseconds since the epoch."""
    ip: str
    port: int
    latency_ns: int = 0
    """Nanoseconds that choosing the address took."""
    state: str | None = None
    """`next` or `failed` when the attempt failed; None when it gave an answer."""
    code: int | None = None
    """The status that stands for the failure."""


@dataclass(slots=True)
class Attempt:
    """The outcome of one attempt: either an answer or an error."""

    request: UpstreamRequest
    response: UpstreamResponse | None = None
    error: UpstreamError | None = None


@dataclass(slots=True, init=False)
class Timings:
    """When things happened, in seconds of a monotonic clock; `started_at` in ms.

    Made without arguments it begins now.
    """

    started_at: int
    """Milliseconds since the epoch."""
    start: float
    sent: float | None
    """When the (last) request went to the upstream."""
    answered: float | None
    """When the upstream's status and headers were there."""
    received: float | None
    """When the upstream's body had ended."""
    end: float | None

    def __init__(
        self,
        started_at: int | None = None,
        start: float | None = None,
        sent: float | None = None,
        answered: float | None = None,
        received: float | None = None,
        end: float | None = None,
    ) -> None:
        if started_at is None:
            started_at = time.time_ns() // 1_000_000
        self.started_at = started_at
        self.start = time.perf_counter() if start is None else start
        self.sent, self.answered, self.received = sent, answered, received
        self.end = end

    def kong(self, now: float) -> int:
        """Milliseconds the gateway took before it asked the upstream, or until now."""
        until = now if self.sent is None else self.sent
        return max(0, int((until - self.start) * 1000))

    def proxy(self, now: float) -> int:
        """Milliseconds it has waited for the upstream; -1 if it did not ask."""
        if self.sent is None:
            return -1
        until = now if self.answered is None else self.answered
        return max(0, int((until - self.sent) * 1000))


def milliseconds(start: float | None, end: float | None) -> int:
    """Whole milliseconds between two readings of the clock; 0 where one is missing."""
    if start is None or end is None:
        return 0
    return max(0, int((end - start) * 1000))


@dataclass(slots=True, eq=False, repr=False)
class Exchange:
    """One request's trip through the gateway."""

    request: Request
    """The client's request, a Werkzeug `Request`; a Flask view's is one."""
    target: str = ""
    """Path and query as the client wrote them, below the mount point if any."""
    path: str = "/"
    """The normalised path that routing looks at."""
    method: str = field(init=False)
    """The request's method, in upper case."""
    content_length: int | None = field(init=False)
    """The bytes that the request's body is announced to have; None if that is open."""
    query: str | None = field(init=False)
    """The raw query string, without a fragment; None without a question mark. What a
    plugin changes here goes upstream; the target stays what the client wrote."""
    headers: Headers = field(default_factory=Headers)
    """The request's headers, in the client's order and spelling. What a plugin changes
    here goes upstream and shows in the record."""
    sent_headers: Headers | None = None
    """Where a balancer changed them for its upstream: the headers as last sent."""
    trusted: bool = False
    """Whether the peer is trusted to say how it was asked (`X-Forwarded-*`)."""
    real_ip: str | None = None
    """The client's address, if a trusted peer says it."""
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    timings: Timings = field(default_factory=Timings)
    match: Match | None = None
    chain: Chain = NO_PLUGINS
    """The plugins whose phases it goes through."""
    consumers: Consumers = NOBODY
    """The consumers of the gateway, for a plugin that authenticates."""
    upstreams: Mapping[str, LoadBalancer] = field(default_factory=dict)
    """The upstreams of the gateway, by name."""
    set_cookies: list[str] = field(default_factory=list)
    """Values of Set-Cookie that the answer is to have beside the upstream's."""
    consumer: Consumer | None = None
    """Who sends the request, once a plugin has authenticated it."""
    credential: KeyAuthCredential | None = None
    """What it was authenticated by; None for an anonymous consumer."""
    body: bytes | None = None
    """The request's body once `read_body` has read it, until `forget_body`: `ai-proxy`
    drops it when the answer begins, so whoever wants it later keeps it."""
    body_forgotten: bool = False
    """Whether the body was read, and is not kept any more."""
    body_size: int = 0
    """Bytes of the request's body read so far."""
    receiving: bool = False
    """Whether the request's body has begun to come and has not ended."""
    body_limits: list[tuple[int, RequestRejected]] = field(default_factory=list)
    """The most bytes that the body may have, and the refusal of more."""
    body_share: Share = field(default_factory=lambda: Share(BodyMemory(None)))
    """What the body takes of the memory that there is for bodies."""
    error_format: ErrorFormat | None = None
    """The client's format, when a plugin knows it; None says errors in Kong's."""
    llm: Call | None = None
    """What an AI plugin knows of its call; None without one."""
    tries: list[Try] = field(default_factory=list)
    upstream_request: UpstreamRequest | None = None
    upstream_response: UpstreamResponse | None = None
    response: Response | None = None
    """The answer to the client; from `header_filter` on."""
    source: Literal["kong", "upstream"] = "kong"
    """Whose the answer is: the gateway's own, or the upstream's."""
    bytes_sent: int = 0
    """Bytes of the answer's body handed to the client, its framing included."""
    secret_values: frozenset[str] = frozenset()
    """Secrets of the configuration that were used; the record shows them nowhere."""
    secret_names: frozenset[str] = frozenset()
    """More headers and query arguments, in lower case, whose values the record must
    not show."""
    error: BaseException | None = None
    ended: str | None = None
    """How the exchange ended, for `kongai.ended`: `ok`, `client_abort`, ..."""
    state: dict[Plugin, Any] = field(default_factory=dict)
    """A plugin's own notes: ``exchange.state[self]``."""
    log: LogFields = field(default_factory=LogFields)
    """What to add to the record: ``exchange.log.set("team", "search")``."""

    to_close: list[Callable[[], None]] = field(default_factory=list)
    """What is to be closed by name when the exchange ends, however it ends."""

    def __post_init__(self) -> None:
        environ = self.request.environ
        self.method = environ.get("REQUEST_METHOD", "GET").upper()
        self.content_length = content_length(environ)
        _, mark, query = self.target.partition("?")
        self.query = query.partition("#")[0] if mark else None

    def let_go(self) -> None:
        """Close the upstream's answer, or a plugin's, if that was not done yet.

        All of it is closed, even if something can't be.
        """
        if self.to_close:
            try:
                self.to_close.pop()()
            finally:
                if self.to_close:
                    self.let_go()

    def authenticate(
        self, consumer: Consumer, credential: KeyAuthCredential | None
    ) -> None:
        """Say who sends the request: Kong's ``kong.client.authenticate``.

        Plugins that have not had their turn yet then run with what is configured for
        this consumer.

        Args:
            consumer: who it is.
            credential: what shows it; None for an anonymous consumer.
        """
        self.consumer, self.credential = consumer, credential

    @property
    def route(self) -> Route | None:
        """The route that matched."""
        return None if self.match is None else self.match.route

    @property
    def service(self) -> Service | None:
        """The service behind the route."""
        return None if self.match is None else self.match.service

    @property
    def host(self) -> str:
        """The Host header as the client sent it, with its port if there is one."""
        given: str | None = self.headers.get("host")
        return given or self.request.environ.get("SERVER_NAME", "")

    @property
    def host_name(self) -> str:
        """The Host header in lower case, without its port or a dot at its end."""
        return _host_name(self.host)

    @property
    def peer_ip(self) -> str:
        """The address that the request came from; empty where there is none."""
        return self.request.environ.get("REMOTE_ADDR") or ""

    @property
    def client_ip(self) -> str:
        """The client's address, by what a trusted peer says or else the peer's."""
        return self.peer_ip if self.real_ip is None else self.real_ip

    def forwarded(self, name: str, own: str) -> str:
        """What a trusted peer says in an `X-Forwarded-*` header, or else our own."""
        return (self.headers.get(name) or own) if self.trusted else own

    def read_body(self, limit: int | None = None) -> bytes:
        """Read the whole request body, once.

        Args:
            limit: the most bytes to accept; None for no limit.

        Raises:
            BodyTooLarge: there is more than `limit`, read before or not.
            BodyIncomplete: the client left before its body had come.
            BodyForgotten: it was read, and nobody has kept it.
            Overloaded: there are too many bodies in memory already.
            RequestRejected: there is never room for so much.
        """
        if self.body_forgotten:
            raise BodyForgotten("the request's body is not kept any more")
        known = max(self.body_size, self.content_length or 0)
        if limit is not None and known > limit:
            raise BodyTooLarge(limit)
        if self.body is None:
            # A length takes no room: whoever announces much may never send it.
            self.body_share.expect(known)
            # Gives its bytes away without a copy, which pieces in a list do not.
            collected = io.BytesIO()
            for piece in self.stream_body():
                if limit is not None and self.body_size > limit:
                    raise BodyTooLarge(limit)
                self.body_share.hold(self.body_size)
                collected.write(piece)
            self.body = collected.getvalue()
        return self.body

    def forget_body(self) -> None:
        """Keep the body no longer; it can't be sent again then.

        Its share of the memory for bodies stays, for others may have its bytes still.
        """
        if self.body is not None:
            self.body, self.body_forgotten = None, True
        if self.upstream_request is not None:
            self.upstream_request.body = None

    def limit_body(self, limit: int, refusal: RequestRejected) -> None:
        """Refuse the body once more than this has come, whoever reads it.

        It need not be read for that: what goes upstream unread is counted on the way.

        Args:
            limit: the most bytes.
            refusal: what is raised where the body is read.

        Raises:
            RequestRejected: the refusal, if so much was announced or read already.
        """
        if max(self.body_size, self.content_length or 0) > limit:
            raise refusal
        self.body_limits.append((limit, refusal))

    def stream_body(self) -> Iterator[bytes]:
        """Yield the request's body as it comes, without keeping it.

        Raises:
            BodyIncomplete: the client left before its body had come.
            RequestRejected: there is more of it than a plugin allows.
        """
        length = self.content_length
        stream = body_stream(self.request, length)
        # Where the server can, take what has come instead of waiting for a whole piece.
        read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self.receiving = True
        while length is None or self.body_size < length:
            size = _READ_SIZE
            if length is not None:
                size = min(size, length - self.body_size)
            try:
                piece = read(size)
            except OSError as error:
                raise BodyIncomplete from error
            if not piece:
                if length is not None:
                    raise self._stopped_short()
                break
            self.body_size += len(piece)
            for most, refusal in self.body_limits:
                if self.body_size > most:
                    raise refusal
            yield piece
        self.receiving = False

    def _stopped_short(self) -> Exception:
        if self.body_size == 0 and "form" in self.request.__dict__:
            return BodyAlreadyRead(
                "the application has parsed the form; let the gateway handle the "
                "request before, or read it with request.get_data()"
            )
        return BodyIncomplete()


@lru_cache(maxsize=256)
def _host_name(host: str) -> str:
    return _PORT.sub("", host).removesuffix(".").lower()


class BodyAlreadyRead(KongAIError):
    """The application around the gateway has used up the request's body."""


class BodyForgotten(KongAIError):
    """The request's body was read before, and is not kept any more."""


class BodyTooLarge(Exception):
    """The request's body has more bytes than allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit
