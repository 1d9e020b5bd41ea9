from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai.incoming import (
    ClientRequest,
    client_headers,
    content_length,
    objection,
    origin_form,
    query_arguments,
    query_without,
    raw_target,
    received_headers,
    scheme_of,
    tls_name,
)


def request(environ: dict[str, Any]) -> Request:
    return Request(EnvironBuilder("/", environ_overrides=environ).get_environ())


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({"REQUEST_URI": "/a/../b%2F?x=%2f"}, "/a/../b%2F?x=%2f"),
        ({"RAW_URI": "/a%2Fb"}, "/a%2Fb"),
        ({"REQUEST_URI": "/a", "RAW_URI": "/b"}, "/a"),
        ({"REQUEST_URI": "/a?"}, "/a?"),
        ({"REQUEST_URI": "http://b:1/x?y"}, "/x?y"),
        ({"REQUEST_URI": "https://b"}, "/"),
        ({"REQUEST_URI": "/x?y=http://b/z"}, "/x?y=http://b/z"),
        ({"REQUEST_URI": "/ai/x?y", "SCRIPT_NAME": "/ai"}, "/x?y"),
        ({"REQUEST_URI": "/ai", "SCRIPT_NAME": "/ai"}, "/"),
        ({"REQUEST_URI": "/ai?y", "SCRIPT_NAME": "/ai"}, "/?y"),
        ({"REQUEST_URI": "/a%20b/x", "SCRIPT_NAME": "/a b"}, "/x"),
        # The client wrote the mount's name in another way: only the rest is sure.
        (
            {"REQUEST_URI": "/%61i/x%2Fy", "SCRIPT_NAME": "/ai", "PATH_INFO": "/x/y"},
            "/x/y",
        ),
        (
            {"REQUEST_URI": "/aigle/x", "SCRIPT_NAME": "/ai", "PATH_INFO": "/x"},
            "/x",
        ),
        # Servers that keep nothing raw: PEP 3333's decoded path, encoded again.
        ({"PATH_INFO": "/a b/caf\xc3\xa9"}, "/a%20b/caf%C3%A9"),
        ({"PATH_INFO": "/a?b#c%"}, "/a%3Fb%23c%25"),
        ({"PATH_INFO": "/a/b:c@d!$&'()*+,;=~-._"}, "/a/b:c@d!$&'()*+,;=~-._"),
        ({"PATH_INFO": "/a", "QUERY_STRING": "x=%2f&y"}, "/a?x=%2f&y"),
        ({"PATH_INFO": ""}, "/"),
        ({}, "/"),
    ],
)
def test_the_raw_target_below_the_mount(environ: dict[str, Any], target: str) -> None:
    assert raw_target(environ) == target


def test_headers_are_as_the_server_kept_them() -> None:
    raw = [("x-b", "1"), ("X-A", "2"), ("x-B", "3")]
    found = request({"kongai.headers": raw})
    assert list(client_headers(found)) == raw
    found = request({"HTTP_X_A": "1"})
    assert client_headers(found)["x-a"] == "1"


def test_what_is_for_the_next_hop_alone_goes() -> None:
    raw = [("Connection", "x-a, Host"), ("X-A", "1"), ("Host", "h"), ("X-B", "2")]
    found = request({"kongai.headers": raw, "HTTP_CONNECTION": raw[0][1]})
    assert received_headers(found) == raw
    assert [name for name, _ in client_headers(found)] == ["Connection", "Host", "X-B"]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", {}),
        ("a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        ("a&&b=", {"a": [True], "b": [""]}),
        ("%61=d+e%20f&=x", {"a": ["d e f"], "": ["x"]}),
    ],
)
def test_the_arguments_of_a_query(query: str, arguments: dict[str, Any]) -> None:
    assert query_arguments(query) == arguments


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("/a", "/a"),
        ("/foo://bar/a", "/foo://bar/a"),
        ("/a?u=http://b/c", "/a?u=http://b/c"),
        ("http://h/a?b=/c", "/a?b=/c"),
        ("HTTP://h:81/a", "/a"),
        ("http://h", "/"),
        ("http://h?x=/a", "/?x=/a"),
        ("*", "*"),
    ],
)
def test_the_origin_form_of_a_target(target: str, origin: str) -> None:
    assert origin_form(target) == origin


