from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

import kongai.recorded
from kongai import Exchange, Plugin, Proxy, Route, Service, redact
from kongai.entities import CACertificate, Certificate, Consumer, KeyAuthCredential
from kongai.errors import UpstreamError
from kongai.exchange import UpstreamRequest, UpstreamResponse, milliseconds
from kongai.log import _quick_line, entity_fields, line, serialize
from kongai.shown import shown
from kongai.sinks import encode
from kongai.testing import ListSink, MockTransport, answer

SECRET = "c4nary-5f1d"
WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"


def ok(request: UpstreamRequest) -> UpstreamResponse:
    return answer(b"{}")


def record_of(
    path: str = "/s",
    *plugins: Plugin,
    handler: Callable[[UpstreamRequest], UpstreamResponse] = ok,
    headers: list[tuple[str, str]] | None = None,
    environ: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The record of one request to a gateway with one service, at `/s`."""
    records = ListSink()
    service = Service(
        name="up",
        protocol="https",
        host="up.example",
        port=8443,
        path="/base",
        retries=1,
        tags=["a", "b"],
        routes=[Route(name="s", paths=["/s"], methods=["GET", "HEAD", "POST"])],
    )
    proxy = Proxy(
        [service], plugins=plugins, sinks=[records], transport=MockTransport(handler)
    )
    builder = EnvironBuilder(
        path,
        base_url="http://gateway.example:8000",
        headers=headers,
        environ_overrides={"REMOTE_ADDR": "10.0.0.1", **(environ or {})},
        **options,
    )
    run_wsgi_app(proxy, builder.get_environ(), buffered=True)
    [record] = records
    return record


def test_of_certificates_a_record_has_the_ids() -> None:
    authorities = [CACertificate(cert=SECRET, id=name) for name in "ab"]
    certificate = Certificate(cert=SECRET, key=SECRET, id="c")
    for several in (authorities, tuple(authorities)):
        fields = entity_fields(
            Service(
                "https://h", ca_certificates=several, client_certificate=certificate
            )
        )
        assert fields["ca_certificates"] == ["a", "b"]
        assert fields["client_certificate"] == {"id": "c"}
        assert SECRET.encode() not in encode(fields)


def test_the_shape_of_a_record() -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        found = answer(b"{}", 201, [("Content-Type", "a/b"), ("X-Up", "1")])
        found.peer = ("10.9.8.7", 8444)
        return found

    before = datetime.now().timestamp()
    record = record_of(
        "/s/x?beta=true",
        handler=handler,
        method="POST",
        data=b"hello",
        headers=[("User-Agent", "claude-cli/2"), ("X-A", "1"), ("X-A", "2")],
    )
    after = datetime.now().timestamp()
    request, response = record["request"], record["response"]
    assert request == {
        "id": request["id"],
        "method": "POST",
        "uri": "/s/x?beta=true",
        "url": "http://gateway.example:8000/s/x?beta=true",
        "querystring": {"beta": "true"},
        "headers": {
            "host": "gateway.example:8000",
            "user-agent": "claude-cli/2",
            "x-a": "1, 2",
            "content-length": "5",
        },
        "size": request["size"],
    }
    assert len(request["id"]) == 32
    assert int(request["id"], 16)
    assert response["status"] == 201
    assert response["headers"].keys() == {
        *("content-type", "x-up", "via", "server"),
        *("x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-request-id"),
    }
    assert response["headers"]["x-kong-request-id"] == request["id"]
    assert record["latencies"].keys() == {"kong", "proxy", "request", "receive"}
    [attempt] = record["tries"]
    assert (attempt["ip"], attempt["port"]) == ("10.9.8.7", 8444)
    assert attempt.keys() == {
        *("balancer_start", "balancer_start_ns", "balancer_latency"),
        *("balancer_latency_ns", "ip", "port"),
    }
    assert attempt["balancer_start"] == attempt["balancer_start_ns"] // 1_000_000
    service, route = record["service"], record["route"]
    stamps = {"created_at": service["created_at"], "updated_at": service["updated_at"]}
    assert service == {
        "id": service["id"],
        "name": "up",
        "protocol": "https",
        "host": "up.example",
        "port": 8443,
        "path": "/base",
        "retries": 1,
        "connect_timeout": 60000,
        "write_timeout": 60000,
        "read_timeout": 60000,
        "enabled": True,
        "tags": ["a", "b"],
        "ws_id": WORKSPACE,
        **stamps,
    }
    assert route == {
        "id": route["id"],
        "name": "s",
        "protocols": ["http", "https"],
        "methods": ["GET", "HEAD", "POST"],
        "paths": ["/s"],
        "strip_path": True,
        "preserve_host": False,
        "regex_priority": 0,
        "path_handling": "v0",
        "https_redirect_status_code": 426,
        "request_buffering": True,
        "response_buffering": True,
        "service": {"id": service["id"]},
        "ws_id": WORKSPACE,
        **stamps,
    }
    assert int(before) <= stamps["created_at"] <= after
    assert before * 1000 - 1 <= record["started_at"] <= after * 1000
    rest = {
        name: value
        for name, value in record.items()
        if name
        not in (
            *("request", "response", "latencies", "tries", "service", "route"),
            "started_at",
        )
    }
    assert rest == {
        "upstream_uri": "/base/x?beta=true",
        "upstream_status": "201",
        "client_ip": "10.0.0.1",
        "source": "upstream",
        "workspace": WORKSPACE,
        "workspace_name": "default",
        "kongai": {"ended": "ok"},
    }


def is_plain(value: Any) -> bool:
    """Whether a value is made of what JSON has, null excepted."""
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return type(value) in (str, int, float, bool)


@pytest.mark.parametrize("path", ["/s", "/nope"])
def test_a_record_is_plain_and_has_no_nulls(path: str) -> None:
    assert is_plain(record_of(path))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("?", {}),
        ("?&&", {}),
        ("?a=1", {"a": "1"}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("?a=1&a=2&a=1", {"a": ["1", "2", "1"]}),
        ("?a", {"a": True}),
        ("?a=", {"a": ""}),
        ("?a=1&a", {"a": ["1", True]}),
        ("?a=&a", {"a": ["", True]}),
        ("?a+b%20c", {"a b c": True}),
        ("?a+b=c%20d%2B", {"a b": "c d+"}),
        ("?a=b=c;d", {"a": "b=c;d"}),
        ("?%C3%A9=%e4%b8%96", {"é": "世"}),
        ("?a=%FF%00", {"a": "\ufffd\0"}),
        ("?a=%zz", {"a": "%zz"}),
    ],
)
def test_the_query_as_kong_takes_it_apart(query: str, expected: dict[str, Any]) -> None:
    path = "/s" + query
    record = record_of("/s", environ={"REQUEST_URI": path})
    assert record["request"]["querystring"] == expected
    assert record["request"]["uri"] == path


def test_a_raw_query_that_is_not_utf8_is_recorded_too() -> None:
    record = record_of("/s", environ={"REQUEST_URI": "/s?a=\xff\xe9"})
    assert json.loads(encode(record))["request"]["uri"] == "/s?a=\xff\xe9"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("gateway.example:9999", "gateway.example"),
        ("gateway.example", "gateway.example"),
        ("[::1]:9999", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_the_url_has_the_hosts_name_and_the_listeners_port(
    host: str, expected: str
) -> None:
    record = record_of(environ={"HTTP_HOST": host, "SERVER_PORT": "8000"})
    assert record["request"]["url"] == f"http://{expected}:8000/s"


def test_headers_are_lower_case_and_repeated_ones_a_list() -> None:
    raw = [("Host", "a"), ("X-A", "1"), ("x-b", "2"), ("x-A", "3"), ("X-a", "4")]
    record = record_of(environ={"kongai.headers": raw})
    assert record["request"]["headers"] == {
        "host": "a",
        "x-a": ["1", "3", "4"],
        "x-b": "2",
    }


def test_a_hundred_headers_are_enough() -> None:
    raw = [("Host", "a"), *((f"X-{n}", "1") for n in range(200))]
    record = record_of(environ={"kongai.headers": raw})
    assert len(record["request"]["headers"]) == 100


class Changing(Plugin):
    name = "changing"

    def access(self, exchange: Exchange) -> Response | None:
        exchange.headers["X-Api-Key"] = SECRET
        exchange.headers["anthropic-version"] = "2023-06-01"
        exchange.headers["X-Team-Pass"] = SECRET
        exchange.secret_names |= {"x-team-pass", "team"}
        return None


def test_headers_are_recorded_as_plugins_left_them() -> None:
    record = record_of("/s?team=x", Changing(), headers=[("X-Api-Key", "client's")])
    assert record["request"]["headers"] == {
        "host": "gateway.example:8000",
        "x-api-key": "REDACTED",
        "anthropic-version": "2023-06-01",
        "x-team-pass": "REDACTED",
    }
    assert record["request"]["querystring"] == {"team": "REDACTED"}
    assert record["request"]["uri"] == "/s?team=REDACTED"


@pytest.mark.parametrize(
    "path",
    [
        f"/s?key={SECRET}",
        f"/s?a=1&api%5Fkey={SECRET}&a=2",
        f"/s?sk-{SECRET}",
        f"/s?x=Bearer+{SECRET}",
        f"/s?x=Bearer%20{SECRET}",
        f"/s?Bearer+{SECRET}",
        f"/s?sk-{SECRET}=1",
        f"/s/sk-{SECRET}/x",
    ],
)
def test_a_target_is_recorded_without_its_secrets(path: str) -> None:
    record = record_of("/s", environ={"REQUEST_URI": path})
    assert SECRET not in json.dumps(record)
    assert "REDACTED" in record["request"]["uri"]


def test_sizes_count_the_bytes_of_heads_and_bodies() -> None:
    raw = [("Host", "a"), ("X-A", "caf\xe9"), ("Content-Length", "5")]

    def handler(request: UpstreamRequest) -> UpstreamResponse:
        head = [("Content-Type", "a/b"), ("Content-Length", "11")]
        return answer(b"hello world", headers=head)

    target = f"/s?x=1&key={SECRET}"
    record = record_of(
        "/s",
        Reading(),
        handler=handler,
        method="POST",
        data=b"12345",
        environ={"kongai.headers": raw, "REQUEST_URI": target},
    )
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nX-A: caf\xe9\r\nContent-Length: 5\r\n"
    assert record["request"]["size"] == len(head + "\r\n") + 5
    lines = [f"{n}: {v}\r\n" for n, v in record["response"]["headers"].items()]
    head = "HTTP/1.1 200 OK\r\n" + "".join(lines) + "\r\n"
    assert record["response"]["size"] == len(head) + 11


class Reading(Plugin):
    name = "reading"

    def access(self, exchange: Exchange) -> Response | None:
        exchange.read_body()
        return None


def test_a_body_sent_in_chunks_counts_with_their_frames() -> None:
    whole = record_of(handler=lambda request: answer(b""))
    record = record_of(handler=lambda request: answer([b"x" * 16, b"y"]))
    more = len(b"10\r\n" + b"x" * 16 + b"\r\n" + b"1\r\ny\r\n")
    sizes = [r["response"]["size"] for r in (whole, record)]
    heads = [sum(map(len, r["response"]["headers"].values())) for r in (whole, record)]
    assert sizes[1] - sizes[0] == more + heads[1] - heads[0]


def test_what_was_never_proxied() -> None:
    record = record_of("/nope")
    assert record["latencies"]["proxy"] == -1
    assert record["latencies"]["receive"] == 0
    assert record["latencies"]["kong"] >= 0
    assert (record["upstream_uri"], record["upstream_status"]) == ("", "")
    assert record["source"] == "kong"


class Slow(Plugin):
    """Moves the exchange's clock: 5 ms for the gateway, 20 to the answer, 70 more."""

    name = "slow"

    def log(self, exchange: Exchange) -> None:
        timings = exchange.timings
        timings.sent = timings.start + 0.0059
        timings.answered = timings.sent + 0.0209
        timings.received = timings.answered + 0.0709
        timings.end = timings.start + 0.1009


def test_latencies_are_whole_milliseconds() -> None:
    record = record_of("/s", Slow())
    assert record["latencies"] == {
        "kong": 5,
        "proxy": 20,
        "receive": 70,
        "request": 100,
    }
    assert all(type(value) is int for value in record["latencies"].values())


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, None, 0), (1, 1.0019, 1), (2, 1, 0)]
)
def test_milliseconds(start: float, end: float | None, expected: int) -> None:
    assert milliseconds(start, end) == expected


