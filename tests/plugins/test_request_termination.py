from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from kongai import Plugin, Proxy
from kongai.entities import Consumer, KeyAuthCredential, Route, Service
from kongai.errors import ConfigError
from kongai.plugins import request_termination
from kongai.plugins.key_auth import KeyAuth
from kongai.plugins.request_termination import (
    RequestTermination,
    RequestTerminationConfig,
)
from kongai.testing import ListSink, MockTransport, answer

JSON = "application/json; charset=utf-8"


class Gateway:
    def __init__(self, *plugins: Plugin, **settings: Any) -> None:
        self.records = ListSink()
        self.transport = MockTransport(lambda _: answer(b"from upstream"))
        key = KeyAuthCredential(key="a key of alice")
        self.proxy = Proxy(
            [
                Service(
                    "http://up.test/up",
                    name="s",
                    routes=[Route(name="r", paths=["/r", "~/x/(?<id>.+)"])],
                )
            ],
            plugins=[RequestTermination(**settings), *plugins],
            consumers=[Consumer(username="alice", keyauth_credentials=[key])],
            sinks=[self.records],
            transport=self.transport,
        )

    def ask(self, target: str = "/r", **options: Any) -> TestResponse:
        options.setdefault("method", "GET")
        return Client(self.proxy).open(target, buffered=True, **options)


@pytest.mark.parametrize(
    ("settings", "status", "body"),
    [
        ({}, 503, '{"message":"Service unavailable"}'),
        ({"status_code": 401}, 401, '{"message":"Unauthorized"}'),
        ({"status_code": 404}, 404, '{"message":"Not found"}'),
        ({"status_code": 405}, 405, '{"message":"Method not allowed"}'),
        ({"status_code": 500}, 500, '{"message":"An unexpected error occurred"}'),
        ({"status_code": 502}, 502, '{"message":"Bad Gateway"}'),
        (
            {"status_code": 403, "message": 'no "é"\n'},
            403,
            '{"message":"no \\"é\\"\\n"}',
        ),
        ({"status_code": 301, "message": "moved"}, 301, '{"message":"moved"}'),
        ({"status_code": 503, "message": "soon"}, 503, '{"message":"soon"}'),
    ],
)
def test_a_message_is_said_in_json_whatever_the_client_likes(
    settings: dict[str, Any], status: int, body: str
) -> None:
    gateway = Gateway(**settings)
    response = gateway.ask(headers={"Accept": "text/html"})
    assert (response.status_code, response.text) == (status, body)
    assert response.headers["Content-Type"] == JSON
    assert response.headers["Content-Length"] == str(len(body.encode()))
    assert gateway.transport.requests == []
    record = gateway.records[-1]
    assert record["source"] == "kong"
    assert record["tries"] == []
    assert record["response"]["status"] == status
    assert record["kongai"]["ended"] == "ok"


@pytest.mark.parametrize("status", [200, 299, 403, 418, 426, 499, 599])
def test_a_status_without_a_message_has_no_body(status: int) -> None:
    response = Gateway(status_code=status).ask()
    assert (response.status_code, response.data) == (status, b"")
    assert "Content-Type" not in response.headers
    assert response.headers["Content-Length"] == "0"


@pytest.mark.parametrize("status", [204, 304])
def test_where_there_is_no_body_there_is_no_length(status: int) -> None:
    response = Gateway(status_code=status, message="unheard").ask()
    assert (response.status_code, response.data) == (status, b"")
    assert "Content-Length" not in response.headers


@pytest.mark.parametrize("status", [100, 101, 199])
def test_an_announcement_is_no_answer(status: int) -> None:
    response = Gateway(status_code=status).ask()
    assert response.status_code == 400
    assert json.loads(response.data)["message"] == "Bad request"


def test_a_head_request_has_the_length_and_no_body() -> None:
    response = Gateway().ask(method="HEAD")
    assert response.headers["Content-Length"] == "33"
    assert response.data == b""


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, None),
        ("text/html", "text/html; charset=UTF-8"),
        ("Text/Plain", "Text/Plain; charset=UTF-8"),
        ("text/plain; charset=x", "text/plain; charset=x"),
        ("application/json", "application/json"),
    ],
)
def test_a_body_is_sent_as_it_is(given: str | None, sent: str | None) -> None:
    response = Gateway(status_code=200, body="<b>é</b>", content_type=given).ask()
    assert response.data == "<b>é</b>".encode()
    assert response.headers.get("Content-Type") == sent
    assert response.headers["Content-Length"] == "9"


