"""What programs do with Anthropic's own SDK works with either vendor's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import pytest

from .anthropic_api import ToolUse
from .harness import Gateway
from .scripted_llm import (
    COUNTED,
    Said,
    error,
    events,
    system_text,
    tool_calls,
    tool_results,
)
from .sdks import (
    BERN,
    CALLING,
    CUTS,
    ERRORS,
    PICTURE,
    PIXEL,
    SCHEMA,
    SYSTEM,
    TEXT,
    TOKYO,
    WAYS,
    Way,
    a_way,
    anthropic_sdk,
    cut_after,
    ended,
    gzipped,
    serving_sdks,
    until_left,
)
from .upstream import FakeUpstream

HELLO: list[Any] = [{"role": "user", "content": "Grüezi, 世界!"}]
ASKED: dict[str, Any] = {"max_tokens": 77, "system": SYSTEM, "messages": HELLO}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a town.",
    "input_schema": SCHEMA,
}


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Gateway, FakeUpstream]]:
    with serving_sdks() as both:
        yield both


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, processes: tuple[Gateway, FakeUpstream]
) -> Iterator[Way]:
    """From the SDK to each provider."""
    with a_way("anthropic", request.param, *processes) as way:
        yield way


through_gateway = pytest.mark.parametrize("way", WAYS[1:], indirect=True)
to_openai = pytest.mark.parametrize("way", ["openai"], indirect=True)


def test_a_whole_answer(way: Way) -> None:
    way.says(said := Said(TEXT))
    with anthropic_sdk(way) as sdk:
        answer = sdk.messages.create(model=way.model, **ASKED)
    assert (answer.type, answer.role) == ("message", "assistant")
    assert answer.model == way.model
    assert answer.id
    assert text_of(answer) == TEXT
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert_counted(answer.usage, said)
    assert system_text(way.asked()) == SYSTEM
    assert limit(way) == 77
    way.check_record(said, "oneshot")


def test_a_system_prompt_in_blocks(way: Way) -> None:
    """All of it arrives, however long, with or without marks for the cache."""
    pieces = ["Kurz.", "長い。" * 20_000, "Ende 🎉"]
    marked = {"type": "text", "cache_control": {"type": "ephemeral"}}
    system: Any = [{**marked, "text": piece} for piece in pieces]
    with anthropic_sdk(way) as sdk:
        sdk.messages.create(model=way.model, **{**ASKED, "system": system})
    assert [p for p in pieces if p not in system_text(way.asked())] == []


def test_a_stream_of_text(way: Way) -> None:
    way.says(said := Said(TEXT))
    with (
        anthropic_sdk(way) as sdk,
        sdk.messages.stream(model=way.model, **ASKED) as stream,
    ):
        pieces = list(stream.text_stream)
        answer = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(answer) == TEXT
    assert (answer.stop_reason, answer.model) == ("end_turn", way.model)
    # Of the prompt, older versions of the helper keep what `message_start` said.
    assert answer.usage.output_tokens == said.completion
    assert way.asked().json()["stream"] is True
    way.check_record(said, "stream")


INTERLEAVED = replace(CALLING, interleaved=True)
NO_ARGUMENTS = replace(CALLING, answer=(ToolUse("now", {}, "call_1"), BERN))
ONLY_A_CALL = replace(CALLING, answer=TOKYO)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Said(TEXT), id="text"),
        pytest.param(CALLING, id="text and calls"),
        pytest.param(INTERLEAVED, id="calls in turns"),
        pytest.param(NO_ARGUMENTS, id="a call without arguments"),
        pytest.param(ONLY_A_CALL, id="only a call"),
    ],
)
def test_the_order_of_a_streams_events(way: Way, said: Said) -> None:
    """One block after another, each begun, filled and ended."""
    way.says(said)
    with anthropic_sdk(way) as sdk:
        stream = sdk.messages.create(
            model=way.model, **ASKED, tools=[WEATHER], stream=True
        )
        all_events: list[Any] = list(stream)
    start, *middle, end, stop = [e for e in all_events if e.type != "ping"]
    assert (start.type, end.type, stop.type) == (
        "message_start",
        "message_delta",
        "message_stop",
    )
    # Claude Code shows it at once, and compacts the conversation by it.
    assert start.message.usage.input_tokens > 0
    assert (start.message.content, start.message.stop_reason) == ([], None)
    assert_counted(end.usage, said)

    blocks: list[ToolUse | str] = []
    while middle:
        begin = middle.pop(0)
        assert (begin.type, begin.index) == ("content_block_start", len(blocks))
        pieces = []
        while (event := middle.pop(0)).type == "content_block_delta":
            assert event.index == begin.index
            pieces.append(event.delta)
        assert (event.type, event.index) == ("content_block_stop", begin.index)
        block = begin.content_block
        if block.type == "text":
            assert block.text == ""
            blocks.append("".join(piece.text for piece in pieces))
        else:
            assert (block.type, block.input) == ("tool_use", {})
            json_text = "".join(piece.partial_json for piece in pieces)
            blocks.append(ToolUse(block.name, json.loads(json_text or "{}"), block.id))
    answer = said.answer if isinstance(said.answer, tuple) else (said.answer,)
    assert blocks == list(answer)
    calls = [block for block in blocks if isinstance(block, ToolUse)]
    assert end.delta.stop_reason == ("tool_use" if calls else "end_turn")


def test_streamed_calls_are_put_together(way: Way) -> None:
    way.says(CALLING)
    with (
        anthropic_sdk(way) as sdk,
        sdk.messages.stream(model=way.model, **ASKED, tools=[WEATHER]) as stream,
    ):
        final = stream.get_final_message()
    assert_calling(final)
    way.check_record(CALLING, "stream")


def test_tools_in_turn(way: Way) -> None:
    """The model calls two tools at once, and is told what each of them said."""
    way.says(CALLING, Said(TEXT))
    asked: dict[str, Any] = {**ASKED, "model": way.model, "tools": [WEATHER]}
    with anthropic_sdk(way) as sdk:
        answer = sdk.messages.create(**asked)
        assert_calling(answer)
        way.check_record(CALLING, "oneshot")
        results: list[Any] = [
            {
                "type": "tool_result",
                "tool_use_id": TOKYO.id,
                "content": [{"type": "text", "text": "晴れ ☀️"}],
            },
            {
                "type": "tool_result",
                "tool_use_id": BERN.id,
                "content": "kei Uskunft",
                "is_error": True,
            },
            {"type": "text", "text": "Und jetzt?"},
        ]
        turns = [
            *HELLO,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results},
        ]
        final = sdk.messages.create(**{**asked, "messages": turns})
    assert text_of(final) == TEXT
    _, second = way.upstream.requests
    assert tool_calls(second) == [BERN, TOKYO]
    assert tool_results(second).keys() == {BERN.id, TOKYO.id}
    assert tool_results(second)[TOKYO.id] == "晴れ ☀️"
    assert "kei Uskunft" in tool_results(second)[BERN.id]
    last = second.json()["messages"][-1]
    assert last["role"] == "user"
    assert "Und jetzt?" in json.dumps(last, ensure_ascii=False)


@pytest.mark.parametrize(
    ("choice", "at_openai"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        (
            {"type": "tool", "name": "weather"},
            {"type": "function", "function": {"name": "weather"}},
        ),
    ],
    ids=["auto", "any", "none", "one"],
)
def test_which_tool_the_model_must_call(way: Way, choice: Any, at_openai: Any) -> None:
    with anthropic_sdk(way) as sdk:
        sdk.messages.create(
            model=way.model, **ASKED, tools=[WEATHER], tool_choice=choice
        )
    body = way.asked().json()
    assert body["tool_choice"] == (at_openai if way.provider == "openai" else choice)
    [tool] = body["tools"]
    if way.provider == "openai":
        tool = tool["function"]
        assert tool["parameters"] == SCHEMA
    else:
        assert tool["input_schema"] == SCHEMA
    assert (tool["name"], tool["description"]) == ("weather", "The weather in a town.")


def test_images(way: Way) -> None:
    png = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content: list[Any] = [
        {"type": "image", "source": png},
        {"type": "image", "source": {"type": "url", "url": PICTURE}},
        {"type": "text", "text": "Was isch das?"},
    ]
    messages: Any = [{"role": "user", "content": content}]
    with anthropic_sdk(way) as sdk:
        sdk.messages.create(model=way.model, max_tokens=77, messages=messages)
    [message] = way.asked().json()["messages"]
    inline = f"data:image/png;base64,{PIXEL}"
    assert (
        message["content"]
        == {
            "anthropic": content,
            "openai": [
                {"type": "image_url", "image_url": {"url": inline}},
                {"type": "image_url", "image_url": {"url": PICTURE}},
                content[2],
            ],
        }[way.provider]
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("ends", "reason"), [("length", "max_tokens"), ("refusal", "refusal")]
)
def test_why_an_answer_ends(way: Way, ends: Any, reason: str, stream: bool) -> None:
    way.says(Said(TEXT, ends=ends))
    assert ask(way, stream=stream).stop_reason == reason


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_stop_sequences(way: Way, stream: bool) -> None:
    """OpenAI does not tell which sequence, or whether it was one, ended an answer."""
    way.says(Said(TEXT, ends="sequence", sequence="ENDE"))
    answer = ask(way, stream=stream, stop_sequences=["ENDE", "終"])
    body = way.asked().json()
    if way.provider == "openai":
        assert body["stop"] == ["ENDE", "終"]
        assert answer.stop_reason == "end_turn"
    else:
        assert body["stop_sequences"] == ["ENDE", "終"]
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "ENDE")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_error_of_the_provider(
    way: Way, status: int, kind: str, stream: bool
) -> None:
    text = "Sälü: zvil verlangt (限界)"
    way.refuses(status, error(way.provider, status, text), ("retry-after", "7"))
    with anthropic_sdk(way) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model=way.model, **ASKED, stream=stream)
    assert isinstance(caught.value, getattr(anthropic, kind))
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "7"
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["message"] == text
    if status < 503:  # which has no kind of its own
        assert (
            body["error"]["type"]
            == json.loads(error("anthropic", status, ""))["error"]["type"]
        )
    if (record := way.record()) is not None:
        assert record["response"]["status"] == status
        assert record["upstream_status"] == str(status)
        assert record["ai"]["proxy"]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_compressed_answer(way: Way, stream: bool) -> None:
    way.upstream.handler = gzipped(Said(TEXT))
    assert text_of(ask(way, stream=stream)) == TEXT


@through_gateway
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("said", [Said(TEXT), CALLING], ids=["text", "tools"])
def test_a_stream_that_ends_early(way: Way, said: Said, how: str) -> None:
    """A cut answer does not pass for a short one."""
    way.upstream.handler = cut_after(5, lambda r: events(r, said), how=how)
    with (
        anthropic_sdk(way) as sdk,
        sdk.messages.stream(model=way.model, **ASKED, tools=[WEATHER]) as stream,
        pytest.raises(anthropic.APIError),
    ):
        stream.get_final_message()
    assert ended(way) == CUTS[how]


@to_openai
def test_an_error_in_the_middle_of_a_stream(way: Way) -> None:
    failed = b'data: {"error": {"message": "Mir isch schlecht", "type": "x"}}\n\n'
    way.upstream.handler = cut_after(
        5, lambda r: [*events(r, Said(TEXT))[:4], failed], how="in order"
    )
    with (
        anthropic_sdk(way) as sdk,
        sdk.messages.stream(model=way.model, **ASKED) as stream,
        pytest.raises(anthropic.APIError, match="Mir isch schlecht"),
    ):
        stream.get_final_message()


@through_gateway
def test_a_program_that_stops_reading(way: Way) -> None:
    way.upstream.handler = until_left(4, lambda r: events(r, Said(TEXT)))
    with (
        anthropic_sdk(way) as sdk,
        sdk.messages.stream(model=way.model, **ASKED) as stream,
    ):
        assert TEXT.startswith(next(iter(stream.text_stream)))
    assert ended(way) == "client_abort"


def test_tokens_are_counted_before_they_are_spent(way: Way) -> None:
    """OpenAI has nothing like it: what the gateway says is marked as an estimate."""
    fields = {name: ASKED[name] for name in ("system", "messages")}
    with anthropic_sdk(way) as sdk:
        raw = sdk.messages.with_raw_response.count_tokens(
            model=way.model, **fields, tools=[WEATHER]
        )
    count = raw.parse().input_tokens
    marks = raw.headers.get_list("x-kongai-estimated")
    if way.provider == "openai":
        assert 20 < count < 200
        assert marks == ["input_tokens"]
        assert way.upstream.requests == []
    else:
        assert (count, marks) == (COUNTED, [])
        assert way.asked().target == "/v1/messages/count_tokens"
    if (record := way.record()) is not None:
        assert record["response"]["status"] == 200
        usage = record.get("ai", {}).get("proxy", {}).get("usage", {})
        assert not usage.get("total_tokens")


@to_openai
def test_an_estimate_grows_with_the_prompt(way: Way) -> None:
    counts = []
    with anthropic_sdk(way) as sdk:
        for words in (1, 100, 10_000):
            messages: Any = [{"role": "user", "content": "Grüezi wohl " * words}]
            count = sdk.messages.count_tokens(model=way.model, messages=messages)
            counts.append(count.input_tokens)
    assert counts[1] > 10 * counts[0]
    assert 90 < counts[2] / counts[1] < 110


def ask(way: Way, *, stream: bool, **fields: Any) -> Any:
    """The model's whole answer, streamed or not."""
    with anthropic_sdk(way) as sdk:
        if not stream:
            return sdk.messages.create(model=way.model, **ASKED, **fields)
        with sdk.messages.stream(model=way.model, **ASKED, **fields) as answer:
            return answer.get_final_message()


def text_of(answer: Any) -> str:
    """What an answer of one block says."""
    [block] = answer.content
    assert block.type == "text"
    return str(block.text)


def limit(way: Way) -> Any:
    """The most tokens that the model may answer with."""
    body = way.asked().json()
    if way.provider == "anthropic":
        return body["max_tokens"]
    return body.get("max_completion_tokens", body.get("max_tokens"))


def assert_counted(usage: Any, said: Said) -> None:
    """The program is told what the provider counted, under Anthropic's names."""
    assert usage.input_tokens == said.prompt - said.cached
    assert usage.cache_read_input_tokens == said.cached
    assert usage.output_tokens == said.completion


def assert_calling(answer: Any) -> None:
    """The answer is `CALLING`."""
    words, *calls = answer.content
    assert (words.type, words.text) == ("text", "Ich luege. ")
    assert [call.type for call in calls] == ["tool_use", "tool_use"]
    assert [ToolUse(c.name, c.input, c.id) for c in calls] == [BERN, TOKYO]
    assert answer.stop_reason == "tool_use"
    assert answer.usage.output_tokens == CALLING.completion
