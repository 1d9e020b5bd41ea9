"""The heads of answers: the upstream's, passed on, and the gateway's own.

The added headers are Kong's (its `headers` setting, default values): the latencies in
whole milliseconds, `Via`, `Server`, and the request's id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from operator import itemgetter

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from kongai import forwarding
from kongai.entities import Route
from kongai.error_bodies import JSON, accepted, error_body
from kongai.errors import GatewayError, HTTPSRequired, RequestRejected, as_answer
from kongai.exchange import Exchange, UpstreamResponse
from kongai.header_list import HeaderList
from kongai.incoming import mount_point

_logger = logging.getLogger("kongai")


def relayed(exchange: Exchange, upstream: UpstreamResponse) -> Iterator[bytes]:
    """Make an upstream's answer the exchange's; its body comes back as chunks."""
    exchange.upstream_response = upstream
    exchange.to_close.append(upstream.close)
    exchange.source = "upstream"
    headers = forwarding.response_headers(
        upstream.headers,
        *_upstream_latencies(exchange),
        ("X-Kong-Request-Id", exchange.id),
    )
    for cookie in exchange.set_cookies:
        headers.add("Set-Cookie", cookie)
    if upstream.status == 204 or (
        upstream.status == 304 and headers.get("Content-Length") != "0"
    ):
        # Servers refuse a length where there is no body (RFC 9110, section 8.6).
        headers.pop("Content-Length", None)
    phrase = upstream.reason
    if not phrase or not phrase.isprintable():
        phrase = forwarding.reason_phrase(upstream.status)
    exchange.response = _PassedOn(upstream.status, phrase, headers)
    return upstream.chunks


def check_head(exchange: Exchange) -> None:
    """See that an answer's head can be sent, now that plugins have had their turn.

    Raises:
        GatewayError: there is a character in it that HTTP's heads can't carry.
    """
    assert exchange.response is not None
    headers = exchange.response.headers
    if "".join(map(_value_of, headers)).isascii():
        return
    for name, value in headers:
        if not value.isascii() and max(value) > "\xff":
            _logger.error("the value of the header %s is not Latin-1", name)
            raise GatewayError


_value_of = itemgetter(1)


class _Relayed(Response):
    """An answer without the content type that Werkzeug gives to those without one."""

    default_mimetype = None


class _PassedOn(_Relayed):
    """An answer with a head that is known to be good, and a body that is not its own.

    It sets what Werkzeug's constructor sets, which looks at everything anew and takes
    longer than all else that becomes of a head.
    """

    def __init__(self, status: int, phrase: str, headers: HeaderList) -> None:
        self.headers = headers
        self._status, self._status_code = f"{status} {phrase}", status
        self.response: list[bytes] = []
        self.direct_passthrough = False
        self._on_close = []


def own(exchange: Exchange, response: Response) -> Iterator[bytes]:
    """Make a plugin's answer the exchange's; its body comes back as chunks."""
    exchange.source = "kong"
    chunks = response.iter_encoded()
    if not response.is_streamed:
        text = response.get_data()
        response.headers["Content-Length"] = str(len(text))
        chunks = iter((text,))
    if response.status_code in (204, 304):
        # As with the upstream's: no length where there is no body.
        response.headers.pop("Content-Length", None)
    _add_kong_headers(exchange, response)
    exchange.response = response
    exchange.to_close.append(response.close)
    return chunks


def streamed(exchange: Exchange, body: Iterator[bytes]) -> Response:
    """The answer for another application to give: its head, and the gateway's body.

    A response of its own, because the application closes it, and a plugin's answer is
    closed with the exchange.
    """
    answer = exchange.response
    assert answer is not None
    exchange.response = _Relayed(
        body, answer.status, answer.headers, direct_passthrough=True
    )
    return exchange.response


def failure(exchange: Exchange, error: GatewayError) -> Iterator[bytes]:
    """Make an error the exchange's answer, in the client's format or in Kong's."""
    exchange.source = "kong"
    if exchange.error_format is not None:
        text = exchange.error_format.error_body(error.like, error.message, exchange.id)
        kind: str | None = JSON
    else:
        accept = accepted(exchange.request.headers, error)
        kind, text = error_body(error.message, exchange.id, accept)
    status = f"{error.status} {forwarding.reason_phrase(error.status)}"
    response = _Relayed(text, status=status, content_type=kind)
    response.headers["Content-Length"] = str(len(text))
    response.headers.extend(error.headers)
    _add_kong_headers(exchange, response)
    exchange.response = response
    return iter((text,))


def told_of(error: Exception, exchange: Exchange) -> GatewayError:
    """What the client is told of an error."""
    if isinstance(error, HTTPException):
        # A plugin may use Werkzeug's and Flask's way of saying no.
        failure = RequestRejected(error.name, status=error.get_response().status_code)
        failure.headers = tuple(
            (name, value)
            for name, value in error.get_headers()
            if name.lower() != "content-type"
        )
        return failure
    return as_answer(error, exchange.id)


def https_required(exchange: Exchange, route: Route) -> HTTPSRequired:
    """The refusal of plain HTTP on a route that has only HTTPS."""
    error = HTTPSRequired(status=route.https_redirect_status_code)
    if error.status == HTTPSRequired.status:
        # WSGI leaves the Connection header that belongs to Upgrade to the server.
        error.headers = (("Upgrade", "TLS/1.2, HTTP/1.1"),)
    else:
        mount = mount_point(exchange.request.environ)
        host = exchange.forwarded("X-Forwarded-Host", exchange.host_name)
        location = f"https://{host}{mount}{exchange.target}"
        error.headers = (("Location", location),)
    return error


def _add_kong_headers(exchange: Exchange, response: Response) -> None:
    if exchange.tries:
        response.headers.update(_upstream_latencies(exchange))
        response.headers["Via"] = forwarding.VIA
    else:
        taken = exchange.timings.kong(time.perf_counter())
        response.headers["X-Kong-Response-Latency"] = str(taken)
    response.headers["Server"] = forwarding.SERVER
    response.headers["X-Kong-Request-Id"] = exchange.id


def _upstream_latencies(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    timings, now = exchange.timings, time.perf_counter()
    return (
        ("X-Kong-Upstream-Latency", str(timings.proxy(now))),
        ("X-Kong-Proxy-Latency", str(timings.kong(now))),
    )
