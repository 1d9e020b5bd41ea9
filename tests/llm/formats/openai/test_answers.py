from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import (
    ChatAnswer,
    GaveUp,
    Text,
    Thinking,
    ToolCall,
    Untranslatable,
)
from kongai.llm.formats import Envelope, openai
from kongai.llm.usage import Usage

ENVELOPE = Envelope("spare", "asked", 7)


def answer_of(
    message: dict[str, Any], finish: str | None = "stop", **members: Any
) -> ChatAnswer:
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    body = {"id": "c1", "object": "chat.completion", "model": "m", "created": 1}
    text = json.dumps({**body, "choices": [choice], **members})
    return openai.decode_answer(text.encode())


def called(name: str, arguments: Any, **members: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **members}


def written(*parts: Any, **fields: Any) -> Any:
    answer = ChatAnswer(parts=list(parts), **fields)
    return json.loads(openai.encode_answer(answer, ENVELOPE))


def test_an_answer() -> None:
    answer = answer_of(
        {
            "role": "assistant",
            "content": "so",
            "reasoning_content": "hm",
            "refusal": None,
            "annotations": [],
        },
        usage={"prompt_tokens": 1, "completion_tokens": 2},
        system_fingerprint="x",
        service_tier="default",
    )
    usage = Usage(1, 2, service_tier="default", counted=True)
    assert answer == ChatAnswer(
        "c1", "m", [Thinking("hm"), Text("so")], "end", None, usage
    )
    assert answer.losses.names() == []


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": None}, []),
        ({"content": ""}, []),
        ({"content": [{"type": "text", "text": "a"}]}, [Text("a")]),
        (
            {"content": None, "tool_calls": [called("f", '{"x": 1.0}', id="a")]},
            [ToolCall("a", "f", '{"x": 1.0}')],
        ),
        (
            {"tool_calls": [called("f", {"x": 1}, index=0), called("g", "")]},
            [ToolCall("call_c1_0", "f", '{"x": 1}'), ToolCall("call_c1_1", "g", "{}")],
        ),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            [ToolCall("call_c1_0", "f", "{}")],
        ),
    ],
)
def test_parts_of_an_answer(message: dict[str, Any], parts: list[Any]) -> None:
    assert answer_of(message).parts == parts


@pytest.mark.parametrize(
    ("finish", "message", "reason"),
    [
        ("stop", {}, "end"),
        (None, {}, "end"),
        ("length", {}, "length"),
        ("model_length", {}, "length"),
        ("content_filter", {}, "refusal"),
        ("eos", {}, "end"),
        ("tool_calls", {"tool_calls": [called("f", "")]}, "tool"),
        ("function_call", {"function_call": {"name": "f"}}, "tool"),
        # Not every provider says why.
        ("stop", {"tool_calls": [called("f", "")]}, "tool"),
        ("length", {"tool_calls": [called("f", "")]}, "length"),
        ("tool_calls", {"content": "x"}, "end"),
        ("stop", {"refusal": "no"}, "refusal"),
        ("stop", {"refusal": ""}, "end"),
        ("stop", {"refusal": None, "content": "x"}, "end"),
        ("length", {"refusal": ""}, "length"),
    ],
)
def test_why_an_answer_ended(
    finish: str | None, message: dict[str, Any], reason: str
) -> None:
    assert answer_of(message, finish).stop_reason == reason


@pytest.mark.parametrize(
    ("given", "tier"), [("flex", "flex"), (None, None), (1, None), (["flex"], None)]
)
def test_the_tier_that_served(given: Any, tier: str | None) -> None:
    answer = answer_of({}, service_tier=given, usage={"prompt_tokens": 1})
    assert answer.usage == Usage(1, service_tier=tier, counted=True)
    assert answer.losses.names() == []


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource"])
def test_a_reason_that_is_a_failure(reason: str) -> None:
    with pytest.raises(GaveUp) as failed:
        answer_of({"content": "so"}, reason)
    assert failed.value.status == 502
    assert failed.value.message == f"the provider gave up: {reason}"