def test_a_failed_try_says_so() -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        raise UpstreamError(ended="connect", sent=False)

    record = record_of(handler=handler)
    assert [(t["state"], t["code"]) for t in record["tries"]] == [("failed", 502)] * 2
    assert [(t["ip"], t["port"]) for t in record["tries"]] == [("up.example", 8443)] * 2
    assert record["upstream_status"] == "502, 502"
    assert record["service"]["host"] == "up.example"


def test_who_has_no_address_was_not_tried() -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        raise UpstreamError(status=503, ended="dns", sent=False, hopeless=True)

    record = record_of(handler=handler)
    assert record["tries"] == []
    assert record["upstream_status"] == ""
    assert record["latencies"]["proxy"] == -1


class Adding(Plugin):
    name = "adding"

    def __init__(self, path: str, value: Any) -> None:
        self.path, self.value = path, value

    def log(self, exchange: Exchange) -> None:
        exchange.log.set(self.path, self.value)


def test_plugins_add_fields_and_take_fields_away() -> None:
    record = record_of("/s", Adding("ai.proxy", {"meta": 1}))
    assert record["ai"] == {"proxy": {"meta": 1}}
    record = record_of("/s", Adding("request.headers", None))
    assert "headers" not in record["request"]


def test_a_mount_is_part_of_the_uri() -> None:
    record = record_of("/s/x", environ={"SCRIPT_NAME": "/ai", "REQUEST_URI": "/ai/s/x"})
    assert record["request"]["uri"] == "/ai/s/x"
    assert record["request"]["url"] == "http://gateway.example:8000/ai/s/x"
    assert record["upstream_uri"] == "/base/x"


