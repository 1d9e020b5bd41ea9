from __future__ import annotations

import json
from copy import copy
from typing import Any

import pytest

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    GaveUp,
    Message,
    Text,
    Tool,
    ToolCall,
    Untranslatable,
)
from kongai.llm.formats import Dialect, Envelope, anthropic, ollama, openai
from kongai.llm.translate import StreamTranslator, Translation
from kongai.llm.usage import Usage
from kongai.testing import chop, events

ENVELOPE = Envelope("spare", "asked", 7, prompt_estimate=2, usage_in_stream=True)
LONG = "mcp__server__" + "x" * 60


def asking() -> ChatRequest:
    return ChatRequest("m", [Message("user", [Text("12345678")])])


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {"id": "c1", "model": "gpt-x", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


DONE = b"data: [DONE]\n\n"
OPENAI = [chunk(content="so"), chunk("stop"), usage(15, 9), DONE]
ANTHROPIC_START = event(
    "message_start", message={"model": "claude", "usage": {"input_tokens": 15}}
)
ANTHROPIC_TEXT = event(
    "content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"}
)


def passed(
    *pieces: bytes, to: Any = anthropic, by: Any = openai, end: bool = True
) -> tuple[StreamTranslator, bytes]:
    translator = Translation(to, by, asking()).stream(ENVELOPE)
    spoken = [translator.translate(piece) for piece in pieces]
    if end:
        spoken.append(translator.end())
    return translator, b"".join(spoken)


def facts(translator: StreamTranslator) -> tuple[Any, ...]:
    return (
        copy(translator.usage),
        translator.model,
        translator.started,
        translator.finished,
    )


