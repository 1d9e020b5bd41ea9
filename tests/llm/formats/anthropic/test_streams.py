from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import Text, ToolCall, Untranslatable
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
)
from kongai.llm.formats import Envelope, anthropic
from kongai.llm.usage import Usage
from kongai.sse import ServerSentEvent, encode
from kongai.testing import events as read_back

ENVELOPE = Envelope("spare", "asked", 7, prompt_estimate=40)
STARTED = Started("msg_1", "m")


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}).encode()
    return encode(ServerSentEvent(kind.encode(), data))


def start(**usage: Any) -> bytes:
    return event("message_start", message={"id": "msg_1", "model": "m", "usage": usage})


def block(index: int, kind: str, **members: Any) -> bytes:
    content = {"type": kind, **members}
    return event("content_block_start", index=index, content_block=content)


def delta(index: int, kind: str, **members: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **members})


def closing(reason: str | None, **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


STOP = event("message_stop")


def decoded(*pieces: bytes) -> list[Event]:
    decoder = anthropic.stream_decoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return found + decoder.end()


def losses(*pieces: bytes) -> list[str]:
    decoder = anthropic.stream_decoder()
    decoder.feed(b"".join(pieces))
    return decoder.losses.names()


def test_a_stream() -> None:
    assert decoded(
        start(input_tokens=4, cache_read_input_tokens=10, output_tokens=1),
        event("ping"),
        block(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature="seal"),
        event("content_block_stop", index=0),
        block(1, "redacted_thinking", data="xyz"),
        block(2, "text", text=""),
        delta(2, "text_delta", text="so"),
        block(3, "tool_use", id="a", name="f", input={}),
        delta(3, "input_json_delta", partial_json=""),
        delta(3, "input_json_delta", partial_json="{}"),
        event("content_block_stop", index=3),
        closing("tool_use", output_tokens=7),
        STOP,
    ) == [
        STARTED,
        Counted(Usage(14, cached_tokens=10, counted=True)),
        StillThere(),
        ThinkingStart(),
        ThinkingDelta("hm"),
        Sealed("seal"),
        ThinkingStart("xyz"),
        TextStart(),
        TextDelta("so"),
        ToolStart(3, "a", "f"),
        ToolDelta(3, "{}"),
        Stopped("tool"),
        Counted(Usage(14, 7, cached_tokens=10, counted=True)),
        Ended(),
    ]


def test_the_prompts_tokens_hold_should_the_stream_break_off() -> None:
    assert assemble(decoded(start(input_tokens=4))).usage == Usage(4, counted=True)


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        ([block(0, "text", text="a"), delta(0, "text_delta", text="b")], [Text("ab")]),
        ([block(0, "text", text="a", citations=[])], [Text("a", cited=True)]),
        ([block(0, "tool_use", id="a", name="f")], [ToolCall("a", "f", "{}")]),
        (
            [
                block(0, "server_tool_use", id="x", name="web_search"),
                delta(0, "input_json_delta", partial_json='{"secret":1}'),
                block(1, "text"),
                delta(1, "text_delta", text="so"),
            ],
            [Text("so")],
        ),
    ],
)
def test_blocks(pieces: list[bytes], parts: list[Any]) -> None:
    assert assemble(decoded(start(), *pieces)).parts == parts


@pytest.mark.parametrize(
    ("piece", "lost"),
    [
        (block(0, "server_tool_use"), ["content[server_tool_use]"]),
        (delta(0, "citations_delta", citation={}), ["content[].citations"]),
        (delta(0, "new_delta", secret=1), ["content[].delta[new_delta]"]),
        (
            event("message_delta", delta={"container": {"id": "x"}}),
            ["container"],
        ),
        (
            event("message_delta", delta={"stop_details": {"type": "x"}}),
            ["stop_details"],
        ),
        (
            event("message_delta", context_management={"applied_edits": [1]}),
            ["context_management"],
        ),
        (
            event(
                "message_delta",
                delta={"container": None, "stop_details": {}},
                context_management=None,
            ),
            [],
        ),
        (event("new_event", x=1), []),
        (event("ping"), []),
    ],
)
def test_what_no_event_says_is_named(piece: bytes, lost: list[str]) -> None:
    assert losses(piece, piece) == lost


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        ([start(), closing("new_reason"), STOP], [Stopped("end"), Ended()]),
        ([start(), closing(None), STOP], [Ended()]),
        ([start(), closing("max_tokens")], [Stopped("length")]),
        ([start(), closing("pause_turn"), STOP], [Stopped("pause"), Ended()]),
        ([start(), closing("compaction"), STOP], [Stopped("pause"), Ended()]),
        (
            [
                start(),
                event("error", error={"type": "overloaded_error", "message": "no"}),
            ],
            [Failed(503, "no")],
        ),
    ],
)
def test_how_a_stream_ends(stream: list[bytes], events: list[Event]) -> None:
    found = [event for event in decoded(*stream) if not isinstance(event, Counted)]
    assert found == [STARTED, *events]


