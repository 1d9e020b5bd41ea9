from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from kongai.llm.chat import Text, Thinking, ToolCall, Untranslatable
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
from kongai.llm.formats import Envelope, openai
from kongai.llm.usage import Usage
from kongai.sse import Decoder

COUNTS = {"prompt_tokens": 15, "completion_tokens": 9, "total_tokens": 24}
USAGE = Usage(15, 9, counted=True)
ENVELOPE = Envelope("spare", "asked", 7)
STARTED = Started("c1", "m")
SEAL = {"format": "anthropic-claude-v1"}


def event(**members: Any) -> bytes:
    data = {"id": "c1", "model": "m", **members}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(finish: str | None = None, **members: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": members, "finish_reason": finish}])


def call(index: int | None = None, arguments: Any = None, **rest: Any) -> bytes:
    """A piece of a call; a name among the rest is the function's."""
    function = {"name": rest.pop("name", None), "arguments": arguments}
    return delta(tool_calls=[{"index": index, "function": function, **rest}])


ROLE = delta(role="assistant", content="")
STOP = delta("stop")
DONE = b"data: [DONE]\n\n"


def gave_up(reason: str) -> Failed:
    return Failed(502, f"the provider gave up: {reason}")


def decoded(*pieces: bytes) -> list[Event]:
    decoder = openai.stream_decoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return found + decoder.end()


def parts(*pieces: bytes) -> list[Any]:
    return list(assemble(decoded(ROLE, *pieces, STOP, DONE)).parts)


def losses(*pieces: bytes) -> list[str]:
    decoder = openai.stream_decoder()
    decoder.feed(b"".join(pieces))
    return decoder.losses.names()


def test_a_stream() -> None:
    assert decoded(
        ROLE,
        delta(reasoning_content="h"),
        delta(reasoning="m", reasoning_content="m"),
        delta(content="so"),
        delta(content=" be it"),
        STOP,
        event(choices=[], usage=COUNTS),
        DONE,
    ) == [
        STARTED,
        ThinkingStart(),
        ThinkingDelta("h"),
        ThinkingDelta("m"),
        TextStart(),
        TextDelta("so"),
        TextDelta(" be it"),
        Counted(USAGE),
        Stopped("end"),
        Ended(),
    ]


def test_the_usage_is_told_where_it_comes() -> None:
    """Should the stream break off, what it has used by then is known."""
    first = event(
        choices=[{"delta": {"content": "a"}}],
        usage={**COUNTS, "completion_tokens": 1},
        service_tier="flex",
    )
    decoder = openai.stream_decoder()
    assert decoder.feed(first) == [
        STARTED,
        Counted(Usage(15, 1, service_tier="flex", counted=True)),
        TextStart(),
        TextDelta("a"),
    ]
    last = msgspec.structs.replace(USAGE, service_tier="flex")
    assert decoder.feed(event(choices=[], x_groq={"usage": COUNTS})) == [Counted(last)]


@pytest.mark.parametrize("usage", [None, {}, {"x": 1}, "none", {"prompt_tokens": "1"}])
def test_a_usage_that_counts_nothing_is_not_told(usage: Any) -> None:
    assert decoded(ROLE, STOP, event(choices=[], usage=usage), DONE) == [
        STARTED,
        Stopped("end"),
        Ended(),
    ]


def test_azures_first_chunk_tells_of_the_prompt_only() -> None:
    first = event(id="", model="", choices=[], prompt_filter_results=[{}])
    assert decoded(first, ROLE)[0] == STARTED


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        ([ROLE, STOP], [STARTED, Stopped("end"), Ended()]),
        ([ROLE, delta("length"), DONE], [STARTED, Stopped("length"), Ended()]),
        ([ROLE, DONE], [STARTED, Stopped("end"), Ended()]),
        (
            [ROLE, STOP, DONE, DONE, delta(content="x")],
            [STARTED, Stopped("end"), Ended()],
        ),
        ([ROLE, delta("model_length"), DONE], [STARTED, Stopped("length"), Ended()]),
        ([ROLE, delta(refusal=""), STOP], [STARTED, Stopped("end"), Ended()]),
        ([ROLE, delta("error"), DONE, STOP], [STARTED, gave_up("error")]),
        ([ROLE, delta("abort")], [STARTED, gave_up("abort")]),
        (
            [ROLE, delta("insufficient_system_resource"), DONE],
            [STARTED, gave_up("insufficient_system_resource")],
        ),
        (
            [ROLE, delta("error"), event(choices=[], usage=COUNTS), DONE],
            [STARTED, Counted(USAGE), gave_up("error")],
        ),
        ([ROLE], [STARTED]),
        ([DONE], []),
        ([], []),
    ],
)
def test_how_a_stream_ends(stream: list[bytes], events: list[Event]) -> None:
    assert decoded(*stream) == events


