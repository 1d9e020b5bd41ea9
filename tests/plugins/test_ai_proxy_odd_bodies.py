"""Requests and answers that are anything: refused or passed on, and never a mistake.

Whatever a client sends, it gets a 400 or an answer. Whatever a provider answers goes to
the client as it came, whether it can be counted or not; where it has to be translated,
it may be refused. The record is always whole, and strict JSON.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai.sinks import encode
from kongai.testing import answer

from .ai_gateway import JSON, MESSAGE, STREAM, Gateway, Got, asked, completion

unhurried = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
WAYS = [
    *(("anthropic", "anthropic"), ("openai", "openai")),
    *(("anthropic", "openai"), ("openai", "anthropic")),
]
ways = pytest.mark.parametrize(("client", "provider"), WAYS)

ODD = [
    *(b"9" * 400, b"9" * 4000, b"9" * 5000, b"9223372036854775808", b"1e999", b"1e308"),
    *(b"-5", b"-0", b"1.5", b'"7"', b"null", b"true", b"[1]", b'{"a":1}'),
    *(b"-" + b"9" * 4000, b"[" * 500 + b"]" * 500),
]
"""Values of JSON in the place of a count."""
NO_JSON = [b"NaN", b"Infinity", b'"\\ud83d"', b"01", b"", b"[" * 100_000]
"""What some readers take for a value, and ours does not."""


def whole(provider: str, count: bytes) -> bytes:
    """An answer of a model with a price, in which something is put for the counts."""
    if provider == "anthropic":
        body = {**MESSAGE, "model": "claude-haiku-4-5"}
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens")
    else:
        body = {**json.loads(completion()), "model": "gpt-4.1-mini"}
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
    body["usage"] = dict.fromkeys(names, "COUNT")
    return json.dumps(body).encode().replace(b'"COUNT"', count)


def streamed(provider: str, count: bytes) -> bytes:
    if provider == "anthropic":
        start = {**MESSAGE, "content": [], "usage": {"input_tokens": "COUNT"}}
        said: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "content_block": {"type": "text"}},
            {
                "type": "content_block_delta",
                "delta": {"type": "text_delta", "text": "Hi"},
            },
            {"type": "content_block_stop"},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": "COUNT"},
            },
            {"type": "message_stop"},
        ]
        events = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in said]
    else:
        choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}
        counts = {"prompt_tokens": "COUNT", "completion_tokens": "COUNT"}
        chunks = [
            {"model": "gpt-4.1-mini", "choices": [choice]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": counts},
        ]
        events = [f"data: {json.dumps(one)}\n\n" for one in chunks]
        events.append("data: [DONE]\n\n")
    return "".join(events).encode().replace(b'"COUNT"', count)


def checked(gateway: Gateway, got: Got) -> dict[str, Any]:
    """The record, which is whole and can be read by everybody."""
    record = gateway.record
    line = encode(record)
    assert line.isascii()
    assert json.loads(line, parse_constant=pytest.fail) == record
    usage: dict[str, Any] = record["ai"]["proxy"]["usage"]
    assert 0 <= usage["total_tokens"] <= 3 * 10**12
    assert got.status == record["response"]["status"]
    return record


@ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("count", ODD, ids=lambda count: ascii(count[:9]))
def test_an_odd_count_costs_no_answer(
    caplog: pytest.LogCaptureFixture,
    client: str,
    provider: str,
    count: bytes,
    *,
    stream: bool,
) -> None:
    body = streamed(provider, count) if stream else whole(provider, count)
    upstream = answer(body, headers=STREAM if stream else JSON)
    gateway = Gateway(client, provider, upstream)
    options = {"include_usage": True}
    question = asked(stream=stream)
    if client == "openai":
        question["stream_options"] = options
    got = gateway.ask(question)
    record = checked(gateway, got)
    assert (got.status, got.cut, record["kongai"]["ended"]) == (200, False, "ok")
    if client == provider:
        assert got.body == body
    assert caplog.records == []


@ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: ascii(value[:9]))
def test_an_answer_that_is_no_json(
    client: str, provider: str, value: bytes, *, stream: bool
) -> None:
    body = streamed(provider, value) if stream else whole(provider, value)
    upstream = answer(body, headers=STREAM if stream else JSON)
    gateway = Gateway(client, provider, upstream)
    question = asked(stream=stream)
    if client == "openai":
        question["stream_options"] = {"include_usage": True}
    got = gateway.ask(question)
    record = checked(gateway, got)
    if client == provider:
        assert (got.status, got.body, got.cut) == (200, body, False)
        assert record["kongai"]["ended"] == "ok"
        assert record["kongai"]["usage_unread"] is True
    elif record["kongai"]["ended"] != "ok":
        assert record["kongai"]["ended"] == "transformation_failed"
        assert got.cut if stream else got.status == 500


BODY = json.dumps(asked(stream=False, temperature=0.5)).encode()
PIECES = [
    *(b'"model"', b'"stream"', b'"messages"', b'"role"', b":", b",", b"{", b"}"),
    *(
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\ud83d",
        b"\\u0000",
        b"NaN",
        b"1e999",
        b"-0",
        b"true",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\0", b" ", b"\n", b"9" * 400, b"null", "🙂".encode()),
    *(b'"model":"x",', b'"stream":true,', b"[" * 1200, b'{"a":' * 1200, b"[]," * 500),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A question with pieces taken out, put in, and turned around."""
    body = BODY
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 40)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        body = body[:start] + piece + body[draw(st.sampled_from([start, end])) :]
    return body


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "x"]), inner)
    ),
    max_leaves=8,
)
odd_objects = st.dictionaries(
    st.sampled_from(["model", "messages", "stream", "stream_options", "max_tokens"])
    | st.sampled_from(["tools", "system", "prompt", "input", "temperature", "x"]),
    values,
).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
bodies = damaged() | odd_objects | st.binary(max_size=60)


@lru_cache(maxsize=1)
def gateways() -> list[Gateway]:
    logging = {"log_statistics": True, "log_payloads": True}
    return [
        Gateway(client, provider, whole(provider, b"7"), logging=logging)
        for client, provider in WAYS
    ]


def refused_or_passed(body: bytes) -> None:
    for client, provider in WAYS:
        said = whole(provider, b"7")
        gateway = Gateway(
            client, provider, answer(said), logging={"log_payloads": True}
        )
        got = gateway.ask(body or b" ")
        record = checked(gateway, got) if "ai" in gateway.record else gateway.record
        json.loads(encode(record), parse_constant=pytest.fail)
        if got.status == 200:
            assert len(gateway.upstream.requests) == 1
            json.loads(got.body)
        else:
            assert (got.status, record["kongai"]["ended"]) == (400, "bad_request")
            assert gateway.upstream.requests == []
            assert got.error()


@unhurried
@given(bodies)
def test_any_body_is_refused_or_passed_on(body: bytes) -> None:
    refused_or_passed(body)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(unhurried, max_examples=20_000)
@given(bodies)
def test_any_body_is_refused_or_passed_on_at_length(body: bytes) -> None:
    refused_or_passed(body)