@pytest.mark.parametrize(
    ("target", "status"),
    [
        *((good, None) for good in ("/", "/a/..", "/a/./b", "/a?b=%zz&c=/../..")),
        *((good, None) for good in ("/...", "/..a", "/a..", "/%25", "/%2541", "//a")),
        *((good, None) for good in ("/a#%", "/a/%2e%2e/b", "*", "/a/b/../..")),
        *(
            (bad, 400)
            for bad in ("/..", "/../a", "/a/../..", "/a/../../b/c", "/a//../..")
        ),
        *((bad, 400) for bad in ("/%2e%2E", "/a/..%2f..%2f", "/./..", "/%2f..")),
        *((bad, 400) for bad in ("/%", "/a%2", "/a%zz?b", "/%00", "/a%%41")),
    ],
)
def test_a_path_is_refused_that_is_broken_or_leaves_its_root(
    target: str, status: int | None
) -> None:
    refusal = objection("GET", target)
    assert (refusal and refusal.status) == status


def test_trace_is_not_for_gateways() -> None:
    refusal = objection("TRACE", "/")
    assert refusal is not None
    assert (refusal.status, refusal.message) == (405, "Method not allowed")


@pytest.mark.parametrize(
    ("scheme", "environ", "name"),
    [
        ("http", {"SSL_TLS_SNI": "a.example"}, None),
        ("https", {"SSL_TLS_SNI": "a.example"}, "a.example"),
        ("https", {}, ""),
    ],
)
def test_the_name_of_the_handshake_is_the_servers_word(
    scheme: str, environ: dict[str, str], name: str | None
) -> None:
    builder = EnvironBuilder(base_url=f"{scheme}://h/", environ_overrides=environ)
    assert tls_name(Request(builder.get_environ())) == name


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("k=a", ""),
        ("k", ""),
        ("x=1&%6b=a&y=d+e&&f", "x=1&y=d+e&&f"),
        ("K=a&k[]=b", "K=a&k[]=b"),
        ("", ""),
    ],
)
def test_a_query_loses_the_argument_and_nothing_else(query: str, left: str) -> None:
    assert query_without(query, "k") == left


def test_a_clients_request_is_what_werkzeug_makes_of_it() -> None:
    def environ() -> dict[str, Any]:
        base = "https://example.com/x"
        made = EnvironBuilder("/a b?c=d", base_url=base, method="post", data="text")
        return made.get_environ()

    ours, theirs = ClientRequest(environ()), Request(environ())
    assert ours.url == theirs.url
    assert ours.method == theirs.method
    assert ours.args == theirs.args
    assert list(ours.headers) == list(theirs.headers)
    assert ours.content_length == theirs.content_length == content_length(ours.environ)
    assert ours.scheme == theirs.scheme == scheme_of(ours)
    assert ours.get_data() == theirs.get_data()
    assert not hasattr(ours, "no_such_thing")


def test_a_clients_request_that_nobody_looks_at_is_not_taken_apart() -> None:
    made = ClientRequest(EnvironBuilder().get_environ())
    assert content_length(made.environ) is None
    assert not {"headers", "path", "args"} & vars(made).keys()


@pytest.mark.parametrize(
    ("given", "length"),
    [
        ({"CONTENT_LENGTH": "12"}, 12),
        ({"CONTENT_LENGTH": "-1"}, 0),
        ({"CONTENT_LENGTH": "x"}, 0),
        ({"CONTENT_LENGTH": "12", "HTTP_TRANSFER_ENCODING": "chunked"}, None),
        ({}, None),
    ],
)
def test_how_long_a_body_is_announced_to_be(
    given: dict[str, str], length: int | None
) -> None:
    assert content_length(given) == length
