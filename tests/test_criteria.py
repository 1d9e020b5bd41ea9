from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from kongai import criteria
from kongai.criteria import normalize, split_port

ALLOWED = "allowed characters are A-Z, a-z, 0-9, '_', and '-'"
NO_HOST = (
    "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
)
OUTSIDE = "(characters outside of the reserved list of RFC 3986 found)"


@pytest.mark.parametrize(
    ("path", "spelling"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a.b/c..d/...", "/a.b/c..d/..."),
        ("/%61%7A%41%5a%30%39", "/azAZ09"),
        ("/%2d%2E%5f%7e", "/-._~"),
        ("/%2f%3a%40%25", "/%2F%3A%40%25"),
        ("/%c3%a9%e2%82%ac", "/%C3%A9%E2%82%AC"),
        ("/\xc3\xa9", "/%C3%A9"),
        ('/a"<>\\^`{|} b', "/a%22%3C%3E%5C%5E%60%7B%7C%7D%20b"),
        ("/!$&'()*+,;=:@[]#", "/!$&'()*+,;=:@[]#"),
        ("/%00%0d%0a", "/%00%0D%0A"),
        ("/%", "/%"),
        ("/%2/%zz", "/%2/%zz"),
        ("/%25%32%65", "/%252e"),
        ("//", "/"),
        ("//a", "/a"),
        ("/a//b///c", "/a/b/c"),
        ("/a//", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../", "/a/"),
        ("/a/b/../../c", "/c"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/%2e%2e/a", "/a"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/..%2fb", "/a/..%2Fb"),
        ("/.a/..b", "/.a/..b"),
    ],
)
def test_paths_have_one_spelling(path: str, spelling: str) -> None:
    assert normalize(path) == spelling
    assert normalize(spelling) == spelling


@given(st.binary().map(lambda data: "/" + data.decode("latin-1")))
def test_a_spelling_stays_and_has_nothing_a_uri_cannot_hold(path: str) -> None:
    spelling = normalize(path)
    assert normalize(spelling) == spelling
    assert spelling.startswith("/")
    assert spelling.isascii()
    assert spelling.isprintable()
    assert " " not in spelling
    segments = spelling.split("/")
    assert not {".", ".."} & set(segments)
    assert "" not in segments[1:-1]


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("a.example", "a.example", None),
        ("a.example:80", "a.example", "80"),
        ("*.example:80", "*.example", "80"),
        ("[::1]", "[::1]", None),
        ("[::1]:80", "[::1]", "80"),
        ("::1", "::1", None),
        ("a:b", "a:b", None),
        ("a:", "a:", None),
    ],
)
def test_a_host_and_its_port(host: str, name: str, port: str | None) -> None:
    assert split_port(host) == (name, port)


@pytest.mark.parametrize(
    ("path", "problems"),
    [
        *((p, []) for p in ("/", "/a", "/a/", "/a b", "/é", "/~a", '/a"b', "/a%2Fb")),
        *((p, []) for p in ("/a*", "/a+b,c", "/a@b!$&()='", "/a%25", "/a%3F")),
        *((p, []) for p in ("~/", "~/a$", r"~/\d+", "~/(?<x>a)/b", "~/a b", "~/%")),
        ("//", ["must not have empty segments"]),
        ("~/a//b", ["must not have empty segments"]),
        ("/a%2", ["invalid url-encoded value: '%2'"]),
        ("/a%", ["invalid url-encoded value: '%'"]),
        ("/a%zzb", ["invalid url-encoded value: '%zz'"]),
        ("/a%20b", ["non-normalized path, consider use '/a b' instead"]),
        ("/a%2fb", ["non-normalized path, consider use '/a%2Fb' instead"]),
        ("/%C3%A9", ["non-normalized path, consider use '/é' instead"]),
        ("/%41", ["non-normalized path, consider use '/A' instead"]),
        ("/a%7Eb", ["non-normalized path, consider use '/a~b' instead"]),
        ("/a/../b", ["non-normalized path, consider use '/b' instead"]),
        ("/a/.", ["non-normalized path, consider use '/a/' instead"]),
        ("/%2e%2e/x", ["non-normalized path, consider use '/x' instead"]),
    ],
)
def test_paths_of_routes(path: str, problems: list[str]) -> None:
    assert list(criteria.check_route_path(path)) == problems


