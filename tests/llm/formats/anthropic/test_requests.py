from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import (
    ChatRequest,
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
from kongai.llm.formats import Dialect, anthropic

PLAIN = Dialect()
BUDGET = Dialect(default_max_tokens=4096, reasoning="budget", top_k=True)
ADAPTIVE = Dialect(default_max_tokens=4096, reasoning="adaptive", sampling=False)
MARK = {"type": "ephemeral"}
PLAIN_MEMBERS = {"model", "messages", "stream"}


def decoded(losses: list[str] | None = None, **members: Any) -> ChatRequest:
    chat = anthropic.decode_request(json.dumps(members).encode())
    assert chat.losses.names() == (losses or [])
    return chat


def encoded(
    chat: ChatRequest, dialect: Dialect = PLAIN, losses: list[str] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(anthropic.encode_request(chat, dialect))
    assert chat.losses.names() == (losses or [])
    return body


def test_all_that_a_request_can_say() -> None:
    chat = decoded(
        model="m",
        system=[{"type": "text", "text": "Be brief.", "cache_control": MARK}],
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=1,
        temperature=1,
        top_p=0.5,
        top_k=3,
        stop_sequences=["a"],
        stream=True,
        metadata={"user_id": "u"},
    )
    assert chat == ChatRequest(
        "m",
        [Message("system", [Text("Be brief.", MARK)]), Message("user", [Text("hi")])],
        max_tokens=1,
        temperature=1.0,
        top_p=0.5,
        top_k=3,
        stop=["a"],
        stream=True,
        usage_in_stream=True,
        user="u",
    )


@pytest.mark.parametrize(
    ("members", "lost"),
    [
        ({"service_tier": "auto"}, ["service_tier"]),
        ({"metadata": {"user_id": "u", "team": "t"}}, ["metadata.team"]),
        ({"thinking": {"type": "enabled", "display": "x"}}, ["thinking.display"]),
        ({"tools": [{"type": "bash_20250124", "name": "x"}]}, ["tools[bash_20250124]"]),
        (
            {"tools": [{"name": "x", "defer_loading": True, "input_schema": {}}]},
            ["tools[].defer_loading"],
        ),
        (
            {"output_config": {"format": {"type": "regex"}, "x": 1}},
            ["output_config.x", "output_config.format[regex]"],
        ),
        (
            {"context_management": {"edits": []}, "mcp_servers": []},
            ["context_management"],
        ),
    ],
)
def test_what_is_not_known_is_named(members: dict[str, Any], lost: list[str]) -> None:
    decoded(losses=lost, **members)


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        (None, None, None),
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any"}, ToolChoice("required"), None),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "tool", "name": "f"}, ToolChoice("one", "f"), None),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            ToolChoice("auto"),
            False,
        ),
        (
            {"type": "any", "disable_parallel_tool_use": False},
            ToolChoice("required"),
            True,
        ),
    ],
)
def test_choices_of_tools(
    given: Any, choice: ToolChoice | None, parallel: bool | None
) -> None:
    chat = decoded(tool_choice=given)
    assert (chat.tool_choice, chat.parallel_tools) == (choice, parallel)
    chat.tools = [Tool("f")]
    written = encoded(chat).get("tool_choice")
    if parallel is True:
        # It is what Anthropic does anyway.
        del given["disable_parallel_tool_use"]
    assert written == given


def test_one_call_at_a_time_needs_a_choice() -> None:
    chat = ChatRequest(tools=[Tool("f")], parallel_tools=False)
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert encoded(chat)["tool_choice"] == choice
    chat.tool_choice = ToolChoice("none")
    assert encoded(chat)["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}}, Reasoning(False)),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            Reasoning(budget=2000),
        ),
        ({"thinking": {"type": "adaptive"}}, Reasoning()),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            Reasoning(effort="max"),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning(effort="low")),
    ],
)
def test_how_much_to_think_that_is_read(
    members: dict[str, Any], wanted: Reasoning | None
) -> None:
    assert decoded(**members).reasoning == wanted


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"messages":[{"role":"tool"}]}', "messages[0]: unknown role"),
        (b'{"messages":{}}', "messages: expected an array"),
        (b'{"system":1}', "system: expected a string"),
        (
            b'{"stop_sequences":"secret"}',
            "stop_sequences: expected an array of strings",
        ),
        (b"null", "expected a JSON object"),
    ],
)
def test_what_is_no_request(body: bytes, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        anthropic.decode_request(body)
    assert str(refused.value) == said


def test_a_message_of_which_nothing_is_left_is_left_out() -> None:
    only = {"type": "container_upload", "file_id": "x"}
    chat = decoded(
        messages=[{"role": "user", "content": [only]}],
        losses=["messages[].content[container_upload]"],
    )
    assert chat.messages == []


def test_the_smallest_request() -> None:
    chat = ChatRequest("m", [Message("user", [Text("hi")])])
    assert encoded(chat, BUDGET) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4096,
        "stream": False,
    }


