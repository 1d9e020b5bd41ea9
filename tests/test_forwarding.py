from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai import __version__
from kongai.entities import Route
from kongai.exchange import Exchange
from kongai.forwarding import (
    SERVER,
    VIA,
    framed_body,
    host_header,
    request_headers as upstream_headers,
    response_headers,
)
from kongai.incoming import client_headers, raw_target
from kongai.router import Router

Pairs = Sequence[tuple[str, str]]
ADDED = [("Via", VIA), ("Server", SERVER)]
"""What every answer gets, if its upstream does not say it."""


def exchange(
    headers: Pairs = (),
    *,
    target: str = "/a/x?y=1",
    body: bytes = b"",
    route: Route | None = None,
    **environ: Any,
) -> Exchange:
    """A request of 192.0.2.1 for front.example, with exactly these headers."""
    sent = [("Host", "front.example"), *headers]
    made = EnvironBuilder(path="/", headers=sent, method="POST").get_environ()
    made |= {
        "REQUEST_URI": target,
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_PORT": "8000",
        "kongai.headers": sent,
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    incoming = Request(made)
    found = Exchange(
        incoming, target=raw_target(made), headers=client_headers(incoming)
    )
    found.path = found.target.partition("?")[0]
    if route is not None:
        router = Router([(route, None)])
        found.match = router.match("POST", found.host, found.path, found.headers)
        assert found.match is not None
    return found


def upstream(found: Exchange) -> list[tuple[str, str]]:
    return upstream_headers(found, found.headers, "api.example")


def values(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for n, value in headers if n.lower() == name.lower()]


def test_the_head_of_a_request() -> None:
    found = exchange(
        [
            ("x-api-key", "k"),
            ("Authorization", "Bearer k"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a,b"),
            ("User-Agent", "claude-cli/2 (external, cli)"),
            ("X-STAINLESS-Lang", "js"),
            ("cookie", "a=1"),
            ("Cookie", "b=2"),
            ("Accept-Encoding", "gzip, br"),
            ("Empty", ""),
        ],
        route=Route(paths=("/a",)),
    )
    assert upstream(found) == [
        ("Host", "api.example"),
        ("Connection", "keep-alive"),
        ("x-api-key", "k"),
        ("Authorization", "Bearer k"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a,b"),
        ("User-Agent", "claude-cli/2 (external, cli)"),
        ("X-STAINLESS-Lang", "js"),
        ("cookie", "a=1"),
        ("Cookie", "b=2"),
        ("Accept-Encoding", "gzip, br"),
        ("Empty", ""),
        ("Via", f"1.1 kongai/{__version__}"),
        ("X-Real-IP", "192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "front.example"),
        ("X-Forwarded-Port", "8000"),
        ("X-Forwarded-Path", "/a/x"),
        ("X-Forwarded-Prefix", "/a"),
        ("X-Kong-Request-Id", found.id),
    ]


HOP_BY_HOP = [
    *("Keep-Alive", "Proxy", "Proxy-Authenticate", "Proxy-Authorization"),
    *("Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade"),
]


@pytest.mark.parametrize("name", [*HOP_BY_HOP, "TE", "Expect", "kEEP-aLIVE"])
def test_hop_by_hop_fields_of_a_request_stop_here(name: str) -> None:
    assert values(upstream(exchange([(name, "x")])), name) == []


@pytest.mark.parametrize(
    "connection",
    [
        ["X-Drop, x-also"],
        ["close", "x-drop ,\tX-ALSO"],
        ["keep-alive, x-drop,, x-also,"],
    ],
)
def test_fields_that_connection_names_stop_here(connection: list[str]) -> None:
    headers = [
        *(("Connection", value) for value in connection),
        *(("X-Drop", "1"), ("x-also", "2"), ("x-drop", "3"), ("X-Kept", "4")),
    ]
    found = upstream(exchange(headers))
    assert values(found, "connection") == ["keep-alive"]
    assert values(found, "x-drop") + values(found, "x-also") == []
    assert values(found, "x-kept") == ["4"]
    answer = response_headers(headers)
    assert list(answer) == [("X-Kept", "4"), *ADDED]


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("trailers", ["trailers"]),
        ("gzip, Trailers", ["trailers"]),
        ("gzip", []),
    ],
)
def test_of_te_only_trailers_pass(sent: str, passed: list[str]) -> None:
    found = upstream(exchange([("TE", sent), ("Connection", "TE")]))
    assert values(found, "te") == passed


@pytest.mark.parametrize(
    "name",
    [
        *("X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"),
        *("X-Forwarded-Path", "X-Forwarded-Prefix", "X-Kong-Request-Id"),
    ],
)
def test_a_client_does_not_say_where_it_comes_from(name: str) -> None:
    found = upstream(exchange([(name.lower(), "evil")], route=Route(paths=("/a",))))
    (value,) = values(found, name)
    assert value != "evil"


def test_a_client_goes_on_the_list_of_those_who_forwarded() -> None:
    found = upstream(exchange([("X-Forwarded-For", "198.51.100.7, 203.0.113.9")]))
    assert values(found, "x-forwarded-for") == ["198.51.100.7, 203.0.113.9, 192.0.2.1"]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["198.51.100.7", "203.0.113.9"], "198.51.100.7, 203.0.113.9, 192.0.2.1"),
        (["a, b", "c"], "a, b, c, 192.0.2.1"),
        (["", "a", ""], "a, 192.0.2.1"),
        ([""], "192.0.2.1"),
    ],
)
def test_a_list_in_several_fields_is_one(given: list[str], passed: str) -> None:
    found = upstream(exchange([("X-Forwarded-For", value) for value in given]))
    assert values(found, "x-forwarded-for") == [passed]


