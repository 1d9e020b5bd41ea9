"""`SocketTransport`: requests reach upstreams over plain sockets.

It does what `RequestsTransport` does, byte for byte, in a tenth of the time: a request
is one write, a small answer one read, and nothing is done for anybody who did not ask.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from kongai.corporate_proxy import chosen, parsed
from kongai.errors import UpstreamError, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.forwarding import bracketed
from kongai.http1 import LAST_CHUNK, chunk
from kongai.http1_answer import Body, UntilClosed, body_of
from kongai.idle import IDLE_SECONDS, SWEEP_SECONDS, IdleConnections
from kongai.names import Names
from kongai.tls import TLS, tls_context
from kongai.upstream_connection import (
    READ_SIZE,
    Connection,
    Ended,
    Sockets,
    Way,
    connect,
)

_SMALL_BODY = 16384
"""Bytes that are copied behind the head rather than written by themselves."""
_DISTRUST_SECONDS = 60.0
"""How long a request to an upstream that says too much has its own connection."""
# What urllib3 sends no length for, if there is no body.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "TRACE", "OPTIONS", "CONNECT"})
_is_word = re.compile(r"[\x21-\x7e\x80-\xff]+").fullmatch


class SocketTransport:
    """A `Transport` on sockets and connection pools of its own.

    Args:
        proxies: corporate proxies by scheme, as requests takes them, for example
            ``{"https": "http://proxy.example:3128"}``. The environment's are not used.
        pool_size: idle connections kept per upstream.
        keepalive_idle: seconds after which an idle connection is not used again, for
            many an upstream closes its end after a minute or less. It is closed with
            the next request, to whichever upstream.
        names: where hosts are; a memory of the transport's own when None.
        sockets: makes of a connection's socket one that waits in an event loop, for
            example `kongai.server.loop_socket`. Not used where there is TLS.

    Raises:
        ValueError: a proxy's URL is none.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        pool_size: int = 100,
        keepalive_idle: float = IDLE_SECONDS,
        names: Names | None = None,
        sockets: Sockets | None = None,
    ) -> None:
        self._sockets = sockets
        self._proxies = {key: parsed(url) for key, url in (proxies or {}).items()}
        self._pool_size = pool_size
        self._idle, self._swept = keepalive_idle, time.monotonic()
        self._sweep = min(keepalive_idle, SWEEP_SECONDS)
        self._names = names or Names()
        self._pools: dict[tuple[Any, ...], _Pool] = {}
        self._contexts: dict[tuple[bool | str, TLS], ssl.SSLContext] = {}

    def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its answer.

        Raises:
            UpstreamError: there is no usable answer.
        """
        now = time.monotonic()
        if now - self._swept >= self._sweep:
            self._close_idle(now)
        host, port = request.host, request.port
        key: tuple[Any, ...]
        if request.scheme == "http":
            key = (host, port)
        else:
            key = (host, port, request.verify, request.tls)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, self._new_pool(request))
        head, chunked = _request_head(request, pool)
        connection = pool.take()
        if connection is None:
            connection = pool.connect(request.connect_timeout)
        try:
            whole = _write(connection, request, head, chunked)
            answer, rest = connection.read_head(request.read_timeout)
        except Ended as error:
            connection.close()
            raise UpstreamError(stale=connection.used) from error
        except BaseException:
            connection.close()
            raise
        connection.used = True
        body = body_of(answer, request.method)
        # A body of no known length ends with its connection.
        keep = whole and answer.keep_alive and type(body) is not UntilClosed
        piece = body.feed(rest) if rest else b""
        incoming = _Incoming(connection, pool, request.read_timeout, body, piece, keep)
        return UpstreamResponse(
            answer.status,
            answer.reason,
            answer.headers,
            incoming.chunks(),
            incoming.close,
            connection.peer,
            incoming.speaks_within,
            incoming.is_whole,
        )

    def close(self) -> None:
        """Close idle connections; those in use are closed once they are not."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _close_idle(self, now: float) -> None:
        """Close what has been idle for too long, of all upstreams."""
        self._swept = now
        for pool in list(self._pools.values()):
            pool.idle.close_older(now - self._idle)

    def _new_pool(self, request: UpstreamRequest) -> _Pool:
        proxy = chosen(self._proxies, request.scheme, request.host)
        secure = request.scheme == "https"
        host, tls = request.host.strip("[]"), request.tls
        # Never the zone of an address: it is known on this machine only.
        name = (tls.name or host).partition("%")[0].rstrip(".")
        verified = request.verify is not False
        way = Way(
            request.host,
            request.port,
            proxy,
            self._context(request.verify, tls) if secure else None,
            name,
            tls.depth if verified else None,
            self._context(True, TLS()) if proxy and proxy.scheme == "https" else None,
        )
        return _Pool(way, self._pool_size, self._names, self._sockets)

    def _context(self, verify: bool | str, tls: TLS) -> ssl.SSLContext:
        """Made once: to load the authorities takes longer than an exchange."""
        context = self._contexts.get((verify, tls))
        if context is None:
            try:
                context = tls_context(verify, tls)
            except OSError as error:
                raise UpstreamError(ended="tls", sent=False, hopeless=True) from error
            context = self._contexts.setdefault((verify, tls), context)
        return context


