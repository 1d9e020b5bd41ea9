"""Upstreams: several targets under one name, among which requests are shared out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kongai import criteria
from kongai.entities.types import NOT_HERE, Tags, Timestamp

DEFAULT_TARGET_PORT = 8000
"""The port of a target that names none, as in Kong."""

_NO_CHECKS = "health checks are not available in this version of kongai; leave it at 0"
_CRITERIA = ("consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture")
_NAMED = ("header", "query_arg", "uri_capture")
"""What a request may have several of, so that hashing asks which one."""

_HashOn = Literal[
    "none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"
]
_Path = Annotated[str, Meta(pattern=r"^/", description="should start with: /")]
_Statuses = Sequence[Annotated[int, Meta(ge=100, le=999)]]
_Counter = Annotated[int, Meta(ge=0, le=255)]
_Seconds = Annotated[float, Meta(ge=0, le=65535)]
_CheckType = Literal["tcp", "http", "https", "grpc", "grpcs"]


_Algorithm = Annotated[
    Literal["consistent-hashing", "least-connections", "round-robin"],
    Meta(
        extra={
            "kong": (
                *("consistent-hashing", "least-connections", "round-robin"),
                "latency",
            )
        }
    ),
]


class _Healthy(msgspec.Struct, frozen=True, kw_only=True):
    interval: _Seconds = 0
    http_statuses: _Statuses = (200, 302)
    successes: _Counter = 0


class _Unhealthy(msgspec.Struct, frozen=True, kw_only=True):
    interval: _Seconds = 0
    http_statuses: _Statuses = (429, 404, 500, 501, 502, 503, 504, 505)
    tcp_failures: _Counter = 0
    timeouts: _Counter = 0
    http_failures: _Counter = 0


class _Active(msgspec.Struct, frozen=True, kw_only=True):
    type: _CheckType = "http"
    timeout: _Seconds = 1
    concurrency: Annotated[int, Meta(ge=1, le=2**31)] = 10
    http_path: _Path = "/"
    https_sni: str | None = None
    https_verify_certificate: bool = True
    headers: dict[str, Sequence[str]] | None = None
    healthy: _Healthy = _Healthy()
    unhealthy: _Unhealthy = _Unhealthy()


class _PassiveHealthy(msgspec.Struct, frozen=True, kw_only=True):
    http_statuses: _Statuses = (
        *(200, 201, 202, 203, 204, 205, 206, 207, 208, 226),
        *(300, 301, 302, 303, 304, 305, 306, 307, 308),
    )
    successes: _Counter = 0


class _PassiveUnhealthy(msgspec.Struct, frozen=True, kw_only=True):
    http_statuses: _Statuses = (429, 500, 503)
    tcp_failures: _Counter = 0
    timeouts: _Counter = 0
    http_failures: _Counter = 0


class _Passive(msgspec.Struct, frozen=True, kw_only=True):
    type: _CheckType = "http"
    healthy: _PassiveHealthy = _PassiveHealthy()
    unhealthy: _PassiveUnhealthy = _PassiveUnhealthy()


class HealthChecks(msgspec.Struct, frozen=True, kw_only=True):
    """Kong's settings of health checks, which kongai takes only when they are off."""

    threshold: Annotated[float, Meta(ge=0, le=100)] = 0
    active: _Active = _Active()
    passive: _Passive = _Passive()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Those that are on: pairs of a field's path and the text."""
        if self.threshold:
            yield "threshold", _NO_CHECKS
        for path, part, fields in (
            ("active.healthy", self.active.healthy, ("interval",)),
            ("active.unhealthy", self.active.unhealthy, ("interval",)),
            ("passive.healthy", self.passive.healthy, ("successes",)),
            (
                "passive.unhealthy",
                self.passive.unhealthy,
                ("tcp_failures", "timeouts", "http_failures"),
            ),
        ):
            for field in fields:
                if getattr(part, field):
                    yield f"{path}.{field}", _NO_CHECKS


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an upstream.

    Args:
        target: a host's name or address, with a port if it is not 8000.
        weight: its share of the requests, in proportion to the other targets'; with 0
            it gets none.
    """

    target: str
    weight: Annotated[int, Meta(ge=0, le=65535)] = 100
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host, without the brackets of an IPv6 address, and the port."""
        if self.target.count(":") > 1 and not self.target.startswith("["):
            return self.target, DEFAULT_TARGET_PORT
        name, port = criteria.split_port(self.target)
        return name.strip("[]"), int(port) if port else DEFAULT_TARGET_PORT

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        if not _is_target(self.target):
            # What precedes an @ is a password, if anything.
            shown = self.target.rpartition("@")[2]
            text = f"Invalid target ('{shown}'); not a valid hostname or ip address"
            yield "target", text


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Several targets under one name. The fields are those of Kong's Upstream entity.

    Args:
        name: a service whose host this is sends its requests to the targets.
        algorithm: how they are shared out.
        hash_on, hash_fallback: for `consistent-hashing`, what of a request decides; and
            what does for one that does not have that.
        host_header: the Host header for all targets; null for the target's own name.
        targets: where the requests go.
    """

    NOT_HERE: ClassVar[dict[str, str]] = {
        "client_certificate": f"{NOT_HERE}; give the service one",
    }

    name: str
    algorithm: _Algorithm = "round-robin"
    hash_on: _HashOn = "none"
    hash_fallback: _HashOn = "none"
    hash_on_header: str | None = None
    hash_fallback_header: str | None = None
    hash_on_cookie: str | None = None
    hash_on_cookie_path: _Path = "/"
    hash_on_query_arg: str | None = None
    hash_fallback_query_arg: str | None = None
    hash_on_uri_capture: str | None = None
    hash_fallback_uri_capture: str | None = None
    slots: Annotated[int, Meta(ge=10, le=65536)] = 10000
    """No effect: consistent hashing needs no table here."""
    healthchecks: HealthChecks = HealthChecks()
    host_header: str | None = None
    use_srv_name: bool = False
    """Not available, so that it has to be false."""
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    targets: Sequence[Target] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        if reason := _name_problem(self.name):
            yield "name", f"Invalid name ('{self.name}'); {reason}"
        if self.use_srv_name:
            yield "use_srv_name", NOT_HERE
        if self.host_header is not None:
            for text in criteria.check_route_host(self.host_header):
                yield "host_header", text
        for field in ("hash_on_header", "hash_fallback_header"):
            if header := getattr(self, field):
                for text in criteria.check_header_name(header):
                    yield field, text
        if cookie := self.hash_on_cookie:
            for text in criteria.check_cookie_name(cookie):
                yield "hash_on_cookie", text
        for text in criteria.check_service_path(self.hash_on_cookie_path):
            yield "hash_on_cookie_path", text
        yield from self._hashing_problems()

    def _hashing_problems(self) -> Iterator[tuple[str, str]]:
        for field in ("hash_on", "hash_fallback"):
            needed = self._needed_for(field)
            if needed is not None and getattr(self, needed) is None:
                yield "", _CONDITION.format(field)
                yield needed, "required field missing"
        allowed = _fallbacks(self.hash_on)
        if self.hash_fallback not in allowed:
            yield "", _CONDITION.format("hash_on")
            yield "hash_fallback", f"expected one of: {', '.join(allowed)}"
        for name in _NAMED:
            on, fallback = f"hash_on_{name}", f"hash_fallback_{name}"
            given = getattr(self, on)
            if given is not None and given == getattr(self, fallback):
                text = f"values of these fields must be distinct: '{on}', '{fallback}'"
                yield "", text

    def _needed_for(self, field: str) -> str | None:
        """The field that says which header, cookie, ... hashing looks at."""
        kind = getattr(self, field)
        if kind == "cookie":
            return "hash_on_cookie"
        return f"{field}_{kind}" if kind in _NAMED else None


_CONDITION = "failed conditional validation given value of field '{}'"


def _fallbacks(hash_on: str) -> list[str]:
    """What may decide where `hash_on` does not; the same again only by another name."""
    if hash_on in ("none", "cookie"):
        return ["none"]
    return ["none", *(one for one in _CRITERIA if one in _NAMED or one != hash_on)]


def _name_problem(name: str) -> str | None:
    host, port = criteria.split_port(name)
    if criteria.is_address(name) or (port is not None and criteria.is_address(host)):
        return "no ip addresses allowed"
    if not criteria.is_host(host):
        return "must be a valid hostname"
    return None if port is None else "no port allowed"


def _is_target(target: str) -> bool:
    if criteria.is_address(target):
        return True
    host, port = criteria.split_port(target)
    in_range = port is None or (len(port) <= 5 and int(port) <= 65535)
    return in_range and criteria.is_host(host)


def algorithm_of(item: Mapping[str, Any]) -> dict[str, str]:
    """The algorithm of an upstream in a file, where `hash_on` says it, as in Kong.

    Args:
        item: the upstream as it was written.
    """
    hash_on = item.get("hash_on")
    if hash_on is None:
        return {}
    hashing = hash_on != "none"
    return {"algorithm": "consistent-hashing" if hashing else "round-robin"}
