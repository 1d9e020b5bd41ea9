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
OF_A_CALL = "messages[0].tool_calls[0]"


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
        ({"user": "u", "safety_identifier": "s"}, ["safety_identifier"]),
        (
            {"function_call": "auto", "tool_choice": "auto"},
            ["function_call"],
        ),
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
    ("members", "user"),
    [
        ({"user": "u"}, "u"),
        ({"safety_identifier": "s"}, "s"),
        ({"user": None, "safety_identifier": "s"}, "s"),
        ({}, None),
    ],
)
def test_the_person_behind_the_request(
    members: dict[str, Any], user: str | None
) -> None:
    assert decoded(**members).user == user


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


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ({"name": "f"}, ToolChoice("one", "f")),
        (None, None),
    ],
)
def test_choices_of_functions(given: Any, choice: ToolChoice | None) -> None:
    assert decoded(function_call=given).tool_choice == choice


def test_functions_are_tools_under_an_older_name() -> None:
    """Calls of them had no ids; a result is of the last call."""
    call = {"name": "f", "arguments": '{"x":1}'}
    calling = {"role": "assistant", "content": None, "function_call": call}
    result = {"role": "function", "name": "f"}
    chat = decoded(
        functions=[
            {"name": "f", "description": "d", "parameters": {"type": "object"}},
            {"name": "g"},
        ],
        messages=[
            {"role": "user", "content": "?"},
            calling,
            {**result, "content": "1"},
            calling,
            {**result, "content": "2"},
            {"role": "user", "content": "so"},
        ],
    )
    assert chat.tools == [Tool("f", "d", '{"type": "object"}'), Tool("g")]
    assert chat.messages == [
        Message("user", [Text("?")]),
        Message("assistant", [ToolCall("call_f_1", "f", '{"x":1}')]),
        Message("user", [ToolResult("call_f_1", [Text("1")])]),
        Message("assistant", [ToolCall("call_f_2", "f", '{"x":1}')]),
        Message("user", [ToolResult("call_f_2", [Text("2")]), Text("so")]),
    ]


def test_a_call_with_a_text_for_its_input() -> None:
    custom = {"name": "f", "input": 'a "b"'}
    calls = [{"id": "a", "type": "custom", "custom": custom}]
    (message,) = decoded(messages=[{"role": "assistant", "tool_calls": calls}]).messages
    assert message.parts == [ToolCall("a", "f", '{"input":"a \\"b\\""}')]


def test_schemas_keep_their_bytes() -> None:
    schema = '{"type" : "object", "properties": {}, "minimum": 1.0}'
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
    assert chat.losses.names() == ["tools[].strict"]


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
        (
            b'{"messages":[{"role":"assistant","tool_calls":[{"id":"secret"}]}]}',
            f"{OF_A_CALL}: a call of an unknown kind can't be carried over",
        ),
        (
            b'{"function_call":"secret"}',
            "function_call: expected one of auto, none, required",
        ),
        (
            b'{"tool_choice":"secret"}',
            "tool_choice: expected one of auto, none, required",
        ),
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
    asked = Message("user", [Text("?")])
    written, silent, _ = messages(
        Message("assistant", parts), Message("assistant"), asked
    )
    assert [written, silent] == [
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
    calling, _ = messages(Message("assistant", parts[2:]), asked)
    assert calling["content"] is None


def test_a_conversation_that_ends_with_the_assistant_asks_for_nothing() -> None:
    """To OpenAI it is not the beginning of the answer."""
    said = [Message("user", [Text("a")]), Message("assistant", [Text("b")])]
    assert messages(*said, losses=["prefill"]) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


def test_results_in_several_turns_follow_their_calls_together() -> None:
    calling = Message("assistant", [ToolCall("a", "f"), ToolCall("b", "g")])
    first: list[Part] = [Text("so"), ToolResult("a", [Text("1")])]
    written = messages(
        calling,
        Message("user", first),
        Message("user", [ToolResult("b", [Text("2")]), Text("go on")]),
        Message("user", [Text("please")]),
    )
    assert written[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "so"},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "user", "content": "please"},
    ]
    assert len(first) == 2


def test_turns_of_texts_stay_apart() -> None:
    said = [Message("user", [Text("a")]), Message("user", [Text("b")])]
    assert [message["content"] for message in messages(*said)] == ["a", "b"]