@pytest.mark.parametrize(
    ("members", "status", "message"),
    [
        ({"error": {"message": "no", "code": 429}}, 429, "no"),
        ({"error": {"message": "no", "type": "rate_limit_error"}}, 429, "no"),
        ({"error": {"message": "no"}}, 500, "no"),
        ({"error": "no"}, 500, "no"),
        ({"error": {"message": "no", "code": 502}, "choices": []}, 502, "no"),
        (
            {"error": {"message": "no", "code": 402}, "choices": [{"message": {}}]},
            402,
            "no",
        ),
    ],
)
def test_an_error_in_the_place_of_an_answer(
    members: dict[str, Any], status: int, message: str
) -> None:
    """OpenRouter sends one with status 200 if the provider behind it fails late."""
    with pytest.raises(GaveUp, match=f"^{message}$") as failed:
        openai.decode_answer(json.dumps({"id": "c1", **members}).encode())
    assert (failed.value.status, failed.value.message) == (status, message)


def test_no_error_is_none() -> None:
    assert answer_of({"content": "so"}, error=None).parts == [Text("so")]


def test_what_is_not_known_is_named() -> None:
    answer = answer_of(
        {
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "https://a"}},
            ],
            "audio": {"id": "x"},
            "tool_calls": [{"type": "custom", "custom": {}}],
        },
        citations=["https://a"],
    )
    assert answer.losses.names() == [
        "choices[].message.content[]",
        "citations",
        "choices[].message.audio",
        "choices[].message.tool_calls[custom]",
    ]


def test_of_several_answers_the_first_is_taken() -> None:
    choices = [{"index": n, "message": {"content": str(n)}} for n in range(3)]
    answer = answer_of({}, choices=choices)
    assert answer.parts == [Text("0")]
    assert answer.losses.names() == ["choices[1:]"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "failed to decode openai response"),
        (b"[]", "failed to decode openai response"),
        (b"{}", "'choices' not in llm/v1/chat response"),
        (b'{"choices":[]}', "'choices' not in llm/v1/chat response"),
        (b'{"choices":{}}', "'choices' not in llm/v1/chat response"),
        (
            b'{"choices":[{"text":"x"}]}',
            "'choices[0].message' not in llm/v1/chat response",
        ),
    ],
)
def test_kongs_words_for_what_is_no_answer(body: bytes, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        openai.decode_answer(body)
    assert str(refused.value) == said


def test_an_answer_that_is_written() -> None:
    body = written(
        Thinking("hm", "seal"),
        Text("one"),
        Text("two"),
        ToolCall("a", "f", '{"x": 1.0}'),
        id="c1",
        model="m",
        stop_reason="tool",
        usage=Usage(1, 2, counted=True),
    )
    function = {"name": "f", "arguments": '{"x": 1.0}'}
    detail = {"type": "reasoning.text", "text": "hm", "signature": "seal"}
    assert body == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "one\ntwo",
                    "reasoning_content": "hm",
                    "reasoning_details": [{**detail, "format": "anthropic-claude-v1"}],
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": function}
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def test_what_the_provider_did_not_say_is_filled_in() -> None:
    body = written()
    assert (body["id"], body["model"]) == ("spare", "asked")
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": None}
    assert choice["finish_reason"] == "stop"


def test_kongs_words_where_nothing_was_counted() -> None:
    assert written()["usage"] == "no usage data returned from upstream"
    assert written(usage=Usage())["usage"] == {}


@pytest.mark.parametrize(
    ("reason", "finish", "lost"),
    [
        ("end", "stop", []),
        ("sequence", "stop", []),
        ("pause", "stop", ["stop_reason"]),
        ("length", "length", []),
        ("tool", "tool_calls", []),
        ("refusal", "content_filter", []),
    ],
)
def test_how_it_says_why_it_ended(reason: Any, finish: str, lost: list[str]) -> None:
    answer = ChatAnswer(parts=[Text("a")], stop_reason=reason)
    (choice,) = json.loads(openai.encode_answer(answer, ENVELOPE))["choices"]
    assert choice["finish_reason"] == finish
    assert answer.losses.names() == lost