def test_an_error_is_the_last_that_a_stream_says() -> None:
    error = event(error={"message": "no", "code": 429})
    assert decoded(ROLE, error, delta(content="x"), STOP, DONE) == [
        STARTED,
        Failed(429, "no"),
    ]


CALLS: dict[str, tuple[list[bytes], list[ToolCall]]] = {
    "in pieces": (
        [
            call(0, "", id="a", name="f"),
            call(0, '{"x":'),
            call(0, "1}"),
            call(1, "{}", id="b", name="g"),
        ],
        [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}")],
    ),
    "in turns": (
        [
            call(0, id="a", name="f"),
            call(1, id="b", name="f"),
            call(1, '{"y"'),
            call(0, '{"x"'),
            call(1, ":2}"),
            call(0, ":1}"),
        ],
        [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "f", '{"y":2}')],
    ),
    "each piece with the id": (
        [call(0, '{"x":', id="a", name="f"), call(0, "1}", id="a", name="f")],
        [ToolCall("a", "f", '{"x":1}')],
    ),
    "each piece with an empty id": (
        [call(0, '{"x":', id="a", name="f"), call(0, "1}", id="", name="")],
        [ToolCall("a", "f", '{"x":1}')],
    ),
    "all at index 0": (
        [
            call(0, '{"x":1}', id="a", name="f"),
            call(0, '{"x":', id="b", name="f"),
            call(0, "2}"),
        ],
        [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "f", '{"x":2}')],
    ),
    "without an index": (
        [
            call(None, '{"x":', id="a", name="f"),
            call(None, "1}"),
            call(None, "{}", id="b", name="f"),
            call(None, "{}", name="g"),
        ],
        [
            ToolCall("a", "f", '{"x":1}'),
            ToolCall("b", "f", "{}"),
            ToolCall("call_c1_2", "g", "{}"),
        ],
    ),
    "without an index, each piece with the id": (
        [call(None, '{"x":', id="a", name="f"), call(None, "1}", id="a")],
        [ToolCall("a", "f", '{"x":1}')],
    ),
    "without ids": (
        [call(0, "{}", name="f"), call(1, "{}", name="f")],
        [ToolCall("call_c1_0", "f", "{}"), ToolCall("call_c1_1", "f", "{}")],
    ),
    "indices from elsewhere": (
        [call(7, "{}", id="a", name="f"), call(3, "{}", id="b", name="g")],
        [ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")],
    ),
    "arguments as an object": (
        [call(0, {"x": 1}, id="a", name="f")],
        [ToolCall("a", "f", '{"x":1}')],
    ),
    "no arguments": ([call(0, id="a", name="f")], [ToolCall("a", "f", "{}")]),
    "the older form": (
        [
            delta(function_call={"name": "f", "arguments": ""}),
            delta(function_call={"arguments": "{}"}),
        ],
        [ToolCall("call_c1_0", "f", "{}")],
    ),
    "a piece of nothing": ([call(None, "{}")], [ToolCall("call_c1_0", "", "{}")]),
}


