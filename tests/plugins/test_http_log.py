from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from kongai import FileLog, HttpLog, Plugin, Proxy, TcpLog
from kongai.delivery import Queue
from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.plugins.http_log import HttpLogConfig
from kongai.schema import load
from kongai.testing import MockTransport, answer
from tests.live.upstream import Connection, FakeUpstream, Request
from tests.live.waiting import wait_until
from tests.plugins.refusals import problems

URL = "http://h:1/p"


def gateway(*plugins: Plugin) -> Proxy:
    return Proxy(
        services=[Service(host="up.test", routes=[Route(paths=["/a"])])],
        plugins=plugins,
        transport=MockTransport(lambda _: answer(b"{}")),
    )


def ask(proxy: Proxy, target: str = "/a") -> None:
    with Client(proxy).get(target, headers={"x-team": "search"}) as response:
        assert response.get_data()


def ok(request: Request, connection: Connection) -> None:
    connection.respond(200)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "http_endpoint: required field missing"),
        ({"http_endpoint": ""}, "http_endpoint: length must be at least 1"),
        ({"http_endpoint": "http://"}, "http_endpoint: missing host in url"),
        ({"http_endpoint": "h"}, "http_endpoint: missing host in url"),
        ({"http_endpoint": "http:///p"}, "http_endpoint: missing host in url"),
        ({"http_endpoint": "//h"}, "http_endpoint: missing scheme in url"),
        ({"http_endpoint": "ftp://h"}, "http_endpoint: expected an http or https URL"),
        (
            {"http_endpoint": "http://h:x"},
            "http_endpoint: expected an http or https URL",
        ),
        (
            {"http_endpoint": URL, "method": "GET"},
            "method: expected one of: PATCH, POST, PUT",
        ),
        (
            {"http_endpoint": URL, "headers": {"HOST": "x"}},
            "headers: cannot contain 'Host' header",
        ),
        (
            {"http_endpoint": URL, "headers": {"content-length": "1"}},
            "headers: cannot contain 'Content-Length' header",
        ),
        (
            {"http_endpoint": URL, "headers": {"Content-type": "a"}},
            "headers: cannot contain 'Content-Type' header",
        ),
        (
            {"http_endpoint": URL, "headers": {"a b": "x"}},
            "headers: bad header 'a b'",
        ),
        (
            {"http_endpoint": URL, "headers": {"a": "x\r\ny: z"}},
            "headers: bad header 'a'",
        ),
        (
            {"http_endpoint": URL, "queue": {"max_batch_size": 0}},
            "queue.max_batch_size: value should be between 1 and 1000000",
        ),
        (
            {"http_endpoint": URL, "queue": {"max_entries": 1000001}},
            "queue.max_entries: value should be between 1 and 1000000",
        ),
        (
            {"http_endpoint": URL, "queue": {"concurrency_limit": 2}},
            "queue.concurrency_limit: expected one of: -1, 1",
        ),
        ({"http_endpoint": URL, "queue": {"name": "x"}}, "queue.name: unknown field"),
        ({"http_endpoint": URL, "timeout": "x"}, "timeout: expected a number"),
        (
            {"http_endpoint": URL, "client_certificate": {"id": "x"}},
            "client_certificate: not available in this version of kongai",
        ),
        (
            {"http_endpoint": URL, "custom_fields_by_lua": {"a": "return 1"}},
            "custom_fields_by_lua: kongai runs no Lua; use custom_fields",
        ),
        (
            {"http_endpoint": URL, "custom_fields": {"a": []}},
            "custom_fields.a: expected a string",
        ),
    ],
)
def test_what_is_refused(config: dict[str, Any], expected: str) -> None:
    [problem] = problems("http-log", config)
    assert problem.startswith(expected)


def test_two_credentials_are_one_too_many() -> None:
    [problem] = problems(
        "http-log", {"http_endpoint": "http://u:p@h", "headers": {"authorization": "x"}}
    )
    assert problem == (
        "plugins[0].config: specifying both an 'Authorization' header and user info in "
        "'http_endpoint' is not allowed"
    )


