"""Facts 35 to 42, live: routes, an upstream that fails, the record and its file.

See `acceptance` for how to read a row, and `test_acceptance_files` for where the other
facts are.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .acceptance import (
    ASKED_TO_STREAM,
    EVENTS,
    GLOBAL_LOG,
    MISSING,
    STREAM,
    USAGE,
    Fact,
    Setup,
    acceptance_line,
    at,
    facts,
    streams,
)
from .conftest import KEY, Line, request_headers
from .harness import LOG_PATH, wait_until
from .upstream import JSON, Connection, Request

DOWN = {"upstream_url": "http://127.0.0.1:1/v1/messages"}
NO_ANSWER = "An invalid response was received from the upstream server"
TOO_LATE = "The upstream server is timing out"
ENVELOPE = "the same text in {message, request_id}"
PARALLEL = 40

SETUPS = {
    "down": Setup(options=DOWN),
    "down-twice": Setup(options=DOWN, service={"retries": 2}),
    "down-plain": Setup(ai_proxy=None, service={"retries": 0}),
    "impatient": Setup(service={"read_timeout": 200}),
    "httpbin": Setup(service={"url": "http://httpbin.konghq.com/anything"}),
    "lost": Setup(file_log={"path": f"{LOG_PATH}.d/lost.json"}),
    "reopen": Setup(file_log={"path": f"{LOG_PATH}.reopen", "reopen": True}),
    "parallel": Setup(file_log={"path": f"{LOG_PATH}.parallel"}),
    "custom": Setup(
        file_log={
            "custom_fields": {
                "new_field": 123,
                "nested.keys": 456,
                r"escape\.dots": 789,
                "route": None,
                "asked.by": {"header": "X-App"},
            }
        }
    ),
}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """The gateway of this file's rows."""
    with acceptance_line(SETUPS) as line:
        yield line


def log_of(line: Line, path: str) -> Path:
    """A log, by its path in the file."""
    return Path(path.replace(LOG_PATH, str(line.gateway.log_path)))


def records_in(log: Path, count: int) -> list[dict[str, Any]]:
    """So many records of a log, each a line; there must be no more."""

    def lines() -> list[bytes]:
        return log.read_bytes().splitlines() if log.exists() else []

    wait_until(lambda: len(lines()) >= count, f"record {count} in {log}", 5)
    assert len(lines()) == count
    return [json.loads(text) for text in lines()]


def silent(request: Request, connection: Connection) -> None:
    """A handler that never answers."""
    assert connection.closed_by_peer(5)


@facts(
    Fact(
        number=35,
        says="no route is a 404, logged by a plugin for all and by no service's",
        route="nope",
        method="GET",
        path="",
        headers=(),
        body=b"",
        status=404,
    )
)
def test_no_route(line: Line, fact: Fact) -> None:
    line.upstream.requests.clear()
    answer = fact.ask(line)
    request_id = answer.value("x-kong-request-id")
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert answer.status == fact.status
    assert answer.json() == {
        "message": "no Route matched with those values",
        "request_id": request_id,
    }
    assert answer.value("content-type") == "application/json; charset=utf-8"
    assert line.upstream.requests == []
    [record] = records_in(log_of(line, GLOBAL_LOG), 1)
    assert record["request"]["id"] == request_id
    assert record["request"]["uri"] == "/nope"
    assert (record["response"]["status"], record["source"]) == (404, "kong")
    assert not record.keys() & {"route", "service", "tries"}
    logged = [of["request"]["id"] for of in line.gateway.records(0)]
    assert request_id not in logged


@facts(
    Fact(
        number=36,
        says="anythingelse is the route anything's, prefixes are text",
        path="else/v1/messages",
        seen={"target": "/v1/messages"},
        record={"route.name": "anything", "request.uri": "/anythingelse/v1/messages"},
    ),
    Fact(
        number=39,
        says="the upstream's status is a string for a stream",
        body=ASKED_TO_STREAM,
        upstream=streams(*EVENTS),
        answer=STREAM,
        record={"upstream_status": "200", "response.status": 200},
    ),
    Fact(
        number=39,
        says="the upstream's status is a string for a whole answer",
        kong="the number 200",
        record={"upstream_status": "200", "response.status": 200},
    ),
    Fact(
        number=42,
        says="custom fields nest, escape dots, and take fields away",
        kong="the same by way of Lua, in custom_fields_by_lua",
        route="custom",
        headers=(("x-api-key", KEY), ("x-app", "cli"), *JSON),
        record={
            "new_field": 123,
            "nested.keys": 456,
            r"escape\.dots": 789,
            "route": MISSING,
            "asked.by": "cli",
            "service.name": "custom",
        },
    ),
    Fact(
        number=42,
        says="custom fields are those of one service",
        record={"new_field": MISSING, "route.name": "anything"},
    ),
)
def test_routes_and_fields(line: Line, fact: Fact) -> None:
    fact.check(line)


def no_answer(says: str, route: str) -> Fact:
    """A row of an upstream that nobody listens at."""
    return Fact(
        number=37,
        says=says,
        kong=ENVELOPE,
        route=route,
        status=502,
        error=("api_error", NO_ANSWER),
        seen=None,
        record={"source": "kong", "response.status": 502, "kongai.ended": "connect"},
    )


@facts(
    no_answer("a closed port is tried retries + 1 times, 6 by default", "down"),
    no_answer("a closed port is tried retries + 1 times, 3 with 2", "down-twice"),
)
def test_a_closed_port(line: Line, fact: Fact) -> None:
    answer, record = fact.check(line)
    tries = 1 + record["service"]["retries"]
    assert [of["code"] for of in record["tries"]] == [502] * tries
    assert {(of["ip"], of["port"]) for of in record["tries"]} == {("127.0.0.1", 1)}
    ids = [of["request"]["id"] for of in line.gateway.records(0)]
    assert ids.count(answer.value("x-kong-request-id")) == 1