@pytest.mark.parametrize(
    "pattern",
    ["/(", "/[", "/*+?**", "/(?<n>x)(?<n>y)", "/(?<1>x)", r"/\p{L}", "/a{99999999999}"]
    + ["/[[:alpha:]]", "/" + "(" * 10_000 + ")" * 10_000],
)
def test_a_regex_that_python_reads_not_at_all_or_otherwise_is_refused(
    pattern: str,
) -> None:
    (problem,) = criteria.check_route_path(f"~{pattern}")
    assert problem.startswith(f"invalid regex: '{pattern}' (")


@pytest.mark.parametrize(
    ("host", "problems"),
    [
        *(
            (h, [])
            for h in ("a", "a.b", "*.a", "a.*", "*.a.b", "a:80", "a.*:80", "a:0")
        ),
        *((h, []) for h in ("1.2.3.4", "::1", "[::1]:80", "a.", "a_b.c-d")),
        *(
            (h, ["invalid wildcard: must be placed at leftmost or rightmost label"])
            for h in ("a*.b", "a.*.b", "*a.b", "*", "*.a.*", "**.a", "*.*")
        ),
        ("a:99999", ["invalid port number"]),
        ("a:" + "9" * 5000, ["invalid port number"]),
        ("a:x", ["invalid hostname: a:x"]),
        ("a b", ["invalid hostname: a b"]),
        ("a/b", ["invalid hostname: a/b"]),
        ("1.2.3", ["invalid hostname: 1.2.3"]),
        ("[::x]", ["invalid hostname: [::x]"]),
    ],
)
def test_hosts_of_routes(host: str, problems: list[str]) -> None:
    assert list(criteria.check_route_host(host)) == problems


@pytest.mark.parametrize(
    ("name", "values", "problems"),
    [
        ("x-Version_1", ("a",), []),
        ("x", ("~*^a$",), []),
        ("x", ("~*(", "not alone"), []),
        *((name, ("a",), [NO_HOST]) for name in ("host", "Host", "hOSt")),
        *(
            (name, ("a",), [f"bad header name '{name}', {ALLOWED}"])
            for name in ("x y", "x:", "", "é")
        ),
        (
            "x",
            ("~*(",),
            ["invalid regex: '(' (missing ), unterminated subpattern at position 0)"],
        ),
    ],
)
def test_headers_of_routes(
    name: str, values: Sequence[str], problems: list[str]
) -> None:
    assert list(criteria.check_route_header(name, values)) == problems


@pytest.mark.parametrize(
    ("host", "problems"),
    [
        *((h, []) for h in ("example.com", "h", "h_1", "-a", "a.", "a" * 300)),
        *((h, []) for h in ("1.2.3.4", "::1", "fe80::1")),
        ("a:80", ["must not have a port"]),
        ("1.2.3.4:80", ["must not have a port"]),
        *(
            (host, [f"invalid value: {host}"])
            for host in ("http://x", "a/", "*.x", "1.2.3", "1.2.3.4.5", "a b", "[::1]")
        ),
    ],
)
def test_hosts_of_services(host: str, problems: list[str]) -> None:
    assert list(criteria.check_service_host(host)) == problems


@pytest.mark.parametrize(
    ("path", "problems"),
    [
        *((p, []) for p in ("/", "/a/b/", "/a:b@c!$&'()+,=~-._*;", "/%20%2f", "/../a")),
        ("//", ["must not have empty segments"]),
        ("/a//b", ["must not have empty segments"]),
        ("/a%2", ["invalid url-encoded value: '%2'"]),
        ("/a%zz", ["invalid url-encoded value: '%zz'"]),
        *(
            (path, [f"invalid path: '{path}' {OUTSIDE}"])
            for path in ("/a?b", "/a#b", "/a{b}", "/a|b", "/a b", "/é", "/a\n")
        ),
    ],
)
def test_paths_of_services(path: str, problems: list[str]) -> None:
    assert list(criteria.check_service_path(path)) == problems
