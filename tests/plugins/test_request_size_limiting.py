from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from kongai import Plugin, Proxy
from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.exchange import Exchange, UpstreamRequest
from kongai.plugins.request_size_limiting import (
    RequestSizeLimiting,
    RequestSizeLimitingConfig,
)
from kongai.testing import ListSink, MockTransport, answer


class Input:
    """A body of which is known how much was read."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return b"x" * size


class Gateway:
    def __init__(self, *plugins: Plugin, **settings: Any) -> None:
        self.records = ListSink()
        self.transport = MockTransport(self._answer)
        self.received = 0
        self.proxy = Proxy(
            [Service("http://up.test", routes=[Route(paths=["/r"])])],
            plugins=[RequestSizeLimiting(**settings), *plugins],
            sinks=[self.records],
            transport=self.transport,
        )

    def _answer(self, request: UpstreamRequest) -> answer:
        body = request.body or b""
        for piece in [body] if isinstance(body, bytes) else body:
            self.received += len(piece)
        return answer(b"{}")

    def ask(
        self, size: int | None, method: str = "POST", **environ: Any
    ) -> TestResponse:
        """A request with a body of so many bytes, its length announced."""
        self.input = Input(size or 0)
        given: dict[str, Any] = {"wsgi.input": self.input, **environ}
        if size is not None:
            given.setdefault("CONTENT_LENGTH", str(size))
        builder = {name: v for name, v in given.items() if v is not None}
        return Client(self.proxy).open(
            "/r", method=method, environ_overrides=builder, buffered=True
        )

    def chunked(self, size: int, **environ: Any) -> TestResponse:
        return self.ask(
            size, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="", **environ
        )


def message(response: TestResponse) -> str:
    found: str = json.loads(response.data)["message"]
    return found


UNITS = [("bytes", 1), ("kilobytes", 1024), ("megabytes", 1024 * 1024)]


@pytest.mark.parametrize(("unit", "factor"), UNITS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_announced_body_is_refused_unread(
    unit: str, factor: int, method: str
) -> None:
    gateway = Gateway(allowed_payload_size=2, size_unit=unit)
    response = gateway.ask(2 * factor + 1, method)
    assert (response.status_code, message(response)) == (
        413,
        "Request size limit exceeded",
    )
    assert gateway.input.left == 2 * factor + 1
    assert gateway.transport.requests == []
    assert gateway.records[-1]["kongai"]["ended"] == "too_large"
    assert gateway.ask(2 * factor, method).status_code == 200
    assert gateway.received == 2 * factor


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_body_in_chunks_passes_up_to_the_limit(size: int) -> None:
    gateway = Gateway(allowed_payload_size=10, size_unit="bytes")
    assert gateway.chunked(size).status_code == 200
    assert gateway.received == size


def test_a_body_in_chunks_is_counted_on_its_way() -> None:
    gateway = Gateway(allowed_payload_size=1)
    size = 16 * 1024 * 1024
    response = gateway.chunked(size)
    assert response.status_code == 413
    assert message(response) == "Request size limit exceeded"
    assert gateway.received <= 1024 * 1024
    assert gateway.input.left >= size - 1024 * 1024 - 65536, "the rest stays unread"
    assert gateway.records[-1]["kongai"]["ended"] == "too_large"


def test_the_limit_holds_for_a_plugin_that_reads_the_body() -> None:
    class Reads(Plugin):
        name = "reads"

        def access(self, exchange: Exchange) -> None:
            exchange.read_body()

    gateway = Gateway(Reads(), allowed_payload_size=10, size_unit="bytes")
    assert gateway.chunked(10).status_code == 200
    assert gateway.chunked(11).status_code == 413
    assert len(gateway.transport.requests) == 1


def test_the_limit_holds_for_a_body_that_was_read_before() -> None:
    class Reads(Plugin):
        name = "reads"
        priority = 2000

        def access(self, exchange: Exchange) -> Iterator[bytes] | None:
            exchange.read_body()
            return None

    gateway = Gateway(Reads(), allowed_payload_size=10, size_unit="bytes")
    assert gateway.chunked(11).status_code == 413
    assert gateway.transport.requests == []


def test_who_asks_before_sending_is_told_in_other_words() -> None:
    gateway = Gateway(allowed_payload_size=10, size_unit="bytes")
    assert gateway.ask(11, HTTP_EXPECT="100-Continue").status_code == 417
    assert gateway.ask(11, HTTP_EXPECT="other").status_code == 413
    assert gateway.ask(10, HTTP_EXPECT="100-continue").status_code == 200


@pytest.mark.parametrize(
    ("required", "status", "text"),
    [
        (True, 411, "A valid Content-Length header is required"),
        (False, 200, None),
    ],
)
def test_a_length_may_be_required(
    required: bool, status: int, text: str | None
) -> None:
    gateway = Gateway(require_content_length=required)
    response = gateway.ask(None, "DELETE", CONTENT_LENGTH="")
    assert response.status_code == status
    assert text is None or message(response) == text
    assert gateway.ask(0).status_code == 200
    assert gateway.chunked(5).status_code == 200


def test_nothing_at_all_may_be_allowed() -> None:
    gateway = Gateway(allowed_payload_size=0, size_unit="bytes")
    assert gateway.ask(0).status_code == 200
    assert gateway.ask(1).status_code == 413
    assert Gateway(allowed_payload_size=-1).ask(0).status_code == 413


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"allowed_payload_size": 1.5},
            "allowed_payload_size: expected an integer",
        ),
        (
            {"allowed_payload_size": "1"},
            "allowed_payload_size: expected an integer",
        ),
        (
            {"size_unit": "gigabytes"},
            "size_unit: expected one of: bytes, kilobytes, megabytes",
        ),
        (
            {"require_content_length": "x"},
            "require_content_length: expected a boolean",
        ),
        ({"bogus": 1}, "bogus: unknown field"),
    ],
)
def test_settings_that_kong_refuses(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RequestSizeLimiting(**fields)
    assert [str(one) for one in caught.value.problems] == [problem]


def test_settings_are_kongs() -> None:
    assert RequestSizeLimiting().config == RequestSizeLimitingConfig(
        allowed_payload_size=128, size_unit="megabytes", require_content_length=False
    )
