"""One connection to an upstream: how it comes about, and what goes over it.

Whatever is thrown into a wait, here or there, no descriptor stays behind: who waits may
be a greenlet whose client has left.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from kongai.corporate_proxy import CorporateProxy
from kongai.errors import UpstreamError, UpstreamTimeout
from kongai.forwarding import bracketed
from kongai.http1_answer import Head, HeadReader, Malformed
from kongai.loop_socket import LoopSocket
from kongai.names import (
    MAX_LOOK_UP,
    NameNotResolved,
    Names,
    first_that_answers,
    no_address,
)
from kongai.tls import check_depth, drop_half_made

READ_SIZE = 65536
_RECORDS_SIZE = 65536
"""Bytes that TLS is given at a time, which it has to take within the time-out."""
# As urllib3 has it: what is written goes out at once.
_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
_LEAST_SECONDS = 0.001
"""The shortest wait; a time-out of nothing means something else to sockets."""
_ENDED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


Sockets: TypeAlias = Callable[[socket.socket], LoopSocket]
"""Makes of a connected socket one that waits in an event loop."""


class Ended(Exception):
    """The upstream has closed the connection, or it is lost."""


@dataclass(frozen=True, slots=True, repr=False)
class Way:
    """How an upstream is reached."""

    host: str
    port: int
    proxy: CorporateProxy | None = None
    context: ssl.SSLContext | None = None
    """For TLS with the upstream; None for plain HTTP."""
    name: str = ""
    """What the upstream's certificate has to be for."""
    depth: int | None = None
    """How many certificates may stand between the upstream's and the authority's."""
    proxy_context: ssl.SSLContext | None = None
    """For TLS with the proxy."""


class Connection:
    """A connection that requests and their answers go over, one after the other.

    Args:
        sock: a connected socket.
        timeout: its time-out in seconds.
    """

    __slots__ = (
        "_descriptor",
        "_reader",
        "arrivals",
        "peer",
        "receive",
        "secure",
        "session_taken",
        "sock",
        "timeout",
        "used",
    )

    receive: Callable[[int], bytes]
    """The socket's own `recv`."""

    def __init__(self, sock: Any, timeout: float) -> None:
        self._descriptor: int = sock.fileno()
        self.timeout = timeout
        """The time-out of its socket in seconds; see `wait_at_most`."""
        self.used = False
        """Whether it has brought an answer before."""
        self.secure = False
        """Whether there is TLS on it."""
        self.session_taken = False
        """Whether its `session` is known to those who make new ones."""
        self.peer: tuple[str, int] | None = None
        self.sock, self.receive = sock, sock.recv
        self._reader = HeadReader()
        self.arrivals: Callable[[], Sequence[Any]] | None = None
        """Tells at little cost whether `unasked` has something to tell."""
        with suppress(OSError):  # it may have gone already
            address = sock.getpeername()
            self.peer = str(address[0]), int(address[1])

    def wait_by(self, sockets: Sockets) -> None:
        """Leave the waits of a plain connection to an event loop."""
        self.sock = sock = sockets(self.sock)
        self.receive, self.arrivals = sock.recv, sock.arrivals()

    def wait_at_most(self, seconds: float) -> None:
        """Set the time-out of whatever comes next."""
        if seconds != self.timeout:
            self.sock.settimeout(max(seconds, _LEAST_SECONDS))
            self.timeout = seconds

    def write(self, data: bytes) -> None:
        """Send bytes; each time that some are taken, the time-out begins anew.

        Raises:
            Ended: there is nobody any more to take them.
            UpstreamError: they are not taken.
        """
        try:
            if not self.secure or len(data) <= _RECORDS_SIZE:
                sent = self.sock.send(data)
                if sent == len(data):
                    return
            else:
                sent = 0
            with memoryview(data) as view:
                while sent < len(data):
                    sent += self.sock.send(view[sent : sent + _RECORDS_SIZE])
        except TimeoutError as error:
            raise UpstreamTimeout(ended="upstream_write_timeout") from error
        except _ENDED as error:
            raise Ended from error
        except OSError as error:
            raise _lost(error) from error

    def read_head(self, seconds: float) -> tuple[Head, bytes]:
        """Wait for the head of an answer.

        Args:
            seconds: how long; for each interim answer, so long again.

        Returns:
            The head, and what has come behind it.

        Raises:
            Ended: the connection has ended, and nothing had come.
            UpstreamError: there is no head.
        """
        reader, until, interim = self._reader, time.monotonic() + seconds, 0
        if seconds != self.timeout:
            self.wait_at_most(seconds)
        try:
            while data := self.receive(READ_SIZE):
                head = reader.feed(data)
                if head is not None:
                    return head, reader.rest
                now = time.monotonic()
                if reader.interim != interim:
                    interim, until = reader.interim, now + seconds
                if now >= until:
                    raise UpstreamTimeout(ended="first_byte_timeout")
                self.wait_at_most(until - now)
            reader.end()
        except TimeoutError as error:
            raise UpstreamTimeout(ended="first_byte_timeout") from error
        except Malformed as error:
            raise UpstreamError(hopeless=True) from error
        except _ENDED as error:
            if not reader.begun:
                raise Ended from error
            raise UpstreamError from error
        except OSError as error:
            raise _lost(error) from error
        if reader.begun:
            raise UpstreamError
        raise Ended

    def unasked(self) -> bytes | None:
        """What has come while nothing was asked; None if nothing has.

        If something has, be it only the end (b""), the connection can't be used any
        more. Over TLS it may also be something that is none of HTTP.
        """
        # Python's sockets with a time-out don't block, gevent's never do. To read costs
        # less than to ask, and whatever there is to read is nobody's.
        try:
            return os.read(self._descriptor, 1)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def has_more(self) -> bool:
        """Whether something was decrypted already, or waits to be, and not read yet."""
        if not self.secure:
            return False
        inner = getattr(self.sock, "sslobj", None)
        if inner is None:
            return bool(self.sock.pending())
        within = self.sock.incoming.pending or self.sock.socket.pending()
        return bool(within or inner.pending())

    @property
    def session(self) -> ssl.SSLSession | None:
        """What the next connection can begin with in place of a whole handshake."""
        return getattr(self.sock, "session", None)

    def close(self) -> None:
        """Close it; this never waits."""
        self.sock.close()

    def begin_tls(
        self, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None
    ) -> None:
        """Go on over TLS.

        Args:
            context: the settings.
            name: what the other end's certificate has to be for.
            session: that of a connection before.

        Raises:
            UpstreamError: there is no TLS with it, or none that can be trusted.
        """
        try:
            if self.secure:
                # Rare, and what it is made of is slow to import.
                from kongai.transport import tls_inside_tls

                self.sock = tls_inside_tls(self.sock, context, name)
            else:
                self.sock = context.wrap_socket(
                    self.sock,
                    server_hostname=name,
                    do_handshake_on_connect=False,
                    session=session,
                )
                self.sock.do_handshake()
        except TimeoutError as error:
            raise UpstreamTimeout(ended="connect_timeout", sent=False) from error
        except (OSError, ValueError) as error:
            drop_half_made(error)
            unverified = isinstance(error, ssl.SSLCertVerificationError)
            raise UpstreamError(ended="tls", sent=False, hopeless=unverified) from error
        self.secure, self.receive = True, self.sock.recv

    def verify_depth(self, depth: int) -> None:
        """See `kongai.tls.check_depth`.

        Raises:
            UpstreamError: there are more certificates in a row.
        """
        # A session is one of a connection that has passed; it has no certificates.
        if getattr(self.sock, "session_reused", False):
            return
        try:
            check_depth(self.sock, depth)
        except ssl.SSLCertVerificationError as error:
            raise UpstreamError(ended="tls", sent=False, hopeless=True) from error

    def tunnel(
        self, authority: str, headers: tuple[tuple[str, str], ...], seconds: float
    ) -> None:
        """Have a proxy lead to a host (RFC 9110, section 9.3.6).

        Args:
            authority: host and port.
            headers: what the proxy is told beside them.
            seconds: how long to wait.

        Raises:
            UpstreamError: it does not.
        """
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        try:
            self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            head, rest = self.read_head(seconds)
        except UpstreamTimeout as error:
            raise UpstreamTimeout(ended="connect_timeout", sent=False) from error
        except (Ended, UpstreamError) as error:
            raise UpstreamError(ended="connect", sent=False) from error
        if head.status >= 300 or rest:
            raise UpstreamError(ended="connect", sent=False)


