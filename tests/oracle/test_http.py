"""What becomes of raw requests: who is refused, what is passed on, what is closed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import Proxy
from kongai.testing import ListSink
from tests.http.client import Client
from tests.live.upstream import Connection, FakeUpstream, Request

from .cases import Area, load
from .gateway import LiveGateway

Case = dict[str, Any]
Fields = dict[str, Any]

FILE = load("http_cases.json")
AREA = Area("http")

HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
LONG = 1000
OURS = re.compile(r"kongai/[\w.+]+")
# Seconds to wait for what may not come: an answer, or a record.
SOON = 0.25
# And for what will, on a busy machine too.
SURELY = 3.0


class Gateway:
    """A gateway, its upstream and its records."""

    def __init__(self, template: str, folder: Path, stack: ExitStack) -> None:
        self.upstream = stack.enter_context(FakeUpstream(_answer))
        self.address = self.upstream.url.removeprefix("http://")
        text = template.replace("UPSTREAM", self.address)
        text = text.replace("LOGPATH", str(folder / "log.json"))
        self.sink = ListSink()
        proxy = Proxy.from_config(yaml.safe_load(text), sinks=[self.sink])
        self.live = stack.enter_context(LiveGateway(proxy))
        self.stack = stack
        self.open: list[tuple[Fields, Client]] = []

    def decision(self, case: Case) -> Fields:
        """What becomes of a case; whether it is closed is seen to in the end."""
        self.upstream.requests.clear()
        self.sink.clear()
        parts = case.get("sent_in_parts", [case.get("raw")])
        closed = None
        heads_only = str(parts[0]).startswith("HEAD")
        client = Client(self.live.port, heads_only=heads_only)
        self.stack.callback(client.sock.close)
        for part in parts:
            if part == "<EOF>":
                client.no_more()
            elif isinstance(part, str):
                client.send(part.encode("latin-1"))
            else:
                time.sleep(part)
        awaited = len(case["responses"])
        client.read(max(1, awaited), SURELY if awaited else SOON)
        if not client.answers:
            # Kong's records came once the client had closed.
            closed = client.closed
            client.sock.close()
            self._wait_for_records(len(case["log"]))
        elif client.answers[-1].headers.get("connection") == "close":
            # A record is written before the connection is closed.
            client.read(None, SURELY)
        else:
            self._wait_for_records(len(client.answers), SURELY)
        seen = [self._seen(request) for request in self.upstream.requests]
        ours = flat(
            [answer.status for answer in client.answers],
            [
                [[n, self._masked(n, v)] for n, v in answer.headers.items()]
                for answer in client.answers
            ],
            [HEX.sub("<request-id>", a.body.decode("latin-1")) for a in client.answers],
            client.interim,
            seen,
            self._records(),
        )
        if closed is None:
            self.open.append((ours, client))
        else:
            ours["closed"] = closed
        return ours

    def _seen(self, request: Request) -> Case:
        return {
            "request_line": f"{request.method} {request.target} HTTP/1.1",
            "headers": [[n, self._masked(n, v)] for n, v in request.headers],
            "body": shown(request.body),
        }

    def _masked(self, name: str, value: str) -> str:
        if name.lower() == "x-forwarded-port":
            return "PROXY_PORT" if value == str(self.live.port) else value
        if re.fullmatch("x-kong-.*-latency", name.lower()):
            return "<n>"
        value = value.replace(self.address, "UPSTREAM")
        return OURS.sub("kong/3.10.0", HEX.sub("<request-id>", value))

    def _wait_for_records(self, count: int, seconds: float = SOON) -> None:
        until = time.monotonic() + seconds
        while len(self.sink) < count and time.monotonic() < until:
            time.sleep(0.001)

    def _records(self) -> list[Case]:
        port = f":{self.live.port}"
        return [
            {
                "status": record["response"]["status"],
                "source": record["source"],
                "method": record["request"]["method"],
                "uri": record["request"]["uri"],
                "url": record["request"]["url"].replace(port, ":8000"),
                "route": record.get("route", {}).get("name"),
                "size": record["request"]["size"],
            }
            for record in self.sink
        ]


def _answer(request: Request, connection: Connection) -> None:
    connection.respond(200, body=b'{"ok":true}')


def shown(body: bytes) -> str:
    """A body as the captured ones are."""
    return f"<{len(body)} bytes>" if len(body) > LONG else body.decode("latin-1")


def flat(
    statuses: list[int],
    heads: list[list[list[str]]],
    bodies: list[str],
    interim: list[int],
    seen: list[Case],
    log: list[Case],
) -> Fields:
    """A field for everything that may be different."""
    fields: Fields = {
        "statuses": statuses,
        "interim": interim,
        "requests": [one["request_line"] for one in seen],
        "bodies": [one["body"] for one in seen],
        "records": [one["status"] for one in log],
    }
    for number, (head, body) in enumerate(zip(heads, bodies, strict=True)):
        fields[f"answer {number} body"] = body
        for name, value in head:
            if name.lower() != "date" and value != "keep-alive":
                fields.setdefault(f"answer {number} {name.lower()}", []).append(value)
    for number, one in enumerate(seen):
        for name, value in one["headers"]:
            fields.setdefault(f"upstream {number} {name}", []).append(value)
    for number, one in enumerate(log):
        for name in ("source", "method", "uri", "url", "route", "size"):
            fields[f"record {number} {name}"] = one[name]
    return fields


def kongs(case: Case) -> Fields:
    """What became of it at Kong."""
    answers = [one for one in case["responses"] if "status" in one]
    bodies = [HEX.sub("<request-id>", one["body"]) for one in answers]
    interim = [number for one in answers for number, _ in one.get("interim", ())]
    fields = flat(
        [one["status"] for one in answers],
        [one["headers"] for one in answers],
        bodies,
        interim,
        case["upstream_seen"],
        case["log"],
    )
    fields["closed"] = case["connection_closed_by_gateway"] is not None
    return fields


@contextmanager
def running(folder: Path) -> Iterator[Gateway]:
    with ExitStack() as stack:
        yield Gateway(FILE["config_yaml"], folder, stack)


def test_raw_requests(tmp_path: Path) -> None:
    lines: list[str] = []
    with running(tmp_path) as gateway:
        decisions = [gateway.decision(case) for case in FILE["cases"]]
        # All but the last few have had more than enough time to be closed.
        for ours, client in gateway.open:
            client.read(len(client.answers) + 1, 0.001)
            ours["closed"] = client.closed
        for case, ours in zip(FILE["cases"], decisions, strict=True):
            lines += AREA.unexplained(case["name"], kongs(case), ours)
    assert not lines, "\n" + "\n".join(lines)


def test_every_difference_that_is_written_down_is_there() -> None:
    if not AREA.counts:
        pytest.skip("the cases did not run")
    assert AREA.idle() == []