def test_the_size_of_a_request_counts_what_was_for_the_gateway_alone() -> None:
    """`Connection` may name headers that go no further; they came all the same."""
    host = ("Host", "gateway.example")
    plain = record_of(headers=[host, ("Connection", "close")])
    named = record_of(
        headers=[host, ("Connection", "close, x-own"), ("X-Own", "12345")]
    )
    grown = len(", x-own") + len("X-Own: 12345\r\n")
    assert named["request"]["size"] == plain["request"]["size"] + grown
    assert "x-own" not in named["request"]["headers"]


class Logging(Plugin):
    """Keeps the line that it would write, after it has set a field."""

    def __init__(self, priority: int, value: Any) -> None:
        self.priority = priority  # type: ignore[misc]
        self.value = value
        self.name = f"logging-{priority}"  # type: ignore[misc]
        self.lines: list[bytes] = []

    def log(self, exchange: Exchange) -> None:
        if self.value is not None:
            exchange.log.set("x", self.value)
        self.lines.append(line(exchange))


def test_loggers_share_a_line_until_a_field_is_set() -> None:
    first, second, third = Logging(9, 1), Logging(8, None), Logging(7, 2)
    record_of("/s", third, first, second)
    assert first.lines[0] is second.lines[0]
    assert [json.loads(one.lines[0])["x"] for one in (first, second, third)] == [
        1,
        1,
        2,
    ]


