"""Kong's records, field by field, against ours of the same exchanges."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import Proxy
from kongai.config import load_mapping
from kongai.testing import ListSink
from tests.live.anthropic_api import Usage, message, message_events
from tests.live.ports import closed_port
from tests.live.upstream import EVENT_STREAM, JSON, Connection, FakeUpstream, Request

from .cases import ORACLE, Area, load
from .gateway import LiveGateway
from .sinks import flat, run, without_ids

CASES: list[dict[str, Any]] = [
    case
    for case in load("plugin_cases.json")["log_sinks"]
    if case["file_log_records"]
    or any(request["body"] for request in case["http_sink_requests"])
    or any(isinstance(record, dict) for record in case["tcp_records"])
]
_GATEWAY = """
_format_version: "3.0"
services:
- name: anything
  url: UPSTREAM/anything
  routes:
  - name: anything
    paths: [/anything]
    plugins: [{name: ai-proxy, config: &statistics {
      route_type: llm/v1/chat, llm_format: anthropic, logging: {log_statistics: true},
      auth: &auth {header_name: x-api-key, header_value: sk-ant-fake-gw},
      model: {provider: anthropic, options: &options {
        anthropic_version: "2023-06-01", upstream_url: UPSTREAM/v1/messages}}}}]
  - name: fixed
    paths: [/fixed]
    plugins: [{name: ai-proxy, config: {<<: *statistics, model: {
      provider: anthropic, name: claude-sonnet-4-20250514, options: *options}}}]
  - name: payloads
    paths: [/payloads]
    plugins: [{name: ai-proxy, config: {
      <<: *statistics, logging: {log_statistics: true, log_payloads: true}}}]
  - name: nostats
    paths: [/nostats]
    plugins: [{name: ai-proxy, config: {<<: *statistics, logging: {}}}]
  - name: dead
    paths: [/dead]
    plugins: [{name: ai-proxy, config: {<<: *statistics, model: {
      provider: anthropic, options: {
        anthropic_version: "2023-06-01", upstream_url: "http://CLOSED/v1/messages"}}}}]
"""
_VARIES = re.compile(
    r".*(\.|^)(id|[a-z]+ed_at|balancer_\w+|port|plugin_id|url)|latencies\..*"
    r"|response\.(size|headers\.(content-length|x-kong-(request-id|.*-latency)))"
    r"|ai\.proxy\.(usage|payload)\..*|ai\.proxy\.meta\.llm_latency"
)


def complete(text: str) -> bytes | None:
    """A request as it was sent; None when only its beginning was kept."""
    literal, _, _ = text.rpartition(" [")
    try:
        raw = ast.literal_eval(literal)
    except SyntaxError:
        return None
    return raw if isinstance(raw, bytes) else None


def said(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what kongai adds, and without the names of the two."""
    return {
        path: re.sub(r"\b(kong|kongai)/[\w.]+", "NAME", value)
        if path.endswith((".server", ".via"))
        else value
        for path, value in record.items()
        if not path.startswith("kongai.")
    }


EXCHANGES: dict[str, dict[str, Any]] = {
    name: {**exchange, "request": raw}
    for name, exchange in load("kong-records.json", ORACLE.parent).items()
    if isinstance(exchange["record"], dict)
    and exchange["record"].get("route", {"name": None})["name"]
    in (None, "anything", "fixed", "payloads", "nostats", "dead")
    # Sides that break off are the business of tests/live.
    and not name.startswith(("abort_", "fault_", "bad_request_line"))
    and (raw := complete(exchange["request"])) is not None
}
AREA = Area("records")
RAN: set[str] = set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_records_have_kongs_fields(case: dict[str, Any], tmp_path: Path) -> None:
    arrived = run(case, tmp_path / "log.json")
    RAN.add(case["name"])
    lines = []
    for name, kong, ours in (
        ("file", case["file_log_records"] or [], arrived.file),
        ("http", [r["body"] for r in case["http_sink_requests"]], arrived.bodies),
        ("tcp", case["tcp_records"], arrived.lines),
    ):
        pairs = zip(_single(kong), _single(ours), strict=False)
        for index, (theirs, own) in enumerate(pairs):
            if isinstance(theirs, dict):
                where = f"{case['name']} {name} {index}"
                lines += AREA.unexplained(where, said(without_ids(theirs)), said(own))
    assert lines == []


@pytest.mark.parametrize("name", EXCHANGES)
def test_records_of_calls_to_models_have_kongs_fields(name: str) -> None:
    kong = EXCHANGES[name]["record"]
    RAN.add(name)
    ours = record_of(EXCHANGES[name]["request"])
    assert AREA.unexplained(f"call {name}", said(shape(kong)), said(shape(ours))) == []


def test_every_difference_is_one() -> None:
    if len(RAN) == len(CASES) + len(EXCHANGES):
        assert AREA.idle() == []


def record_of(raw: bytes) -> dict[str, Any]:
    """The record of a request to a gateway like the one that Kong's records are of."""
    records = ListSink()
    with FakeUpstream(model) as upstream, closed_port() as gone:
        text = _GATEWAY.replace("UPSTREAM", upstream.url)
        text = text.replace("CLOSED", f"127.0.0.1:{gone}")
        config = load_mapping(yaml.safe_load(text))
        with LiveGateway(Proxy.from_config(config, sinks=[records])) as gateway:
            gateway.exchange(raw)
    [record] = records
    return record


def model(request: Request, connection: Connection) -> None:
    """Answers as the upstream of Kong's records did."""
    status = re.search("status=([0-9]+)", "".join(request.values("x-mock")))
    asked = json.loads(request.body.decode(errors="replace"))
    usage = Usage(119, 20)
    name = asked["model"]
    headers = [*JSON, ("request-id", "req_mock")]
    if status or b"\xff" in request.body:
        body = {"type": "error", "error": {"type": "api_error", "message": "mock"}}
        given = int(status[1]) if status else 400
        connection.respond(given, headers, json.dumps(body).encode())
    elif asked.get("stream"):
        connection.start_stream([*EVENT_STREAM, ("request-id", "req_mock")])
        for event in message_events("Stokes", usage, model=name):
            connection.chunk(event)
        connection.end()
    else:
        body = message("Stokes", usage, model=name)
        connection.respond(200, headers, json.dumps(body).encode())


def shape(record: dict[str, Any]) -> dict[str, Any]:
    """A record's fields: what the exchange decides by value, the rest by its type."""
    return {
        path: kind(value) if _VARIES.fullmatch(path) else value
        for path, value in flat(record).items()
    }


def kind(value: Any) -> str:
    """JSON's name for a value's type."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    return f"a {type(value).__name__}"


def _single(bodies: list[Any]) -> list[Any]:
    """The records of all bodies, of batches too."""
    return [
        record
        for body in bodies
        for record in (body if isinstance(body, list) else [body])
    ]