COUNTED = Usage(15, 9, counted=True)
STREAMS: dict[str, tuple[Any, list[bytes], tuple[Any, ...]]] = {
    "complete": (openai, OPENAI, (COUNTED, "gpt-x", True, True)),
    "cut off before it was counted": (
        openai,
        [chunk(content="12345")],
        (Usage(2, 2, estimated=True), "gpt-x", True, False),
    ),
    "not counted at all": (
        openai,
        [
            chunk(reasoning_content="1234"),
            chunk(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            chunk("stop"),
            DONE,
        ],
        (Usage(2, 2, estimated=True), "gpt-x", True, True),
    ),
    "cut off, with a count of the prompt": (
        anthropic,
        [ANTHROPIC_START, event("content_block_start", content_block={"type": "text"})]
        + [ANTHROPIC_TEXT],
        (Usage(15, 2, estimated=True, counted=True), "claude", True, False),
    ),
    "nothing but a beginning": (
        openai,
        [chunk(role="assistant", content="")],
        (Usage(), "gpt-x", False, False),
    ),
    "cut off, with a count": (
        openai,
        [chunk(content="12345"), usage(15, 9)],
        (COUNTED, "gpt-x", True, False),
    ),
    "counted from chunk to chunk": (
        openai,
        [usage(15, 1), chunk(content="so"), usage(15, 9), chunk("stop"), DONE],
        (COUNTED, "gpt-x", True, True),
    ),
    "a reason that is a failure": (
        openai,
        [chunk("error", content="so"), usage(15, 9), DONE],
        (COUNTED, "gpt-x", True, True),
    ),
    "an error": (
        openai,
        [chunk(content="so"), b'data: {"error":{"message":"no"}}\n\n'],
        (Usage(2, 1, estimated=True), "gpt-x", True, True),
    ),
    "nothing": (openai, [], (Usage(), None, False, False)),
}


@pytest.mark.parametrize(
    ("by", "stream", "expected"), STREAMS.values(), ids=STREAMS.keys()
)
def test_what_is_known_of_a_stream(
    by: Any, stream: list[bytes], expected: tuple[Any, ...]
) -> None:
    whole = b"".join(stream)
    assert facts(passed(*stream, by=by)[0]) == expected
    one_by_one = chop(whole, *range(1, len(whole)))
    assert facts(passed(*one_by_one, by=by)[0]) == expected


def test_nothing_is_estimated_before_the_end() -> None:
    translator, _ = passed(chunk(content="12345"), end=False)
    assert translator.usage == Usage()
    translator.estimate()
    translator.estimate()
    assert translator.usage == Usage(2, 2, estimated=True)


def test_each_piece_is_passed_on_when_it_comes() -> None:
    translator, _ = passed(chunk(content=""), end=False)
    for text in ("a", "b"):
        spoken = translator.translate(chunk(content=text))
        deltas = [data["delta"] for _, data in events([spoken]) if "delta" in data]
        assert deltas == [{"type": "text_delta", "text": text}]


def test_a_stream_names_what_it_loses() -> None:
    translator, _ = passed(chunk(content="so", audio={"id": "x"}))
    assert translator.losses() == ["choices[].delta.audio"]


def test_what_the_clients_format_cannot_say_of_a_stream_is_named_behind_it() -> None:
    translator, _ = passed(
        ANTHROPIC_START,
        event("content_block_start", content_block={"type": "server_tool_use"}),
        event("message_delta", delta={"stop_reason": "pause_turn"}),
        event("message_stop"),
        to=openai,
        by=anthropic,
    )
    assert translator.losses() == ["content[server_tool_use]", "stop_reason"]


def broken_call(arguments: str) -> bytes:
    function = {"name": "f", "arguments": arguments}
    return chunk(tool_calls=[{"index": 0, "id": "a", "function": function}])


def test_what_comes_before_a_failure_in_the_same_read_is_kept() -> None:
    translator, _ = passed(chunk(role="assistant", content=""), end=False)
    told = translator.translate(
        chunk(content="so") + broken_call("[1]") + chunk("stop") + DONE
    )
    assert [kind for kind, _ in events([told])] == [
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta"),
    ]
    assert str(translator.failure) == "the arguments of a tool call are no JSON object"
    assert not translator.finished


def test_a_stream_that_can_be_told_to_its_end_has_no_failure() -> None:
    translator, _ = passed(broken_call("{}"), chunk("stop"), DONE)
    assert translator.failure is None
    assert translator.finished


def test_a_client_is_kept_waiting_in_its_own_format() -> None:
    translator, _ = passed(end=False)
    assert events([translator.still_there()]) == [("ping", {"type": "ping"})]


@pytest.mark.parametrize(
    ("piece", "error"),
    [(b"data: nothing\n\n", Untranslatable), (b"x" * (17 * 2**20), ValueError)],
)
def test_a_stream_that_cannot_be_read_on(piece: bytes, error: type[Exception]) -> None:
    translator, _ = passed(*OPENAI[:1], end=False)
    with pytest.raises(error):
        translator.translate(piece)


@pytest.mark.parametrize("by", [openai, anthropic, ollama])
def test_the_client_gets_the_names_that_it_gave_its_tools(by: Any) -> None:
    """Claude Code's names of MCP tools outgrow what OpenAI takes."""
    chat = asking()
    chat.tools = [Tool(LONG, parameters='{"type":"object"}')]
    translation = Translation(anthropic, by, chat)
    sent = translation.request(Dialect()).decode()
    assert LONG not in sent
    (short,) = {tool.name for tool in chat.tools}
    assert short in sent
    function = {"name": short, "arguments": "{}"}
    calls = [{"id": "a", "type": "function", "function": function}]
    bodies = {
        openai: {"choices": [{"message": {"tool_calls": calls}}]},
        anthropic: {"content": [{"type": "tool_use", "id": "a", "name": short}]},
        ollama: {"message": {"tool_calls": [{"function": {"name": short}}]}},
    }
    body = json.dumps(bodies[by]).encode()
    written, answer = translation.answer(body, ENVELOPE)
    assert answer.parts[0].name == LONG  # type: ignore[union-attr]
    assert json.loads(written)["content"][0]["name"] == LONG
    replayed, _ = translation.replayed(body, ENVELOPE)
    assert LONG.encode() in replayed
    assert short.encode() not in replayed


def test_names_are_restored_in_a_stream_and_in_one_that_is_put_together() -> None:
    chat = asking()
    chat.tools = [Tool(LONG)]
    translation = Translation(anthropic, openai, chat)
    translation.request(Dialect())
    function = {"name": chat.tools[0].name, "arguments": "{}"}
    stream = chunk(tool_calls=[{"index": 0, "id": "a", "function": function}])
    stream += chunk("tool_calls") + DONE
    assert LONG.encode() in translation.stream(ENVELOPE).translate(stream)
    assert LONG.encode() in translation.assembled(stream, ENVELOPE)[0]


def test_a_stream_that_was_not_asked_for_is_put_together() -> None:
    translation = Translation(anthropic, openai, asking())
    written, answer = translation.assembled(b"".join(OPENAI), ENVELOPE)
    body = json.loads(written)
    assert body["content"] == [{"type": "text", "text": "so"}]
    assert (answer.model, answer.usage) == ("gpt-x", COUNTED)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        chunk(content="so"),
        usage(15, 9) + DONE,
        b'{"choices":[]}',
    ],
)
def test_a_stream_that_is_not_complete_is_no_answer(stream: bytes) -> None:
    translation = Translation(anthropic, openai, asking())
    with pytest.raises(Untranslatable, match="not complete$"):
        translation.assembled(stream, ENVELOPE)