@pytest.mark.parametrize(("pieces", "calls"), CALLS.values(), ids=CALLS.keys())
def test_calls(pieces: list[bytes], calls: list[ToolCall]) -> None:
    assert parts(*pieces) == calls
    assert Stopped("tool") in decoded(ROLE, *pieces, STOP, DONE)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (
            [
                delta(content=[{"type": "thinking", "thinking": [{"text": "hm"}]}]),
                delta(content=[{"type": "text", "text": "so"}]),
            ],
            [Thinking("hm"), Text("so")],
        ),
        (
            [
                delta(reasoning="hm", reasoning_details=[{"text": "hm"}]),
                delta(reasoning_details=[{"signature": "seal", **SEAL}]),
                delta(reasoning_details=[{"data": "xyz", **SEAL}]),
                delta(reasoning="again"),
            ],
            [Thinking("hm", "seal"), Thinking(redacted="xyz"), Thinking("again")],
        ),
        (
            [
                delta(reasoning="a"),
                delta(reasoning_details=[{"signature": "first", **SEAL}]),
                delta(reasoning="b"),
                delta(reasoning_details=[{"signature": "second", **SEAL}]),
            ],
            [Thinking("a", "first"), Thinking("b", "second")],
        ),
        (
            [
                delta(content="a"),
                call(0, "{}", id="a", name="f"),
                delta(content="b"),
            ],
            [Text("a"), ToolCall("a", "f", "{}"), Text("b")],
        ),
        (
            [delta(reasoning_content="a"), delta(content="b"), delta(reasoning="c")],
            [Thinking("a"), Text("b"), Thinking("c")],
        ),
        ([delta(refusal="I"), delta(refusal=" can't")], [Text("I can't")]),
        ([delta(content=None), delta(content=1), delta(content=[1])], []),
        ([delta(tool_calls="x"), delta(tool_calls=[1, {"function": 1}])], []),
        ([delta(reasoning_details="x"), delta(reasoning=1, refusal=[1])], []),
        ([event(choices="x"), event(choices=[1, {"delta": "x"}, {}])], []),
    ],
)
def test_blocks(pieces: list[bytes], expected: list[Any]) -> None:
    assert parts(*pieces) == expected


def test_a_refusal_is_why_it_ended() -> None:
    assert Stopped("refusal") in decoded(ROLE, delta(refusal="no"), STOP)


@pytest.mark.parametrize(
    ("piece", "lost"),
    [
        (delta(audio={"id": "x"}), ["choices[].delta.audio"]),
        (delta(audio=None, annotations=[]), []),
        (event(choices=[], citations=["https://a"]), ["citations"]),
        (event(choices=[], citations=[], moderation=None), []),
        (
            event(
                choices=[],
                object="chat.completion.chunk",
                created=1,
                system_fingerprint="x",
                service_tier="flex",
                obfuscation="x",
                provider="x",
                x_groq={"id": "x"},
                time_info={"queue_time": 1},
            ),
            [],
        ),
        (event(choices=[{"index": 1, "delta": {"content": "x"}}]), ["choices[1:]"]),
        (
            delta(reasoning_details=[{"type": "reasoning.encrypted", "format": "x"}]),
            ["choices[].delta.reasoning_details"],
        ),
    ],
)
def test_what_no_event_says_is_named(piece: bytes, lost: list[str]) -> None:
    assert losses(piece, piece) == lost


@pytest.mark.parametrize(
    "data", [b"no JSON", b"[1]", b"null", b'{"a":"\xff"}', b'{"a":' * 20_000]
)
def test_an_event_that_is_no_object_ends_the_translation(data: bytes) -> None:
    with pytest.raises(Untranslatable, match="no JSON object$"):
        decoded(ROLE, b"data: " + data + b"\n\n")


def written(*events: Event, usage_in_stream: bool = False) -> list[Any]:
    """The data of the events that are written, [DONE] as a string."""
    envelope = ENVELOPE._replace(usage_in_stream=usage_in_stream)
    stream = openai.stream_encoder(envelope).encode(events)
    return [
        "[DONE]" if event.data == b"[DONE]" else json.loads(event.data)
        for event in Decoder().feed(stream)
    ]


def deltas(*events: Event) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in written(*events)]


