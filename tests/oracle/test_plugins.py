"""Plugins and consumers: what the client, the upstream and the record get to see."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import pytest
import yaml

from kongai import Proxy, config, registry
from kongai.entities import Consumer, KeyAuthCredential
from kongai.errors import ConfigError
from kongai.schema import load
from kongai.scopes import Scoped
from kongai.testing import ListSink
from tests.live.upstream import Connection, FakeUpstream, Request
from tests.live.waiting import wait_until

from . import cases
from .gateway import LiveGateway

Case = dict[str, Any]
Fields = dict[str, Any]

GROUPS: list[Case] = cases.load("plugin_cases.json")["groups"]
AREA = cases.Area("plugins")
_DONE: set[str] = set()

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACKER = re.compile(r"[\d.]+-\d+-\d+-\d+-\d+-[\d.]+")
# Set by the gateway for each request; they have tests of their own.
_OUR_OWN = {
    "connection",
    "date",
    "host",
    "server",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-kong-proxy-latency",
    "x-kong-request-id",
    "x-kong-response-latency",
    "x-kong-upstream-latency",
    "x-real-ip",
}
# What request-termination's echo tells of the machine, the time and the ports.
_OF_THE_RUN = {
    "echo.kong.hostname",
    "echo.kong.worker_pid",
    "echo.matched_route.created_at",
    "echo.matched_route.updated_at",
    "echo.matched_service.created_at",
    "echo.matched_service.port",
    "echo.matched_service.updated_at",
    "echo.request.port",
}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["group"])
def test_a_group_of_plugins_does_what_kongs_do(group: Case) -> None:
    lines = list(unexplained(group))
    _DONE.add(group["group"])
    assert not lines, "\n" + "\n".join(lines)


def test_every_difference_is_one() -> None:
    if len(_DONE) < len(GROUPS):
        pytest.skip("not all groups ran")
    assert AREA.idle() == []


def unexplained(group: Case) -> Iterator[str]:
    """The differences of a group's cases that nothing explains."""
    with FakeUpstream(_answer) as upstream:
        address = upstream.url.removeprefix("http://")
        text = group["config_yaml"].replace("UPSTREAM", address)
        sink = ListSink()
        try:
            proxy = gateway(yaml.safe_load(text), sink)
        except ConfigError:
            yield from AREA.unexplained(
                group["group"],
                {"refused": "config_refused" in group},
                {"refused": True},
            )
            return
        with LiveGateway(proxy) as live:
            for number, case in enumerate(group["cases"]):
                wire = case["request"]
                name = f"{group['group']} #{number}: {_line(wire)}"
                before, logged = len(upstream.requests), len(sink)
                response = exchange(live.port, wire)
                ours = {
                    **_of_response(response),
                    **_of_upstream(upstream.requests[before:]),
                }
                if _is_proxys(response):
                    wait_until(lambda: len(sink) > logged, "a record")  # noqa: B023
                    ours.update(_of_record(sink[-1]))
                masked = _masked(ours, proxy, response.get("request_id", ""))
                yield from AREA.unexplained(name, _of_case(case), masked)


def gateway(data: dict[str, Any], sink: ListSink) -> Proxy:
    """The gateway that a group's file describes, as Kong 3.10 understands it."""
    # The record is taken from a sink instead of a file.
    plugins = [p for p in data.pop("plugins") if p["name"] != "file-log"]
    for plugin in plugins:
        if plugin["name"] == "key-auth":
            # The default of 3.10; it has changed to true since.
            plugin.setdefault("config", {}).setdefault("hide_credentials", False)
    try:
        return Proxy.from_config({**data, "plugins": plugins}, sinks=[sink])
    except ConfigError as error:
        if "consumers" not in str(error):
            raise
    return _by_hand(data, plugins, sink)


def _by_hand(
    data: dict[str, Any], plugins: list[dict[str, Any]], sink: ListSink
) -> Proxy:
    """The same out of objects, for as long as files can't have consumers."""
    consumers = [
        Consumer(
            **{
                **given,
                "keyauth_credentials": [
                    KeyAuthCredential(**one)
                    for one in given.get("keyauth_credentials", ())
                ],
            }
        )
        for given in data.pop("consumers", ())
    ]
    found = config.load_mapping(data)
    scoped = []
    for given in plugins:
        kind = registry.plugin(given["name"])
        if kind.Config is None or not given.get("enabled", True):
            continue
        plugin = kind.from_config(load(kind.Config, given["config"]))
        scope = {k: given[k] for k in ("route", "service", "consumer") if k in given}
        scoped.append(Scoped(plugin, **scope))
    return Proxy(
        found.services, found.routes, scoped, sinks=[sink], consumers=consumers
    )


def _answer(request: Request, connection: Connection) -> None:
    connection.respond(200, body=b'{"ok":true}')


