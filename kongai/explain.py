"""What a gateway would do with a request, for people: `kongai explain`.

Nothing is sent. The route is found by the router itself, the plugins are those that
would run, and the address is what the balancer would try first.
"""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, urlsplit

from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai import balancer
from kongai.entities import Consumer, Route, Service, Upstream
from kongai.errors import (
    GatewayError,
    HTTPSRequired,
    NoPeer,
    NoRouteMatched,
    NoServiceFound,
)
from kongai.forwarding import bracketed
from kongai.incoming import origin_form, tls_name
from kongai.plugin import Plugin
from kongai.proxy import Proxy
from kongai.router import Tried
from kongai.scopes import Scope

_MOST_LISTED = 20
_UNNAMED = "a route without a name"
_HERE = "http://localhost:8000"


def request(
    method: str, target: str, headers: Iterable[tuple[str, str]] = ()
) -> Request:
    """A request as a client would send it.

    Args:
        method: in any case.
        target: a path with its query, or a whole URL.
        headers: names and values.

    Raises:
        ValueError: the target is no URL, or a header can't be sent.
    """
    # What a URL can't hold is sent in escapes, by most clients.
    target = quote(os.fsencode(target), safe=string.punctuation)
    parts = urlsplit(target)
    builder = EnvironBuilder(
        method=method.upper(),
        base_url=f"{parts.scheme}://{parts.netloc}" if parts.netloc else _HERE,
        headers=[(n, os.fsencode(v).decode("latin-1")) for n, v in headers],
    )
    path = origin_form(target)
    return Request(
        {
            **builder.get_environ(),
            "REQUEST_URI": path if path.startswith("/") else f"/{path}",
            "REMOTE_ADDR": "127.0.0.1",
            # Where a server would say it; it counts for HTTPS alone.
            "SSL_TLS_SNI": parts.hostname or "",
        }
    )


