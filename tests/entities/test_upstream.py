from __future__ import annotations

from typing import Any

import pytest

from kongai.entities import Target, Upstream
from kongai.errors import ConfigError
from kongai.schema import load

Problems = list[tuple[str, str]]


def problems(kind: type[Target] | type[Upstream], data: dict[str, Any]) -> Problems:
    try:
        load(kind, data)
    except ConfigError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("127.0.0.1", ("127.0.0.1", 8000)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("api.example", ("api.example", 8000)),
        ("api_1.example:443", ("api_1.example", 443)),
        ("[::1]", ("::1", 8000)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 8000)),
        ("fe80::1:80", ("fe80::1:80", 8000)),
    ],
)
def test_a_target_is_an_address_with_a_port(
    target: str, address: tuple[str, int]
) -> None:
    assert problems(Target, {"target": target}) == []
    assert Target(target=target).address == address


@pytest.mark.parametrize(
    "target",
    ["h:99999", "a b", "a/b", "h:x", "[::1", "::1]", "[127.0.0.1]", "h:123456"],
)
def test_what_is_no_address_is_no_target(target: str) -> None:
    text = f"Invalid target ('{target}'); not a valid hostname or ip address"
    assert problems(Target, {"target": target}) == [("target", text)]


WEIGHT = "value should be between 0 and 65535"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, [("target", "required field missing")]),
        ({"target": "h", "weight": -1}, [("weight", WEIGHT)]),
        ({"target": "h", "weight": 65536}, [("weight", WEIGHT)]),
        ({"target": "h", "weight": "5"}, [("weight", "expected an integer")]),
        ({"target": "h", "failover": True}, [("failover", "unknown field")]),
    ],
)
def test_what_else_a_target_can_get_wrong(
    data: dict[str, Any], expected: Problems
) -> None:
    assert problems(Target, data) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("u:80", "no port allowed"),
        ("127.0.0.1", "no ip addresses allowed"),
        ("[::1]", "no ip addresses allowed"),
        ("a b", "must be a valid hostname"),
    ],
)
def test_an_upstream_has_a_name_like_a_hosts(name: str, reason: str) -> None:
    text = f"Invalid name ('{name}'); {reason}"
    assert problems(Upstream, {"name": name}) == [("name", text)]


ON = "failed conditional validation given value of field 'hash_on'"
FALLBACK = "failed conditional validation given value of field 'hash_fallback'"
MISSING = "required field missing"
NONE = "expected one of: none"
NO_IP = f"{NONE}, consumer, header, cookie, path, query_arg, uri_capture"
SAME = (
    "values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"
)
ONLY = "allowed characters are A-Z, a-z, 0-9, '_', and '-'"
BAD_COOKIE = f"bad cookie name 'a\r\nb: c', {ONLY}"
BAD_PATH = (
    "invalid path: '/\n' (characters outside of the reserved list of RFC 3986 found)"
)
BAD_NAME = "bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def by_headers(first: str, second: str) -> dict[str, str]:
    return {
        "hash_on": "header",
        "hash_on_header": first,
        "hash_fallback": "header",
        "hash_fallback_header": second,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(
            ({"hash_on": kind}, [("", ON), (f"hash_on_{kind}", MISSING)])
            for kind in ("cookie", "header", "query_arg", "uri_capture")
        ),
        (
            {"hash_on": "ip", "hash_fallback": "cookie"},
            [("", FALLBACK), ("hash_on_cookie", MISSING)],
        ),
        (
            {"hash_on": "ip", "hash_fallback": "ip"},
            [("", ON), ("hash_fallback", NO_IP)],
        ),
        ({"hash_fallback": "ip"}, [("", ON), ("hash_fallback", NONE)]),
        (by_headers("x", "x"), [("", SAME)]),
        (by_headers("x", "y"), []),
        ({"hash_on_header": "a b"}, [("hash_on_header", BAD_NAME)]),
        (
            {"hash_on_cookie_path": "x"},
            [("hash_on_cookie_path", "should start with: /")],
        ),
        ({"hash_on_cookie": "a\r\nb: c"}, [("hash_on_cookie", BAD_COOKIE)]),
        ({"hash_on_cookie_path": "/\n"}, [("hash_on_cookie_path", BAD_PATH)]),
        ({"host_header": "a b"}, [("host_header", "invalid hostname: a b")]),
        ({"host_header": "a:80"}, []),
        ({"slots": 9}, [("slots", "value should be between 10 and 65536")]),
    ],
)
def test_what_an_upstream_can_get_wrong(
    fields: dict[str, Any], expected: Problems
) -> None:
    assert problems(Upstream, {"name": "u", **fields}) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_srv_name", True),
        ("client_certificate", {"id": "x"}),
        ("algorithm", "latency"),
    ],
)
def test_what_would_be_without_effect_is_refused_by_name(
    field: str, value: object
) -> None:
    found = problems(Upstream, {"name": "u", field: value})
    assert [path for path, _ in found] == [field]


@pytest.mark.parametrize(
    "path",
    [
        "active.healthy.interval",
        "active.unhealthy.interval",
        "passive.healthy.successes",
        "passive.unhealthy.http_failures",
        "passive.unhealthy.tcp_failures",
        "passive.unhealthy.timeouts",
    ],
)
def test_health_checks_are_refused_where_they_would_be_on(path: str) -> None:
    kind, side, field = path.split(".")
    checks = {kind: {side: {field: 1}}}
    ((found, text),) = problems(Upstream, {"name": "u", "healthchecks": checks})
    assert found == f"healthchecks.{path}"
    assert "not available" in text


def test_a_dump_with_every_check_off_is_accepted() -> None:
    off = {"interval": 0, "successes": 0, "http_statuses": [200, 302]}
    checks = {"threshold": 0, "active": {"healthy": off, "type": "http", "timeout": 1}}
    assert problems(Upstream, {"name": "u", "healthchecks": checks}) == []