def test_chunks_that_are_written() -> None:
    first, second, last, done = written(
        STARTED, TextStart(), TextDelta("é"), Stopped("length"), Counted(USAGE), Ended()
    )
    head = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
    }
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
    role = {"role": "assistant", "content": ""}
    assert first == {**head, "choices": [{**choice, "delta": role}]}
    assert second == {**head, "choices": [{**choice, "delta": {"content": "é"}}]}
    end = {**choice, "delta": {}, "finish_reason": "length"}
    assert last == {**head, "choices": [end]}
    assert done == "[DONE]"


def test_the_usage_is_written_where_it_was_asked_for() -> None:
    stream: list[Event] = [STARTED, Counted(Usage()), Counted(USAGE), Ended()]
    _, _, told, done = written(*stream, usage_in_stream=True)
    assert (told["choices"], told["usage"]) == ([], COUNTS)
    assert done == "[DONE]"
    assert not any("usage" in chunk for chunk in written(*stream))


def test_what_the_provider_did_not_say_is_filled_in() -> None:
    (chunk,) = written(Started(None, ""))
    assert (chunk["id"], chunk["model"]) == ("spare", "asked")


def test_calls_that_are_written() -> None:
    """Their numbers start at 0 whatever they were."""
    first: dict[str, Any] = {"index": 0, "id": "a", "type": "function"}
    second: dict[str, Any] = {"index": 1, "id": "b", "type": "function"}
    assert deltas(
        ToolStart(2, "a", "f"),
        ToolDelta(2, "{"),
        ToolStart(5, "b", "g"),
        ToolDelta(2, "}"),
    ) == [
        {"tool_calls": [{**first, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"tool_calls": [{**second, "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
    ]


@pytest.mark.parametrize(("reason", "lost"), [("pause", ["stop_reason"]), ("end", [])])
def test_a_pause_is_lost(reason: Any, lost: list[str]) -> None:
    encoder = openai.stream_encoder(ENVELOPE)
    encoder.encode([STARTED, Stopped(reason), Ended()])
    assert encoder.losses.names() == lost


def test_thinking_that_is_written() -> None:
    detail = {"type": "reasoning.text", "text": "hm", "signature": "seal", **SEAL}
    assert deltas(
        ThinkingStart(),
        ThinkingDelta("h"),
        ThinkingDelta("m"),
        Sealed("seal"),
        ThinkingStart("xyz"),
    ) == [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"reasoning_details": [detail]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz", **SEAL}]},
    ]


@pytest.mark.parametrize(
    ("cited", "text"),
    [
        ([False, False], "a\nb"),
        ([False, True, False], "abc"),
        ([True, True], "ab"),
    ],
)
def test_texts_are_joined_as_in_a_whole_answer(cited: list[bool], text: str) -> None:
    events = [
        event
        for letter, piece in zip("abc", cited, strict=False)
        for event in (TextStart(piece), TextDelta(letter))
    ]
    assert "".join(delta["content"] for delta in deltas(*events)) == text


def test_a_comment_keeps_a_client_waiting() -> None:
    encoder = openai.stream_encoder(ENVELOPE)
    assert encoder.still_there().startswith(b":")
    assert Decoder().feed(encoder.still_there()) == []
    assert encoder.encode([StillThere()]) == encoder.still_there()


def test_an_error_that_is_written() -> None:
    (failed,) = written(Failed(429, "no"))
    assert failed["error"]["message"] == "no"


def whole(stream: Iterable[bytes]) -> Any:
    told = openai.whole_of(b"".join(stream))
    return None if told is None else json.loads(told)


def test_a_stream_is_logged_as_a_whole_answer() -> None:
    """Kong logs what a stream said as if it had come in one piece."""
    told = whole([ROLE, delta(content="h"), delta(content="o"), STOP, DONE])
    assert (told["id"], told["object"]) == ("c1", "chat.completion")
    assert told["choices"][0]["message"]["content"] == "ho"


@pytest.mark.parametrize(
    "stream", [b"", b"data: no JSON\n\n", b'{"choices":[]}', ROLE + DONE]
)
def test_what_is_no_stream_is_logged_as_it_is(stream: bytes) -> None:
    assert whole([stream]) is None