@pytest.mark.parametrize(
    "data", [b"no JSON", b"[1]", b"null", b"[DONE]", b'{"delta":{"text":null}}']
)
def test_an_event_that_is_no_object_ends_the_translation(data: bytes) -> None:
    with pytest.raises(Untranslatable, match="no JSON object$"):
        decoded(start(), b"data: " + data + b"\n\n")


def written(*events: Event) -> list[tuple[str, Any]]:
    return read_back([anthropic.stream_encoder(ENVELOPE).encode(events)])


def kinds(*events: Event) -> list[str]:
    """What is written, in short: ``text+``, its pieces, and ``-`` where it stops."""
    short = []
    for kind, data in written(*events):
        if kind == "content_block_start":
            block = data["content_block"]
            short.append(block.get("name", block["type"]) + "+")
        elif kind == "content_block_delta":
            short.append(str([*data["delta"].values()][1]))
        elif kind == "content_block_stop":
            short.append("-")
    return short


def test_events_that_are_written() -> None:
    usage = Usage(14, 7, cached_tokens=10, counted=True)
    written_events = written(
        STARTED,
        TextStart(),
        TextDelta("é"),
        Stopped("sequence", "#"),
        Counted(usage),
        Ended(),
    )
    assert [kind for kind, _ in written_events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == kind for kind, data in written_events)
    (_, started), *_, (_, closed), _ = written_events
    assert started["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 40,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }
    assert closed["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "#"}
    assert closed["usage"] == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 7,
    }


def test_what_was_not_counted_is_estimated() -> None:
    *_, (_, closed), _ = written(
        Started(None, None),
        ThinkingStart(),
        ThinkingDelta("1234"),
        TextStart(),
        TextDelta("1234"),
        ToolStart(0, "a", "f"),
        ToolDelta(0, '{"a":1}'),
        Ended(),
    )
    assert (closed["usage"]["input_tokens"], closed["usage"]["output_tokens"]) == (
        40,
        4,
    )
    assert closed["delta"]["stop_reason"] == "end_turn"


def test_blocks_are_numbered_and_never_overlap() -> None:
    found = written(
        STARTED,
        ThinkingStart(),
        ThinkingDelta("hm"),
        Sealed("seal"),
        ThinkingStart("xyz"),
        TextStart(),
        TextDelta("so"),
        ToolStart(7, "a:b", "f"),
        ToolDelta(7, "{}"),
        Stopped("tool"),
        Ended(),
    )
    blocks = [
        (kind.removeprefix("content_block_"), data["index"])
        for kind, data in found
        if kind.startswith("content_block")
    ]
    assert blocks == [
        *(("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)),
        *(("start", 1), ("stop", 1)),
        *(("start", 2), ("delta", 2), ("stop", 2)),
        *(("start", 3), ("delta", 3), ("stop", 3)),
    ]
    *_, call = [d["content_block"] for _, d in found if "content_block" in d]
    assert call == {"type": "tool_use", "id": "a_b_6783a31e", "name": "f", "input": {}}


F, G, H = ToolStart(0, "a", "f"), ToolStart(1, "b", "g"), ToolStart(2, "c", "h")
SO: list[Event] = [TextStart(), TextDelta("so")]
ORDERS: dict[str, tuple[list[Event], list[str]]] = {
    "one after the other": (
        [F, ToolDelta(0, "{"), ToolDelta(0, "}"), G, ToolDelta(1, "{}")],
        ["f+", "{", "}", "-", "g+", "{}", "-"],
    ),
    "in turns": (
        [
            F,
            G,
            ToolDelta(0, "{"),
            ToolDelta(1, "{"),
            ToolDelta(0, "}"),
            ToolDelta(1, "}"),
        ],
        ["f+", "{", "}", "-", "g+", "{}", "-"],
    ),
    "a third when the first is complete": (
        [F, G, ToolDelta(0, "{}"), H, ToolDelta(2, "{}"), ToolDelta(1, "{}")],
        ["f+", "{}", "-", "g+", "{}", "-", "h+", "{}", "-"],
    ),
    "a text behind calls": (
        [F, G, ToolDelta(1, "{}"), ToolDelta(0, "{}"), TextStart(), TextDelta("so")],
        ["f+", "{}", "-", "g+", "{}", "-", "text+", "so", "-"],
    ),
    "a text among the pieces": (
        [F, ToolDelta(0, "{"), *SO, TextDelta("!"), ToolDelta(0, "}"), TextDelta("?")],
        ["f+", "{", "}", "-", "text+", "so", "!", "?", "-"],
    ),
    "several texts among the pieces": (
        [F, ToolDelta(0, "{"), *SO, ToolDelta(0, '"a"'), *SO, ToolDelta(0, ":1}")],
        ["f+", "{", '"a"', ":1}", "-", "text+", "so", "-", "text+", "so", "-"],
    ),
    "a text among the pieces of calls in turns": (
        [
            *(F, ToolDelta(0, "{"), *SO, G, ToolDelta(1, "{"), ToolDelta(0, "}")),
            ToolDelta(1, "}"),
        ],
        ["f+", "{", "}", "-", "g+", "{}", "-", "text+", "so", "-"],
    ),
    "a text before the second call is complete": (
        [F, G, ToolDelta(1, "{"), ToolDelta(0, "{}"), *SO, ToolDelta(1, "}"), H],
        ["f+", "{}", "-", "g+", "{}", "-", "text+", "so", "-", "h+", "{}", "-"],
    ),
    "a text behind a call without arguments": (
        [F, *SO, ToolDelta(0, " ")],
        ["f+", "{}", "-", "text+", "so", "-"],
    ),
    "without arguments": ([F, G], ["f+", "{}", "-", "g+", "{}", "-"]),
    "white space for arguments": ([F, ToolDelta(0, " ")], ["f+", " ", "{}", "-"]),
    "a piece of nothing": ([ToolDelta(9, "{}"), F], ["f+", "{}", "-"]),
}


@pytest.mark.parametrize(("events", "order"), ORDERS.values(), ids=ORDERS.keys())
def test_calls_that_come_in_turns_are_written_in_order(
    events: list[Event], order: list[str]
) -> None:
    assert kinds(STARTED, *events, Stopped("tool"), Ended()) == order


@pytest.mark.parametrize("arguments", ["{", "[1]", "no JSON", '{"a":1}{"b":2}'])
def test_a_call_with_arguments_that_are_no_object_breaks_the_stream(
    arguments: str,
) -> None:
    with pytest.raises(Untranslatable, match="arguments of a tool call"):
        written(STARTED, F, ToolDelta(0, arguments), Stopped("tool"), Ended())


def test_arguments_behind_the_end_of_their_call_break_the_stream() -> None:
    """Without them the call would ask for something else."""
    with pytest.raises(Untranslatable, match="behind its end$"):
        written(STARTED, F, *SO, ToolDelta(0, '{"a":1}'))


def test_text_that_waits_is_written_when_the_call_is_complete() -> None:
    encoder = anthropic.stream_encoder(ENVELOPE)
    encoder.encode([STARTED, F, ToolDelta(0, "{")])
    assert encoder.encode(SO) == b""
    let_go = [kind for kind, _ in read_back([encoder.encode([ToolDelta(0, "}")])])]
    assert let_go == [
        *("content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta"),
    ]
    assert encoder.losses.names() == []


def test_text_that_waits_for_a_call_that_is_cut_off_comes_last() -> None:
    cut = kinds(STARTED, F, ToolDelta(0, '{"a'), *SO, Stopped("length"), Ended())
    assert cut == ["f+", '{"a', "-", "text+", "so", "-"]


@pytest.mark.parametrize("usage", [None, Usage()])
def test_a_usage_that_counts_nothing_is_estimated(usage: Usage | None) -> None:
    told = [] if usage is None else [Counted(usage)]
    *_, (_, closed), _ = written(STARTED, *SO, *told, Ended())
    assert closed["usage"]["input_tokens"] == 40
    assert closed["usage"]["output_tokens"] == 1


def test_a_call_may_be_cut_off_by_the_limit() -> None:
    cut = kinds(STARTED, F, ToolDelta(0, '{"a'), Stopped("length"), Ended())
    assert cut == ["f+", '{"a', "-"]


def test_pings_and_errors_that_are_written() -> None:
    ping, (kind, error) = written(StillThere(), Failed(529, "no"))
    assert ping == ("ping", {"type": "ping"})
    assert kind == "error"
    assert error["error"] == {"type": "overloaded_error", "message": "no"}
    still = anthropic.stream_encoder(ENVELOPE).still_there()
    assert read_back([still]) == [ping]
