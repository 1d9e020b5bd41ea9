"""Services, routes, and which route a request matches: Kong's rules, pure.

The order of routes is Kong's `traditional` router's (kong.router.traditional): a route
that uses more kinds of criteria wins, and of as many kinds the one with hosts, then
with headers, paths, methods; then plain hosts before wildcards; then more header names;
then a regex path before any prefix, by `regex_priority`; then the longer prefix; then
the older route. A route with several paths counts as one route per path.

A prefix matches as text, not by segment: ``/anything`` matches ``/anythingelse``.
Paths are compared in one spelling, that of `criteria.normalize`; a regex sees it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kongai import criteria
from kongai.entities import Route, Service

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers


class Match(NamedTuple):
    """The route a request matched, and how."""

    route: Route
    service: Service | None
    prefix: str
    """The part of the path that matched, as the request has it."""
    rest: str
    """What follows it."""
    captures: Mapping[str, str]
    """The named groups of a regex path."""


class _Candidate(NamedTuple):
    """One route with one of its paths, ready to be tried."""

    route: Route
    service: Service | None
    prefix: str | None
    pattern: re.Pattern[str] | None
    methods: frozenset[str]
    hosts: re.Pattern[str] | None
    headers: tuple[tuple[str, frozenset[str], re.Pattern[str] | None], ...]


class Router:
    """Finds the route of a request.

    Args:
        routes: pairs of a route and its service (None: the route has none), older
            routes first.
    """

    def __init__(self, routes: Iterable[tuple[Route, Service | None]]) -> None:
        candidates = [
            _candidate(route, service, path)
            for route, service in routes
            if service is None or service.enabled
            for path in route.paths or (None,)
        ]
        # The sort is stable: among equals the older route stays first.
        self._candidates = sorted(candidates, key=_precedence)

    def match(
        self, method: str, host: str, path: str, headers: Headers | Mapping[str, str]
    ) -> Match | None:
        """Find the route for a request.

        Args:
            method: in upper case, as HTTP has it.
            host: the Host header, with its port if the client sent one.
            path: normalised, without the query (`criteria.normalize`).
            headers: the request's headers; names in any case.
        """
        for candidate in self._candidates:
            if candidate.methods and method not in candidate.methods:
                continue
            if candidate.hosts and not candidate.hosts.fullmatch(host.lower()):
                continue
            if candidate.headers and not _headers_match(candidate.headers, headers):
                continue
            found = _path_match(candidate, path)
            if found is not None:
                return found
        return None


def _candidate(route: Route, service: Service | None, path: str | None) -> _Candidate:
    prefix = pattern = None
    if path is not None and path.startswith("~"):
        pattern = criteria.compile_regex(path[1:])
    elif path is not None:
        prefix = criteria.normalize_prefix(path)
    return _Candidate(
        route,
        service,
        prefix,
        pattern,
        frozenset(route.methods or ()),
        _hosts_pattern(route.hosts) if route.hosts else None,
        tuple(
            (
                name.lower(),
                frozenset(value.lower() for value in values),
                _header_regex(values),
            )
            for name, values in (route.headers or {}).items()
        ),
    )


def _precedence(candidate: _Candidate) -> tuple[Any, ...]:
    route = candidate.route
    kinds = (route.hosts, route.headers, route.paths, route.methods)
    return (
        -sum(1 for kind in kinds if kind),
        *(not kind for kind in kinds),
        any("*" in host for host in route.hosts or ()),
        -min(len(route.headers or ()), 255),
        candidate.pattern is None,
        -route.regex_priority if candidate.pattern else 0,
        -len(candidate.prefix or ""),
        route.created_at or 0,
    )


def _hosts_pattern(hosts: Iterable[str]) -> re.Pattern[str]:
    """One pattern for all hosts; a host without a port matches any port."""
    patterns = []
    for host in hosts:
        name, port = criteria.split_port(host.lower())
        pattern = re.escape(name).replace(r"\*", "[^:]+")
        patterns.append(pattern + (f":{port}" if port else r"(?::\d+)?"))
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def _header_regex(values: Sequence[str]) -> re.Pattern[str] | None:
    """A header's regex, over its lower-cased value, if it has one."""
    if not criteria.is_regex_value(values):
        return None
    return criteria.compile_regex(values[0][2:])


def _headers_match(
    wanted: Iterable[tuple[str, frozenset[str], re.Pattern[str] | None]],
    headers: Headers | Mapping[str, str],
) -> bool:
    for name, values, pattern in wanted:
        found = [v.lower() for n, v in headers.items() if n.lower() == name]
        if not any(pattern.search(v) if pattern else v in values for v in found):
            return False
    return True


def _path_match(candidate: _Candidate, path: str) -> Match | None:
    prefix, captures = candidate.prefix, {}
    if candidate.pattern is not None:
        found = candidate.pattern.match(path)
        if found is None:
            return None
        prefix = found.group()
        captures = {k: v for k, v in found.groupdict().items() if v is not None}
    elif prefix is None:
        prefix = ""
    elif not path.startswith(prefix):
        return None
    return Match(
        candidate.route, candidate.service, prefix, path[len(prefix) :], captures
    )


def upstream_path(match: Match, path: str) -> str:
    """Join the service's path and the request's, as Kong's `path_handling: v0` does.

    Args:
        match: the route that matched.
        path: the request's normalised path.
    """
    base = (match.service.path if match.service else None) or "/"
    if not match.route.strip_path or not match.prefix:
        if path == "/":
            return base
        return base.removesuffix("/") + path
    rest = _without_dots(match.rest)
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
