"""The scripted APIs take what the real ones take, and refuse what those refuse."""

from __future__ import annotations

from typing import Any

import pytest

from .api_rules import anthropic_complaints, openai_complaints

USER: dict[str, Any] = {"role": "user", "content": "Grüezi"}
CALL = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "call_1", "content": "Räge"}
TEXT = {"type": "text", "text": "Und jetzt?"}
TURNS = [
    USER,
    {"role": "assistant", "content": [TEXT, CALL]},
    {"role": "user", "content": [RESULT, TEXT]},
]
FUNCTION = {"name": "weather", "arguments": "{}"}
OPENAI_CALL = {"id": "call_1", "type": "function", "function": FUNCTION}
OPENAI_TURNS: list[Any] = [
    {"role": "system", "content": "Kurz."},
    USER,
    {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Räge"},
    {"role": "user", "content": [TEXT]},
]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/chatz.png"}}


def anthropic_request(**fields: Any) -> dict[str, Any]:
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    asked = {"model": "m", "max_tokens": 9, "messages": TURNS, "tools": [tool]}
    return asked | fields


def openai_request(**fields: Any) -> dict[str, Any]:
    function = {"name": "weather", "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}
    return {"model": "gpt-5-mini", "messages": OPENAI_TURNS, "tools": [tool], **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.5},
        {"messages": [USER, USER]},
        {"messages": [*TURNS[:2], {"role": "system", "content": "Kurz."}, TURNS[2]]},
        {"messages": [*TURNS[:2], {"role": "user", "content": [RESULT]}, USER]},
    ],
)
def test_what_anthropic_takes(fields: dict[str, Any]) -> None:
    assert list(anthropic_complaints(anthropic_request(**fields))) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"stop": ["x"]}, "stop: Extra inputs"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "Input tag 'tool'"),
        ({"messages": TURNS[:2]}, "the last one asks for tools"),
        ({"messages": [*TURNS[:2], USER]}, "tool_use ids without tool_result"),
        ({"messages": [TURNS[2]]}, "unexpected tool_use_id"),
        (
            {"messages": [*TURNS[:2], {"role": "user", "content": [TEXT, RESULT]}]},
            "must come first",
        ),
        ({"messages": [{"role": "user", "content": ""}]}, "must be non-empty"),
        ({"tools": [{"name": "a.b", "input_schema": {"type": "object"}}]}, "'a.b'"),
        ({"tools": [{"name": "a", "input_schema": {}}]}, "should be 'object'"),
    ],
)
def test_what_anthropic_refuses(fields: dict[str, Any], complaint: str) -> None:
    [complained] = anthropic_complaints(anthropic_request(**fields))
    assert complaint in complained


def test_the_later_version_has_no_sampling() -> None:
    asked = anthropic_request(temperature=1)
    assert list(anthropic_complaints(asked, "2026-10-21")) == [
        "temperature: Extra inputs are not permitted"
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_completion_tokens": 9, "stream": True, "stream_options": {}},
        {"model": "gpt-4.1", "max_tokens": 9, "temperature": 0.5, "stop": "x"},
        {"messages": [{"role": "user", "content": [TEXT, IMAGE]}]},
    ],
)
def test_what_openai_takes(fields: dict[str, Any]) -> None:
    assert list(openai_complaints(openai_request(**fields))) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"system": "x"}, "supplied: system"),
        ({"max_tokens": 9}, "'max_tokens' is not supported"),
        ({"temperature": 0.5}, "'temperature'"),
        ({"stop": "x"}, "'stop'"),
        ({"stream_options": {}}, "'stream_options'"),
        ({"user": "x" * 65}, "'user'"),
        ({"messages": []}, "'messages': empty array"),
        ({"messages": [{"role": "model", "content": "x"}]}, "Invalid value: 'model'"),
        ({"messages": [{**USER, "id": "x"}]}, "messages[0].id"),
        ({"messages": OPENAI_TURNS[:3]}, "no response to ['call_1']"),
        ({"messages": [OPENAI_TURNS[3]]}, "must be a response"),
        (
            {"messages": [*OPENAI_TURNS[:3], USER, *OPENAI_TURNS[3:]]},
            "must be followed by tool messages",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "got null"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{**TEXT, "cache_control": {}}]}
                ]
            },
            "content.cache_control",
        ),
        (
            {"messages": [{"role": "assistant", "content": [IMAGE]}]},
            "content type 'image_url'",
        ),
        ({"tools": []}, "'tools': empty array"),
        ({"tools": [{"name": "x"}]}, "Invalid tool"),
        (
            {"tools": [{"type": "function", "function": {"name": "x" * 65}}]},
            "'tools.function.name'",
        ),
    ],
)
def test_what_openai_refuses(fields: dict[str, Any], complaint: str) -> None:
    [complained] = openai_complaints(openai_request(**fields))
    assert complaint in complained


def test_tools_are_chosen_only_from_some() -> None:
    asked = openai_request(tool_choice="auto", parallel_tool_calls=False)
    del asked["tools"]
    assert len(list(openai_complaints(asked))) == 2