@pytest.mark.parametrize(
    "config",
    [
        *({"method": "PATCH"}, {"timeout": -1}, {"keepalive": 0}, {"headers": {}}),
        *({"queue": {"max_bytes": 0}}, {"queue": {"max_retry_time": -1}}),
        *({"retry_count": 5}, {"queue_size": 0}, {"flush_timeout": 3}),
        *({"http_endpoint": "https://u:p@h"}, {"http_endpoint": "http://[::1]:80/p"}),
        {"queue": {"concurrency_limit": -1}},
        {"content_type": "application/json; charset=utf-8"},
        {"custom_fields": {"a": None, "b": {"header": "x"}}},
    ],
)
def test_what_is_accepted(config: dict[str, Any]) -> None:
    assert problems("http-log", {"http_endpoint": URL, **config}) == []


def test_the_ways_to_make_one() -> None:
    wanted = HttpLogConfig(http_endpoint=URL, method="PUT")
    assert HttpLog(wanted).config == wanted
    assert HttpLog(http_endpoint=URL, method="PUT").config == wanted
    with pytest.raises(ConfigError, match="http_endpoint: required field missing"):
        HttpLog()
    with pytest.raises(TypeError):
        HttpLog(wanted, method="PUT")


@pytest.mark.parametrize(
    ("old", "queue", "said"),
    [
        ({"queue_size": 5}, {"max_batch_size": 5}, "use queue.max_batch_size"),
        ({"queue_size": 0}, {"max_batch_size": 1}, "use queue.max_batch_size"),
        (
            {"flush_timeout": 0.5},
            {"max_coalescing_delay": 0.5},
            "use queue.max_coalescing_delay",
        ),
        ({"retry_count": 3}, {}, "retry_count parameter no longer works"),
        ({"queue_size": 1, "flush_timeout": 2, "retry_count": 10}, {}, None),
    ],
)
def test_old_keys_work_as_in_kong(
    old: dict[str, Any],
    queue: dict[str, Any],
    said: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = HttpLog(http_endpoint=URL, **old)
    assert plugin.config.limits() == Queue(**queue)
    assert (said or "") in caplog.text
    assert (said is None) == (caplog.text == "")


def test_a_record_is_posted_as_kong_does() -> None:
    with FakeUpstream(ok) as sink:
        plugin = HttpLog(
            http_endpoint=f"{sink.url}/in?x=1",
            headers={"X-Token": "größe", "user-agent": "me"},
            custom_fields={"team": {"header": "x-team"}},
        )
        proxy = gateway(plugin)
        ask(proxy, "/a?n=1")
        ask(proxy, "/nope")
        proxy.close()
    one, two = sink.requests
    assert (one.method, one.target) == ("POST", "/in")
    assert dict(one.headers) == {
        "Host": sink.url.removeprefix("http://"),
        "Content-Type": "application/json",
        "Content-Length": str(len(one.body)),
        "X-Token": "größe".encode().decode("latin-1"),
        "user-agent": "me",
    }
    assert one.json()["request"]["uri"] == "/a?n=1"
    assert one.json()["team"] == "search"
    assert two.json()["response"]["status"] == 404
    assert len(sink.connections) == 1


def test_several_records_are_an_array() -> None:
    with FakeUpstream(ok) as sink:
        queue = {"max_batch_size": 3, "max_coalescing_delay": 60}
        proxy = gateway(HttpLog(http_endpoint=sink.url, queue=queue))
        for number in range(4):
            ask(proxy, f"/a?{number}")
        proxy.close()
    sent = [[one["request"]["uri"] for one in r.json()] for r in sink.requests]
    assert sent == [["/a?0", "/a?1", "/a?2"], ["/a?3"]]


@pytest.mark.parametrize(
    ("status", "tries"), [(200, 1), (204, 1), (299, 1), (302, 2), (404, 2), (500, 2)]
)
def test_a_status_below_300_is_success(status: int, tries: int) -> None:
    statuses = [status, 200]

    def script(request: Request, connection: Connection) -> None:
        headers = [("Location", "/elsewhere")]
        connection.respond(statuses.pop(0), headers)

    with FakeUpstream(script) as sink:
        proxy = gateway(HttpLog(http_endpoint=f"{sink.url}/in"))
        ask(proxy)
        sink.wait_for_requests(tries)
        proxy.close()
    assert [request.target for request in sink.requests] == ["/in"] * tries


def test_a_sink_that_went_away_and_came_back_gets_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def breaking(request: Request, connection: Connection) -> None:
        if len(sink.requests) == 1:
            connection.close()
        else:
            connection.respond(200)

    with FakeUpstream(breaking) as sink:
        proxy = gateway(HttpLog(http_endpoint=sink.url))
        ask(proxy, "/a?1")
        ask(proxy, "/a?2")
        sink.wait_for_requests(3)
        proxy.close()
    asked = [request.json()["request"]["uri"] for request in sink.requests]
    assert asked == ["/a?1", "/a?1", "/a?2"]


def test_an_idle_connection_is_not_used_for_ever() -> None:
    with FakeUpstream(ok) as sink:
        proxy = gateway(HttpLog(http_endpoint=sink.url, keepalive=1))
        ask(proxy)
        sink.wait_for_requests(1)
        time.sleep(0.05)
        ask(proxy)
        proxy.close()
    assert len(sink.connections) == 2


def test_the_endpoint_is_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    def refusing(request: Request, connection: Connection) -> None:
        connection.respond(500)

    with FakeUpstream(refusing) as sink:
        address = sink.url.removeprefix("http://")
        plugin = HttpLog(
            http_endpoint=f"http://us%20er:c4nary@{address}/c4nary-hook",
            headers={"x-token": "c4nary"},
            queue={"max_retry_time": 0},
        )
        proxy = gateway(plugin)
        ask(proxy)
        wait_until(lambda: "lost" in caplog.text, "loss", 5)
        proxy.close()
    [credential] = sink.requests[0].values("authorization")
    expected = base64.b64encode(b"us er:c4nary").decode()
    assert credential == f"Basic {expected}"
    assert f"{address} answers with status 500" in caplog.text
    assert "c4nary" not in caplog.text
    assert "c4nary" not in repr(plugin.config)
    assert expected not in caplog.text


def test_the_endpoint_may_be_a_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeUpstream(ok) as sink:
        monkeypatch.setenv("KONGAI_TEST_SINK", f"{sink.url}/in\n")
        proxy = gateway(HttpLog(http_endpoint="{vault://env/kongai-test-sink}"))
        ask(proxy)
        proxy.close()
    assert sink.requests[0].target == "/in"
    # A gateway starts without its secrets; its records are lost and that is said.
    proxy = gateway(
        HttpLog(
            http_endpoint="{vault://env/kongai-test-unset}",
            queue={"max_retry_time": 0},
        )
    )
    ask(proxy)
    proxy.close()
    assert "http_endpoint is not a URL" in caplog.text


def test_a_header_may_be_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_TOKEN", "Bearer t0ken\n")
    log_headers = {
        "Authorization": "{vault://env/log-token}",
        "X-Site": "office",
        "X-Not-Set": "{vault://env/nobody-set-this}",
    }
    config = load(HttpLogConfig, {"http_endpoint": URL, "headers": log_headers})
    assert config.headers == {
        "Authorization": "Bearer t0ken",
        "X-Site": "office",
        "X-Not-Set": "",
    }
    aws = {"http_endpoint": URL, "headers": {"X-A": "{vault://aws/a}"}}
    assert problems("http-log", aws) == [
        "headers.X-A: there is no vault 'aws' in kongai; it has 'env'"
    ]


def test_the_query_of_the_endpoint_is_not_sent_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    HttpLog(http_endpoint="http://h/p?key=c4nary")
    assert caplog.messages == [
        "http-log: the query of http_endpoint is not sent, as in Kong"
    ]


def test_a_sink_that_hangs_hurts_no_request() -> None:
    def hanging(request: Request, connection: Connection) -> None:
        connection.sleep(10)

    with FakeUpstream(hanging) as sink:
        proxy = gateway(HttpLog(http_endpoint=sink.url, timeout=100))
        began = time.monotonic()
        for _ in range(20):
            ask(proxy)
        assert time.monotonic() - began < 5
    proxy.close()


def test_fields_of_a_higher_logger_are_seen_by_lower_ones(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    with FakeUpstream(ok) as sink:
        http = HttpLog(http_endpoint=sink.url, custom_fields={"x": 1, "route": None})
        file = FileLog(path, custom_fields={"x": 2, "y": 3})
        proxy = gateway(file, http)
        ask(proxy)
        proxy.close()
    sent, written = sink.requests[0].json(), json.loads(path.read_text())
    assert (sent["x"], "y" in sent, "route" in sent) == (1, False, False)
    assert (written["x"], written["y"], "route" in written) == (2, 3, False)


def test_loggers_run_in_kongs_order() -> None:
    assert HttpLog.priority > FileLog.priority > TcpLog.priority
    assert (HttpLog.priority, TcpLog.priority) == (12, 7)