@pytest.mark.parametrize(
    ("by", "stream", "status", "message"),
    [
        (
            openai,
            chunk(content="so") + b'data: {"error":{"message":"no","code":429}}\n\n',
            429,
            "no",
        ),
        (
            openai,
            chunk("error", content="so") + usage(15, 9) + DONE,
            502,
            "the provider gave up: error",
        ),
        (
            anthropic,
            ANTHROPIC_START
            + event("error", error={"type": "overloaded_error", "message": "no"}),
            503,
            "no",
        ),
    ],
)
def test_a_stream_that_tells_an_error_is_no_answer(
    by: Any, stream: bytes, status: int, message: str
) -> None:
    with pytest.raises(GaveUp) as failed:
        Translation(openai, by, asking()).assembled(stream, ENVELOPE)
    assert (failed.value.status, failed.value.message) == (status, message)


def test_an_error_with_a_status_of_success_is_the_clients_error() -> None:
    translation = Translation(anthropic, openai, asking())
    body = b'{"error":{"message":"no","code":429}}'
    for read in (translation.answer, translation.replayed):
        with pytest.raises(GaveUp) as failed:
            read(body, ENVELOPE)
        told = translation.refusal(failed.value, "r1")
        assert told == translation.error(429, body, "r1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (COUNTED, COUNTED),
        (None, Usage(2, 2, estimated=True)),
        (Usage(), Usage(2, 2, estimated=True)),
    ],
)
def test_the_usage_of_a_whole_answer(given: Usage | None, expected: Usage) -> None:
    translation = Translation(anthropic, openai, asking())
    answer = ChatAnswer(parts=[Text("1234"), ToolCall("a", "f", "")], usage=given)
    assert translation.usage(answer) == expected


def test_an_answer_in_one_piece_is_told_as_a_stream() -> None:
    body = {"content": [{"type": "text", "text": "so"}], "stop_reason": "end_turn"}
    translation = Translation(openai, anthropic, asking())
    stream, _ = translation.replayed(json.dumps(body).encode(), ENVELOPE)
    answer = json.loads(openai.whole_of(stream) or b"{}")
    assert answer["choices"][0]["message"]["content"] == "so"
    assert stream.endswith(DONE)


def test_an_error_is_told_in_the_clients_format() -> None:
    translation = Translation(anthropic, openai, asking())
    told = json.loads(translation.error(429, b'{"error":{"message":"no"}}', "r1"))
    assert told["request_id"] == "r1"
    assert told["error"] == {"type": "rate_limit_error", "message": "no"}


def test_the_prompt_is_estimated_before_names_are_shortened() -> None:
    chat = asking()
    chat.tools = [Tool("x" * 400)]
    assert Translation(anthropic, openai, chat).prompt_estimate == 102
