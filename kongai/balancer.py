"""Which upstream to try, and when to try again: policy without I/O.

A balancer is a generator. It yields requests and is sent their outcomes; the loop that
talks to the network is the proxy's. So a test drives a policy with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Generator

from kongai import forwarding
from kongai.errors import NoServiceFound
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.router import Service, upstream_path

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
    host = (
        exchange.host
        if match.route.preserve_host
        else forwarding.host_header(service.protocol, service.host, service.port)
    )
    headers = forwarding.request_headers(exchange, host)
    body = forwarding.framed_body(exchange, headers)
    request = UpstreamRequest(
        method=exchange.request.method,
        scheme=service.protocol,
        host=service.host,
        port=service.port,
        target=target,
        headers=headers,
        body=body,
    )
    yield from retrying(*with_service_policy(request, service))


def with_service_policy(
    request: UpstreamRequest, service: Service | None
) -> tuple[UpstreamRequest, int]:
    """Apply a service's time-outs and certificate rule; return its retries with it."""
    service = service or _NO_SERVICE
    request.connect_timeout = service.connect_timeout / 1000
    request.read_timeout = service.read_timeout / 1000
    request.verify = service.tls_verify is not False
    return request, service.retries


_NO_SERVICE = Service()
