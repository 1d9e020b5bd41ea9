"""Anthropic's own Python SDK, pointed at the gateway as Claude Code is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest

from kongai.testing import EchoLLM

from .anthropic_api import ToolUse, message_events
from .conftest import (
    KEY,
    MODEL,
    TEXT,
    USAGE,
    Line,
    assert_no_secret,
    streamed,
)
from .harness import Gateway, howto_config
from .upstream import Connection, Request

HELLO: list[Any] = [{"role": "user", "content": "Grüezi, 世界!"}]
ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a town.",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}},
}


@contextmanager
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """The SDK as a program uses it, but that it says what fails the first time."""
    # The environment's proxies are for other hosts.
    with (
        anthropic.DefaultHttpxClient(trust_env=False) as http,
        anthropic.Anthropic(
            api_key=KEY,
            base_url=f"{gateway.url}/anything",
            http_client=http,
            max_retries=0,
            timeout=5,
        ) as sdk,
    ):
        yield sdk


def the_record(line: Line) -> dict[str, Any]:
    """The record of the one request that the upstream has seen in this test."""
    [request] = line.upstream.requests
    [request_id] = request.values("x-kong-request-id")
    return line.record(request_id)


def test_a_whole_answer(line: Line) -> None:
    with client(line.gateway) as sdk:
        said = sdk.messages.create(**ASKED)
    assert [block.text for block in said.content if block.type == "text"] == [TEXT]
    assert (said.usage.input_tokens, said.usage.output_tokens) == (119, 29)
    assert said.stop_reason == "end_turn"
    assert_counted(line, "oneshot")


def test_a_stream_of_text(line: Line) -> None:
    line.upstream.handler = streamed
    with client(line.gateway) as sdk, sdk.messages.stream(**ASKED) as stream:
        pieces = list(stream.text_stream)
        said = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == TEXT
    assert [block.text for block in said.content if block.type == "text"] == [TEXT]
    assert (said.usage.input_tokens, said.usage.output_tokens) == (119, 29)
    assert_counted(line, "stream")


def test_a_stream_of_events(line: Line) -> None:
    line.upstream.handler = streamed
    with client(line.gateway) as sdk, sdk.messages.create(**ASKED, stream=True) as said:
        kinds = [event.type for event in said]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert_counted(line, "stream")


def test_a_stream_of_a_tool_call(line: Line) -> None:
    call = ToolUse("weather", {"town": "Zürich", "days": [1, 2]})

    def handler(request: Request, connection: Connection) -> None:
        assert request.json()["tools"] == [WEATHER]
        connection.start_stream()
        for event in message_events(call, USAGE, model=MODEL, cut=3):
            connection.chunk(event)
        connection.end()

    line.upstream.handler = handler
    with (
        client(line.gateway) as sdk,
        sdk.messages.stream(**ASKED, tools=[WEATHER]) as stream,
    ):
        pieces = [e.partial_json for e in stream if e.type == "input_json"]
        said = stream.get_final_message()
    assert json.loads("".join(pieces)) == call.input
    assert said.stop_reason == "tool_use"
    [block] = said.content
    assert block.type == "tool_use"
    assert (block.name, block.id, block.input) == (call.name, call.id, call.input)
    assert_counted(line, "stream")


def assert_counted(line: Line, mode: str) -> None:
    """What the SDK was told is what the record says."""
    record = the_record(line)
    assert record["kongai"]["ended"] == "ok"
    ai = record["ai"]["proxy"]
    assert ai["meta"]["request_mode"] == mode
    assert ai["meta"]["request_model"] == ai["meta"]["response_model"] == MODEL
    assert (ai["usage"]["prompt_tokens"], ai["usage"]["completion_tokens"]) == (119, 29)
    assert ai["usage"]["cost"] > 0


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_upstreams(
    line: Line,
    stream: bool,
    status: int,
    kind: type[anthropic.APIStatusError],
    error: str,
) -> None:
    """A program that catches the API's errors catches them here too."""
    body = {"type": "error", "error": {"type": error, "message": "Prompt is too long"}}
    headers = [("Content-Type", "application/json"), ("request-id", "req_123")]
    line.upstream.handler = lambda _, connection: connection.respond(
        status, headers, json.dumps(body).encode()
    )
    with client(line.gateway) as sdk, pytest.raises(kind) as caught:
        sdk.messages.create(**ASKED, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body == body
    assert caught.value.response.headers["request-id"] == "req_123"
    record = the_record(line)
    assert record["upstream_status"] == str(status)
    assert record["source"] == "upstream"
    assert record["ai"]["proxy"]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("asked", "status", "error", "text"),
    [
        pytest.param(
            {**ASKED, "messages": []},
            400,
            "invalid_request_error",
            "request body doesn't contain valid prompts",
            id="nothing asked",
        ),
        pytest.param(
            {**ASKED, "system": "x" * 524288},
            413,
            "request_too_large",
            "Request exceeds the maximum size: 524288 bytes are allowed "
            "(max_request_body_size)",
            id="too much asked",
        ),
    ],
)
def test_an_error_of_the_gateways(
    line: Line, asked: dict[str, Any], status: int, error: str, text: str
) -> None:
    """The gateway refuses in the API's own words."""
    with (
        client(line.gateway) as sdk,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        sdk.messages.create(**asked)
    assert caught.value.status_code == status
    assert isinstance(caught.value, anthropic.BadRequestError) is (status == 400)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"] == {"type": error, "message": text}
    assert line.upstream.requests == []
    record = line.record(caught.value.body["request_id"])
    assert record["response"]["status"] == status
    assert record["source"] == "kong"


def test_a_stream_that_is_cut(line: Line) -> None:
    """A cut answer must not pass for a short one."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in list(message_events(TEXT, USAGE, model=MODEL))[:4]:
            connection.chunk(event)
        connection.close()

    line.upstream.handler = handler
    pieces: list[str] = []
    with (
        client(line.gateway) as sdk,
        sdk.messages.stream(**ASKED) as stream,
        pytest.raises(anthropic.APIError) as caught,
    ):
        pieces.extend(stream.text_stream)
    assert "".join(pieces) == TEXT[:9]
    assert "upstream stream ended early" in str(caught.value.body)
    record = the_record(line)
    assert record["kongai"]["ended"] == "upstream_cut"
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == 119


def test_a_program_that_stops_reading(line: Line) -> None:
    """Leaving the `with` block closes the connection, and so the upstream's."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in list(message_events(TEXT, USAGE, model=MODEL))[:4]:
            connection.chunk(event)
        assert connection.closed_by_peer(5)

    line.upstream.handler = handler
    with client(line.gateway) as sdk, sdk.messages.stream(**ASKED) as stream:
        assert next(iter(stream.text_stream)) == TEXT[:9]
    record = the_record(line)
    assert record["kongai"]["ended"] == "client_abort"
    assert record["kongai"]["usage_estimated"] is True


def test_the_echo_model() -> None:
    """The demonstration's upstream is one that the SDK understands."""
    with EchoLLM() as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        with Gateway(config) as gateway, client(gateway) as sdk:
            said = sdk.messages.create(**ASKED)
            assert said.model == MODEL
            assert [b.text for b in said.content if b.type == "text"] == [
                "Grüezi, 世界!"
            ]
            with sdk.messages.stream(**ASKED) as stream:
                assert "".join(stream.text_stream) == "Grüezi, 世界!"
                final = stream.get_final_message()
            assert final.usage.output_tokens == said.usage.output_tokens
            count = sdk.messages.count_tokens(model=MODEL, messages=HELLO)
            assert count.input_tokens > 0
            models = list(sdk.models.list())
            assert [model.type for model in models] == ["model"]
            with pytest.raises(anthropic.NotFoundError):
                sdk.models.retrieve("no-such-model")

            records = gateway.records(5)
            assert_no_secret(gateway)
    ends = [(r["request"]["method"], r["upstream_uri"]) for r in records]
    assert ends == [
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/no-such-model"),
    ]
    usage = records[0]["ai"]["proxy"]["usage"]
    assert usage["prompt_tokens"] == said.usage.input_tokens
    assert usage["completion_tokens"] == said.usage.output_tokens
