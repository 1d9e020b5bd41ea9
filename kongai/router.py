"""Which route a request matches, and which path it has upstream: Kong's rules, pure.

The order of routes is that of Kong's `traditional` router: see `kongai.candidates` for
how two routes compare, and `kongai.route_index` for where to look.

A prefix matches as text, not by segment: ``/anything`` matches ``/anythingelse``. Hosts
are compared as they are written. A regex sees the path with everything decoded that has
no meaning of its own in a URI. A route with several paths counts as one route per path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kongai import criteria
from kongai.candidates import Asked, Candidate, asked, candidate, rank, why_later
from kongai.entities import Route, Service
from kongai.route_index import Index

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers


_MAX_REMEMBERED = 1000
_LONGEST_REMEMBERED = 200
"""Characters of host and path."""
_NOT_LOOKED_FOR: Any = object()


class Match(NamedTuple):
    """The route a request matched, and how."""

    route: Route
    service: Service | None
    prefix: str
    """The part of the path that matched, in the path's spelling."""
    rest: str
    """What follows it."""
    captures: Mapping[str, str]
    """The named groups of a regex path."""


class Tried(NamedTuple):
    """A route that was looked at, with one of its paths."""

    route: Route
    path: str | None
    """The path as written; None for a route without."""
    objection: str | None
    """Why it did not match, or not have the request; None for the one that has it."""
    near: bool = True
    """Whether its path, if it has one, fits."""


class Router:
    """Finds the route of a request.

    Args:
        routes: pairs of a route and its service (None: the route has none), older
            routes first.
    """

    def __init__(self, routes: Iterable[tuple[Route, Service | None]]) -> None:
        # The sort is stable: among equals the older route stays first.
        self._candidates = sorted(
            (
                candidate(route, service, path)
                for route, service in routes
                if service is None or service.enabled
                for path in route.paths or (None,)
            ),
            key=rank,
        )
        self._index = Index(self._candidates)
        self._asks_for_headers = self._index.asks_for_headers
        # Clients ask for few paths and ask often; finding a route takes a tenth of what
        # an exchange does.
        self._found: dict[tuple[str, str, str, str | None], Match | None] = {}

    def match(
        self,
        method: str,
        host: str,
        path: str,
        headers: Headers | Mapping[str, str],
        *,
        sni: str | None = None,
    ) -> Match | None:
        """Find the route for a request.

        Args:
            method: in upper case, as HTTP has it.
            host: the Host header, with its port if the client sent one.
            path: normalised, without the query (`criteria.normalize`).
            headers: the request's headers; names in any case.
            sni: the name of the TLS handshake, empty if there was none; None for plain
                HTTP, for which a route's SNIs do not count.
        """
        if self._asks_for_headers:
            return self._match(asked(method, host, path, headers.items(), sni), path)
        key = method, host, path, sni
        found: Match | None = self._found.get(key, _NOT_LOOKED_FOR)
        if found is _NOT_LOOKED_FOR:
            found = self._match(asked(method, host, path, (), sni), path)
            if len(host) + len(path) <= _LONGEST_REMEMBERED:
                if len(self._found) >= _MAX_REMEMBERED:
                    self._found.clear()
                self._found[key] = found
        return found

    def _match(self, request: Asked, path: str) -> Match | None:
        for number in self._index.plausible(request):
            found = self._candidates[number]
            if found.objection(request) is None:
                return _matched(found, path, request.path)
        return None

    def explain(
        self,
        method: str,
        host: str,
        path: str,
        headers: Headers | Mapping[str, str],
        *,
        sni: str | None = None,
    ) -> list[Tried]:
        """Say of each route why it does not match, up to the one that does.

        The arguments are those of `match`. All routes are there if none matches.
        """
        request = asked(method, host, path, headers.items(), sni)
        tried = []
        for number, skipped in self._index.in_order(request):
            found = self._candidates[number]
            objection = found.objection(request) or skipped
            near = found.path_fits(request.path)
            tried.append(Tried(found.route, found.path, objection, near))
            if objection is None:
                break
        return tried

    def outranked(
        self,
        method: str,
        host: str,
        path: str,
        headers: Headers | Mapping[str, str],
        *,
        sni: str | None = None,
    ) -> list[Tried]:
        """Say of the routes that would match, too, why another has the request.

        The arguments are those of `match`. What is there of the route that does have
        the request is left out, and so are routes that `explain` objects to.
        """
        request = asked(method, host, path, headers.items(), sni)
        fitting = [
            self._candidates[number]
            for number, skipped in self._index.in_order(request)
            if skipped is None and self._candidates[number].objection(request) is None
        ]
        return [
            Tried(found.route, found.path, why_later(found, fitting[0]))
            for found in fitting[1:]
            if found.route is not fitting[0].route
        ]


def _matched(found: Candidate, path: str, decoded: str) -> Match:
    prefix, captures = found.prefix or "", {}
    if found.pattern is not None:
        match = found.pattern.match(decoded)
        assert match is not None
        captures = {k: v for k, v in match.groupdict().items() if v is not None}
        rest = captures.pop(criteria.REST, None)
        # Of `a|b`, the rest belongs to `b`: after `a` nothing counts as matched.
        prefix = "" if rest is None else decoded[: len(decoded) - len(rest)]
    size = len(criteria.encoded(prefix)) if "%" in path else len(prefix)
    return Match(found.route, found.service, path[:size], path[size:], captures)


def upstream_path(match: Match, path: str) -> str:
    """Join the service's path and the request's, as Kong's `path_handling` says.

    Args:
        match: the route that matched.
        path: the request's normalised path.
    """
    base = (match.service.path if match.service else None) or "/"
    rest = _without_dots(match.rest) if match.prefix else path[1:]
    if match.route.path_handling == "v1":
        if not match.route.strip_path:
            return base + path[1:]
        return (base[:-1] if base.endswith("/") and rest[:1] == "/" else base) + rest
    if not match.route.strip_path or not match.prefix:
        if path == "/":
            return base
        return base.removesuffix("/") + path
    if not rest:
        if base.endswith("/"):
            return base if path.endswith("/") else base.removesuffix("/") or "/"
        return base + "/" if path.endswith("/") and len(path) > 1 else base
    return base.removesuffix("/") + "/" + rest.removeprefix("/")


def _without_dots(rest: str) -> str:
    if rest in (".", ".."):
        return ""
    return (
        rest.removeprefix("../") if rest.startswith("../") else rest.removeprefix("./")
    )
