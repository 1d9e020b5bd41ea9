from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from kongai import answers
from kongai._version import __version__
from kongai.errors import GatewayError, NoRouteMatched, UpstreamTimeout
from kongai.exchange import Exchange, Try, UpstreamResponse
from kongai.llm.formats import anthropic
from kongai.testing import answer

SERVER = f"kongai/{__version__}"
OURS = {
    "x-kong-upstream-latency",
    "x-kong-proxy-latency",
    "via",
    "server",
    "x-kong-request-id",
}


def exchange(**headers: str) -> Exchange:
    return Exchange(EnvironBuilder(headers=list(headers.items())).get_request())


def proxied(**headers: str) -> Exchange:
    """An exchange whose upstream was asked 20 ms after the start, and took 30 ms."""
    found = exchange(**headers)
    found.tries.append(Try(time.time_ns(), "up.example", 80))
    found.timings.sent = found.timings.start + 0.0209
    found.timings.answered = found.timings.sent + 0.0309
    return found


def upstream(
    *headers: tuple[str, str], status: int = 200, reason: str = ""
) -> UpstreamResponse:
    found = answer(status=status, headers=headers)
    found.reason = reason
    return found


def pairs(response: Response) -> list[tuple[str, str]]:
    """The headers that are not of the gateway's own making."""
    return [(n, v) for n, v in response.headers if n.lower() not in OURS]


def test_an_upstreams_head_is_passed_on() -> None:
    head = [
        ("Content-Type", "text/x"),
        ("x-B", "1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Retry-After", "5"),
        ("request-id", "req_1"),
        ("anthropic-ratelimit-tokens-remaining", "7"),
        ("X-Name", "caf\xe9"),
        ("X-Empty", ""),
        ("X-Tab", "a\tb"),
    ]
    found = proxied()
    response = relayed(found, upstream(*head))
    assert pairs(response) == head
    assert response.headers["X-Kong-Proxy-Latency"] == "20"
    assert response.headers["X-Kong-Upstream-Latency"] == "30"
    assert response.headers["X-Kong-Request-Id"] == found.id
    assert response.headers["Via"] == f"1.1 {SERVER}"
    assert response.headers["Server"] == SERVER


def relayed(exchange: Exchange, upstream: UpstreamResponse) -> Response:
    chunks = answers.relayed(exchange, upstream)
    assert chunks is upstream.chunks
    assert exchange.source == "upstream"
    assert exchange.response is not None
    return exchange.response


def test_what_the_upstream_does_not_say_is_not_said() -> None:
    response = relayed(proxied(), upstream())
    assert {name.lower() for name, _ in response.headers} == OURS


def test_server_is_the_upstreams_and_via_is_both() -> None:
    head = (("Server", "up/1"), ("Via", "1.0 up"))
    response = relayed(proxied(), upstream(*head))
    assert response.headers.get_all("Server") == ["up/1"]
    assert response.headers.get_all("Via") == [f"1.0 up, 1.1 {SERVER}"]


@pytest.mark.parametrize(
    "head",
    [
        [("Connection", "close")],
        [("Connection", "X-Hop, x-other"), ("X-Hop", "1"), ("X-OTHER", "2")],
        [("Keep-Alive", "timeout=5")],
        [("Transfer-Encoding", "chunked")],
        [("Trailer", "X-T")],
        [("Upgrade", "h2c")],
        [("Proxy-Authenticate", "Basic")],
        [("X-A", "a\r\nX-B: b")],
        [("X-A", "a\0b")],
        [("X-A", "a\x7fb")],
    ],
)
def test_what_is_for_the_next_hop_or_unsendable_stays_here(
    head: list[tuple[str, str]],
) -> None:
    response = relayed(proxied(), upstream(("X-Kept", "1"), *head))
    assert pairs(response) == [("X-Kept", "1")]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (200, "OK", "200 OK"),
        (200, "Fine", "200 Fine"),
        (200, "", "200 OK"),
        (529, "", "529 Unknown"),
        (529, "Overloaded", "529 Overloaded"),
        (299, "Caf\xe9", "299 Caf\xe9"),
        (200, "OK\rX-A: 1", "200 OK"),
        (404, "a\0b", "404 Not Found"),
    ],
)
def test_the_status_line(status: int, reason: str, expected: str) -> None:
    response = relayed(proxied(), upstream(status=status, reason=reason))
    assert response.status == expected
    assert response.status_code == status


