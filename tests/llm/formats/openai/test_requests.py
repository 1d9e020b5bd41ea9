from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import (
    ChatRequest,
    Media,
    Message,
    OutputSchema,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Untranslatable,
)
from kongai.llm.formats import Dialect, openai

PLAIN = Dialect()
MARK = {"type": "ephemeral"}


def decoded(losses: list[str] | None = None, **members: Any) -> ChatRequest:
    chat = openai.decode_request(json.dumps(members).encode())
    assert chat.losses.names() == (losses or [])
    return chat


def encoded(
    chat: ChatRequest, dialect: Dialect = PLAIN, losses: list[str] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(openai.encode_request(chat, dialect))
    assert chat.losses.names() == (losses or [])
    return body


def messages(
    *given: Message, dialect: Dialect = PLAIN, losses: list[str] | None = None
) -> Any:
    return encoded(ChatRequest(messages=list(given)), dialect, losses)["messages"]


def test_all_that_a_request_can_say() -> None:
    chat = decoded(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=1,
        temperature=2,
        top_p=0.5,
        top_k=3,
        seed=0,
        frequency_penalty=-1,
        presence_penalty=0.5,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": True},
        parallel_tool_calls=False,
        user="u",
        n=1,
        logprobs=False,
        metadata={},
        functions=None,
    )
    assert chat == ChatRequest(
        "m",
        [Message("user", [Text("hi")])],
        max_tokens=1,
        temperature=2.0,
        top_p=0.5,
        top_k=3,
        seed=0,
        frequency_penalty=-1.0,
        presence_penalty=0.5,
        stop=["a", "b"],
        stream=True,
        usage_in_stream=True,
        parallel_tools=False,
        user="u",
    )


@pytest.mark.parametrize(
    ("members", "lost"),
    [
        ({"n": 2}, ["n"]),
        ({"logprobs": True, "top_logprobs": 3}, ["logprobs", "top_logprobs"]),
        ({"store": True}, ["store"]),
        ({"stream_options": {"new": 1}}, ["stream_options.new"]),
        ({"messages": [{"role": "user", "name": "Ada"}]}, ["messages[].name"]),
        ({"tools": [{"type": "custom", "custom": {}}]}, ["tools[custom]"]),
        ({"tool_choice": {"type": "allowed_tools"}}, ["tool_choice[allowed_tools]"]),
        (
            {"response_format": {"type": "json_object"}},
            ["response_format[json_object]"],
        ),
    ],
)
def test_what_is_not_known_is_named(members: dict[str, Any], lost: list[str]) -> None:
    decoded(losses=lost, **members)


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_completion_tokens": None, "max_tokens": 9}, 9),
        ({}, None),
    ],
)
def test_the_limit_has_two_names(members: dict[str, Any], limit: int | None) -> None:
    assert decoded(**members).max_tokens == limit


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({}, None),
        ({"reasoning_effort": "low"}, Reasoning(effort="low")),
        ({"reasoning_effort": "none"}, Reasoning(False)),
        ({"reasoning": {"effort": "high"}}, Reasoning(effort="high")),
        ({"reasoning": {"max_tokens": 2000}}, Reasoning(budget=2000)),
        ({"reasoning": {"enabled": False}}, Reasoning(False)),
        ({"reasoning": {"enabled": True}}, Reasoning()),
        ({"reasoning": {}}, Reasoning()),
    ],
)
def test_how_much_to_think_is_said_in_openais_way_or_in_openrouters(
    members: dict[str, Any], wanted: Reasoning | None
) -> None:
    assert decoded(**members).reasoning == wanted


@pytest.mark.parametrize(
    ("given", "stop"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, []), ([], [])]
)
def test_stop_is_a_string_or_several(given: Any, stop: list[str]) -> None:
    assert decoded(stop=given).stop == stop


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),  # Mistral's word
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("one", "f")),
        (None, None),
    ],
)
def test_choices_of_tools(given: Any, choice: ToolChoice | None) -> None:
    assert decoded(tool_choice=given).tool_choice == choice


def test_schemas_keep_their_bytes() -> None:
    schema = '{"type" : "object", "minimum": 1.0}'
    body = b"""{"messages": [], "tools": [{"type": "function", "function":
        {"name": "f", "description": "d", "parameters": %b, "strict": true}}],
        "response_format": {"type": "json_schema", "json_schema":
        {"name": "n", "schema": %b, "strict": false}}}""" % (
        schema.encode(),
        schema.encode(),
    )
    chat = openai.decode_request(body)
    assert chat.tools == [Tool("f", "d", schema, True)]
    assert chat.output == OutputSchema(schema, "n", None, False)
    assert openai.encode_request(chat, PLAIN).count(schema.encode()) == 2