@facts(
    Fact(
        number=37,
        says="without ai-proxy the error of a closed port is in Kong's format",
        route="down-plain",
        status=502,
        seen=None,
        record={"source": "kong", "ai": MISSING},
    )
)
def test_a_closed_port_without_ai_proxy(line: Line, fact: Fact) -> None:
    answer, record = fact.check(line)
    request_id = record["request"]["id"]
    assert answer.json() == {"message": NO_ANSWER, "request_id": request_id}
    assert len(record["tries"]) == 1


@facts(
    Fact(
        number=37,
        says="an upstream that is silent for read_timeout is given up once and for all",
        kong=ENVELOPE,
        route="impatient",
        upstream=silent,
        status=504,
        error=("timeout_error", TOO_LATE),
        record={
            "source": "kong",
            "service.read_timeout": 200,
            "kongai.ended": "first_byte_timeout",
        },
    )
)
def test_a_silent_upstream(line: Line, fact: Fact) -> None:
    begun = time.monotonic()
    _, record = fact.check(line)
    assert 0.2 <= time.monotonic() - begun < 2
    assert 200 <= record["latencies"]["request"] < 2000
    assert len(record["tries"]) == 1  # a prompt that was sent is not sent again


@facts(
    Fact(
        number=38,
        says="the record has Kong's fields and no credential",
        kong="x-api-key in clear in 3.10",
        route="httpbin",
        headers=tuple(request_headers(("X-Stainless-OS", "Linux"), ("X-App", "cli"))),
        seen={"x-api-key": [KEY], "authorization": [f"Bearer {KEY}"]},
        record={
            "request.headers.authorization": "REDACTED",
            "request.headers.x-api-key": "REDACTED",
            "request.headers.x-stainless-os": "Linux",
            "request.headers.anthropic-version": "2023-06-01",
            "request.querystring": {"beta": "true"},
            "request.uri": "/httpbin/v1/messages?beta=true",
            "request.url": re.compile(
                r"http://127\.0\.0\.1:\d+/httpbin/v1/messages\?beta=true"
            ),
            "request.method": "POST",
            "upstream_uri": "/v1/messages?beta=true",
            "service.host": "httpbin.konghq.com",
            "service.port": 80,
            "service.path": "/anything",
            "service.created_at": re.compile(r"\d{10}"),
            "route.created_at": re.compile(r"\d{10}"),
            "started_at": re.compile(r"\d{13}"),
            "client_ip": "127.0.0.1",
            "workspace_name": "default",
            "source": "upstream",
            "response.status": 200,
            "kongai.ended": "ok",
        },
    )
)
def test_the_record(line: Line, fact: Fact) -> None:
    answer, record = fact.check(line)
    kongs = {"latencies", "service", "upstream_uri", "client_ip", "started_at", "ai"}
    kongs |= {"upstream_status", "workspace_name", "workspace", "request", "response"}
    kongs |= {"source", "tries", "route"}
    assert record.keys() == kongs | {"kongai"}
    assert record["request"].keys() == {
        *("id", "method", "uri", "url", "querystring", "headers", "size")
    }
    assert record["latencies"].keys() == {"request", "kong", "proxy", "receive"}
    names = [*record["request"]["headers"], *record["response"]["headers"]]
    assert names == [name.lower() for name in names]
    logged = record["response"]["headers"]
    assert logged["x-kong-request-id"] == answer.value("x-kong-request-id")
    [attempt] = record["tries"]
    assert f"http://{attempt['ip']}:{attempt['port']}" == line.upstream.url
    assert "state" not in attempt


@facts(
    Fact(
        number=41,
        says="a log in a missing directory does not cost the request",
        route="lost",
    )
)
def test_a_log_in_a_missing_directory(line: Line, fact: Fact) -> None:
    text = "failed to open the file: No such file or directory"
    assert [fact.ask(line).status for _ in range(2)] == [fact.status] * 2
    wait_until(lambda: text in line.gateway.stderr_text(), "error", 5)
    assert not log_of(line, f"{LOG_PATH}.d").exists()


@facts(
    Fact(
        number=41,
        says="with reopen a deleted log is made again with the later records",
        route="reopen",
    )
)
def test_a_log_that_is_deleted(line: Line, fact: Fact) -> None:
    log = log_of(line, f"{LOG_PATH}.reopen")
    fact.ask(line)
    fact.ask(line)
    records_in(log, 2)
    log.unlink()
    later = [fact.ask(line).value("x-kong-request-id") for _ in range(2)]
    assert [record["request"]["id"] for record in records_in(log, 2)] == later


@facts(
    Fact(
        number=41,
        says="40 requests at once are 40 lines",
        route="parallel",
        body=ASKED_TO_STREAM,
    )
)
def test_requests_at_once(line: Line, fact: Fact) -> None:
    meeting = threading.Barrier(PARALLEL)

    def handler(request: Request, connection: Connection) -> None:
        meeting.wait(5)
        streams(*EVENTS)(request, connection)

    line.upstream.handler = handler
    with ThreadPoolExecutor(PARALLEL) as pool:
        paths = [f"/{fact.route}{fact.path}"] * PARALLEL
        answers = list(pool.map(lambda path: line.ask(fact.body, path), paths))
    assert [answer.body for answer in answers] == [STREAM] * PARALLEL
    records = records_in(log_of(line, f"{LOG_PATH}.parallel"), PARALLEL)
    ids = {record["request"]["id"] for record in records}
    assert ids == {answer.value("x-kong-request-id") for answer in answers}
    counted = [at(record, f"{USAGE}.total_tokens") for record in records]
    assert counted == [24] * PARALLEL