@pytest.mark.parametrize(
    ("target", "headers", "ended"),
    [
        ("/r", {}, False),
        ("/r", {"X-Trig": "v"}, True),
        ("/r", {"x-trig": ""}, True),
        ("/r?X-Trig=v", {}, True),
        ("/r?X-Trig", {}, True),
        ("/r?%58-Trig=", {}, True),
        ("/r?x-trig=v", {}, False),
        ("/r?a=X-Trig", {}, False),
    ],
)
def test_a_trigger_is_a_header_or_an_argument(
    target: str, headers: dict[str, str], ended: bool
) -> None:
    gateway = Gateway(trigger="X-Trig", status_code=418)
    response = gateway.ask(target, headers=headers)
    assert response.status_code == (418 if ended else 200)
    assert len(gateway.transport.requests) == (not ended)


def test_the_echo_shows_the_request_and_where_it_would_have_gone() -> None:
    response = Gateway(echo=True, status_code=404, message="m").ask(
        "/x/1?a=1&a=2&b",
        method="POST",
        data=b'{"a": 1}',
        content_type="application/json",
        headers={"X-A": "1"},
    )
    assert response.status_code == 404
    assert response.headers["Content-Type"] == JSON
    shown = json.loads(response.data)
    assert shown["message"] == "m"
    assert shown["matched_route"]["name"] == "r"
    assert shown["matched_route"]["service"] == {"id": shown["matched_service"]["id"]}
    assert shown["matched_service"]["host"] == "up.test"
    assert set(shown["kong"]) == {"node_id", "worker_pid", "hostname"}
    request = shown["request"]
    assert request["headers"]["x-a"] == "1"
    del request["headers"]
    assert request == {
        "method": "POST",
        "scheme": "http",
        "host": "localhost",
        "port": 80,
        "path": "/x/1",
        "uri_captures": {"named": {"id": "1"}, "unnamed": []},
        "query": {"a": ["1", "2"], "b": True},
        "body": {"a": 1},
        "raw_body": '{"a": 1}',
    }


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_body_that_is_no_json_is_shown_as_it_is(kind: str) -> None:
    response = Gateway(echo=True).ask(
        method="POST", data=b"{bad\xff", content_type=kind
    )
    request = json.loads(response.data)["request"]
    assert request["raw_body"] == "{bad\ufffd"
    assert "body" not in request


def test_the_echo_shows_no_credentials() -> None:
    gateway = Gateway(KeyAuth(key_names=["who"], hide_credentials=False), echo=True)
    response = gateway.ask(
        "/r?token=tell-tale&who=b",
        method="POST",
        headers={"who": "a key of alice", "Authorization": "Bearer tell-tale"},
        data=b'{"note": "a key of alice"}',
        content_type="application/json",
    )
    assert response.status_code == 503
    shown = json.loads(response.data)["request"]
    assert shown["headers"]["who"] == shown["headers"]["authorization"] == "REDACTED"
    assert shown["query"] == {"token": "REDACTED", "who": "REDACTED"}
    assert "tell-tale" not in response.text
    assert "a key of alice" not in response.text


def test_a_body_that_is_too_long_to_show_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_termination, "MAX_ECHOED_SIZE", 4)
    gateway = Gateway(echo=True)
    assert gateway.ask(method="POST", data=b"1234").status_code == 503
    assert gateway.ask(method="POST", data=b"12345").status_code == 413


def test_it_runs_after_who_the_client_is_was_asked() -> None:
    assert Gateway(KeyAuth()).ask().status_code == 401


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status_code": 99}, "status_code: value should be between 100 and 599"),
        ({"status_code": 200.5}, "status_code: expected an integer"),
        ({"message": ""}, "message: length must be at least 1"),
        (
            {"message": "m", "content_type": "t"},
            "message cannot be used with content_type or body",
        ),
        (
            {"message": "m", "body": "b"},
            "message cannot be used with content_type or body",
        ),
        ({"content_type": "t"}, "content_type requires a body"),
        ({"echo": True, "body": "b"}, "echo cannot be used with content_type and body"),
        ({"echo": "x"}, "echo: expected a boolean"),
        (
            {"body": "b", "content_type": "a/b\r\nx: y"},
            "content_type: expected a media type",
        ),
        ({"bogus": 1}, "bogus: unknown field"),
    ],
)
def test_settings_that_kong_refuses(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RequestTermination(**fields)
    assert [str(one) for one in caught.value.problems] == [problem]


def test_settings_are_kongs() -> None:
    assert RequestTermination().config == RequestTerminationConfig(
        status_code=503, echo=False
    )
    RequestTermination(echo=True, message="m", trigger="x", status_code=404)
