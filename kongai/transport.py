"""How requests reach an upstream: what a transport is, and the one on requests.

A transport sends one `UpstreamRequest` exactly as it stands and gives back an answer
whose body is still arriving. It knows nothing of retries, redirects, cookies or the
environment: netrc, proxy variables and default headers would each put somebody else's
credential or address into a user's exchange.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import (
    HTTPConnectionPool,
    HTTPHeaderDict,
    HTTPResponse,
    HTTPSConnectionPool,
    exceptions as urllib3_errors,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import SKIP_HEADER, Timeout
from urllib3.util.ssltransport import SSLTransport

from kongai.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.forwarding import bracketed
from kongai.idle import IDLE_SECONDS, SWEEP_SECONDS, IdleConnections
from kongai.names import (
    MAX_LOOK_UP,
    NameNotResolved,
    Names,
    first_that_answers,
    no_address,
)
from kongai.tls import TLS, check_depth, drop_half_made, tls_context
from kongai.upstream_answer import Answer, Malformed

_PIECE_SIZE = 65536
"""Bytes that are read, or written, at a time."""
_PoolKey: TypeAlias = tuple[str, str, int, bool | str, TLS]


class Transport(Protocol):
    """Sends requests to upstreams."""

    def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its answer.

        Raises:
            UpstreamError: there is no usable answer; `sent` says whether the upstream
                may have seen the request.
        """

    def close(self) -> None:
        """Close idle connections."""


class RequestsTransport:
    """A `Transport` on the connection pools of requests' adapters.

    Args:
        proxies: corporate proxies, as requests takes them; not the environment's.
        pool_size: see `kongai.socket_transport.SocketTransport`.
        keepalive_idle: see there, in seconds.
        names: where hosts are; a memory of the transport's own when None.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        pool_size: int = 100,
        keepalive_idle: float = IDLE_SECONDS,
        names: Names | None = None,
    ) -> None:
        self._proxies = dict(proxies or {})
        self._adapter = _Adapter(pool_connections=1000, pool_maxsize=pool_size)
        self._pools: dict[_PoolKey, HTTPConnectionPool] = {}
        self._idle, self._swept = keepalive_idle, time.monotonic()
        self._names = names or Names()

    def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its answer.

        Raises:
            UpstreamError: there is no usable answer.
        """
        self._close_idle()
        try:
            pool = self._pool(request)
        except OSError as error:
            raise UpstreamError(ended="tls", sent=False, hopeless=True) from error
        except ValueError as error:  # what could be no host anywhere
            raise no_address() from error
        target, url = request.target, "/"
        if pool.proxy is not None and request.scheme == "http":
            # A proxy of plain HTTP is given the whole URL (RFC 9112, section 3.2.2).
            url = f"http://{bracketed(request.host)}:{request.port}/"
            target = url.removesuffix("/") + target
        try:
            raw = pool.urlopen(
                request.method,
                # Not the target: what urllib3 logs and raises must hold no secret.
                url,
                body=request.body,
                headers=_Head(target, request.headers, request.write_timeout),
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(
                    connect=request.connect_timeout, read=request.read_timeout
                ),
            )
        except (urllib3_errors.HTTPError, OSError, http.client.HTTPException) as error:
            raise _upstream_error(error) from error
        assert isinstance(raw, HTTPResponse)
        return UpstreamResponse(
            status=raw.status,
            reason=raw.reason or "",
            headers=list(raw.headers.items()),
            chunks=_chunks(raw),
            close=lambda: _close(raw),
            peer=_peer(raw),
            speaks_within=cast(Answer, raw._original_response).speaks_within,
        )

    def close(self) -> None:
        """Close idle connections."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._adapter.close()

    def _close_idle(self) -> None:
        """Close what has been idle for too long, of all upstreams."""
        now = time.monotonic()
        if now - self._swept >= min(self._idle, SWEEP_SECONDS):
            self._swept = now
            for pool in list(self._pools.values()):
                waiting: Any = pool.pool
                if waiting is not None:  # as it is once the pool is closed
                    waiting.close_older(now - self._idle)

    def _pool(self, request: UpstreamRequest) -> HTTPConnectionPool:
        key = (request.scheme, request.host, request.port, request.verify, request.tls)
        pool = self._pools.get(key)
        if pool is None:
            prepared = requests.PreparedRequest()
            host = bracketed(request.host)
            prepared.url = f"{request.scheme}://{host}:{request.port}/"
            pool = self._adapter.get_connection_with_tls_context(
                prepared,
                request.verify,
                proxies=self._proxies,
                cert=request.tls,  # type: ignore[arg-type]
            )
            assert isinstance(pool, _Pool)
            pool.names = self._names
            if isinstance(pool, _TLSPool) and request.verify is not False:
                pool.depth = request.tls.depth
            self._pools[key] = pool  # only now may other threads find it
        return pool


class _Head(HTTPHeaderDict):
    """A request's headers, which carry what urllib3 would not pass on as it is."""

    def __init__(
        self, target: str, headers: Sequence[tuple[str, str]], write_timeout: float
    ) -> None:
        super().__init__()
        self.target = target
        self.write_timeout = write_timeout
        # urllib3's own word for a header to leave out is none that a client may use.
        self._given = [pair for pair in headers if pair[1] != SKIP_HEADER]
        for name, value in self._given:
            self.add(name, value)
        for name in ("User-Agent", "Accept-Encoding"):
            if name not in self:
                self[name] = SKIP_HEADER

    def copy(self) -> _Head:
        return _Head(self.target, self._given, self.write_timeout)

    def items(self) -> Any:
        """The headers in the order given, repeated ones too; then urllib3's own."""
        given = {name.lower() for name, _ in self._given}
        added = [pair for pair in super().items() if pair[0].lower() not in given]
        return [*self._given, *added]


