"""Which route, which upstream path, which heads: Kong's traditional router's."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import Proxy
from kongai.errors import ConfigError
from kongai.testing import ListSink
from tests.live.upstream import Connection, FakeUpstream, Request

from .cases import Area, load
from .gateway import LiveGateway

SETS = load("routing_cases.json")
AREA = Area("routing")
RUN: set[str] = set()

HEX = re.compile(r"[0-9a-f]{32}")
LATENCY = re.compile(r"X-Kong-(Upstream|Proxy|Response)-Latency")
# Werkzeug's, urllib3's and Kong's texts name themselves and their versions.
OURS = re.compile(r"kongai/[\w.+]+")


class Gateway:
    """A gateway of one set, its upstream and its records."""

    def __init__(self, template: str, folder: Path, upstream: FakeUpstream) -> None:
        self.upstream, self.sink = upstream, ListSink()
        self.address = upstream.url.removeprefix("http://")
        text = template.replace("UPSTREAM_PORT", self.address.partition(":")[2])
        text = text.replace("UPSTREAM", self.address)
        text = text.replace("LOGPATH", str(folder / "log.json"))
        try:
            proxy = Proxy.from_config(yaml.safe_load(text), sinks=[self.sink])
        except ConfigError as error:
            pytest.skip(f"kongai lacks what this set needs: {error}")
        self.live = LiveGateway(proxy)

    def decision(self, case: dict[str, Any]) -> dict[str, Any]:
        """What is done with a case's request, in the terms of `kongs`."""
        self.upstream.requests.clear()
        self.sink.clear()
        raw = case["raw_request"].encode()
        response = self._response(raw, case["request"]["method"])
        record = self._record()
        seen = [self._seen(request) for request in self.upstream.requests]
        request = record.get("request", {})
        return {
            "matched_route": record.get("route", {}).get("name"),
            "matched_service": record.get("service", {}).get("name"),
            "logged": bool(record),
            "upstream_uri": record.get("upstream_uri"),
            "log_request_uri": request.get("uri"),
            "log_request_url": self._as_captured(request.get("url")),
            **flat(seen, response),
        }

    def _record(self) -> dict[str, Any]:
        """The record, which comes after the answer; none of what was no request."""
        until = time.monotonic() + 0.3
        while not self.sink and time.monotonic() < until:
            time.sleep(0.001)
        return self.sink[0] if self.sink else {}

    def _response(self, raw: bytes, method: str) -> dict[str, Any] | None:
        with socket.create_connection(("127.0.0.1", self.live.port), 5) as sock:
            sock.sendall(raw)
            answer = http.client.HTTPResponse(sock, method=method)
            try:
                answer.begin()
            except http.client.HTTPException:
                return None
            return {
                "status": answer.status,
                "reason": answer.reason,
                "headers": [
                    [name, self._masked(name, value)]
                    for name, value in answer.getheaders()
                ],
                "body": HEX.sub("<request-id>", answer.read().decode("latin-1")),
            }

    def _seen(self, request: Request) -> dict[str, Any]:
        return {
            "request_line": f"{request.method} {request.target} HTTP/1.1",
            "headers": [
                [name, self._masked(name, value)] for name, value in request.headers
            ],
            "body": request.body.decode("latin-1"),
        }

    def _masked(self, name: str, value: str) -> str:
        if LATENCY.fullmatch(name):
            return "<n>"
        if name == "X-Forwarded-Port":
            return "PROXY_PORT" if value == str(self.live.port) else value
        value = value.replace(self.address, "UPSTREAM")
        return OURS.sub("kong/3.10.0", HEX.sub("<request-id>", value))

    def _as_captured(self, url: str | None) -> str | None:
        port = str(self.live.port)
        return url and re.sub(rf"(://[^/]*):{port}/", r"\1:8000/", url, count=1)


def flat(seen: list[dict[str, Any]], response: dict[str, Any] | None) -> dict[str, Any]:
    """One field for each thing that may differ."""
    first = seen[0] if seen else {"request_line": None, "headers": [], "body": None}
    response = response or {"status": None, "reason": None, "headers": [], "body": None}
    return {
        "tries": len(seen),
        "request_line": first["request_line"],
        "upstream_body": first["body"],
        "status": response["status"],
        "reason": response["reason"],
        "body": response["body"],
        **headers("upstream", first["headers"]),
        **headers("answer", response["headers"]),
    }


def headers(whose: str, pairs: list[list[str]]) -> dict[str, Any]:
    """A field for each header name; the order counts among those of one name."""
    # nginx says what HTTP/1.1 does anyway.
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name != "Date" and (whose, value) != ("answer", "keep-alive"):
            found.setdefault(f"{whose} {name}", []).append(value)
    return found


def kongs(case: dict[str, Any]) -> dict[str, Any]:
    """What Kong did with a case's request."""
    fields = "matched_route", "matched_service", "logged", "upstream_uri"
    fields += "log_request_uri", "log_request_url"
    return {
        **{field: case[field] for field in fields},
        **flat(case["upstream_seen"], case["response"]),
    }


def name(set_name: str, case: dict[str, Any]) -> str:
    """A case in a word: no test is special, so it is named by what is sent."""
    request = case["request"]
    fields = "".join(f" {key}={value}" for key, value in request["headers"] or ())
    line = f"{request['method']} {request['target'][:80]} {request['host']}"
    return f"{set_name}: {line}{fields}"


@contextmanager
def running(template: str, folder: Path) -> Iterator[Gateway]:
    """A gateway of this configuration, and an upstream that answers it."""

    def answer(request: Request, connection: Connection) -> None:
        connection.respond(200, body=b'{"ok":true}')

    with FakeUpstream(answer) as upstream:
        gateway = Gateway(template, folder, upstream)
        with gateway.live:
            yield gateway


@pytest.mark.parametrize("given", SETS, ids=lambda given: given["set"])
def test_requests_go_where_kong_sends_them(
    given: dict[str, Any], tmp_path: Path
) -> None:
    unexplained: list[str] = []
    with running(given["config_yaml"], tmp_path) as gateway:
        for case in given["cases"]:
            kong, ours = kongs(case), gateway.decision(case)
            if ours["matched_route"] in case.get("tie_depends_on_route_id", ()):
                ours = kong
            unexplained += AREA.unexplained(name(given["set"], case), kong, ours)
    RUN.add(given["set"])
    assert not unexplained, "\n".join(unexplained)


def test_every_difference_that_is_written_down_is_there() -> None:
    if len(RUN) < len(SETS):
        pytest.skip("not all cases ran")
    assert AREA.idle() == []