def connect(
    way: Way,
    names: Names,
    timeout: float,
    session: ssl.SSLSession | None = None,
    sockets: Sockets | None = None,
) -> Connection:
    """A new connection.

    Args:
        way: where it leads, and how.
        names: where hosts are.
        timeout: seconds to wait for each step.
        session: that of a connection before.
        sockets: makes what waits for a connection without TLS, in place of its socket.

    Raises:
        UpstreamError: it does not come about; nothing of a request was sent.
    """
    proxy = way.proxy
    host, port = (way.host, way.port) if proxy is None else (proxy.host, proxy.port)
    connection = Connection(_opened(host, port, names, timeout), timeout)
    try:
        if way.proxy_context is not None and proxy is not None:
            connection.begin_tls(way.proxy_context, proxy.host)
        if way.context is not None:
            if proxy is not None:
                authority = f"{bracketed(way.host)}:{way.port}"
                connection.tunnel(authority, proxy.headers, timeout)
            connection.wait_at_most(timeout)
            connection.begin_tls(way.context, way.name, session)
            if way.depth is not None:
                connection.verify_depth(way.depth)
        if sockets is not None and not connection.secure:
            connection.wait_by(sockets)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(host: str, port: int, names: Names, timeout: float) -> socket.socket:
    if not host or (host[0] == "[") != (host[-1] == "]"):
        raise no_address()
    try:
        found = names.addresses(host, port, min(timeout, MAX_LOOK_UP))
        return first_that_answers(found, timeout, _OPTIONS)
    except NameNotResolved as error:
        raise no_address() from error
    except TimeoutError as error:
        raise UpstreamTimeout(ended="connect_timeout", sent=False) from error
    except OSError as error:
        raise UpstreamError(ended="connect", sent=False) from error


def _lost(error: OSError) -> UpstreamError:
    return UpstreamError(
        ended="tls" if isinstance(error, ssl.SSLError) else "upstream_protocol"
    )
