"""Sinks on sockets, and a gateway that logs to them: what arrives, case by case."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from kongai import Proxy
from tests.live.ports import Listener, closed_port
from tests.live.upstream import JSON, Connection, FakeUpstream, Request
from tests.live.waiting import wait_until

from .gateway import LiveGateway

_ANSWER = b'{"ok":true}'
_LUA = {"return nil": None, "return 1+1": 2, 'return "x"': "x"}
_REQUEST_ID = re.compile("[0-9a-f]{32}")
_RANDOM_ID = ("authenticated_entity.id", "request.headers.x-credential-identifier")
_CONSUMERS_ID = ("consumer.id", "request.headers.x-consumer-id")


@dataclass
class Arrived:
    """What one case's requests have left behind; records are masked as Kong's are."""

    requests: list[Request]
    """What the HTTP sink was sent, in order."""
    bodies: list[Any]
    """The records in these requests: one each, or a list."""
    lines: list[Any]
    """The records that the TCP sink was sent."""
    connections: int
    """How many connections the TCP sink has seen."""
    file: list[Any]
    """The records in the file."""


class LineSink:
    """A TCP server that keeps the lines it is sent."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.connections = 0
        self._listener = Listener(self._accepted)
        self.port = self._listener.port
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> LineSink:
        self._listener.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.__exit__(kind, error, traceback)
        for reader in self._readers:
            reader.join(5)

    def _accepted(self, sock: socket.socket) -> None:
        self.connections += 1
        reader = threading.Thread(target=self._read, args=(sock,), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream, suppress(OSError):
            self.lines.extend(stream)


def run(case: dict[str, Any], path: Path) -> Arrived:
    """Send a case's requests through a gateway that logs as the case says."""
    script = [int(line.split()[0]) for line in case["sink_status_script"] or ["200"]]

    def sink(request: Request, connection: Connection) -> None:
        connection.respond(script.pop(0) if len(script) > 1 else script[0])

    def upstream(request: Request, connection: Connection) -> None:
        connection.respond(200, JSON, _ANSWER)

    with (
        FakeUpstream(upstream) as up,
        FakeUpstream(sink) as http,
        LineSink() as tcp,
        closed_port() as gone,
    ):
        text = case["config_yaml"]
        for name, value in {
            "HTTPSINK": http.url.removeprefix("http://"),
            "TCPSINK_PORT": str(tcp.port),
            "CLOSED_PORT": str(gone),
            "CLOSED": f"127.0.0.1:{gone}",
            "UPSTREAM": up.url.removeprefix("http://"),
            "LOGPATH": str(path),
        }.items():
            text = text.replace(name, value)
        proxy = Proxy.from_config(_without_lua(yaml.safe_load(text)))
        with LiveGateway(proxy) as gateway:
            for request in case["requests"]:
                assert gateway.exchange(_raw(request))
            # Retries need their time; a stop would cut them short.
            with suppress(TimeoutError):
                wait_until(
                    lambda: (
                        len(http.requests) >= case["http_sink_request_count"]
                        and len(tcp.lines) >= len(case["tcp_records"])
                    ),
                    "deliveries",
                    5,
                )
    ports = {gateway.port: 8000, up.port: "UPSTREAM_PORT"}
    return Arrived(
        http.requests,
        [masked(request.json(), ports) for request in http.requests],
        [masked(json.loads(line), ports) for line in tcp.lines],
        tcp.connections,
        [masked(json.loads(line), ports) for line in path.read_text().splitlines()],
    )


def _raw(request: dict[str, Any]) -> bytes:
    lines = [f"{request['method']} {request['target']} HTTP/1.0", "Host: example.com"]
    lines += [f"{name}: {value}" for name, value in request["headers"]]
    body = (request["body"] or "").encode()
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _without_lua(document: dict[str, Any]) -> dict[str, Any]:
    """The document with `custom_fields` in the place of Kong's Lua."""
    for plugin in document["plugins"]:
        lua = plugin["config"].pop("custom_fields_by_lua", None)
        if lua is not None:
            plugin["config"]["custom_fields"] = {
                name: _LUA.get(code, {"header": "x-none"}) for name, code in lua.items()
            }
    return document


def masked(record: Any, ports: dict[int, Any]) -> Any:
    """A record, or a list of them, with what is different each time masked."""
    if isinstance(record, list):
        return [masked(one, ports) for one in record]
    return {
        path: _mask(path, value, ports) for path, value in without_ids(record).items()
    }


def without_ids(record: Any) -> dict[str, Any]:
    """A record's values by their paths; ids that are made up at each load are masked.

    They are those of credentials, and of consumers that have no name.
    """
    found = flat(record)
    made_up = [*_RANDOM_ID, *([] if "consumer.username" in found else _CONSUMERS_ID)]
    return found | {path: "<random-id>" for path in made_up if path in found}


def flat(record: Any, path: str = "") -> dict[str, Any]:
    """A record's values by their paths; an empty list or object is one, too."""
    if isinstance(record, dict) and record:
        pairs = [(f"{path}.{name}" if path else name, v) for name, v in record.items()]
    elif isinstance(record, list) and record:
        pairs = [(f"{path}[{index}]", v) for index, v in enumerate(record)]
    else:
        return {path: record}
    return {name: leaf for place, v in pairs for name, leaf in flat(v, place).items()}


def _mask(path: str, value: Any, ports: dict[int, Any]) -> Any:
    """What Kong's records have in place of a value that is as it should be."""
    name = path.rpartition(".")[2]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if path == "request.url":
        for port, shown in ports.items():
            value = value.replace(f":{port}/", f":{shown}/")
        return value
    if name == "port" and whole:
        return ports.get(value, value)
    if name in ("id", "x-kong-request-id") and _REQUEST_ID.fullmatch(str(value)):
        return "<request-id>"
    if name in ("created_at", "updated_at") and whole and value < 10**10:
        return "<epoch>"
    if name in ("started_at", "balancer_start") and whole and value > 10**12:
        return "<epoch>"
    if name == "balancer_start_ns" and whole and value > 10**18:
        return "<epoch_ns>"
    if path.startswith("latencies.") and whole and value >= 0:
        return "<ms>"
    if name.startswith("balancer_latency") and whole and value >= 0:
        return "<n>"
    if name.startswith("x-kong-") and name.endswith("-latency") and value.isdecimal():
        return "<n>"
    return value