class _Pool:
    """The connections to an upstream that wait for a request."""

    __slots__ = (
        "_distrusted_until",
        "_names",
        "_session",
        "_sockets",
        "absolute",
        "headers",
        "idle",
        "secure",
        "way",
    )

    def __init__(
        self, way: Way, size: int, names: Names, sockets: Sockets | None
    ) -> None:
        self.way = way
        self._names, self._sockets = names, sockets
        self.idle: IdleConnections[Connection] = IdleConnections(size)
        self.secure = way.context is not None
        self.absolute = ""
        self.headers: tuple[tuple[str, str], ...] = ()
        if way.proxy is not None and not self.secure:
            # A proxy of plain HTTP is given the whole URL (RFC 9112, section 3.2.2).
            self.absolute = f"http://{bracketed(way.host)}:{way.port}"
            self.headers = way.proxy.headers
        self._session: ssl.SSLSession | None = None
        self._distrusted_until = 0.0

    def take(self) -> Connection | None:
        """A connection that waits for a request; None if none does."""
        while (connection := self.idle.pop()) is not None:
            arrivals = connection.arrivals
            if arrivals is not None and not arrivals():
                return connection
            unasked = connection.unasked()
            if unasked is None:
                return connection
            connection.close()
            if unasked and not self.secure:
                self.distrust()
        return None

    def connect(self, timeout: float) -> Connection:
        """A new connection.

        Raises:
            UpstreamError: it does not come about.
        """
        return connect(self.way, self._names, timeout, self._session, self._sockets)

    def distrust(self) -> None:
        """The upstream has said more than it was asked for: keep nothing for a while.

        It may say it a little later the next time, when another request is on its way;
        it would be taken for the answer to that one.
        """
        self._distrusted_until = time.monotonic() + _DISTRUST_SECONDS
        self.idle.close_older(self._distrusted_until)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read, if there is room."""
        if self._distrusted_until and time.monotonic() < self._distrusted_until:
            connection.close()
            return
        if self.secure and not connection.session_taken:
            # Only now, for the tickets of TLS 1.3 come with an answer.
            self._session, connection.session_taken = connection.session, True
        if self.secure and connection.has_more():
            connection.close()
            self.distrust()
        elif not self.idle.push(connection):
            connection.close()

    def close(self) -> None:
        """Close what is there, and what will be given back."""
        self.idle.close()


def _request_head(request: UpstreamRequest, pool: _Pool) -> tuple[bytes, bool]:
    """The head as it goes on the wire, and whether the body is in chunks.

    Raises:
        ValueError: it can't be sent, because of a character in it.
        UpstreamError: the same, but what can't be sent is the client's own.
    """
    target = pool.absolute + request.target
    if not (_is_word(target) and _is_word(request.method)):
        raise UpstreamError(sent=False, hopeless=True)
    lines, chunked = [f"{request.method} {target} HTTP/1.1\r\n"], None
    for name, value in request.headers:
        lines.append(f"{name}: {value}\r\n")
        lower = name.lower()
        if lower == "content-length":
            chunked = False
        elif lower == "transfer-encoding":
            chunked = True
    if chunked is None:
        framing, chunked = _framing(request)
        lines.insert(1, framing)
    for name, value in pool.headers:
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    text = "".join(lines)
    # One of each per line; no line is without, but the framing that is not needed.
    count = len(lines) - lines.count("")
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise ValueError("a header has a line of its own in it")
    return text.encode("latin-1"), chunked


def _framing(request: UpstreamRequest) -> tuple[str, bool]:
    """What a head that does not say it has to say of its body; whether in chunks."""
    body = request.body
    if body is None:
        if request.method.upper() in _WITHOUT_BODY:
            return "", False
        return "Content-Length: 0\r\n", False
    if isinstance(body, bytes):
        return f"Content-Length: {len(body)}\r\n", False
    return "Transfer-Encoding: chunked\r\n", True


def _write(
    connection: Connection, request: UpstreamRequest, head: bytes, chunked: bool
) -> bool:
    """Send a request; whether all of it was taken.

    Raises:
        Ended: a connection that was used before has ended.
        UpstreamError: the upstream does not take it.
    """
    timeout, body = request.write_timeout, request.body
    if timeout != connection.timeout:
        connection.wait_at_most(timeout)
    try:
        if body is None or isinstance(body, bytes):
            tail = body or b""
            if chunked:
                tail = chunk(tail) + LAST_CHUNK if tail else LAST_CHUNK
            if len(tail) <= _SMALL_BODY:
                connection.write(head + tail)
            else:
                connection.write(head)
                connection.write(tail)
            return True
        connection.write(head)
        for piece in body:
            if piece:
                connection.write(chunk(piece) if chunked else piece)
        if chunked:
            connection.write(LAST_CHUNK)
    except Ended:
        if connection.used:
            raise
        # It may have answered before it closed: that it wants no more of the body.
        return False
    return True


class _Incoming:
    """An answer's body, which is on its way over a connection.

    Args:
        connection: where it comes.
        pool: whose connection that is.
        limit: seconds to wait for more.
        body: tells what of the bytes it is.
        piece: what has come of it.
        keep: whether the upstream takes another request on the connection.
    """

    __slots__ = ("_body", "_connection", "_keep", "_limit", "_lost", "_piece", "_pool")

    def __init__(
        self,
        connection: Connection,
        pool: _Pool,
        limit: float,
        body: Body,
        piece: bytes,
        keep: bool,
    ) -> None:
        self._connection: Connection | None = connection
        self._pool, self._limit, self._body = pool, limit, body
        self._piece, self._keep = piece, keep
        self._lost: UpstreamTruncated | None = None

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives; what came together is one piece.

        Raises:
            UpstreamTruncated: it broke off.
        """
        body = self._body
        try:
            while not body.complete:
                if self._piece:
                    piece, self._piece = self._piece, b""
                    yield piece
                else:
                    self._receive(self._limit)
            piece, self._piece = self._piece, b""
            self.close()
            if piece:
                yield piece
        except TimeoutError as error:
            self.close()
            raise UpstreamTruncated(ended="stream_idle_timeout") from error
        except OSError as error:
            self.close()
            raise UpstreamTruncated from error
        except BaseException:
            self.close()
            raise

    def _receive(self, seconds: float) -> None:
        """Wait for what comes next."""
        connection, body = self._connection, self._body
        if self._lost is not None:
            raise self._lost
        if connection is None or body.broken:
            raise UpstreamTruncated
        if seconds != connection.timeout:
            connection.wait_at_most(seconds)
        data = connection.receive(READ_SIZE)
        if data:
            self._piece = body.feed(data)
        elif not body.end():
            raise UpstreamTruncated

    def is_whole(self) -> bool:
        """Whether all of the body has come."""
        return self._body.complete

    def speaks_within(self, seconds: float) -> bool:
        """Whether more of the body, or its end, comes within this time.

        Args:
            seconds: how long to wait for it.
        """
        until = 0.0
        while not (
            self._piece
            or self._body.complete
            or self._body.broken
            or self._lost is not None
            or self._connection is None
        ):
            now = time.monotonic()
            until = until or now + seconds
            if now > until:
                return False
            try:
                self._receive(until - now)
            except TimeoutError:
                return False
            except UpstreamTruncated as error:
                self._lost = error
            except OSError:
                self._lost = UpstreamTruncated()
        return True

    def close(self) -> None:
        """Give the connection back, or close it if there is more to come on it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        body = self._body
        if self._keep and body.complete and not body.surplus:
            self._pool.give_back(connection)
        else:
            connection.close()
            if self._keep and body.complete:
                self._pool.distrust()
