"""The record of an exchange.

`serialize` turns an exchange into the record that Kong's log plugins write
(``kong.log.serialize``). Where it goes is the business of sinks (`kongai.sinks`) and of
the log plugins: the same record goes to a file, a socket or a list in a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from kongai import forwarding, redact
from kongai.entities import CACertificate, Certificate, Consumer, Route, Service
from kongai.exchange import Exchange, Try, milliseconds
from kongai.incoming import argument, mount_point, received_headers
from kongai.sinks import encode

WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""The id of Kong's default workspace, the same in every Kong."""

_MAX_LOGGED_HEADERS = 100
_CLIENT_CLOSED_REQUEST = 499
_INTERRUPTED = ("client_abort", "write_timeout", "shutdown", "killed")
"""The ends that may come at any time; the others tell by themselves when."""


def line(exchange: Exchange) -> bytes:
    """The record as a line of JSON, for the log phase.

    Loggers of one exchange share it: it is made again only when a field was set since.
    """
    if exchange.log.line is None:
        exchange.log.line = encode(serialize(exchange))
    return exchange.log.line


def serialize(exchange: Exchange) -> dict[str, Any]:
    """The record of an exchange, in Kong's shape, without credentials.

    Meant for the log phase; earlier, what has not happened yet is missing.
    """
    record: dict[str, Any] = {
        "request": _request(exchange),
        "response": _response(exchange),
        "latencies": _latencies(exchange),
        "upstream_uri": _upstream_uri(exchange),
        "upstream_status": _upstream_status(exchange),
        "client_ip": exchange.client_ip,
        "started_at": exchange.timings.started_at,
        "source": exchange.source,
        "workspace": WORKSPACE,
        "workspace_name": "default",
    }
    if exchange.match is not None:
        record["tries"] = [_try(attempt) for attempt in exchange.tries]
        record["route"] = route_fields(exchange.match.route, exchange.match.service)
        if exchange.match.service is not None:
            record["service"] = entity_fields(exchange.match.service)
    if exchange.consumer is not None:
        record["consumer"] = _fields(exchange.consumer)
    if exchange.credential is not None:
        record["authenticated_entity"] = {"id": exchange.credential.id}
    record["kongai"] = {"ended": exchange.ended}
    if exchange.ended in _INTERRUPTED:
        record["kongai"]["phase"] = _phase(exchange)
    exchange.log.apply(record)
    if exchange.secret_values:
        record = redact.values(record, exchange.secret_values)
    return record


def _phase(exchange: Exchange) -> str:
    """How far an exchange had come when it was interrupted."""
    if exchange.receiving or not (exchange.tries or exchange.response):
        return "request"
    if exchange.upstream_response is None and exchange.tries:
        return "upstream"
    return "response"


def _request(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    environ = request.environ
    also = exchange.secret_names
    target = mount_point(environ) + exchange.target
    uri = redact.target(target, also)
    port = environ.get("SERVER_PORT", "")
    line = f"{request.method} {target} HTTP/1.1\r\n"
    head = received_headers(request)
    return {
        "id": exchange.id,
        "method": request.method,
        "uri": uri,
        "url": f"{request.scheme}://{exchange.host_name}:{port}{uri}",
        "querystring": _querystring(target.partition("?")[2], also),
        "headers": _headers(exchange.sent_headers or exchange.headers, exchange),
        "size": len(line) + _head_size(head) + exchange.body_size,
    }


def _querystring(query: str, also: frozenset[str]) -> dict[str, Any]:
    """The arguments, decoded; one without a value is true."""
    fields: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, value = argument(part)
        if isinstance(value, str):
            value = redact.argument(name, value, also)
        _gather(fields, redact.text(name), value)
    return fields


def _response(exchange: Exchange) -> dict[str, Any]:
    response = exchange.response
    if response is None:
        return {"status": _CLIENT_CLOSED_REQUEST, "headers": {}, "size": 0}
    line = f"HTTP/1.1 {response.status}\r\n"
    # What the server added is there if it is kongai's own and has sent the head.
    sent = exchange.request.environ.get("kongai.sent_headers") or response.headers
    dated = "date" in response.headers
    shown = [(n, v) for n, v in sent if dated or n != "Date"]
    return {
        "status": response.status_code,
        "headers": _headers(shown, exchange),
        "size": len(line) + _head_size(sent) + exchange.bytes_sent,
    }


def _head_size(headers: Iterable[tuple[str, str]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers) + 2


def _headers(headers: Iterable[tuple[str, str]], exchange: Exchange) -> dict[str, Any]:
    also = exchange.secret_names
    logged: dict[str, Any] = {}
    for name, value in islice(headers, _MAX_LOGGED_HEADERS):
        _gather(logged, name.lower(), redact.header_value(name, _decoded(value), also))
    return logged


def _decoded(value: str) -> str:
    """A header's value as UTF-8 if it is that; servers read every byte as Latin-1."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _gather(fields: dict[str, Any], name: str, value: Any) -> None:
    """Add a field; a repeated one becomes a list."""
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]


def _latencies(exchange: Exchange) -> dict[str, int]:
    timings = exchange.timings
    end = timings.end if timings.end is not None else timings.start
    return {
        "request": milliseconds(timings.start, end),
        "kong": timings.kong(end),
        "proxy": timings.proxy(end),
        "receive": milliseconds(timings.answered, timings.received),
    }


def _upstream_uri(exchange: Exchange) -> str:
    """Where the request went, or would have gone if a plugin had not answered it."""
    if exchange.upstream_request is not None:
        target = exchange.upstream_request.target
    else:
        target = forwarding.service_target(exchange) or ""
    return redact.target(target, exchange.secret_names)


def _upstream_status(exchange: Exchange) -> str:
    """The status of each try, or what stands for it; empty when there was none."""
    codes = [attempt.code for attempt in exchange.tries if attempt.code is not None]
    if exchange.upstream_response is not None:
        codes.append(exchange.upstream_response.status)
    return ", ".join(map(str, codes))


def _try(attempt: Try) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "balancer_start": attempt.started_ns // 1_000_000,
        "balancer_start_ns": attempt.started_ns,
        "balancer_latency": attempt.latency_ns // 1_000_000,
        "balancer_latency_ns": attempt.latency_ns,
        "ip": attempt.ip,
        "port": attempt.port,
    }
    if attempt.state is not None:
        entry["state"] = attempt.state
        entry["code"] = attempt.code
    return entry


_NOT_LOGGED = {"url", "routes", "plugins", "keyauth_credentials"}


def route_fields(route: Route, service: Service | None) -> dict[str, Any]:
    """A route as records have it."""
    entity = entity_fields(route)
    if service is not None:
        entity["service"] = {"id": service.id}
    return entity


def _plain(value: Any) -> Any:
    """A value as JSON has it: no tuples, and of certificates their ids."""
    if isinstance(value, (str, int)):
        # Nearly all of them, and the other questions take long.
        return value
    if isinstance(value, Certificate):
        return {"id": value.id}
    if isinstance(value, CACertificate):
        return value.id
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def entity_fields(entity: Service | Route) -> dict[str, Any]:
    """A service or a route as records have it, without what belongs to it."""
    return {**_fields(entity), "ws_id": WORKSPACE}


def _fields(entity: Service | Route | Consumer) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name in entity.__struct_fields__
        if name not in _NOT_LOGGED and (value := getattr(entity, name)) is not None
    }