@pytest.mark.parametrize(
    ("status", "length", "kept"),
    [
        (200, "5", True),
        (204, "5", False),
        (204, "0", False),
        (304, "5", False),
        (304, "0", True),
        (404, "5", True),
    ],
)
def test_where_there_is_no_body_there_is_no_length(
    status: int, length: str, kept: bool
) -> None:
    response = relayed(proxied(), upstream(("Content-Length", length), status=status))
    assert ("content-length" in response.headers) == kept


def test_a_plugins_answer_is_signed() -> None:
    found = exchange()
    response = Response("café", status=418, content_type="text/x")
    chunks = answers.own(found, response)
    assert found.response is response
    assert b"".join(chunks) == "café".encode()
    assert response.headers["Content-Length"] == "5"
    assert response.headers["Server"] == SERVER
    assert response.headers["X-Kong-Request-Id"] == found.id
    assert re.fullmatch("[0-9]+", response.headers["X-Kong-Response-Latency"])
    assert "X-Kong-Upstream-Latency" not in response.headers
    assert "Via" not in response.headers


def test_a_plugins_stream_stays_one() -> None:
    made: list[str] = []

    def pieces() -> Iterator[str]:
        for piece in ("a", "b"):
            made.append(piece)
            yield piece

    chunks = answers.own(exchange(), response := Response(pieces()))
    assert "Content-Length" not in response.headers
    assert made == []
    assert next(chunks) == b"a"
    assert made == ["a"]


def test_an_error_in_kongs_words() -> None:
    found = exchange()
    text = b"".join(answers.failure(found, NoRouteMatched()))
    assert text.decode() == (
        '{\n  "message":"no Route matched with those values",\n'
        f'  "request_id":"{found.id}"\n}}'
    )
    response = found.response
    assert response is not None
    assert response.status == "404 Not Found"
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(text))
    assert response.headers["Server"] == SERVER
    assert response.headers["X-Kong-Request-Id"] == found.id
    assert "X-Kong-Response-Latency" in response.headers


@pytest.mark.parametrize("message", ['say "x"', "a\\b", "two\nlines", "café 世"])
def test_any_message_makes_json(message: str) -> None:
    found = exchange()
    text = b"".join(answers.failure(found, GatewayError(message)))
    assert json.loads(text) == {"message": message, "request_id": found.id}


@pytest.mark.parametrize("message", ["Bad request", "café"])
def test_an_error_in_plain_text_for_who_prefers_it(message: str) -> None:
    found = exchange(accept="text/plain")
    text = b"".join(answers.failure(found, GatewayError(message)))
    assert text.decode() == f"{message}\nrequest_id: {found.id}\n"
    response = found.response
    assert response is not None
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(text))


def test_an_error_in_the_clients_format() -> None:
    found = exchange(accept="text/plain")
    found.error_format = anthropic
    text = b"".join(answers.failure(found, GatewayError("no", status=429)))
    assert json.loads(text) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "no"},
        "request_id": found.id,
    }
    response = found.response
    assert response is not None
    assert response.status == "429 Too Many Requests"
    assert response.headers["Content-Type"].startswith("application/json")


def test_an_error_after_the_upstream_was_asked_says_how_long_it_took() -> None:
    found = proxied()
    found.timings.answered = None
    answers.failure(found, UpstreamTimeout())
    response = found.response
    assert response is not None
    assert response.headers["X-Kong-Proxy-Latency"] == "20"
    assert int(response.headers["X-Kong-Upstream-Latency"]) >= 0
    assert "X-Kong-Response-Latency" not in response.headers
    assert response.headers["Via"] == f"1.1 {SERVER}"


def test_an_error_with_a_status_nobody_knows() -> None:
    found = exchange()
    answers.failure(found, GatewayError("no", status=599))
    assert found.response is not None
    assert found.response.status == "599 Unknown"