@pytest.mark.parametrize(
    ("sent", "protocol", "via"),
    [
        ([], "HTTP/1.1", f"1.1 {SERVER}"),
        ([], "HTTP/1.0", f"1.0 {SERVER}"),
        (["1.1 front"], "HTTP/1.1", f"1.1 front, 1.1 {SERVER}"),
        (["1.1 a", "1.0 b"], "HTTP/1.1", f"1.1 a, 1.0 b, 1.1 {SERVER}"),
    ],
)
def test_every_gateway_on_the_way_is_named(
    sent: list[str], protocol: str, via: str
) -> None:
    headers = [("Via", value) for value in sent]
    found = exchange(headers, SERVER_PROTOCOL=protocol)
    assert values(upstream(found), "via") == [via]


def test_an_answer_names_every_gateway_on_its_way() -> None:
    assert values(list(response_headers([])), "via") == [VIA]
    several = [("via", "1.1 a"), ("Via", "1.0 b")]
    named = values(list(response_headers(several)), "via")
    assert named == [f"1.1 a, 1.0 b, {VIA}"]


def test_an_answer_has_our_fields_in_the_place_of_the_upstreams() -> None:
    upstream = [("x-id", "theirs"), ("server", "nginx"), ("X-Kept", "1")]
    ours = [("X-Id", "ours"), ("X-New", "2")]
    assert list(response_headers(upstream, *ours)) == [
        ("X-Id", "ours"),
        ("server", "nginx"),
        ("X-Kept", "1"),
        ("X-New", "2"),
        ("Via", VIA),
    ]
    assert list(response_headers([])) == [("Via", VIA), ("Server", SERVER)]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("front.example:8000", "front.example"),
        ("[::1]:8000", "[::1]"),
        ("[::1]", "[::1]"),
        ("front.example", "front.example"),
    ],
)
def test_the_host_is_forwarded_without_its_port(host: str, name: str) -> None:
    found = exchange()
    found.headers["Host"] = host
    assert values(upstream(found), "x-forwarded-host") == [name]


@pytest.mark.parametrize(
    ("route", "target", "prefix"),
    [
        (Route(paths=("/a",)), "/a/x", ["/a"]),
        (Route(paths=("/a",)), "/abc", ["/a"]),
        (Route(paths=(r"~/a/\d+",)), "/a/12/x", ["/a/12"]),
        (Route(paths=("/café",)), "/caf%C3%A9", ["/caf%C3%A9"]),
        (Route(paths=("/a",), strip_path=False), "/a/x", []),
        (Route(paths=("/",)), "/a/x", []),
        (Route(methods=("POST",)), "/a/x", []),
        (None, "/a/x", []),
    ],
)
def test_the_stripped_prefix_is_told(
    route: Route | None, target: str, prefix: list[str]
) -> None:
    found = upstream(exchange(target=target, route=route))
    assert values(found, "x-forwarded-prefix") == prefix


def test_the_path_is_forwarded_as_it_came_with_the_mount_point() -> None:
    found = exchange(target="/mnt/a%2fb/../x?y=1", SCRIPT_NAME="/mnt")
    assert values(upstream(found), "x-forwarded-path") == ["/mnt/a%2fb/../x"]
    found = exchange(target="/m%20n/x", SCRIPT_NAME="/m n")
    assert values(upstream(found), "x-forwarded-path") == ["/m%20n/x"]


@pytest.mark.parametrize(
    ("strip", "prefix"), [(True, ["/mnt/a"]), (False, ["/mnt"])], ids=["strip", "keep"]
)
def test_the_mount_point_is_left_out_of_the_path_and_so_part_of_the_prefix(
    strip: bool, prefix: list[str]
) -> None:
    route = Route(paths=["/a"], strip_path=strip)
    found = exchange(target="/mnt/a/x", route=route, SCRIPT_NAME="/mnt")
    assert values(upstream(found), "x-forwarded-prefix") == prefix


CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("framing", "environ", "wire", "sent"),
    [
        ([("Content-Length", "5")], {"CONTENT_LENGTH": "5"}, b"helloGET /", b"hello"),
        ([("Content-Length", "0")], {"CONTENT_LENGTH": "0"}, b"GET /", b""),
        ([CHUNKED], {"HTTP_TRANSFER_ENCODING": "chunked"}, b"hello", b"hello"),
        ([CHUNKED], {"HTTP_TRANSFER_ENCODING": "chunked"}, b"", b""),
        ([], {}, b"GET /", b""),
    ],
    ids=["length", "length of 0", "chunked", "chunked and empty", "no body"],
)
def test_a_body_that_was_not_read_is_framed_as_the_client_framed_it(
    framing: Pairs, environ: dict[str, Any], wire: bytes, sent: bytes
) -> None:
    found = exchange(framing, body=wire, **environ)
    head: list[tuple[str, str]] = []
    passed = framed_body(found, found.body, head)
    assert head == framing
    assert not isinstance(passed, bytes)
    assert b"".join(passed or ()) == sent


@pytest.mark.parametrize(
    ("headers", "body", "framing"),
    [
        ([("Content-Length", "5")], b"longer now", [("Content-Length", "10")]),
        ([("Transfer-Encoding", "chunked")], b"hello", [("Content-Length", "5")]),
        ([("Content-Length", "5")], b"", [("Content-Length", "0")]),
        ([("Transfer-Encoding", "chunked")], b"", []),
        ([], b"", []),
    ],
)
def test_a_body_that_was_read_is_sent_with_its_length(
    headers: Pairs, body: bytes, framing: Pairs
) -> None:
    found = exchange(headers)
    found.body = body
    head: list[tuple[str, str]] = []
    assert framed_body(found, found.body, head) == (body or None)
    assert head == framing


def test_the_clients_own_framing_is_not_passed_beside_ours() -> None:
    found = exchange([("content-length", "5"), ("transfer-encoding", "chunked")])
    head = upstream(found)
    assert values(head, "content-length") + values(head, "transfer-encoding") == []


def test_the_head_of_an_answer() -> None:
    head = [
        ("content-type", "text/event-stream"),
        ("request-id", "req_1"),
        ("retry-after", "7"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("Content-Length", "5"),
        ("content-encoding", "br"),
        ("X-Tab", "a\tb"),
        ("x-latin", "é"),
        ("Via", "1.1 google"),
    ]
    passed = list(response_headers(head))
    assert passed[: len(head) - 1] == head[:-1]
    assert passed[len(head) - 1 :] == [("Via", f"1.1 google, {VIA}"), ADDED[1]]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_fields_of_an_answer_stop_here(name: str) -> None:
    kept = [("X-Kept", "1")]
    assert list(response_headers([(name.lower(), "x"), *kept])) == [*kept, *ADDED]


@pytest.mark.parametrize(
    "name", ["X-Accel-Redirect", "x-accel-buffering", "X-Accel-Expires", "X-Pad"]
)
def test_what_an_upstream_tells_its_nginx_stops_here(name: str) -> None:
    kept = [("X-Accelerated", "1")]
    assert list(response_headers([(name, "/internal"), *kept])) == [*kept, *ADDED]


@pytest.mark.parametrize("bad", ["a\r\nset-cookie: b", "a\nb", "a\rb", "a\0b", "\x7f"])
def test_a_value_that_http_cannot_carry_is_dropped(bad: str) -> None:
    head = [("x-bad", bad), ("x-good", "1")]
    assert list(response_headers(head)) == [("x-good", "1"), *ADDED]


@pytest.mark.parametrize(
    ("scheme", "host", "port", "value"),
    [
        ("http", "h", 80, "h"),
        ("https", "h", 443, "h"),
        ("http", "h", 443, "h:443"),
        ("https", "h", 80, "h:80"),
        ("http", "::1", 80, "[::1]"),
        ("http", "::1", 81, "[::1]:81"),
    ],
)
def test_a_host_is_named_with_its_port_unless_it_is_the_schemes(
    scheme: str, host: str, port: int, value: str
) -> None:
    assert host_header(scheme, host, port) == value


SAID = [
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "public.example"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Path", "/public/a/x"),
    ("X-Forwarded-Prefix", "/public"),
]


@pytest.mark.parametrize("trusted", [False, True])
def test_a_trusted_peer_says_how_it_was_asked(trusted: bool) -> None:
    found = exchange(SAID, route=Route(paths=("/a",)))
    found.trusted = trusted
    own = ["http", "front.example", "8000", "/a/x", "/a"]
    sent = [values(upstream(found), name) for name, _ in SAID]
    assert sent == [[value] for value in ([v for _, v in SAID] if trusted else own)]


def test_a_trusted_peer_is_the_last_of_those_who_forwarded() -> None:
    found = exchange([("X-Forwarded-For", "198.51.100.1")])
    found.trusted, found.real_ip = True, "198.51.100.1"
    assert values(upstream(found), "X-Forwarded-For") == ["198.51.100.1, 192.0.2.1"]
    assert values(upstream(found), "X-Real-IP") == ["198.51.100.1"]
    alone = exchange([("X-Real-IP", "198.51.100.1")])
    alone.real_ip = "198.51.100.1"
    assert values(upstream(alone), "X-Forwarded-For") == ["198.51.100.1"]
