from __future__ import annotations

from time import process_time

import pytest

from kongai.llm.chat import ChatAnswer, Text, Thinking, ToolCall
from kongai.llm.events import (
    Counted,
    Ended,
    Event,
    Failed,
    Sealed,
    Started,
    StillThere,
    Stopped,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolDelta,
    ToolStart,
    assemble,
    replay,
)
from kongai.llm.usage import Usage

ANSWERS = {
    "nothing": ChatAnswer(),
    "a text": ChatAnswer("id", "m", [Text("hi")], "end", None, Usage(1, 2)),
    "texts": ChatAnswer(parts=[Text("a"), Text("b", cited=True), Text("")]),
    "thinking": ChatAnswer(
        parts=[
            Thinking("hm", "seal"),
            Thinking(redacted="xyz"),
            Thinking(signature="seal of nothing"),
            Thinking("unsigned"),
            Text("so"),
        ]
    ),
    "calls": ChatAnswer(
        parts=[
            ToolCall("1", "look", '{"at":"x"}'),
            Text("and"),
            ToolCall("2", "look"),
            ToolCall("3", "wait", "{"),
        ],
        stop_reason="tool",
    ),
    "stopped": ChatAnswer(stop_reason="sequence", stop_sequence="###"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_replayed_answer_is_the_same_again(answer: ChatAnswer) -> None:
    assert assemble(replay(answer)) == answer


def test_a_replay_begins_and_ends() -> None:
    first, *_, last = replay(ANSWERS["a text"])
    assert first == Started("id", "m")
    assert last == Ended()


def test_pieces_are_joined() -> None:
    stream: list[Event] = [
        Started("id", "m"),
        StillThere(),
        ThinkingStart(),
        ThinkingDelta("h"),
        ThinkingDelta("m"),
        Sealed("seal"),
        TextStart(),
        TextDelta("so"),
        TextDelta(" be it"),
        Counted(Usage(1, 1)),
        Counted(Usage(1, 2)),
        Stopped("end"),
        Ended(),
    ]
    assert assemble(stream) == ChatAnswer(
        "id", "m", [Thinking("hm", "seal"), Text("so be it")], "end", None, Usage(1, 2)
    )


def test_calls_may_come_in_turns() -> None:
    stream: list[Event] = [
        ToolStart(0, "a", "look"),
        ToolStart(5, "b", "wait"),
        ToolDelta(5, '{"s":'),
        ToolDelta(0, '{"at":'),
        ToolDelta(5, "1}"),
        ToolDelta(0, "2}"),
        ToolStart(6, "c", "stop"),
    ]
    assert assemble(stream).parts == [
        ToolCall("a", "look", '{"at":2}'),
        ToolCall("b", "wait", '{"s":1}'),
        ToolCall("c", "stop", "{}"),
    ]


PIECE = "some words of a thought "


@pytest.mark.parametrize(
    "stream",
    [
        [ThinkingStart(), *[ThinkingDelta(PIECE)] * 100_000],
        [TextStart(), *[TextDelta(PIECE)] * 100_000],
        [ToolStart(0, "a", "f"), *[ToolDelta(0, PIECE)] * 100_000],
    ],
    ids=["thinking", "text", "a call"],
)
def test_many_pieces_are_joined_in_linear_time(stream: list[Event]) -> None:
    began = process_time()
    (part,) = assemble(stream).parts
    assert process_time() - began < 3
    text = part.arguments if isinstance(part, ToolCall) else part.text
    assert text == PIECE * 100_000


@pytest.mark.parametrize(
    "stray",
    [
        *(TextDelta("x"), ThinkingDelta("x"), Sealed("x"), ToolDelta(0, "x")),
        *(Failed(500, "x"), StillThere()),
    ],
)
def test_a_piece_of_nothing_is_left_out(stray: Event) -> None:
    assert assemble([stray]) == ChatAnswer()
