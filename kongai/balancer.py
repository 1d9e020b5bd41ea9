"""Which upstream to try, and when to try again: policy without I/O.

A balancer is a generator. It yields requests and is sent their outcomes; the loop that
talks to the network is the proxy's. So a test drives a policy with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from werkzeug.datastructures import Headers

from kongai import forwarding
from kongai.entities import Service
from kongai.errors import NoServiceFound
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.router import upstream_path
from kongai.tls import TLS

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


def retrying(
    request: UpstreamRequest, retries: int
) -> Generator[UpstreamRequest, Attempt, None]:
    """Try one address, and again after a failure of transport, as Kong's service does.

    A request that may have reached the upstream is repeated only if its method is
    idempotent: a prompt sent twice is billed twice. A body that is being streamed is
    not sent again, for its beginning is gone.

    Args:
        request: what to send.
        retries: how many more tries after the first.
    """
    streamed = request.body is not None and not isinstance(request.body, bytes)
    for _ in range(retries + 1):
        attempt = yield request
        if attempt.error is None or attempt.error.hopeless:
            return
        if attempt.error.sent and (streamed or request.method not in IDEMPOTENT):
            return


class Address(NamedTuple):
    """Where an upstream is, and what its Host header says."""

    scheme: str
    host: str
    port: int
    host_header: str


def forward(
    exchange: Exchange,
    address: Address,
    target: str,
    *,
    headers: Headers | None = None,
    body: bytes | None = None,
) -> Generator[UpstreamRequest, Attempt, None]:
    """Send an exchange's request to an address, by the rules of its route's service.

    Args:
        exchange: the exchange.
        address: the upstream.
        target: the request target, path and query.
        headers: the client's headers as this upstream is to get them; the exchange's
            when None.
        body: the body as this upstream is to get it; the exchange's when None.
    """
    service = exchange.service or _NO_SERVICE
    exchange.sent_headers = headers
    head = forwarding.request_headers(
        exchange, exchange.headers if headers is None else headers, address.host_header
    )
    request = UpstreamRequest(
        method=exchange.request.method,
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        target=target,
        headers=head,
        body=forwarding.framed_body(
            exchange, exchange.body if body is None else body, head
        ),
        connect_timeout=service.connect_timeout / 1000,
        write_timeout=service.write_timeout / 1000,
        read_timeout=service.read_timeout / 1000,
        verify=service.tls_verify is not False,
        tls=TLS.of(service),
    )
    yield from retrying(request, service.retries)


_NO_SERVICE = Service()


def to_service(exchange: Exchange) -> Generator[UpstreamRequest, Attempt, None]:
    """The balancer of a route without a plugin that chooses: its service.

    Raises:
        NoServiceFound: the route has none.
    """
    match, service = exchange.match, exchange.service
    if match is None or service is None or service.host is None:
        raise NoServiceFound
    target = upstream_path(match, exchange.path)
    if exchange.query is not None:
        target = f"{target}?{exchange.query}"
    scheme, host, port = service.protocol, service.host, service.port
    host_header = (
        exchange.host
        if match.route.preserve_host
        else forwarding.host_header(scheme, host, port)
    )
    yield from forward(exchange, Address(scheme, host, port, host_header), target)
