"""Which target of an upstream a request goes to: Kong's algorithms, without I/O.

- `round-robin`: in turn, in proportion to the weights and evenly mixed: of any run of
  as many requests as the weights add up to (divided by what divides them all), each
  target gets exactly its share.
- `least-connections`: the target with the fewest requests under way for its weight.
- `consistent-hashing`: the same key leads to the same target. Every target draws a
  number from the key, and the highest wins (weighted rendezvous hashing): when a target
  goes, only its own keys move, and each of the others gets its share of them.

A request that is tried again goes to a target that it has not tried, while there is
one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from kongai.criteria import split_port
from kongai.entities import Upstream
from kongai.forwarding import host_header, with_port
from kongai.incoming import query_arguments

if TYPE_CHECKING:
    from kongai.exchange import Exchange


@dataclass(slots=True, eq=False)
class Peer:
    """A target as requests reach it, and what is under way there."""

    host: str
    port: int
    weight: int
    under_way: int = 0
    turn: int = 0
    """How far its turn has come, for `round-robin`."""


class LoadBalancer:
    """Shares out the requests for one upstream among its targets.

    Args:
        upstream: the upstream; targets without weight get nothing.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.peers = tuple(
            Peer(*target.address, target.weight)
            for target in upstream.targets
            if target.weight
        )
        self._lock = threading.Lock()

    def choose(self, key: str | None, tried: Collection[Peer] = ()) -> Peer | None:
        """Choose a target for a request; `release` it when the request is over.

        Args:
            key: what of the request decides, for `consistent-hashing`; None for one
                that does not have that, which takes its turn.
            tried: the targets that have failed it.

        Returns:
            None if there is no target.
        """
        left = [peer for peer in self.peers if peer not in tried] or self.peers
        if not left:
            return None
        with self._lock:
            if self.upstream.algorithm == "least-connections":
                chosen = min(left, key=lambda p: (p.under_way + 1) / p.weight)
            elif self.upstream.algorithm == "consistent-hashing" and key is not None:
                chosen = max(left, key=lambda peer: _draw(key, peer))
            else:
                chosen = _next_turn(left)
            chosen.under_way += 1
        return chosen

    def release(self, peer: Peer) -> None:
        """Say that a request for which the target was chosen is over."""
        with self._lock:
            peer.under_way -= 1

    @property
    def server_name(self) -> str | None:
        """The name that all targets go by, of which their certificates have to be."""
        given = self.upstream.host_header
        return None if given is None else split_port(given)[0]

    def host_header(self, scheme: str, peer: Peer) -> str:
        """What the Host header says to a target."""
        given = self.upstream.host_header
        if given is None:
            return host_header(scheme, peer.host, peer.port)
        # One that has a port of its own is complete.
        has_port = split_port(given)[1] is not None
        return given if has_port else with_port(given, scheme, peer.port)


class Turn:
    """One exchange's claim on a target, and on the next when that one fails it."""

    def __init__(self, balancer: LoadBalancer) -> None:
        self._balancer = balancer
        self._peer: Peer | None = None

    def next(self, key: str | None, tried: Collection[Peer]) -> Peer | None:
        """Give up the present target, if any, and choose another (see `choose`)."""
        self.end()
        self._peer = self._balancer.choose(key, tried)
        return self._peer

    def end(self) -> None:
        """Give up the present target; once is enough, more does no harm."""
        if self._peer is not None:
            self._balancer.release(self._peer)
            self._peer = None


def _next_turn(peers: Collection[Peer]) -> Peer:
    """Weighted round-robin, evenly mixed, as nginx does it."""
    for peer in peers:
        peer.turn += peer.weight
    chosen = max(peers, key=lambda peer: peer.turn)
    chosen.turn -= sum(peer.weight for peer in peers)
    return chosen


def _draw(key: str, peer: Peer) -> float:
    text = f"{peer.host}:{peer.port} {key}".encode(errors="surrogateescape")
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    # Of random numbers in (0, 1), minus the logarithm is the time until an event that
    # is the more frequent the greater the weight; the first event wins.
    return -peer.weight / math.log((number + 0.5) / 2**64)


def hash_key(upstream: Upstream, exchange: Exchange) -> str | None:
    """What of a request decides where it goes; None if nothing does."""
    for field in ("hash_on", "hash_fallback"):
        read = _READERS.get(getattr(upstream, field))
        found = None if read is None else read(upstream, field, exchange)
        if found is not None:
            return found
    return None


def _consumer(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    found = exchange.consumer or exchange.credential
    return None if found is None else found.id


def _ip(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    return exchange.client_ip


def _header(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    values = exchange.headers.getlist(getattr(upstream, f"{field}_header"))
    return ", ".join(values) if values else None


def _cookie(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    """The cookie, or one that the answer is to set."""
    name = upstream.hash_on_cookie or ""
    value = exchange.request.cookies.get(name)
    if value is None:
        value = exchange.id
        path = upstream.hash_on_cookie_path
        exchange.set_cookies.append(f"{name}={value}; Path={path}; HttpOnly")
    return value


def _path(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    return exchange.path


def _query_arg(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    values = query_arguments(exchange.query or "")
    found = values.get(getattr(upstream, f"{field}_query_arg"))
    return None if found is None else ",".join(sorted(map(str, found)))


def _uri_capture(upstream: Upstream, field: str, exchange: Exchange) -> str | None:
    captures = exchange.match.captures if exchange.match else {}
    return captures.get(getattr(upstream, f"{field}_uri_capture"))


_READERS: Mapping[str, Callable[[Upstream, str, Exchange], str | None]] = {
    "consumer": _consumer,
    "ip": _ip,
    "header": _header,
    "cookie": _cookie,
    "path": _path,
    "query_arg": _query_arg,
    "uri_capture": _uri_capture,
}