def exchange(port: int, wire: Mapping[str, Any]) -> dict[str, Any]:
    """Send a case's request and read the final answer."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        sock.sendall(_raw(wire))
        response = stack.enter_context(HTTPResponse(sock, method=wire["method"]))
        response.begin()
        return {
            "status": response.status,
            "reason": response.reason,
            "headers": response.getheaders(),
            "body": response.read().decode("latin-1"),
            "request_id": response.getheader("X-Kong-Request-Id", ""),
        }


def _is_proxys(response: Mapping[str, Any]) -> bool:
    """Whether it was an exchange, and not bytes that are no request."""
    names = {name for name, _ in response["headers"]}
    return bool(names & {"X-Kong-Response-Latency", "X-Kong-Proxy-Latency"})


def _line(wire: Mapping[str, Any]) -> str:
    """A request in one line."""
    headers = ", ".join(f"{name}: {value}" for name, value in wire.get("headers", ()))
    return f"{wire['method']} {wire['target']} {headers}".rstrip()


def _raw(wire: Mapping[str, Any]) -> bytes:
    headers = [("Host", wire["host"]), *map(tuple, wire.get("headers", ()))]
    names = {name.lower() for name, _ in headers}
    body = _body(wire.get("body"))
    if "transfer-encoding" in names:
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    elif wire.get("body") is not None and "content-length" not in names:
        headers.append(("Content-Length", str(len(body))))
    lines = [f"{wire['method']} {wire['target']} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _body(given: Any) -> bytes:
    if isinstance(given, dict):
        return given["repeat"].encode("latin-1") * given["times"]
    return (given or "").encode("latin-1")


def _of_case(case: Case) -> Fields:
    response = case["response"]
    seen = case["upstream_seen"]
    return {
        **_of_response(response),
        **_of_head("upstream.header", seen[0]["headers"] if seen else []),
        "upstream.requests": [one["request_line"] for one in seen],
        "upstream.body": [_kong_body(one["body"]) for one in seen],
        **_of_log(case["log"]),
    }


def _kong_body(body: Any) -> str:
    """A long body is given by its size."""
    return _body(body).decode("latin-1")


def _of_response(response: Mapping[str, Any]) -> Fields:
    fields = {
        "status": response.get("status"),
        "reason": response.get("reason"),
        "body": response.get("body"),
        **_of_head("header", response.get("headers", [])),
    }
    if '"matched_route"' in (response.get("body") or ""):
        echo = _flat("echo", json.loads(response["body"]))
        fields.update({k: v for k, v in echo.items() if k not in _OF_THE_RUN})
        del fields["body"], fields["header.content-length"]
    return fields


def _of_upstream(requests: list[Request]) -> Fields:
    return {
        **_of_head("upstream.header", requests[0].headers if requests else []),
        "upstream.requests": [f"{r.method} {r.target} HTTP/1.1" for r in requests],
        "upstream.body": [r.body.decode("latin-1") for r in requests],
    }


def _of_head(prefix: str, headers: Any) -> Fields:
    fields: Fields = {}
    for name, value in headers:
        if name.lower() not in _OUR_OWN:
            fields.setdefault(f"{prefix}.{name.lower()}", []).append(value)
    return fields


def _of_record(record: dict[str, Any]) -> Fields:
    consumer = record.get("consumer")
    request = record["request"]
    names = ("id", "username", "custom_id")
    return _of_log(
        {
            "authenticated_entity": record.get("authenticated_entity"),
            "consumer": consumer
            and {name: consumer[name] for name in names if name in consumer},
            "upstream_uri": record["upstream_uri"],
            "upstream_status": record["upstream_status"],
            "source": record["source"],
            "tries": len(record.get("tries", [])),
            "service": record.get("service", {}).get("name"),
            "route": record.get("route", {}).get("name"),
            "request_headers": request["headers"],
            "request_uri": request["uri"],
            "request_querystring": request["querystring"],
            "response_status": record["response"]["status"],
        }
    )


def _of_log(log: Mapping[str, Any]) -> Fields:
    fields = _flat("log", {k: v for k, v in log.items() if v is not None})
    fields.pop("log.request_headers.host", None)
    return fields


def _flat(prefix: str, data: Any) -> Fields:
    if not isinstance(data, dict):
        return {prefix: data}
    fields: Fields = {}
    for name, value in data.items():
        fields.update(_flat(f"{prefix}.{name}", value))
    return fields


def _masked(fields: Fields, proxy: Proxy, request_id: str) -> Fields:
    """Our values with Kong's names for what is made up."""
    names = {request_id: "<request-id>"} if request_id else {}
    for consumer in proxy.consumers:
        name = consumer.username or consumer.custom_id
        names[str(consumer.id)] = f"<id:consumers:{name}>"
        for one in consumer.keyauth_credentials:
            names[str(one.id)] = f"<id:keyauth_credentials:{one.key}>"
    for kind, entities in (("routes", proxy.routes), ("services", proxy.services)):
        for entity in entities:
            names[str(entity.id)] = f"<id:{kind}:{entity.name}>"
    return {field: _with(names, value) for field, value in fields.items()}


def _with(names: Mapping[str, str], value: Any) -> Any:
    if isinstance(value, list):
        return [_with(names, item) for item in value]
    if not isinstance(value, str):
        return value
    for ours, name in names.items():
        value = value.replace(ours, name)
    value = re.sub(r"^(<uuid>)#\d+$", r"\1#<n>", _UUID.sub("<uuid>", value))
    if _TRACKER.fullmatch(value):
        return (
            "<server_addr>-<server_port>-<pid>-<connection>-<connection_requests>-"
            "<start_time>"
        )
    return value