def test_the_answers_head_is_recorded_as_kongais_server_sent_it() -> None:
    """Under other servers, what they add is not known."""
    added = [("Date", "now"), ("Connection", "close")]

    def sent_headers(*more: tuple[str, str]) -> dict[str, Any]:
        environ = {"kongai.sent_headers": [("X-A", "1"), *more]}
        response: dict[str, Any] = record_of(environ=environ)["response"]
        return response

    plain, full = sent_headers(), sent_headers(*added)
    assert plain["headers"] == {"x-a": "1"}
    assert full["headers"] == {"x-a": "1", "connection": "close"}
    grown = len("Date: now\r\nConnection: close\r\n")
    assert full["size"] == plain["size"] + grown


CANARY = "c4nary-5f1d-77aa"


class Keeping(Plugin):
    """Keeps both forms of the record, and the exchange, having set fields."""

    name = "keeping"
    priority = 1

    def __init__(self, fields: Sequence[tuple[str, Any]] = ()) -> None:
        self.fields = fields

    def log(self, exchange: Exchange) -> None:
        for path, value in self.fields:
            exchange.log.set(path, value)
        exchange.log.line = None
        self.exchange = exchange
        self.quick = _quick_line(exchange)
        self.lines = line(exchange), encode(serialize(exchange))