@pytest.mark.parametrize(
    ("messages", "system", "lost"),
    [
        ([], None, []),
        ([Message("system", [Text("")])], None, []),
        ([Message("system", [Text("\n")])], None, []),
        ([Message("system", [Text(" "), Text("a")])], "a", []),
        ([Message("system", [Text("a")])], "a", []),
        (
            [Message("system", [Text("a")]), Message("system", [Text("b", MARK)])],
            [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b", "cache_control": MARK},
            ],
            [],
        ),
        (
            [
                Message("system", [Text("a")]),
                Message("user", [Text("hi")]),
                Message("system", [Text("b")]),
            ],
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            ["system.position"],
        ),
    ],
)
def test_what_the_system_says_stands_apart(
    messages: list[Message], system: Any, lost: list[str]
) -> None:
    body = encoded(ChatRequest(messages=messages), losses=lost)
    assert body.get("system") == system


def test_an_assistants_message_that_says_nothing_is_left_out() -> None:
    """Anthropic refuses an empty one."""
    messages = [
        Message("user", [Text("a")]),
        Message("assistant", [Thinking("hm")]),
        Message("assistant", [Text("")]),
        Message("assistant", [Text(" \n")]),
        Message("assistant", [Text(" "), Text("\n")]),
        Message("assistant"),
        Message("user", [Text("b")]),
    ]
    body = encoded(ChatRequest(messages=messages), losses=["thinking"])
    assert [message["content"] for message in body["messages"]] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "\n", "hi"])
def test_a_lone_text_of_the_users_is_passed_as_it_is(text: str) -> None:
    body = encoded(ChatRequest(messages=[Message("user", [Text(text)])]))
    assert body["messages"] == [{"role": "user", "content": text}]


