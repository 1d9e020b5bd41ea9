"""The record of an exchange.

`serialize` turns an exchange into the record that Kong's log plugins write
(``kong.log.serialize``). Where it goes is the business of sinks (`kongai.sinks`) and of
the log plugins: the same record goes to a file, a socket or a list in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from kongai import forwarding, recorded, redact
from kongai.exchange import Exchange, Timings, Try, milliseconds
from kongai.incoming import mount_point, received_headers, scheme_of
from kongai.log_fields import copied
from kongai.recorded import WORKSPACE, Known, entity_fields, route_fields
from kongai.shown import Shown, shown
from kongai.sinks import encode

__all__ = ["WORKSPACE", "entity_fields", "line", "route_fields", "serialize"]

_CLIENT_CLOSED_REQUEST = 499
_INTERRUPTED = ("client_abort", "write_timeout", "shutdown", "killed")
"""The ends that may come at any time; the others tell by themselves when."""


def line(exchange: Exchange) -> bytes:
    """The record as a line of JSON, for the log phase.

    Loggers of one exchange share it: it is made again only when a field was set since.
    """
    fields = exchange.log
    if fields.line is None:
        fields.line = _quick_line(exchange) or encode(serialize(exchange))
    return fields.line


def serialize(exchange: Exchange) -> dict[str, Any]:
    """The record of an exchange, in Kong's shape, without credentials.

    Meant for the log phase; earlier, what has not happened yet is missing.
    """
    record = _record(exchange, _own_members)
    exchange.log.apply(record)
    if exchange.secret_values:
        record = redact.values(record, exchange.secret_values)
    return record


def _quick_line(exchange: Exchange) -> bytes | None:
    """The line of a record that nobody gets to keep or to change.

    Returns:
        None for a record of which msgspec would make something else than `encode`.
    """
    record = _record(exchange, _TEXTS)
    if not exchange.log.apply_plain(record):
        return None
    try:
        text = _ENCODER.encode(record)
    except (TypeError, ValueError):
        # A subclass of `str`, or half of a character.
        return None
    # It writes letters outside of ASCII as they are.
    if not text.isascii() or _has_one_of(exchange.secret_values, text):
        return None
    return text + b"\n"


def _has_one_of(secrets: frozenset[str], text: bytes) -> bool:
    """Whether a secret is in a text of JSON, or would be written otherwise there."""
    for secret in secrets:
        as_it_is = secret.isascii() and secret.isprintable()
        if not as_it_is or '"' in secret or "\\" in secret:
            return True
        if secret and secret.encode() in text:
            return True
    return False


_ENCODER = msgspec.json.Encoder()


def _record(
    exchange: Exchange, members: Callable[[Known], dict[str, Any]]
) -> dict[str, Any]:
    """The record before plugins add to it.

    Args:
        exchange: the exchange.
        members: makes of what never changes what is to stand in the record.
    """
    match, show = exchange.match, shown(exchange.secret_names)
    record: dict[str, Any] = {
        "request": _request(exchange, show),
        "response": _response(exchange, show),
        "latencies": _latencies(exchange.timings),
        "upstream_uri": _upstream_uri(exchange, show),
        "upstream_status": _upstream_status(exchange),
        "client_ip": exchange.client_ip,
        "started_at": exchange.timings.started_at,
        "source": exchange.source,
        "workspace": WORKSPACE,
        "workspace_name": "default",
    }
    known = recorded.of(exchange)
    if match is not None:
        record["tries"] = [_try(attempt) for attempt in exchange.tries]
        record.update(members(known.matched(match.route, match.service)))
    if exchange.consumer is not None:
        record.update(members(known.consumer(exchange.consumer)))
    if exchange.credential is not None:
        record["authenticated_entity"] = {"id": exchange.credential.id}
    ours = record["kongai"] = {"ended": exchange.ended}
    if exchange.ended in _INTERRUPTED:
        ours["phase"] = _phase(exchange)
    return record


def _phase(exchange: Exchange) -> str:
    """How far an exchange had come when it was interrupted."""
    if exchange.receiving or not (exchange.tries or exchange.response):
        return "request"
    if exchange.upstream_response is None and exchange.tries:
        return "upstream"
    return "response"


def _request(exchange: Exchange, show: Shown) -> dict[str, Any]:
    request = exchange.request
    environ = request.environ
    target = mount_point(environ) + exchange.target
    uri, arguments = show.target_and_query(target, exchange.secret_values)
    method, port = exchange.method, environ.get("SERVER_PORT", "")
    line_size = len(method) + len(target) + len("  HTTP/1.1\r\n")
    head = received_headers(request)
    return {
        "id": exchange.id,
        "method": method,
        "uri": uri,
        "url": f"{scheme_of(request)}://{exchange.host_name}:{port}{uri}",
        "querystring": arguments,
        "headers": show.headers(
            exchange.sent_headers or exchange.headers, exchange.secret_values
        ),
        "size": line_size + _head_size(head) + exchange.body_size,
    }


def _response(exchange: Exchange, show: Shown) -> dict[str, Any]:
    response = exchange.response
    if response is None:
        return {"status": _CLIENT_CLOSED_REQUEST, "headers": {}, "size": 0}
    # What the server added is there if it is kongai's own and has sent the head.
    sent = exchange.request.environ.get("kongai.sent_headers")
    if sent and "date" not in [name.lower() for name, _ in response.headers]:
        listed = [pair for pair in sent if pair[0] != "Date"]
    else:
        listed = sent = sent or list(response.headers)
    line_size = len(response.status) + len("HTTP/1.1 \r\n")
    return {
        "status": response.status_code,
        "headers": show.headers(listed, exchange.secret_values),
        "size": line_size + _head_size(sent) + exchange.bytes_sent,
    }


def _head_size(headers: list[tuple[str, str]]) -> int:
    return sum(map(len, chain.from_iterable(headers))) + 4 * len(headers) + 2


def _latencies(timings: Timings) -> dict[str, int]:
    end = timings.end if timings.end is not None else timings.start
    return {
        "request": milliseconds(timings.start, end),
        "kong": timings.kong(end),
        "proxy": timings.proxy(end),
        "receive": milliseconds(timings.answered, timings.received),
    }


def _upstream_uri(exchange: Exchange, show: Shown) -> str:
    """Where the request went, or would have gone if a plugin had not answered it."""
    if exchange.upstream_request is not None:
        target = exchange.upstream_request.target
    else:
        target = forwarding.service_target(exchange) or ""
    return show.target_and_query(target, exchange.secret_values)[0]


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


def _own_members(known: Known) -> dict[str, Any]:
    """Members for a record that its sink may change."""
    members: dict[str, Any] = copied(known.members)
    return members


_TEXTS = attrgetter("texts")
