"""The record of an exchange, and where it goes.

`serialize` turns an exchange into the record that Kong's log plugins write
(``kong.log.serialize``); a sink takes records away. The two never know each other:
the same record goes to a file, a socket or a list in a test.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TextIO
from urllib.parse import unquote_plus

from werkzeug.datastructures import Headers

from kongai import forwarding, redact
from kongai.entities import Consumer, Route, Service
from kongai.exchange import Exchange, Try, milliseconds
from kongai.incoming import received_headers

WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""The id of Kong's default workspace, the same in every Kong."""

_MAX_LOGGED_HEADERS = 100
_CLIENT_CLOSED_REQUEST = 499
_logger = logging.getLogger("kongai")


class LogSink(Protocol):
    """Takes records away."""

    def emit(self, record: dict[str, Any]) -> None:
        """Take one record. It is the sink's own copy."""

    def close(self) -> None:
        """Write out what is held back, if anything, and let go."""


class FileSink:
    """Appends records to a file, one JSON line each.

    A line is one `write` on a descriptor opened with O_APPEND, so that lines of several
    processes don't mix. A file that can't be opened or written never hurts traffic: the
    reason is logged, and the next record tries again. Directories are not created.

    Args:
        path: the file.
        reopen: open the file anew for each record, as Kong's `reopen` does.
    """

    def __init__(self, path: str | os.PathLike[str], *, reopen: bool = False) -> None:
        self.path = os.fspath(path)
        self.reopen = reopen
        self._descriptor: int | None = None
        self._torn = False
        self._lock = threading.Lock()

    def emit(self, record: Mapping[str, Any]) -> None:
        """Append the record; a failure is logged and not raised."""
        line = encode(record)
        with self._lock:
            try:
                if self._descriptor is None or self.reopen or self._moved():
                    self._open()
                self._write(line)
            except OSError as error:
                _logger.error(
                    "failed to %s the file: %s (%s); the record is lost",
                    "open" if self._descriptor is None else "write",
                    error.strerror,
                    self.path,
                )
                self._close()

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        with self._lock:
            self._close()

    def _moved(self) -> bool:
        """Whether the path no longer names the open file: rotated, or deleted."""
        assert self._descriptor is not None
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        here = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)

    def _open(self) -> None:
        self._close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self.path, flags, 0o644)

    def _write(self, line: bytes) -> None:
        assert self._descriptor is not None
        if self._torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        self._torn = 0 < written < len(line)
        if written < len(line):
            # Half a record is of no use; the next one starts on a line of its own.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class StreamSink:
    """Writes records to an open text stream, one JSON line each.

    Args:
        stream: for example ``sys.stdout``; it is not closed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, record: Mapping[str, Any]) -> None:
        """Write the record and flush."""
        self._stream.write(encode(record).decode())
        self._stream.flush()

    def close(self) -> None:
        """Flush; the stream stays open."""
        self._stream.flush()


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON, pure ASCII, with its line feed.

    What JSON does not have, such as NaN or a date, becomes its text: a plugin's odd
    value must not cost the record.
    """
    compact = (",", ":")
    try:
        text = json.dumps(record, separators=compact, allow_nan=False, default=str)
    except (ValueError, TypeError):
        text = json.dumps(_without_nan(record), separators=compact, default=str)
    return text.encode("ascii") + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


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
        record["route"] = _route(exchange.match.route, exchange.match.service)
        if exchange.match.service is not None:
            record["service"] = _entity(exchange.match.service)
    if exchange.consumer is not None:
        record["consumer"] = _fields(exchange.consumer)
    if exchange.credential is not None:
        record["authenticated_entity"] = {"id": exchange.credential.id}
    record["kongai"] = {"ended": exchange.ended}
    exchange.log.apply(record)
    if exchange.secret_values:
        record = redact.values(record, exchange.secret_values)
    return record


def _request(exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    environ = request.environ
    also = exchange.secret_names
    target = environ.get("SCRIPT_NAME", "") + exchange.target
    uri = redact.target(target, also)
    port = environ.get("SERVER_PORT", "")
    line = f"{request.method} {target} HTTP/1.1\r\n"
    head = received_headers(request)
    return {
        "id": exchange.id,
        "method": request.method,
        "uri": uri,
        "url": f"{request.scheme}://{exchange.host_name}:{port}{uri}",
        "querystring": _querystring(exchange.query or "", also),
        "headers": _headers(exchange.sent_headers or exchange.headers, exchange),
        "size": len(line) + _head_size(head) + exchange.body_size,
    }


def _querystring(query: str, also: frozenset[str]) -> dict[str, Any]:
    """The arguments, decoded; one without a value is true."""
    fields: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        pair = (unquote_plus(name), unquote_plus(value))
        [(name, value)] = redact.arguments([pair], also)
        _gather(fields, redact.text(name), value if equals else True)
    return fields


def _response(exchange: Exchange) -> dict[str, Any]:
    response = exchange.response
    if response is None:
        return {"status": _CLIENT_CLOSED_REQUEST, "headers": {}, "size": 0}
    line = f"HTTP/1.1 {response.status}\r\n"
    return {
        "status": response.status_code,
        "headers": _headers(response.headers, exchange),
        "size": len(line) + _head_size(response.headers) + exchange.bytes_sent,
    }


def _head_size(headers: Iterable[tuple[str, str]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers) + 2


def _headers(headers: Headers, exchange: Exchange) -> dict[str, Any]:
    also = exchange.secret_names
    logged: dict[str, Any] = {}
    for name, value in list(headers)[:_MAX_LOGGED_HEADERS]:
        _gather(logged, name.lower(), redact.header_value(name, value, also))
    return logged


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
    """The status of each try, in order; empty when no try gave an answer."""
    if exchange.upstream_response is None:
        return ""
    failed = [
        str(attempt.code) for attempt in exchange.tries if attempt.code is not None
    ]
    return ", ".join([*failed, str(exchange.upstream_response.status)])


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


def _route(route: Route, service: Service | None) -> dict[str, Any]:
    entity = _entity(route)
    if service is not None:
        entity["service"] = {"id": service.id}
    return entity


def _plain(value: Any) -> Any:
    """A value as JSON has it: a sink need not know tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _entity(entity: Service | Route) -> dict[str, Any]:
    return {**_fields(entity), "ws_id": WORKSPACE}


def _fields(entity: Service | Route | Consumer) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name in entity.__struct_fields__
        if name not in _NOT_LOGGED and (value := getattr(entity, name)) is not None
    }