def test_a_conversation_that_ends_with_the_assistant_begins_the_answer() -> None:
    said = [Message("user", [Text("a")]), Message("assistant", [Text("b")])]
    body = encoded(ChatRequest(messages=said), losses=["prefill"])
    assert body["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


def test_tools() -> None:
    tools = [
        Tool("f", "d", '{"type": "object", "properties": {}, "x": 1.0}', True, MARK),
        Tool("g"),
        Tool("h", parameters='{"properties": {}}'),
    ]
    chat = ChatRequest(tools=tools)
    assert encoded(chat)["tools"] == [
        {
            "name": "f",
            "description": "d",
            "input_schema": {"type": "object", "properties": {}, "x": 1.0},
            "strict": True,
            "cache_control": MARK,
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        {"name": "h", "input_schema": {"properties": {}, "type": "object"}},
    ]
    body = anthropic.encode_request(chat, PLAIN)
    assert b'{"type": "object", "properties": {}, "x": 1.0}' in body


@pytest.mark.parametrize("mode", ["required", "one"])
def test_a_choice_among_tools_that_are_not_there_is_lost(mode: Any) -> None:
    choice = ToolChoice(mode, "g" if mode == "one" else None)
    chat = ChatRequest(tool_choice=choice, parallel_tools=False)
    assert encoded(chat, losses=["tool_choice"]).keys() == PLAIN_MEMBERS


def test_a_choice_of_a_tool_that_is_not_offered_is_lost() -> None:
    chat = ChatRequest(tools=[Tool("f")], tool_choice=ToolChoice("one", "g"))
    body = encoded(chat, losses=["tool_choice"])
    assert body.keys() == PLAIN_MEMBERS | {"tools"}
    chat = ChatRequest(tools=[Tool("f")], tool_choice=ToolChoice("one", "g"))
    chat.parallel_tools = False
    auto = {"type": "auto", "disable_parallel_tool_use": True}
    assert encoded(chat, losses=["tool_choice"])["tool_choice"] == auto


@pytest.mark.parametrize(
    ("dialect", "given", "members", "lost"),
    [
        (PLAIN, {"max_tokens": 5}, {"max_tokens": 5}, []),
        (
            PLAIN,
            {"temperature": 0.5, "top_p": 0.5},
            {"temperature": 0.5, "top_p": 0.5},
            [],
        ),
        (PLAIN, {"temperature": 1.5}, {"temperature": 1.0}, ["temperature"]),
        (
            Dialect(one_sampler=True),
            {"temperature": 0.0, "top_p": 0.5},
            {"temperature": 0.0},
            ["top_p"],
        ),
        (
            Dialect(one_sampler=True),
            {"temperature": 0.0, "top_p": 1.0},
            {"temperature": 0.0},
            [],
        ),
        (Dialect(one_sampler=True), {"top_p": 0.5}, {"top_p": 0.5}, []),
        (Dialect(sampling=False), {"temperature": 1.0, "top_p": 1.0}, {}, []),
        (
            Dialect(sampling=False),
            {"temperature": 0.0, "top_p": 0.5},
            {},
            ["temperature", "top_p"],
        ),
        (PLAIN, {"top_k": 4}, {}, ["top_k"]),
        (Dialect(top_k=True), {"top_k": 4}, {"top_k": 4}, []),
        (
            PLAIN,
            {"seed": 0, "frequency_penalty": 0.5, "presence_penalty": -1.0},
            {},
            ["seed", "frequency_penalty", "presence_penalty"],
        ),
        (PLAIN, {"frequency_penalty": 0.0, "presence_penalty": 0.0}, {}, []),
        (PLAIN, {"stop": ["a", "\n", ""]}, {"stop_sequences": ["a"]}, ["stop"]),
        (PLAIN, {"stop": list("abcdef")}, {"stop_sequences": list("abcdef")}, []),
        (PLAIN, {"user": "u"}, {"metadata": {"user_id": "u"}}, []),
        (PLAIN, {"stream": True}, {"stream": True}, []),
        (PLAIN, {"tool_choice": ToolChoice("auto")}, {}, []),
    ],
)
def test_what_a_dialect_takes(
    dialect: Dialect, given: dict[str, Any], members: dict[str, Any], lost: list[str]
) -> None:
    body = encoded(ChatRequest(**given), dialect, lost)
    assert body == {"model": None, "messages": [], "stream": False, **members}


@pytest.mark.parametrize(
    ("wanted", "max_tokens", "budget", "limit"),
    [
        (Reasoning(budget=2000), 4000, 2000, 4000),
        # The budget must stay below the limit.
        (Reasoning(budget=4000), 4000, 3000, 4000),
        (Reasoning(effort="high"), 4000, 3000, 4000),
        (Reasoning(effort="max"), 64000, 31999, 64000),
        (Reasoning(effort="low"), 64000, 2048, 64000),
        (Reasoning(), 64000, 8192, 64000),
        # Without a limit of the client's, thinking does not eat up the answer.
        (Reasoning(budget=2000), None, 2000, 6096),
    ],
)
def test_a_budget_for_thinking(
    wanted: Reasoning, max_tokens: int | None, budget: int, limit: int
) -> None:
    body = encoded(ChatRequest(reasoning=wanted, max_tokens=max_tokens), BUDGET)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert body["max_tokens"] == limit
    assert budget < limit


CALLED = Message("assistant", [ToolCall("a", "f")])
RESULT = Message("user", [ToolResult("a")])


def thought(*thoughts: Part) -> list[Message]:
    return [Message("assistant", [*thoughts, *CALLED.parts]), RESULT]


UNTHINKABLE: dict[str, dict[str, Any]] = {
    "a budget that Anthropic refuses": {"reasoning": Reasoning(budget=1023)},
    "no room for a budget": {"max_tokens": 1300},
    "a tool that must be called": {
        "tool_choice": ToolChoice("required"),
        "tools": [Tool("f")],
    },
    "a tool that is named": {
        "tool_choice": ToolChoice("one", "f"),
        "tools": [Tool("f")],
    },
    "a turn that began without a thought": {"messages": [CALLED, RESULT]},
    "a thought without a seal": {"messages": thought(Thinking("hm"))},
    "a thought with an empty seal": {"messages": thought(Thinking("hm", ""))},
}


@pytest.mark.parametrize("given", UNTHINKABLE.values(), ids=UNTHINKABLE.keys())
def test_where_anthropic_refuses_to_think(given: dict[str, Any]) -> None:
    chat = ChatRequest(**{"reasoning": Reasoning(effort="high"), **given})
    anthropic.encode_request(chat, BUDGET)
    body = json.loads(anthropic.encode_request(chat, BUDGET))
    assert "thinking" not in body
    assert "reasoning" in chat.losses.names()


@pytest.mark.parametrize(
    "messages",
    [
        thought(Thinking("hm", "seal")),
        thought(Thinking(redacted="xyz")),
        [CALLED, RESULT, Message("user", [Text("next")])],
        [
            CALLED,
            RESULT,
            Message("assistant", [Text("done")]),
            Message("user", [Text("?")]),
        ],
        [Message("user", [Text("hi")]), Message("system", [Text("s")])],
    ],
)
def test_where_it_thinks(messages: list[Message]) -> None:
    chat = ChatRequest(messages=messages, reasoning=Reasoning(budget=2000))
    assert "thinking" in json.loads(anthropic.encode_request(chat, BUDGET))
    assert "reasoning" not in chat.losses.names()


@pytest.mark.parametrize(
    ("dialect", "wanted", "lost"),
    [
        (BUDGET, None, []),
        (BUDGET, Reasoning(False), []),
        (PLAIN, Reasoning(False, "none"), []),
        (PLAIN, Reasoning(), ["reasoning"]),
    ],
)
def test_where_no_thinking_is_asked_for(
    dialect: Dialect, wanted: Reasoning | None, lost: list[str]
) -> None:
    assert "thinking" not in encoded(ChatRequest(reasoning=wanted), dialect, lost)


@pytest.mark.parametrize(
    ("wanted", "members", "lost"),
    [
        (Reasoning(), {}, []),
        (Reasoning(budget=2000), {}, ["reasoning.budget"]),
        (
            Reasoning(effort="minimal"),
            {"output_config": {"effort": "low"}},
            ["reasoning.effort"],
        ),
        (Reasoning(effort="low"), {"output_config": {"effort": "low"}}, []),
        (Reasoning(effort="max"), {"output_config": {"effort": "max"}}, []),
    ],
)
def test_newer_models_think_as_they_see_fit(
    wanted: Reasoning, members: dict[str, Any], lost: list[str]
) -> None:
    chat = ChatRequest(reasoning=wanted, max_tokens=100)
    body = encoded(chat, ADAPTIVE, lost)
    assert body["thinking"] == {"type": "adaptive"}
    assert body["max_tokens"] == 100
    assert body.get("output_config") == members.get("output_config")


def test_a_thinking_model_takes_no_sampling() -> None:
    chat = ChatRequest(
        reasoning=Reasoning(budget=2000), temperature=0.0, top_p=0.5, top_k=4
    )
    body = encoded(chat, BUDGET, ["temperature", "top_p", "top_k"])
    assert not {"temperature", "top_p", "top_k"} & body.keys()
    usual = ChatRequest(reasoning=Reasoning(budget=2000), temperature=1.0, top_p=1.0)
    assert encoded(usual, BUDGET).keys() == body.keys()


def test_a_schema_and_an_effort_share_their_place() -> None:
    schema = OutputSchema('{"type": "object"}', "n", "d", False)
    chat = ChatRequest(output=schema, reasoning=Reasoning(effort="low"))
    lost = ["output.name", "output.description", "output.strict"]
    body = encoded(chat, ADAPTIVE, lost)
    assert body["output_config"] == {
        "effort": "low",
        "format": {
            "type": "json_schema",
            "schema": {"type": "object", "additionalProperties": False},
        },
    }
    plain = ChatRequest(output=OutputSchema("{}", "output", strict=True))
    assert encoded(plain)["output_config"]["format"]["schema"] == {}
