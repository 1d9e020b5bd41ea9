"""Which upstream to try, and when to try again: policy without I/O.

A balancer is a generator. It yields requests and is sent their outcomes; the loop that
talks to the network is the proxy's. So a test drives a policy with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import NamedTuple, TypeAlias

from werkzeug.datastructures import Headers

from kongai import forwarding
from kongai.entities import Service
from kongai.errors import NoPeer, NoServiceFound
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.load_balancing import LoadBalancer, Peer, Turn, hash_key
from kongai.tls import TLS

_HostAndPort: TypeAlias = tuple[str, int]
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


def retrying(
    requests: Iterable[UpstreamRequest],
    retries: int,
    hopeless: set[_HostAndPort] | None = None,
) -> Generator[UpstreamRequest, Attempt, None]:
    """Try, and try again after a failure of transport, as Kong's service does.

    A request that may have reached the upstream is repeated only if its method is
    idempotent: a prompt sent twice is billed twice. A body that is being streamed is
    not sent again, for its beginning is gone. What an upstream has answered is not
    asked for again, even if it is no HTTP. Where another try would end the same, there
    is none, unless it goes elsewhere.

    An upstream may close an idle connection at the moment it is used again. One such
    failure is none of the retries, so that a service without retries bears it, too.

    Args:
        requests: what to send, time and again: the next one is asked for after the one
            before has failed.
        retries: how many more tries after the first.
        hopeless: takes the addresses that there is no use in asking again, for
            `requests` to avoid.
    """
    hopeless = set() if hopeless is None else hopeless
    left, forgiven = retries, False
    for request in requests:
        if (request.host, request.port) in hopeless:
            return
        streamed = request.body is not None and not isinstance(request.body, bytes)
        attempt = yield request
        if attempt.error is None:
            return
        if attempt.error.sent and (streamed or request.method not in IDEMPOTENT):
            return
        if attempt.error.hopeless:
            if attempt.error.sent:
                return
            hopeless.add((request.host, request.port))
        if attempt.error.stale and not forgiven:
            forgiven = True
        elif left == 0:
            return
        else:
            left -= 1


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
    exchange.sent_headers = headers
    request = _request(
        exchange,
        address,
        target,
        exchange.headers if headers is None else headers,
        body,
    )
    service = exchange.service or _NO_SERVICE
    return retrying(repeat(request), service.retries)


def _request(
    exchange: Exchange,
    address: Address,
    target: str,
    headers: Headers,
    body: bytes | None = None,
) -> UpstreamRequest:
    service = exchange.service or _NO_SERVICE
    head = forwarding.request_headers(exchange, headers, address.host_header)
    return UpstreamRequest(
        method=exchange.method,
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


_NO_SERVICE = Service()


def to_service(exchange: Exchange) -> Generator[UpstreamRequest, Attempt, None]:
    """The balancer of a route without a plugin that chooses: its service.

    Raises:
        NoServiceFound: the route has none.
        NoPeer: the service's upstream has no target.
    """
    match, service = exchange.match, exchange.service
    if match is None or service is None or service.host is None:
        raise NoServiceFound
    target = forwarding.service_target(exchange)
    assert target is not None
    scheme, host, port = service.protocol, service.host, service.port
    host_header = (
        exchange.host
        if match.route.preserve_host
        else forwarding.host_header(scheme, host, port)
    )
    address = Address(scheme, host, port, host_header)
    shared = exchange.upstreams.get(host)
    if shared is None:
        yield from forward(exchange, address, target)
        return
    request = _request(exchange, address, target, exchange.headers)
    if shared.server_name is not None:
        request.tls = replace(request.tls, name=shared.server_name)
    hopeless: set[_HostAndPort] = set()
    targets = _among(shared, exchange, request, hopeless)
    yield from retrying(targets, service.retries, hopeless)


def _among(
    shared: LoadBalancer,
    exchange: Exchange,
    request: UpstreamRequest,
    hopeless: Collection[_HostAndPort],
) -> Iterator[UpstreamRequest]:
    """The request, addressed to one target after the other."""
    assert exchange.match is not None
    keep_host = exchange.match.route.preserve_host
    key = hash_key(shared.upstream, exchange)
    tried: list[Peer] = []
    turn = Turn(shared)
    # However the exchange ends, the target is then free of it.
    exchange.to_close.append(turn.end)
    while True:
        avoided: Collection[Peer] = tried
        if len(set(tried)) == len(shared.peers):
            # Each has had its turn; from now on only the hopeless ones have none.
            avoided = [peer for peer in tried if (peer.host, peer.port) in hopeless]
        peer = turn.next(key, avoided)
        if peer is None:
            raise NoPeer
        tried.append(peer)
        given = replace(request, host=peer.host, port=peer.port)
        if not keep_host:
            host = ("Host", shared.host_header(request.scheme, peer))
            given.headers = [host if h[0] == "Host" else h for h in request.headers]
        yield given