class Explanation:
    """What becomes of one request.

    Args:
        proxy: the gateway.
        asked: the request.
        consumer: who sends it, by username or id; None for somebody unknown.
        origins: where things were declared, by their ids.

    Raises:
        LookupError: there is no such consumer.
    """

    def __init__(
        self,
        proxy: Proxy,
        asked: Request,
        *,
        consumer: str | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        self._proxy = proxy
        self._origins = origins or {}
        self._sni = tls_name(asked)
        self.exchange = proxy.routed(asked)
        self._consumer: Consumer | None = None
        if consumer is not None:
            self._consumer = proxy.consumers.find(consumer)
            if self._consumer is None:
                raise LookupError(consumer)
            if self._asks_who():
                # What is hashed may be the consumer.
                self.exchange.authenticate(self._consumer, None)

    @property
    def matched(self) -> bool:
        """Whether a route takes the request."""
        return self.exchange.match is not None

    def lines(self) -> Iterator[str]:
        """The explanation, a line of text at a time."""
        exchange = self.exchange
        yield f"{exchange.request.method} {exchange.target}"
        yield ""
        yield from _topic("route", self._route())
        if exchange.match is not None:
            yield from _topic("service", self._service())
            yield from _topic("upstream", self._upstream())
        yield from _topic("consumer", self._who())
        yield from _topic("plugins", self._plugins())
        if exchange.match is not None:
            yield from _topic("limits", self._limits())
        yield from _topic("also fit", self._also_fitting())
        yield from _topic("passed over", self._passed_over())

    def _route(self) -> Iterator[str]:
        exchange, match = self.exchange, self.exchange.match
        if match is None:
            failure = exchange.error or NoRouteMatched()
            assert isinstance(failure, GatewayError)
            yield f"none: the answer is {failure.status} {failure.message}"
            for found in self._proxy.router.explain(*self._asked(), sni=self._sni):
                if found.objection is None and isinstance(failure, HTTPSRequired):
                    protocols = ", ".join(found.route.protocols)
                    yield f"{self._named(found.route, _UNNAMED)} takes {protocols}"
            return
        yield self._named(match.route, _UNNAMED)
        yield from _criteria(match.route)
        if match.route.strip_path and match.prefix not in ("", "/"):
            yield f"{match.prefix!r} is left out of the upstream's path (strip_path)"
        for name, value in match.captures.items():
            yield f"captured {name} = {value}"

    def _service(self) -> Iterator[str]:
        service = self.exchange.service
        yield (
            "none"
            if service is None
            else self._named(service, "a service without a name")
        )

    def _upstream(self) -> Iterator[str]:
        told = [*self._told("upstream")]
        if told:
            # Of those that answer or choose, the one that runs last has its way.
            yield told[-1]
            return
        try:
            sent = next(balancer.to_service(self.exchange))
        except (NoServiceFound, NoPeer) as failure:
            yield f"none: the answer is {failure.status} {failure.message}"
        else:
            yield f"{sent.scheme}://{bracketed(sent.host)}:{sent.port}{sent.target}"
        finally:
            self.exchange.let_go()
        yield from self._targets()

    def _targets(self) -> Iterator[str]:
        """What else the address could have been, where an upstream has the choice."""
        service = self.exchange.service
        shared = self.exchange.upstreams.get(service.host or "") if service else None
        if shared is None:
            return
        upstream = shared.upstream
        yield f"one of the targets of {self._named(upstream)}, {_way(upstream)}:"
        for target in upstream.targets:
            host, port = target.address
            yield f"  {bracketed(host)}:{port}  weight {target.weight}"

    def _who(self) -> Iterator[str]:
        """Who sends the request, where that is asked."""
        asked = self._asks_who()
        if self._consumer is not None:
            known_as = self._consumer.username or self._consumer.custom_id or ""
            name = self._named(self._consumer, known_as)
            yield name if asked else f"{name}, but no plugin here asks who it is"
        elif asked:
            yield "unknown (--consumer NAME says who it is)"
            yield from self._told("consumer")

    def _plugins(self) -> Iterator[str]:
        rows = [
            (
                str(plugin.priority),
                plugin.name,
                _scope_text(self._proxy.scopes.scope_of(plugin)),
                self._origins.get(plugin.id, ""),
            )
            for plugin in self.chain()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
            yield "  ".join(cells).rstrip()
        if not rows:
            yield "none"

    def _limits(self) -> Iterator[str]:
        service = self.exchange.service or Service()
        for name in ("connect_timeout", "write_timeout", "read_timeout"):
            yield f"{name} {getattr(service, name)} ms"
        yield f"retries {service.retries}"
        yield from self._told("limit")

    def _also_fitting(self) -> Iterator[str]:
        if self.exchange.match is not None:
            yield from self._listed(
                self._proxy.router.outranked(*self._asked(), sni=self._sni)
            )

    def _passed_over(self) -> Iterator[str]:
        tried = self._proxy.router.explain(*self._asked(), sni=self._sni)
        others = [found for found in tried if found.objection is not None]
        near = [found for found in others if found.near]
        far = [found for found in others if not found.near]
        if self.exchange.match is None:
            # Nobody knows what the path was meant to fit.
            yield from self._listed([*near, *far])
            return
        yield from self._listed(near)
        if far:
            yield f"{'and ' if near else ''}{len(far)} whose path does not fit"

    def _asked(self) -> tuple[str, str, str, Headers]:
        exchange = self.exchange
        return exchange.request.method, exchange.host, exchange.path, exchange.headers

    def _listed(self, tried: Sequence[Tried]) -> Iterator[str]:
        """Routes, and what is said of them."""
        for found in tried[:_MOST_LISTED]:
            reason = found.objection or ""
            path = "" if found.path is None or found.path in reason else found.path
            name = self._named(found.route, _UNNAMED)
            yield f"{name} {path}".rstrip() + f": {reason}"
        if len(tried) > _MOST_LISTED:
            yield f"and {len(tried) - _MOST_LISTED} more"

    def chain(self) -> tuple[Plugin, ...]:
        """The plugins that would run, in their order."""
        scopes, exchange = self._proxy.scopes, self.exchange
        route, service = exchange.route, exchange.service
        ids = route.id if route else None, service.id if service else None
        chain = scopes.chain(*ids)
        known = [plugin.authenticates for plugin in chain.plugins]
        if self._consumer is None or True not in known:
            return chain.plugins
        done = known.index(True) + 1
        return scopes.narrowed(chain, done, Scope(*ids, self._consumer.id)).plugins

    def _asks_who(self) -> bool:
        return any(plugin.authenticates for plugin in self.chain())

    def _told(self, topic: str) -> Iterator[str]:
        for plugin in self.chain():
            for about, text in plugin.explain(self.exchange):
                if about == topic:
                    yield text

    def _named(
        self, entity: Route | Service | Consumer | Upstream, otherwise: str = ""
    ) -> str:
        place = self._origins.get(entity.id or "")
        name = getattr(entity, "name", None) or otherwise
        return f"{name} ({place})" if place else name


def _topic(name: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines with the topic's name before the first and as much space before others."""
    for index, line in enumerate(lines):
        yield f"{'' if index else name:12}{line}"


def _criteria(route: Route) -> Iterator[str]:
    """What the route asks of requests."""
    for field in ("methods", "hosts", "paths", "snis"):
        if values := getattr(route, field):
            yield f"{field} {', '.join(values)}"
    for name, values in (route.headers or {}).items():
        yield f"header {name}: {' or '.join(values)}"


def _way(upstream: Upstream) -> str:
    """How a target is chosen: the algorithm, and what it looks at."""
    if upstream.algorithm != "consistent-hashing":
        return upstream.algorithm
    looks_at = [
        " ".join(filter(None, (getattr(upstream, on), _name_hashed(upstream, on))))
        for on in ("hash_on", "hash_fallback")
        if getattr(upstream, on) != "none"
    ]
    return " ".join((upstream.algorithm, "on", ", else ".join(looks_at or ["nothing"])))


def _name_hashed(upstream: Upstream, on: str) -> str | None:
    """Which header, cookie, argument or group is hashed, if it is one of these."""
    field = f"{on}_{getattr(upstream, on)}"
    if getattr(upstream, on) == "cookie":
        field = "hash_on_cookie"
    return getattr(upstream, field, None)


def _scope_text(scope: Scope) -> str:
    kinds = " and ".join(scope.given())
    return f"for the {kinds}" if kinds else "for everything"