class _Stale(ConnectionError):
    """A connection that had been used before ended without a byte of the answer."""


class _NoHandshake(urllib3_errors.SSLError):
    """The connection is there, but not TLS on it; nothing was sent."""


class _ExactConnection(HTTPConnection):
    """Writes the request target as it was given, with a time-out of its own."""

    response_class = Answer
    names: Names
    _write_timeout: float | None = None
    _used = False
    """Whether it has brought an answer before."""

    def connect(self) -> None:
        self._used = False
        super().connect()

    def _new_conn(self) -> socket.socket:
        # urllib3's own looks the name up itself, for as long as the system takes.
        limit = float(self.timeout or MAX_LOOK_UP)
        try:
            found = self.names.addresses(
                self._dns_host, int(self.port), min(limit, MAX_LOOK_UP)
            )
            sock = first_that_answers(found, self.timeout, self.socket_options or ())
        except NameNotResolved as error:
            reason = socket.gaierror(socket.EAI_NONAME, "no address")
            raise urllib3_errors.NameResolutionError(self.host, self, reason) from error
        except TimeoutError as error:
            raise urllib3_errors.ConnectTimeoutError(self, "timed out") from error
        except OSError as error:
            raise urllib3_errors.NewConnectionError(self, "failed") from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        with self._noticing_its_end():
            answer = super().getresponse()
        self._used = True
        return answer

    @contextmanager
    def _noticing_its_end(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            if self._used:
                raise _Stale("closed while idle") from error
            raise

    def request(  # type: ignore[override]
        self, method: str, url: str, *, headers: Any = None, **options: Any
    ) -> None:
        target = url
        if isinstance(headers, _Head):
            target, self._write_timeout = headers.target, headers.write_timeout
        with self._noticing_its_end():
            super().request(method, target, headers=headers, **options)

    def send(self, data: Any) -> None:
        # The limit of a socket's sendall is one for all of its bytes, and urllib3
        # leaves that of connecting in place: a long body would have to be a quick one.
        if self.sock is None:
            self.connect()
        if self._write_timeout is not None:
            self.sock.settimeout(self._write_timeout)
        for start in range(0, len(data), _PIECE_SIZE):
            super().send(data[start : start + _PIECE_SIZE])

    def _encode_request(self, request: str) -> bytes:
        # Python's own takes ASCII only; a client's raw target may be any bytes.
        return request.encode("latin-1")


class _ExactTLSConnection(_ExactConnection, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError as error:
            raise urllib3_errors.ConnectTimeoutError(self, "no handshake") from error
        except OSError as error:
            drop_half_made(error)
            raise _NoHandshake(error) from error

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except TimeoutError as error:
            raise urllib3_errors.ConnectTimeoutError(self, "no tunnel") from error
        except (OSError, http.client.HTTPException) as error:
            raise urllib3_errors.NewConnectionError(self, "no tunnel") from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _ExactConnection  # type: ignore[assignment]
    QueueCls = IdleConnections  # type: ignore[assignment]
    names: Names

    def _new_conn(self) -> Any:
        connection: Any = super()._new_conn()
        connection.names = self.names
        return connection


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _ExactTLSConnection  # type: ignore[assignment]
    depth: int | None = None

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)
        if self.depth is not None:
            check_depth(conn.sock, self.depth)


class _Adapter(HTTPAdapter):
    """An adapter whose pools are made of our connections, behind proxies too."""

    def __init__(self, **options: Any) -> None:
        self._contexts: dict[tuple[bool | str, TLS], ssl.SSLContext] = {}
        super().__init__(**options)

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        # requests has the path of a file for `cert`; ours are the settings themselves.
        host, options = super().build_connection_pool_key_attributes(request, verify)
        # Of its own, and made once: OpenSSL's default trusts what the environment
        # names, and loading the authorities anew takes longer than an exchange. As
        # pools are told apart by it, no two settings share a connection.
        if host["scheme"] == "https":
            if (verify, cert) not in self._contexts:
                self._contexts[verify, cert] = tls_context(verify, cert)
            options = {"ssl_context": self._contexts[verify, cert]}
            if cert.name is not None:
                # For what is asked in the handshake, and for what is verified.
                options["server_hostname"] = options["assert_hostname"] = cert.name
        return host, options

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy.lower().startswith("https:"):
            options["proxy_ssl_context"] = tls_context(verify=True)
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager


def tls_inside_tls(sock: ssl.SSLSocket, context: ssl.SSLContext, name: str) -> Any:
    """TLS over a connection that is secured already, as one to a proxy may be.

    Args:
        sock: the connection; the handshake is done before this returns.
        context: the settings.
        name: what the certificate at the other end has to be for.

    Raises:
        OSError: there is no TLS with it, or none that can be trusted.
    """
    return SSLTransport(sock, context, server_hostname=name)


def _chunks(raw: HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives.

    `read1` gives what is there; every other way to read holds back the events of a
    stream that the upstream ends by closing.
    """
    try:
        while chunk := raw.read1(_PIECE_SIZE, decode_content=False):
            yield chunk
    except urllib3_errors.ReadTimeoutError as error:
        raise UpstreamTruncated(ended="stream_idle_timeout") from error
    except (urllib3_errors.HTTPError, OSError, http.client.HTTPException) as error:
        raise UpstreamTruncated from error


def _close(raw: HTTPResponse) -> None:
    raw.close()
    raw.release_conn()


def _peer(raw: HTTPResponse) -> tuple[str, int] | None:
    connection = raw.connection
    sock = getattr(connection, "sock", None)
    if isinstance(sock, SSLTransport):
        sock = sock.socket
    if sock is None:
        return None
    try:
        address = sock.getpeername()
    except OSError:
        return None
    return str(address[0]), int(address[1])


def _upstream_error(error: Exception) -> UpstreamError:
    """Say what failed in Kong's words; the cause's own text may hold a secret."""
    if isinstance(error, urllib3_errors.ProxyError):
        error = error.original_error
    if isinstance(error, (urllib3_errors.NameResolutionError, socket.gaierror)):
        return no_address()
    # NewConnectionError is a kind of ConnectTimeoutError to urllib3: ask for it first.
    if isinstance(error, urllib3_errors.NewConnectionError):
        return UpstreamError(ended="connect", sent=False)
    if isinstance(error, urllib3_errors.ConnectTimeoutError):
        return UpstreamTimeout(ended="connect_timeout", sent=False)
    if isinstance(error, urllib3_errors.SSLError):
        unverified = any(
            isinstance(cause, ssl.SSLCertVerificationError) for cause in error.args
        )
        sent = not (unverified or isinstance(error, _NoHandshake))
        return UpstreamError(ended="tls", sent=sent, hopeless=unverified)
    if isinstance(error, (urllib3_errors.ReadTimeoutError, TimeoutError)):
        return UpstreamTimeout(ended="first_byte_timeout")
    if any(isinstance(cause, TimeoutError) for cause in error.args):
        return UpstreamTimeout(ended="upstream_write_timeout")
    causes = tuple(map(type, error.args))
    return UpstreamError(
        ended="upstream_protocol",
        hopeless=Malformed in causes,
        stale=_Stale in causes,
    )
