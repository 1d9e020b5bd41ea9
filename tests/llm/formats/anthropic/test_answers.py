from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import ChatAnswer, Text, Thinking, ToolCall, Untranslatable
from kongai.llm.formats import Envelope, anthropic
from kongai.llm.usage import Usage

ENVELOPE = Envelope("spare", "asked", 7, prompt_estimate=40)


def answer_of(*blocks: dict[str, Any], **members: Any) -> ChatAnswer:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": blocks,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        **members,
    }
    return anthropic.decode_answer(json.dumps(body).encode())


def written(*parts: Any, **fields: Any) -> Any:
    answer = ChatAnswer(parts=list(parts), **fields)
    return json.loads(anthropic.encode_answer(answer, ENVELOPE))


def test_an_answer() -> None:
    answer = answer_of(
        {"type": "thinking", "thinking": "hm", "signature": "seal"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.0}},
        usage={
            "input_tokens": 4,
            "cache_read_input_tokens": 10,
            "output_tokens": 7,
            "server_tool_use": {"web_search_requests": 0},
        },
        stop_reason="tool_use",
        container=None,
    )
    assert answer.parts == [
        Thinking("hm", "seal"),
        Thinking(redacted="xyz"),
        Text("so"),
        ToolCall("a", "f", '{"x": 1.0}'),
    ]
    assert (answer.id, answer.model, answer.stop_reason) == ("msg_1", "m", "tool")
    assert answer.usage == Usage(14, 7, cached_tokens=10, counted=True)
    assert answer.losses.names() == []


@pytest.mark.parametrize(
    ("given", "reason", "back"),
    [
        ("end_turn", "end", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("model_context_window_exceeded", "length", "max_tokens"),
        ("stop_sequence", "sequence", "stop_sequence"),
        ("tool_use", "tool", "tool_use"),
        ("pause_turn", "pause", "pause_turn"),
        ("compaction", "pause", "pause_turn"),
        ("refusal", "refusal", "refusal"),
        ("new_reason", "end", "end_turn"),
        (None, None, "end_turn"),
    ],
)
def test_why_an_answer_ended(given: str | None, reason: Any, back: str) -> None:
    assert answer_of(stop_reason=given).stop_reason == reason
    assert written(stop_reason=reason)["stop_reason"] == back


def test_a_stop_sequence() -> None:
    answer = answer_of(stop_reason="stop_sequence", stop_sequence="###")
    assert answer.stop_sequence == "###"
    assert (
        written(stop_reason="sequence", stop_sequence="###")["stop_sequence"] == "###"
    )


def test_what_is_not_known_is_named() -> None:
    answer = answer_of(
        {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "x", "content": []},
        {"type": "text", "text": "so", "citations": [{"url": "u"}]},
        {"type": "image", "source": {"type": "url", "url": "u"}},
        container={"id": "x"},
    )
    assert answer.parts == [Text("so", cited=True)]
    assert answer.losses.names() == [
        "content[]",
        "container",
        "content[server_tool_use]",
        "content[web_search_tool_result]",
        "content[].citations",
    ]


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({}, Usage()),
        ("no usage", Usage()),
        ({"input_tokens": "secret"}, Usage()),
        (None, None),
    ],
)
def test_a_usage_that_tells_nothing(given: Any, usage: Usage | None) -> None:
    assert answer_of(usage=given).usage == usage


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "failed to decode anthropic response"),
        (b"null", "failed to decode anthropic response"),
        (b"{}", "'content' not in anthropic://llm/v1/chat response"),
        (b'{"content":"x"}', "'content' not in anthropic://llm/v1/chat response"),
    ],
)
def test_kongs_words_for_what_is_no_answer(body: bytes, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        anthropic.decode_answer(body)
    assert str(refused.value) == said


def test_an_answer_that_is_written() -> None:
    usage = Usage(114, 7, cached_tokens=10, cache_writes={"1h": 100}, counted=True)
    assert written(
        Thinking("hm", "seal"),
        Thinking("of another vendor"),
        Thinking(redacted="xyz"),
        Text("so"),
        ToolCall("call:1", "f", '{"x": 1}'),
        id="c1",
        model="m",
        stop_reason="tool",
        usage=usage,
    ) == {
        "id": "c1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "seal"},
            {"type": "thinking", "thinking": "of another vendor", "signature": ""},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "so"},
            {
                "type": "tool_use",
                "id": "call_1_0af63155",
                "name": "f",
                "input": {"x": 1},
            },
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 10,
            "output_tokens": 7,
        },
    }


@pytest.mark.parametrize("usage", [None, Usage()])
def test_what_the_provider_did_not_say_is_filled_in(usage: Usage | None) -> None:
    """Clients of Anthropic's expect counts, whatever they are."""
    body = written(Text("12345"), ToolCall("a", "1", "{}"), usage=usage)
    assert (body["id"], body["model"]) == ("spare", "asked")
    assert body["stop_reason"] == "end_turn"
    assert body["usage"]["input_tokens"] == 40
    assert body["usage"]["output_tokens"] == 2
