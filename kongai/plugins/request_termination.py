"""`request-termination`: answers in the upstream's place, as Kong's plugin does."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta
from werkzeug.wrappers import Response

from kongai import forwarding, redact
from kongai.error_bodies import JSON
from kongai.errors import RequestRejected
from kongai.exchange import BodyTooLarge, Exchange
from kongai.incoming import query_arguments
from kongai.log import entity_fields, route_fields
from kongai.plugin import Plugin
from kongai.schema import settings

MAX_ECHOED_SIZE = 1024 * 1024
"""Bytes of a body that `echo` shows."""

_DEFAULTS = {
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    500: "An unexpected error occurred",
    502: "Bad Gateway",
    503: "Service unavailable",
}
# A text of a file is UTF-8; of these types nginx says so.
_TEXTS = ("text/html", "text/plain", "text/xml", "application/javascript")
_NODE = uuid.uuid4()


class RequestTerminationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `request-termination`, as Kong names them."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"status_code", "echo"})

    status_code: Annotated[int, Meta(ge=100, le=599)] = 503
    message: str | None = None
    body: str | None = None
    content_type: str | None = None
    echo: bool = False
    trigger: str | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        given = self.content_type or ""
        if not (given.isascii() and given.isprintable()):
            yield "content_type", "expected a media type"
        if self.message and (self.content_type or self.body):
            yield "", "message cannot be used with content_type or body"
        elif self.content_type and not self.body:
            yield "", "content_type requires a body"
        elif self.echo and self.body:
            yield "", "echo cannot be used with content_type and body"


class RequestTermination(Plugin):
    """Answers requests, all or those with a trigger, without an upstream.

    Args:
        config: the settings as a struct; or else, by keyword, as a file has them:
        fields: the keys of `config` in a file.

    Raises:
        ConfigError: with every problem of the settings.
    """

    name = "request-termination"
    priority = 2
    Config = RequestTerminationConfig

    def __init__(
        self, config: RequestTerminationConfig | None = None, /, **fields: Any
    ) -> None:
        self.config = settings(RequestTerminationConfig, config, fields)

    def explain(self, exchange: Exchange) -> Iterator[tuple[str, str]]:
        """That there is no upstream, unless the trigger is missing."""
        trigger = self.config.trigger
        if trigger is None or _has(exchange, trigger):
            yield "upstream", f"none: {self.name} answers {self.config.status_code}"

    def access(self, exchange: Exchange) -> Response | None:
        """Answer, unless the request lacks the trigger."""
        config = self.config
        if config.trigger is not None and not _has(exchange, config.trigger):
            return None
        if config.status_code < 200:
            # It would be read as an announcement of the answer.
            raise RequestRejected
        message = config.message or _DEFAULTS.get(config.status_code)
        if config.echo:
            shown = redact.values(_echo(exchange), exchange.secret_values)
            return self._json({"message": message, **shown})
        if config.body is not None:
            return self._answer(config.body, _with_charset(config.content_type))
        return self._answer("", None) if message is None else self._said(message)

    def _said(self, message: str) -> Response:
        return self._json({"message": message})

    def _json(self, data: dict[str, Any]) -> Response:
        given = {name: value for name, value in data.items() if value is not None}
        return self._answer(msgspec.json.encode(given).decode(), JSON)

    def _answer(self, body: str, content_type: str | None) -> Response:
        status = self.config.status_code
        line = f"{status} {forwarding.reason_phrase(status)}"
        answer = Response(body, status=line, content_type=content_type)
        if content_type is None:
            del answer.headers["Content-Type"]
        return answer


def _has(exchange: Exchange, trigger: str) -> bool:
    header = trigger.replace("_", "-")
    return header in exchange.headers or trigger in _query(exchange)


def _query(exchange: Exchange) -> dict[str, list[str | bool]]:
    return query_arguments(exchange.query or "")


def _with_charset(content_type: str | None) -> str | None:
    known = content_type is not None and content_type.lower() in _TEXTS
    return f"{content_type}; charset=UTF-8" if known else content_type


def _echo(exchange: Exchange) -> dict[str, Any]:
    """What Kong tells of the request and of itself, without credentials."""
    match, request = exchange.match, exchange.request
    assert match is not None
    return {
        "matched_route": route_fields(match.route, match.service),
        "matched_service": entity_fields(match.service) if match.service else None,
        "request": {
            "method": request.method,
            "scheme": request.scheme,
            "host": exchange.host_name,
            "port": int(request.environ.get("SERVER_PORT") or 0),
            "path": exchange.target.partition("?")[0],
            "uri_captures": {"named": dict(match.captures), "unnamed": []},
            "headers": _shown_headers(exchange),
            "query": _shown_query(exchange),
            **_shown_body(exchange),
        },
        "kong": {
            "node_id": str(_NODE),
            "worker_pid": os.getpid(),
            "hostname": socket.gethostname(),
        },
    }


def _shown_headers(exchange: Exchange) -> dict[str, Any]:
    also = exchange.secret_names
    shown: dict[str, list[Any]] = {}
    for name, value in exchange.headers:
        values = shown.setdefault(name.lower(), [])
        values.append(redact.header_value(name, value, also))
    return {name: _one_or_all(values) for name, values in shown.items()}


def _shown_query(exchange: Exchange) -> dict[str, Any]:
    also = exchange.secret_names
    return {
        redact.text(name): _one_or_all(
            [
                value if value is True else redact.header_value(name, str(value), also)
                for value in values
            ]
        )
        for name, values in _query(exchange).items()
    }


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _shown_body(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.read_body(MAX_ECHOED_SIZE)
    except BodyTooLarge as error:
        raise RequestRejected(
            "Payload too large", status=413, ended="too_large"
        ) from error
    shown: dict[str, Any] = {"raw_body": body.decode("utf-8", "replace")}
    if exchange.request.mimetype == "application/json":
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            shown["body"] = msgspec.json.decode(body)
    return shown
