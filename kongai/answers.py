"""The heads of answers: the upstream's, passed on, and the gateway's own.

The added headers are Kong's (its `headers` setting, default values): the latencies in
whole milliseconds, `Via`, `Server`, and the request's id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from kongai import forwarding
from kongai.errors import GatewayError
from kongai.exchange import Exchange, UpstreamResponse
from kongai.log import milliseconds

_JSON = "application/json; charset=utf-8"


def relayed(exchange: Exchange, upstream: UpstreamResponse) -> Response:
    """The head of an upstream's answer, as the client gets it."""
    headers = forwarding.response_headers(upstream.headers)
    _add_upstream_latencies(exchange, headers)
    headers["Via"] = forwarding.appended_via(headers)
    headers.setdefault("Server", forwarding.SERVER)
    headers["X-Kong-Request-Id"] = exchange.id
    if upstream.status in (204, 304):
        # Servers refuse a length where there is no body (RFC 9110, section 8.6).
        headers.pop("Content-Length", None)
    phrase = upstream.reason
    if not phrase or not phrase.isprintable():
        phrase = forwarding.reason_phrase(upstream.status)
    return _Relayed(status=f"{upstream.status} {phrase}", headers=headers)


class _Relayed(Response):
    """An answer without the content type that Werkzeug gives to those without one."""

    default_mimetype = None


def own(exchange: Exchange, response: Response) -> Iterator[bytes]:
    """Make a plugin's answer the exchange's; its body comes back as chunks."""
    chunks = response.iter_encoded()
    if not response.is_streamed:
        text = response.get_data()
        response.headers["Content-Length"] = str(len(text))
        chunks = iter((text,))
    _sign(exchange, response)
    exchange.response = response
    return chunks


def failure(exchange: Exchange, error: GatewayError) -> Iterator[bytes]:
    """Make an error the exchange's answer, in the client's format or in Kong's."""
    if exchange.error_format is not None:
        text = exchange.error_format.error_body(
            error.status, error.message, exchange.id
        )
        kind = _JSON
    else:
        kind, text = _in_kongs_format(exchange, error.message)
    status = f"{error.status} {forwarding.reason_phrase(error.status)}"
    response = Response(text, status=status, content_type=kind)
    response.headers["Content-Length"] = str(len(text))
    _sign(exchange, response)
    exchange.response = response
    return iter((text,))


def _in_kongs_format(exchange: Exchange, message: str) -> tuple[str, bytes]:
    """Kong's own error body: JSON unless the client prefers plain text."""
    kinds = ("application/json", "text/plain")
    accepted = exchange.request.accept_mimetypes.best_match(kinds, kinds[0])
    if accepted == "text/plain":
        text = f"{message}\nrequest_id: {exchange.id}\n"
        return "text/plain; charset=utf-8", text.encode()
    said = json.dumps(message, ensure_ascii=False)
    text = f'{{\n  "message":{said},\n  "request_id":"{exchange.id}"\n}}'
    return _JSON, text.encode()


def _sign(exchange: Exchange, response: Response) -> None:
    if exchange.tries:
        _add_upstream_latencies(exchange, response.headers)
        response.headers["Via"] = forwarding.VIA
    else:
        taken = milliseconds(exchange.timings.start, time.perf_counter())
        response.headers["X-Kong-Response-Latency"] = str(taken)
    response.headers["Server"] = forwarding.SERVER
    response.headers["X-Kong-Request-Id"] = exchange.id


def _add_upstream_latencies(exchange: Exchange, headers: Headers) -> None:
    timings = exchange.timings
    sent = timings.sent if timings.sent is not None else timings.start
    waited = milliseconds(sent, timings.answered or time.perf_counter())
    headers["X-Kong-Upstream-Latency"] = str(waited)
    headers["X-Kong-Proxy-Latency"] = str(milliseconds(timings.start, sent))
