"""What the router chooses from: each route with one of its paths, ready to be tried.

The order is that of Kong's `traditional` router (kong.router.traditional): a route that
uses more kinds of criteria comes first, and of as many kinds the one with hosts, then
with headers, paths, methods, SNIs. Candidates of the same kinds make a category, and
stand there by rank: a wildcard host with a port before plain hosts before other
wildcards; a regex path before any prefix; more header names; the higher
`regex_priority`; the longer prefix; the older route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kongai import criteria
from kongai.entities import Route, Service


class Asked(NamedTuple):
    """What of a request a route can ask for."""

    method: str
    host: str
    """The Host header as it came."""
    names: tuple[str, str]
    """The host without its port, and with one: the scheme's where it has none."""
    path: str
    """In the spelling that a regex sees (`criteria.decoded`)."""
    headers: Mapping[str, Sequence[str]]
    """Values in lower case, by names in lower case."""
    sni: str | None
    """The name of the TLS handshake; None for plain HTTP."""


class Header(NamedTuple):
    """A header that a route asks for."""

    name: str
    values: frozenset[str]
    pattern: re.Pattern[str] | None

    def fits(self, given: Sequence[str]) -> bool:
        """Whether one of a request's values is among the wanted ones."""
        return any(
            value in self.values or (self.pattern and self.pattern.search(value))
            for value in given
        )


class Candidate(NamedTuple):
    """One route with one of its paths."""

    route: Route
    service: Service | None
    path: str | None
    """The path as written; None for a route without."""
    prefix: str | None
    pattern: re.Pattern[str] | None
    methods: frozenset[str]
    hosts: frozenset[str]
    wildcards: tuple[tuple[str, re.Pattern[str]], ...]
    headers: tuple[Header, ...]
    snis: frozenset[str]

    @property
    def hosts_as_written(self) -> tuple[str, ...]:
        """Plain hosts and wildcards."""
        return (*self.hosts, *(host for host, _ in self.wildcards))

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Which kinds of criteria it uses: hosts, headers, paths, methods, SNIs."""
        hosts = bool(self.hosts or self.wildcards)
        path = self.path is not None
        return hosts, bool(self.headers), path, bool(self.methods), bool(self.snis)

    @property
    def text(self) -> str | None:
        """What the path compares with: a prefix in its spelling, or a regex's text."""
        return self.path[1:] if self.pattern and self.path else self.prefix

    def objection(self, asked: Asked) -> str | None:
        """Why the request does not match; None if it does."""
        if (self.hosts or self.wildcards) and not self._host_fits(asked):
            return f"no host fits {asked.host!r}"
        for header in self.headers:
            given = asked.headers.get(header.name, ())
            if not header.fits(given):
                lack = "has another value" if given else "is not there"
                return f"header {header.name} {lack}"
        if self.path is not None and not self.path_fits(asked.path):
            return f"path {self.path} does not fit"
        if self.methods and asked.method not in self.methods:
            return (
                f"method {asked.method} is not one of {', '.join(sorted(self.methods))}"
            )
        if self.snis and asked.sni is not None and asked.sni not in self.snis:
            return f"no SNI fits {asked.sni!r}"
        return None

    def path_fits(self, path: str) -> bool:
        """Whether a path, in a regex's spelling, fits."""
        if self.pattern is not None:
            return self.pattern.match(path) is not None
        return self.prefix is None or path.startswith(self.prefix)

    def _host_fits(self, asked: Asked) -> bool:
        name, with_port = asked.names
        return (
            asked.host in self.hosts
            or name in self.hosts
            or any(pattern.match(with_port) for _, pattern in self.wildcards)
        )


def candidate(route: Route, service: Service | None, path: str | None) -> Candidate:
    """Make a candidate of a route and one of its paths."""
    prefix = pattern = None
    if path is not None and path.startswith("~"):
        pattern = criteria.compile_path_regex(path[1:])
    elif path is not None:
        prefix = criteria.decoded(criteria.normalize_prefix(path))
    hosts = route.hosts or ()
    return Candidate(
        route,
        service,
        path,
        prefix,
        pattern,
        frozenset(route.methods or ()),
        frozenset(host for host in hosts if "*" not in host),
        tuple((host, _wildcard(host)) for host in hosts if "*" in host),
        tuple(_header(name, given) for name, given in (route.headers or {}).items()),
        frozenset(sni.removesuffix(".") for sni in route.snis or ()),
    )


def rank(found: Candidate) -> tuple[float, ...]:
    """A key that sorts candidates of one category as Kong does."""
    route, regex = found.route, found.pattern is not None
    return (
        not any(_has_port(host) for host, _ in found.wildcards),
        bool(found.wildcards),
        not regex,
        -min(len(found.headers), 255),
        -route.regex_priority if regex else 0,
        0 if regex else -len((found.path or "").encode()),
        float("inf") if route.created_at is None else route.created_at,
    )


def why_later(later: Candidate, first: Candidate) -> str:
    """Why of two candidates that both match, one has its turn after the other."""
    if later.kinds != first.kinds:
        return f"a route by {_by(later)} comes after one by {_by(first)}"
    ranks = zip(_RANKED, rank(later), rank(first), strict=True)
    return next(
        (reason for reason, mine, its in ranks if mine > its), "it has its turn later"
    )


def _by(found: Candidate) -> str:
    kinds = zip(_KINDS, found.kinds, strict=True)
    return " and ".join(kind for kind, used in kinds if used) or "nothing"


_KINDS = ("hosts", "headers", "paths", "methods", "snis")
_RANKED = (
    "its host is no wildcard with a port",
    "its host has a wildcard",
    "its path is no regular expression",
    "it asks for fewer headers",
    "its regex_priority is lower",
    "its path is shorter",
    "it is younger",
)
"""What it means for a candidate that its rank is higher, place by place."""


def asked(
    method: str,
    host: str,
    path: str,
    headers: Iterable[tuple[str, str]],
    sni: str | None,
) -> Asked:
    """A request as candidates look at it.

    Args:
        method, host, sni: as for `Router.match`.
        path: normalised (`criteria.normalize`).
        headers: names and values as they came.
    """
    gathered: dict[str, list[str]] = {}
    for name, value in headers:
        gathered.setdefault(name.lower(), []).append(value.lower())
    names = _names(host, "80" if sni is None else "443")
    return Asked(method, host, names, criteria.decoded(path), gathered, sni)


def _names(host: str, default_port: str) -> tuple[str, str]:
    """A Host without its port and with one, as Kong takes it apart."""
    name, port = criteria.split_port(host)
    if port:
        return name, host
    if host.endswith(":") and host.count(":") == 1:
        host = host[:-1]
    elif ":" in host and not host.endswith("]"):
        # Not a port, and no name either: no wildcard may fit it.
        return host, f"[{host}]:{default_port}"
    return host, f"{host}:{default_port}"


def _wildcard(host: str) -> re.Pattern[str]:
    """A wildcard's pattern, for a host with its port; without one it fits any port."""
    pattern = re.escape(host).replace(r"\*", ".+")
    return re.compile(pattern + ("$" if _has_port(host) else r"(?::[0-9]+)?$"))


def _has_port(host: str) -> bool:
    return criteria.split_port(host)[1] is not None


def _header(name: str, values: Sequence[str]) -> Header:
    """A header to ask for; a regex looks at the value in lower case."""
    pattern = None
    if criteria.is_regex_value(values):
        pattern = criteria.compile_regex(values[0][2:])
    return Header(name.lower(), frozenset(v.lower() for v in values), pattern)