def test_results_and_what_the_user_says_then_are_one_turn() -> None:
    chat = decoded(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x":1}'},
                    },
                    {"id": "b", "index": 1, "function": {"name": "g"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {
                "role": "tool",
                "tool_call_id": "b",
                "content": [{"type": "text", "text": "2"}],
            },
            {"role": "user", "content": "go on"},
            {"role": "user", "content": "please"},
        ]
    )
    assert chat.messages == [
        Message("system", [Text("Be brief.")]),
        Message("user", [Text("look")]),
        Message("assistant", [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g")]),
        Message(
            "user",
            [ToolResult("a", [Text("1")]), ToolResult("b", [Text("2")]), Text("go on")],
        ),
        Message("user", [Text("please")]),
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"messages":[{"role":"robot"}]}', "messages[0]: unknown role"),
        (b'{"messages":[{}]}', "messages[0]: unknown role"),
        (b'{"messages":"secret"}', "messages: expected an array"),
        (b'{"messages":[1]}', "messages[0]: expected an object"),
        (b'{"max_tokens":"secret"}', "max_tokens: expected an integer"),
        (b'{"stop":[1]}', "stop: expected an array of strings"),
        (b"[]", "expected a JSON object"),
    ],
)
def test_what_is_no_request(body: bytes, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        openai.decode_request(body)
    assert str(refused.value) == said


def test_the_smallest_request() -> None:
    chat = ChatRequest("m", [Message("user", [Text("hi")])])
    assert encoded(chat) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_results_are_written_before_what_else_the_user_says() -> None:
    """They must follow the calls; what they show comes in the user's message."""
    image = Media("image", "image/png", "aWk=")
    turn: list[Part] = [
        Text("so"),
        ToolResult("a", [Text("1"), image, Text("2")]),
        ToolResult("b", is_error=True),
    ]
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWk="}}
    assert messages(Message("user", turn), losses=["tool_result.is_error"]) == [
        {"role": "tool", "tool_call_id": "a", "content": "1\n2"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": [shown, {"type": "text", "text": "so"}]},
    ]


def test_an_assistants_message() -> None:
    parts: list[Part] = [Text("one"), Text("two"), ToolCall("a", "f", '{"x": 1.0}')]
    assert messages(Message("assistant", parts), Message("assistant")) == [
        {
            "role": "assistant",
            "content": "one\ntwo",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"x": 1.0}'},
                }
            ],
        },
        {"role": "assistant", "content": ""},
    ]
    (calling,) = messages(Message("assistant", parts[2:]))
    assert calling["content"] is None


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (Message("assistant", [Media("image", url="u")]), "assistant.content[]"),
        (Message("assistant", [ToolResult("a")]), "assistant.content[]"),
        (Message("system", [Media("image", url="u")]), "system.content[]"),
    ],
)
def test_what_has_no_place_in_a_message_is_named(message: Message, lost: str) -> None:
    assert len(messages(message, losses=[lost])) == 1


@pytest.mark.parametrize("part", [Thinking("secret"), ToolCall("a", "secret")])
def test_what_only_a_model_says_is_refused_from_a_user(part: Part) -> None:
    with pytest.raises(Untranslatable, match="not the user's to send$"):
        messages(Message("user", [part]))


def test_what_was_thought_goes_back_where_the_provider_takes_it() -> None:
    thoughts: list[Part] = [
        Thinking("a", "seal"),
        Thinking("b"),
        Thinking(redacted="xyz"),
    ]
    message = Message("assistant", [*thoughts, Text("so")])
    plain = {"role": "assistant", "content": "so"}
    assert messages(message, losses=["thinking"]) == [plain]
    deepseek = Dialect(past_reasoning="reasoning_content")
    assert messages(message, dialect=deepseek, losses=["thinking.signature"]) == [
        {**plain, "reasoning_content": "a\nb"}
    ]
    openrouter = Dialect(past_reasoning="reasoning", reasoning="openrouter")
    anthropics = {"format": "anthropic-claude-v1"}
    assert messages(message, dialect=openrouter) == [
        {
            **plain,
            "reasoning": "a\nb",
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "text": "a",
                    "signature": "seal",
                    **anthropics,
                },
                {"type": "reasoning.encrypted", "data": "xyz", **anthropics},
            ],
        }
    ]


def test_ids_of_calls_are_shortened_alike_for_call_and_result() -> None:
    """Mistral takes nine letters and digits, and refuses any other id."""
    ids = ["toolu_01A", "toolu_01B", "", "abcDEF123", "é" * 50]
    chat = [
        Message("assistant", [ToolCall(id, "f") for id in ids]),
        Message("user", [ToolResult(id) for id in ids]),
    ]
    mistral = Dialect(short_call_ids=True)
    calling, *results = messages(*chat, dialect=mistral)
    called = [call["id"] for call in calling["tool_calls"]]
    assert called == [result["tool_call_id"] for result in results]
    assert all(len(id) == 9 and id.isascii() and id.isalnum() for id in called)
    assert len(set(called)) == len(ids)
    assert called[3] == "abcDEF123"
    assert messages(*chat, dialect=mistral) == [calling, *results]


