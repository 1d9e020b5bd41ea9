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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from kongai import criteria

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

Name = Annotated[
    str,
    Meta(
        pattern=r"^[\w.\-~\u0080-\U0010ffff]+\Z",
        description="invalid value: only letters, digits and . - _ ~ are allowed",
    ),
]
Milliseconds = Annotated[int, Meta(ge=1, le=2**31 - 2)]
Tags = Sequence[
    Annotated[
        str, Meta(pattern=r"^[^,/]+\Z", description="invalid tag: no ',' or '/' in it")
    ]
]
RoutePath = Annotated[
    str,
    Meta(
        pattern="^~?/",
        description=(
            "invalid value: should start with: / (fixed path) or ~/ (regex path)"
        ),
    ),
]

DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_HERE = "not available in this version of kongai"


class _URL(msgspec.Struct, frozen=True):
    """The one field of a service that may be given by position."""

    url: str | None = None


class Service(_URL, frozen=True, kw_only=True):
    """An upstream that routes lead to. The fields are those of Kong's Service entity.

    Args:
        url: shorthand for `protocol`, `host`, `port` and `path`.
        routes: the routes that lead here.
        plugins: plugins for all of these routes.
        retries: how many more tries after a first one that failed.
        connect_timeout, write_timeout, read_timeout: milliseconds; the last two are
            the gap between two successive operations, not a total.
        tls_verify: false accepts any certificate; null (the default) verifies.

    Raises:
        ValueError: the `url` is not one.
    """

    NOT_HERE: ClassVar[dict[str, str]] = dict.fromkeys(
        ("ca_certificates", "client_certificate", "tls_verify_depth"), _NOT_HERE
    )

    name: Name | None = None
    protocol: Literal["http", "https"] = "http"
    host: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 80
    path: (
        Annotated[str, Meta(pattern=r"^/", description="should start with: /")] | None
    ) = None
    retries: Annotated[int, Meta(ge=0, le=32767)] = 5
    connect_timeout: Milliseconds = 60000
    write_timeout: Milliseconds = 60000
    read_timeout: Milliseconds = 60000
    enabled: bool = True
    tags: Tags | None = None
    tls_verify: bool | None = None
    id: str | None = None
    created_at: int | None = None
    updated_at: int | None = None
    routes: Sequence[Route] = ()
    plugins: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.url is not None:
            for field, value in url_parts(self.url).items():
                msgspec.structs.force_setattr(self, field, value)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the service: a field's path and Kong's text."""
        for text in criteria.check_service_host(self.host) if self.host else ():
            yield "host", text
        for text in criteria.check_service_path(self.path) if self.path else ():
            yield "path", text


def url_parts(url: str) -> dict[str, Any]:
    """Expand Kong's `url` shorthand.

    Raises:
        ValueError: there is no scheme or host, or the scheme is not http(s).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The reason would quote the URL.
        parts, port = urlsplit(""), None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("expected an http or https URL with a host")
    return {
        "protocol": parts.scheme,
        "host": parts.hostname,
        "port": port or DEFAULT_PORTS[parts.scheme],
        "path": parts.path or None,
    }


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests go to a service. The fields are those of Kong's Route entity.

    Args:
        paths: prefixes, or regular expressions written ``~/...``.
        hosts: host names, with at most one ``*`` as the first or last label.
        headers: header names, each with the values of which one must be there.
        strip_path: whether the matched prefix is left out of the upstream's path.
        plugins: plugins for this route alone.
    """

    NOT_HERE: ClassVar[dict[str, str]] = dict.fromkeys(
        ("destinations", "snis", "sources"), _NOT_HERE
    )

    name: Name | None = None
    protocols: Sequence[Literal["http", "https"]] = ("http", "https")
    methods: Sequence[Annotated[str, Meta(pattern="^[A-Z]+$")]] | None = None
    hosts: Sequence[str] | None = None
    paths: Sequence[RoutePath] | None = None
    headers: dict[str, Sequence[str]] | None = None
    strip_path: bool = True
    preserve_host: bool = False
    regex_priority: int = 0
    path_handling: Literal["v0"] = "v0"
    https_redirect_status_code: Literal[426, 301, 302, 307, 308] = 426
    request_buffering: bool = True
    response_buffering: bool = True
    tags: Tags | None = None
    id: str | None = None
    created_at: int | None = None
    updated_at: int | None = None
    plugins: Sequence[Any] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the route as a whole: a field's path and Kong's text."""
        if not (self.methods or self.hosts or self.headers or self.paths):
            protocol = "https" if "https" in self.protocols else "http"
            yield (
                "",
                "must set one of 'methods', 'hosts', 'headers', 'paths'"
                + (", 'snis'" if protocol == "https" else "")
                + f" when 'protocols' is '{protocol}'",
            )
        for index, path in enumerate(self.paths or ()):
            for text in criteria.check_route_path(path):
                yield f"paths.{index}", text
        for index, host in enumerate(self.hosts or ()):
            for text in criteria.check_route_host(host):
                yield f"hosts.{index}", text
        for name, values in (self.headers or {}).items():
            for text in criteria.check_route_header(name, values):
                yield "headers", text


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
