from __future__ import annotations

import pytest

from kongai.llm.chat import (
    ChatRequest,
    Message,
    Part,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kongai.llm.events import Event, TextDelta, ToolDelta, ToolStart
from kongai.llm.tool_names import restore, restored, shorten

LONG = "mcp__a_server_with_a_long_name__" + "read_" * 10
OTHER = LONG + "x"


def asking(*names: str, choice: str | None = None) -> ChatRequest:
    return ChatRequest(
        messages=[
            Message("user", [Text(LONG)]),
            Message("assistant", [ToolCall(name, name) for name in names]),
            Message("user", [ToolResult(name) for name in names]),
        ],
        tools=[Tool(name) for name in names],
        tool_choice=ToolChoice("one", choice) if choice else None,
    )


def names_of(chat: ChatRequest) -> set[str]:
    """Every name that a provider would get to see."""
    calls = chat.messages[1].parts
    names = {call.name for call in calls if isinstance(call, ToolCall)}
    names |= {tool.name for tool in chat.tools}
    if chat.tool_choice is not None and chat.tool_choice.name is not None:
        names.add(chat.tool_choice.name)
    return names


@pytest.mark.parametrize("name", ["a", "x" * 64])
def test_names_that_are_short_enough_stay(name: str) -> None:
    chat = asking(name, choice=name)
    assert shorten(chat, 64) == {}
    assert chat == asking(name, choice=name)


def test_a_long_name_is_shortened_wherever_it_stands() -> None:
    chat = asking(LONG, "wait", choice=LONG)
    names = shorten(chat, 64)
    (short,) = names
    assert names == {short: LONG}
    assert len(short) == 64
    assert short.startswith(LONG[:50])
    assert names_of(chat) == {short, "wait"}


def test_the_name_of_a_tool_that_is_offered_no_more_is_shortened() -> None:
    chat, offered = asking(LONG, "wait"), asking(LONG)
    chat.tools = [Tool("wait")]
    names = shorten(chat, 64)
    assert names == shorten(offered, 64)
    assert names_of(chat) == {*names, "wait"}


def test_ids_and_texts_stay() -> None:
    chat, before = asking(LONG), asking(LONG)
    shorten(chat, 64)
    assert chat.messages[0] == before.messages[0]
    assert chat.messages[2] == before.messages[2]


def test_a_name_is_the_same_in_every_turn_and_among_any_tools() -> None:
    alone = shorten(asking(LONG), 64)
    among = shorten(asking("wait", OTHER, LONG), 64)
    assert alone.items() < among.items()


def test_names_that_begin_alike_stay_apart() -> None:
    names = shorten(asking(*(f"{LONG}{n}" for n in range(200))), 64)
    assert len(names) == 200


def test_an_answer_calls_tools_as_the_client_knows_them() -> None:
    chat = asking(LONG, "wait")
    names = shorten(chat, 64)
    parts: list[Part] = [Text("x"), *chat.messages[1].parts, ToolCall("c", "made_up")]
    restore(parts, names)
    calls = [part.name for part in parts if isinstance(part, ToolCall)]
    assert calls == [LONG, "wait", "made_up"]


def test_a_stream_calls_tools_as_the_client_knows_them() -> None:
    events: list[Event] = [ToolStart(0, "a", "short"), ToolStart(1, "b", "wait")]
    others: list[Event] = [ToolDelta(0, "short"), TextDelta("short")]
    assert restored([*events, *others], {"short": LONG}) == [
        ToolStart(0, "a", LONG),
        ToolStart(1, "b", "wait"),
        *others,
    ]