TEXTS = st.text(max_size=8) | st.sampled_from(["sk-12345678", "\ud800", "null", "\x7f"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = st.sampled_from(
    ["ai.proxy", "kongai.x", "route.x", "route", "service.tags", "x.y", "request.id"]
)
HEADERS = st.tuples(
    st.sampled_from(["User-Agent", "X-A", "X-Api-Key", "Accept"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=9),
)


@settings(deadline=None, max_examples=60)
@given(
    fields=st.lists(st.tuples(PATHS, VALUES), max_size=3),
    headers=st.lists(HEADERS, max_size=4),
    query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
)
def test_a_line_is_the_record(
    fields: list[tuple[str, Any]], headers: list[tuple[str, str]], query: str
) -> None:
    keeping = Keeping(fields)
    record_of(f"/s?{query}", keeping, headers=headers)
    quick, slow = keeping.lines
    assert json.loads(quick, parse_constant=pytest.fail) == json.loads(slow)
    assert list(json.loads(quick)) == list(json.loads(slow))
    assert quick.isascii()
    assert quick.count(b"\n") == 1
    assert quick.endswith(b"}\n")


@pytest.mark.parametrize(
    ("fields", "quick"),
    [
        ([], True),
        ([("ai.proxy", {"cost": 0.00068655, "n": [1, None, True]})], True),
        ([("x", "caf\xe9")], False),
        ([("x", "\ud800")], False),
        ([("x", float("nan"))], False),
        ([("x", b"1")], False),
        ([("x", datetime(2026, 1, 2))], False),
        ([("route.x", 1)], False),
    ],
)
def test_most_lines_are_made_the_quick_way(fields: Any, quick: bool) -> None:
    keeping = Keeping(fields)
    record_of("/s", keeping)
    assert (keeping.quick is not None) is quick
    assert json.loads(keeping.lines[0]) == json.loads(keeping.lines[1])


class Secretive(Plugin):
    """A plugin that has used secrets of the configuration."""

    name = "secretive"
    priority = 3
    secret_names = frozenset({"x-team"})

    def __init__(self, *secrets: str) -> None:
        self.secrets = frozenset(secrets)

    def access(self, exchange: Exchange) -> None:
        exchange.secret_values = self.secrets


@pytest.mark.parametrize(
    ("secrets", "quick"),
    [
        ([CANARY], False),
        (["elsewhere-5f1d"], True),
        (["", "elsewhere-5f1d"], True),
        (["elsewhere-5f1d", CANARY], False),
        # These may be written otherwise in JSON.
        (['a"b'], False),
        (["a\\b"], False),
        (["a\nb"], False),
        (["caf\xe9"], False),
    ],
)
def test_a_line_has_no_secrets_of_the_configuration(
    secrets: list[str], quick: bool
) -> None:
    keeping = Keeping([("x", {"y": [f"it was <{text}>" for text in secrets]})])
    if quick:
        keeping.fields = ()
    said = CANARY if CANARY in secrets else "plain"
    headers = [("X-A", said)]
    record_of(f"/s/{said}", Secretive(*secrets), keeping, headers=headers)
    assert (keeping.quick is not None) is quick
    assert keeping.lines[0] == keeping.lines[1]
    record = json.loads(keeping.lines[0])
    if not quick:
        for text in record["x"]["y"]:
            assert text in ("it was <>", "it was <REDACTED>")
    if CANARY in secrets:
        assert CANARY.encode() not in keeping.lines[0]


def test_records_leave_no_secret_in_memory() -> None:
    headers = [
        *(("X-Api-Key", CANARY), ("Authorization", f"Bearer {CANARY}")),
        *(("X-Team", CANARY), ("X-B", f"sk-{CANARY}"), ("Accept", "*/*")),
    ]
    target = f"/s?key={CANARY}&x-team={CANARY}&a=sk-{CANARY}"
    keeping, secretive = Keeping(), Secretive()
    record_of(target, secretive, keeping, headers=headers)
    keeping.exchange.consumer = Consumer(
        username="ann", keyauth_credentials=[KeyAuthCredential(key=CANARY)]
    )
    keeping.log(keeping.exchange)
    assert CANARY.encode() not in keeping.lines[0]
    kept = vars(shown(frozenset({"x-team"})))
    assert "*/*" in repr(kept)
    assert CANARY not in repr([kept, redact._known_names])
    known = kongai.recorded.of(keeping.exchange)._known.values()
    assert CANARY not in repr(
        [(one.members, [bytes(text) for text in one.texts.values()]) for one in known]
    )


def test_what_is_known_of_a_gateway_goes_with_it() -> None:
    keeping = Keeping()
    record_of("/s", keeping)
    gateway = weakref.ref(keeping.exchange.consumers)
    known = id(gateway())
    assert known in kongai.recorded._ENTITIES
    del keeping
    gc.collect()
    assert gateway() is None
    assert known not in kongai.recorded._ENTITIES


def test_a_route_of_two_services_is_recorded_with_each() -> None:
    route = Route(name="r", paths=["/"], id="r")
    known = kongai.recorded.Entities()
    for name in "abab":
        service = Service("http://h", id=name)
        members = known.matched(route, service).members
        assert members["route"]["service"] == {"id": name} == {"id": service.id}
        assert members["service"]["id"] == name
    members = known.matched(route, None).members
    assert members.keys() == {"route"}
    assert "service" not in members["route"]


def test_what_is_known_of_a_gateway_has_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kongai.recorded, "_MOST_KEPT", 5)
    known = kongai.recorded.Entities()
    for number in range(20):
        consumer = Consumer(username="ann", id=str(number))
        assert known.consumer(consumer).members["consumer"]["id"] == str(number)
    assert len(known._known) <= 5


def test_each_sink_may_change_its_record() -> None:
    keeping = Keeping()
    record_of("/s", keeping)
    first, second = serialize(keeping.exchange), serialize(keeping.exchange)
    assert first == second
    first["route"]["paths"].append("x")
    first["service"]["tags"].clear()
    first["request"]["headers"]["host"] = ""
    assert second == serialize(keeping.exchange)
    assert second["route"]["paths"] == ["/s"]
    assert json.loads(keeping.lines[0]) == second
