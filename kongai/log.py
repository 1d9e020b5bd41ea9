"""The record of an exchange.

`serialize` turns an exchange into the record that Kong's log plugins write
(``kong.log.serialize``). Where it goes is the business of sinks (`kongai.sinks`) and of
the log plugins: the same record goes to a file, a socket or a list in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from kongai import forwarding, recorded, redact
from kongai.exchange import Exchange
from kongai.incoming import mount_point, received_headers
from kongai.log_fields import copied
from kongai.recorded import WORKSPACE, Known, entity_fields, route_fields
from kongai.shown import shown
from kongai.sinks import encode

__all__ = ["WORKSPACE", "entity_fields", "line", "route_fields", "serialize"]

_CLIENT_CLOSED_REQUEST = 499
_INTERRUPTED = ("client_abort", "write_timeout", "shutdown", "killed")
"""The ends that may come at any time; the others tell by themselves when."""
_AROUND = len(": \r\n")
"""Bytes of a header that are neither name nor value."""


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
    if not text.isascii():
        return None
    if exchange.secret_values and _has_one_of(exchange.secret_values, text):
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

    In one go, and not in a dozen functions: these took longer than what they did.

    Args:
        exchange: the exchange.
        members: makes of what never changes what is to stand in the record.
    """
    request, response, match = exchange.request, exchange.response, exchange.match
    environ, timings = request.environ, exchange.timings
    show, secrets = shown(exchange.secret_names), exchange.secret_values

    target = exchange.target
    if environ.get("SCRIPT_NAME"):
        target = mount_point(environ) + target
    uri, arguments = show.target_and_query(target, secrets)
    scheme = environ.get("wsgi.url_scheme", "http")
    host, port = exchange.host_name, environ.get("SERVER_PORT", "")
    headers = exchange.sent_headers
    if headers is None:
        headers = exchange.headers
    size = len(f"{exchange.method} {target} HTTP/1.1\r\n\r\n") + exchange.body_size
    head = environ.get("kongai.headers")
    for name, value in received_headers(request) if head is None else head:
        size += len(name) + len(value) + _AROUND

    answer = {"status": _CLIENT_CLOSED_REQUEST, "headers": {}, "size": 0}
    if response is not None:
        # What the server added is there if it is kongai's own and has sent the head.
        sent = environ.get("kongai.sent_headers")
        its_date = "Date" if sent and "date" not in response.headers else None
        sent = sent or list(response.headers)
        length = len("HTTP/1.1 \r\n\r\n") + len(response.status)
        for name, value in sent:
            length += len(name) + len(value) + _AROUND
        answer = {
            "status": response.status_code,
            "headers": show.headers(sent, secrets, without=its_date),
            "size": length + exchange.bytes_sent,
        }

    # Where the request went, or would have gone if a plugin had not answered it.
    if exchange.upstream_request is not None:
        upstream_uri = exchange.upstream_request.target
    else:
        upstream_uri = forwarding.service_target(exchange) or ""
    if upstream_uri not in show.targets:
        upstream_uri, _ = show.target_and_query(upstream_uri, secrets)

    # The status of each try, or what stands for it.
    tries: list[dict[str, Any]] = []
    codes: list[str] = []
    for attempt in exchange.tries:
        tries.append(
            {
                "balancer_start": attempt.started_ns // 1_000_000,
                "balancer_start_ns": attempt.started_ns,
                "balancer_latency": attempt.latency_ns // 1_000_000,
                "balancer_latency_ns": attempt.latency_ns,
                "ip": attempt.ip,
                "port": attempt.port,
            }
        )
        if attempt.state is not None:
            tries[-1]["state"] = attempt.state
            tries[-1]["code"] = attempt.code
        if attempt.code is not None:
            codes.append(str(attempt.code))
    if exchange.upstream_response is not None:
        codes.append(str(exchange.upstream_response.status))

    start, asked, answered = timings.start, timings.sent, timings.answered
    end = start if timings.end is None else timings.end
    waited, received = -1, 0
    if asked is not None:
        waited = max(0, int(((end if answered is None else answered) - asked) * 1000))
    if answered is not None and timings.received is not None:
        received = max(0, int((timings.received - answered) * 1000))

    record: dict[str, Any] = {
        "request": {
            "id": exchange.id,
            "method": exchange.method,
            "uri": uri,
            "url": f"{scheme}://{host}:{port}{uri}",
            "querystring": arguments,
            "headers": show.headers(headers, secrets),
            "size": size,
        },
        "response": answer,
        "latencies": {
            "request": max(0, int((end - start) * 1000)),
            "kong": max(0, int(((end if asked is None else asked) - start) * 1000)),
            "proxy": waited,
            "receive": received,
        },
        "upstream_uri": upstream_uri,
        "upstream_status": ", ".join(codes),
        "client_ip": exchange.real_ip or exchange.client_ip,
        "started_at": timings.started_at,
        "source": exchange.source,
        "workspace": WORKSPACE,
        "workspace_name": "default",
    }
    known = recorded.of(exchange)
    if match is not None:
        record["tries"] = tries
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


def _own_members(known: Known) -> dict[str, Any]:
    """Members for a record that its sink may change."""
    members: dict[str, Any] = copied(known.members)
    return members


_TEXTS = attrgetter("texts")