def test_tools() -> None:
    tools = [
        Tool("f", "d", '{"type":"object","x":1.0}', False),
        Tool("g"),
        Tool("h", parameters="no JSON"),
    ]
    chat = ChatRequest(tools=tools, tool_choice=ToolChoice("one", "g"))
    chat.parallel_tools = False
    body = encoded(chat)
    empty = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "parameters": {"type": "object", "x": 1.0},
                "strict": False,
            },
        },
        {"type": "function", "function": {"name": "g", "parameters": empty}},
        {"type": "function", "function": {"name": "h", "parameters": empty}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert body["parallel_tool_calls"] is False


def test_without_tools_nothing_is_said_of_them() -> None:
    """OpenAI refuses a choice among no tools."""
    chat = ChatRequest(tool_choice=ToolChoice("none"), parallel_tools=True)
    assert encoded(chat).keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("dialect", "given", "members", "lost"),
    [
        (PLAIN, {"max_tokens": 5}, {"max_tokens": 5}, []),
        (
            Dialect(max_tokens="max_completion_tokens"),
            {"max_tokens": 5},
            {"max_completion_tokens": 5},
            [],
        ),
        (Dialect(default_max_tokens=9), {}, {"max_tokens": 9}, []),
        (PLAIN, {"top_k": 4}, {}, ["top_k"]),
        (Dialect(top_k=True), {"top_k": 4}, {"top_k": 4}, []),
        (
            PLAIN,
            {"temperature": 0.0, "top_p": 1.0, "seed": 0},
            {"temperature": 0.0, "top_p": 1.0, "seed": 0},
            [],
        ),
        (Dialect(sampling=False), {"temperature": 1.0, "top_p": 1.0}, {}, []),
        (
            Dialect(sampling=False),
            {"temperature": 0.0, "top_p": 0.5, "stop": ["a"]},
            {},
            ["temperature", "top_p", "stop"],
        ),
        (PLAIN, {"stop": list("abcde")}, {"stop": list("abcd")}, ["stop"]),
        (PLAIN, {"user": "u" * 64}, {"user": "u" * 64}, []),
        (PLAIN, {"user": "u" * 65}, {}, ["user"]),
        (
            PLAIN,
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True}},
            [],
        ),
        (Dialect(stream_usage=False), {"stream": True}, {"stream": True}, []),
    ],
)
def test_what_a_dialect_takes(
    dialect: Dialect, given: dict[str, Any], members: dict[str, Any], lost: list[str]
) -> None:
    body = encoded(ChatRequest(**given), dialect, lost)
    assert body == {"model": None, "messages": [], **members}


@pytest.mark.parametrize(
    ("how", "wanted", "members", "lost"),
    [
        (None, Reasoning(effort="low"), {}, ["thinking"]),
        (None, Reasoning(False), {}, []),
        ("effort", Reasoning(effort="low"), {"reasoning_effort": "low"}, []),
        ("effort", Reasoning(effort="max"), {"reasoning_effort": "high"}, []),
        ("effort", Reasoning(budget=1024), {"reasoning_effort": "low"}, []),
        ("effort", Reasoning(budget=2049), {"reasoning_effort": "medium"}, []),
        ("effort", Reasoning(budget=99999), {"reasoning_effort": "high"}, []),
        ("effort", Reasoning(), {}, []),
        ("effort", Reasoning(False), {}, ["thinking"]),
        (
            "openrouter",
            Reasoning(effort="xhigh"),
            {"reasoning": {"effort": "high"}},
            [],
        ),
        ("openrouter", Reasoning(budget=9), {"reasoning": {"max_tokens": 9}}, []),
        ("openrouter", Reasoning(), {"reasoning": {"enabled": True}}, []),
        ("openrouter", Reasoning(False), {"reasoning": {"enabled": False}}, []),
    ],
)
def test_how_much_to_think(
    how: Any, wanted: Reasoning, members: dict[str, Any], lost: list[str]
) -> None:
    body = encoded(ChatRequest(reasoning=wanted), Dialect(reasoning=how), lost)
    assert body == {"model": None, "messages": [], **members}


def test_a_schema_needs_a_name() -> None:
    body = encoded(ChatRequest(output=OutputSchema('{"a":1}')))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": {"a": 1}},
    }


def test_cache_points_are_kept_where_they_are_taken() -> None:
    chat = ChatRequest(
        messages=[
            Message("system", [Text("s", MARK)]),
            Message("user", [Text("u", MARK)]),
        ],
        tools=[Tool("f", cache=MARK)],
    )
    body = encoded(chat, losses=["cache_control"])
    assert "cache_control" not in json.dumps(body)
    chat.losses = ChatRequest().losses
    body = encoded(chat, Dialect(cache_points=True))
    part = {"type": "text", "cache_control": MARK}
    assert body["messages"] == [
        {"role": "system", "content": [{**part, "text": "s"}]},
        {"role": "user", "content": [{**part, "text": "u"}]},
    ]
    assert body["tools"][0]["cache_control"] == MARK