def test_where_no_user_may_follow_a_tool_its_last_result_says_it() -> None:
    image = Media("image", url="https://a")
    mistral = Dialect(user_after_tool=False)
    given: list[Part] = [
        *(Text("so"), ToolResult("a", [Text("1")]), ToolResult("b", [Text("2")])),
        *(Text("go"), image),
    ]
    assert messages(Message("user", given), dialect=mistral) == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2\nso\ngo"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://a"}}],
        },
    ]
    assert given[2] == ToolResult("b", [Text("2")])
    said = Message("user", [Text("a"), Text("b")])
    assert messages(said, dialect=mistral) == messages(said)


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (Message("assistant", [Media("image", url="u")]), "assistant.content[]"),
        (Message("assistant", [ToolResult("a")]), "assistant.content[]"),
        (Message("system", [Media("image", url="u")]), "system.content[]"),
    ],
)
def test_what_has_no_place_in_a_message_is_named(message: Message, lost: str) -> None:
    asked = Message("user", [Text("?")])
    assert len(messages(message, asked, losses=[lost])) == 2


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

    def written(*, dialect: Dialect, losses: list[str] | None = None) -> Any:
        asked = Message("user", [Text("?")])
        return messages(message, asked, dialect=dialect, losses=losses)[:1]

    assert written(dialect=PLAIN, losses=["thinking"]) == [plain]
    deepseek = Dialect(past_reasoning="reasoning_content")
    assert written(dialect=deepseek, losses=["thinking.signature"]) == [
        {**plain, "reasoning_content": "a\nb"}
    ]
    openrouter = Dialect(past_reasoning="reasoning", reasoning="openrouter")
    anthropics = {"format": "anthropic-claude-v1"}
    assert written(dialect=openrouter) == [
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
        Tool("f", "d", '{"type":"object","x":1.0,"properties":{}}', False),
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
                "parameters": {"type": "object", "x": 1.0, "properties": {}},
                "strict": False,
            },
        },
        {"type": "function", "function": {"name": "g", "parameters": empty}},
        {"type": "function", "function": {"name": "h", "parameters": empty}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert body["parallel_tool_calls"] is False


SHUT = '{"type":"object","properties":{},"additionalProperties":false}'


@pytest.mark.parametrize(
    ("parameters", "given", "strict", "lost"),
    [
        (SHUT, True, True, []),
        ('{"additionalProperties":false}', True, True, []),
        (None, False, False, []),
        (None, None, None, []),
        (None, True, None, ["tools[].strict"]),
        ("{}", True, None, ["tools[].strict"]),
        ("no JSON", True, None, ["tools[].strict"]),
        ('{"type":"object","required":[{}]}', True, None, ["tools[].strict"]),
        (
            '{"type":"object","properties":{"a":{}},"additionalProperties":false}',
            True,
            None,
            ["tools[].strict"],
        ),
    ],
)
def test_a_tool_is_strict_where_openai_takes_it_for_strict(
    parameters: str | None, given: bool | None, strict: bool | None, lost: list[str]
) -> None:
    """It refuses a strict tool with a property that may be left out."""
    tool = Tool("f", parameters=parameters, strict=given)
    (written,) = encoded(ChatRequest(tools=[tool]), losses=lost)["tools"]
    assert written["function"].get("strict") is strict


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], ToolChoice("required")),
        ([], ToolChoice("one", "f")),
        ([Tool("f")], ToolChoice("one", "g")),
    ],
)
def test_a_choice_of_what_is_not_offered_is_lost(
    tools: list[Tool], choice: ToolChoice
) -> None:
    chat = ChatRequest(tools=tools, tool_choice=choice)
    assert "tool_choice" not in encoded(chat, losses=["tool_choice"])


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_a_choice_that_asks_for_no_tool_is_none_without_tools(mode: Any) -> None:
    assert "tool_choice" not in encoded(ChatRequest(tool_choice=ToolChoice(mode)))


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
        (Dialect(user=False), {"user": "u"}, {}, ["user"]),
        (Dialect(stop=False), {"stop": ["a"]}, {}, ["stop"]),
        (Dialect(stop=False), {"stop": []}, {}, []),
        (
            Dialect(stop=False),
            {"temperature": 0.0, "top_p": 0.5},
            {"temperature": 0.0, "top_p": 0.5},
            [],
        ),
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
        (None, Reasoning(effort="low"), {}, ["reasoning"]),
        (None, Reasoning(False), {}, []),
        ("effort", Reasoning(effort="low"), {"reasoning_effort": "low"}, []),
        ("effort", Reasoning(effort="minimal"), {"reasoning_effort": "minimal"}, []),
        (
            "effort",
            Reasoning(effort="max"),
            {"reasoning_effort": "high"},
            ["reasoning.effort"],
        ),
        (
            "effort",
            Reasoning(effort="xhigh"),
            {"reasoning_effort": "high"},
            ["reasoning.effort"],
        ),
        ("effort", Reasoning(budget=1024), {"reasoning_effort": "low"}, []),
        ("effort", Reasoning(budget=2049), {"reasoning_effort": "medium"}, []),
        ("effort", Reasoning(budget=99999), {"reasoning_effort": "high"}, []),
        ("effort", Reasoning(), {}, []),
        ("effort", Reasoning(False), {}, ["reasoning"]),
        (
            "openrouter",
            Reasoning(effort="xhigh"),
            {"reasoning": {"effort": "high"}},
            ["reasoning.effort"],
        ),
        (
            "openrouter",
            Reasoning(effort="minimal"),
            {"reasoning": {"effort": "minimal"}},
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


@pytest.mark.parametrize(
    ("wanted", "lost"),
    [
        (None, []),
        (Reasoning(False), []),
        (Reasoning(), ["reasoning"]),
        (Reasoning(effort="low"), ["reasoning"]),
        (Reasoning(budget=9), ["reasoning"]),
    ],
)
def test_where_tools_and_thinking_exclude_each_other(
    wanted: Reasoning | None, lost: list[str]
) -> None:
    dialect = Dialect(reasoning="effort", tools_with_reasoning=False)
    chat = ChatRequest(tools=[Tool("f")], reasoning=wanted)
    assert encoded(chat, dialect, lost)["reasoning_effort"] == "none"


def test_without_tools_they_do_not() -> None:
    dialect = Dialect(reasoning="effort", tools_with_reasoning=False)
    chat = ChatRequest(reasoning=Reasoning(effort="low"))
    assert encoded(chat, dialect)["reasoning_effort"] == "low"
    assert "reasoning_effort" not in encoded(ChatRequest(), dialect)


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
