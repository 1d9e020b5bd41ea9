"""What programs do with OpenAI's own SDK works with either vendor's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from .anthropic_api import ToolUse
from .harness import Gateway
from .scripted_llm import (
    VECTOR,
    Provider,
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
    cut_after,
    ended,
    gzipped,
    openai_sdk,
    serving_sdks,
    until_left,
)
from .upstream import FakeUpstream

HELLO: list[Any] = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "Grüezi, 世界!"},
]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": SCHEMA,
        "strict": True,
    },
}
WITH_USAGE: Any = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Gateway, FakeUpstream]]:
    with serving_sdks() as both:
        yield both


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, processes: tuple[Gateway, FakeUpstream]
) -> Iterator[Way]:
    """From the SDK to each provider."""
    with a_way("openai", request.param, *processes) as way:
        yield way


through_gateway = pytest.mark.parametrize("way", WAYS[1:], indirect=True)
to_openai = pytest.mark.parametrize("way", WAYS[:2], indirect=True)


def test_a_whole_answer(way: Way) -> None:
    """Programs say no limit of tokens, which one of the providers must be told."""
    way.says(said := Said(TEXT, reasoning=7 if way.provider == "openai" else 0))
    with openai_sdk(way) as sdk:
        answer = sdk.chat.completions.create(model=way.model, messages=HELLO)
    assert (answer.object, answer.model) == ("chat.completion", way.model)
    assert answer.id
    assert answer.created > 1_700_000_000
    [choice] = answer.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", TEXT)
    assert choice.message.tool_calls is None
    assert_counted(answer.usage, said)
    assert system_text(way.asked()) == SYSTEM
    assert way.asked().json()["messages"][-1]["role"] == "user"
    way.check_record(said, "oneshot")


@through_gateway
def test_a_base_url_without_a_version(way: Way) -> None:
    with openai_sdk(way, base="") as sdk:
        answer = sdk.chat.completions.create(model=way.model, messages=HELLO)
    assert answer.choices[0].message.content == TEXT


def test_a_stream(way: Way) -> None:
    way.says(Said(TEXT))
    with openai_sdk(way) as sdk:
        stream = sdk.chat.completions.create(
            model=way.model, messages=HELLO, stream=True
        )
        chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {way.model}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len(choices) == len(chunks)
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == TEXT
    reasons = [choice.finish_reason for choice in choices]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == []
    if way.gateway is not None:
        assert ended(way) == "ok"


def test_a_stream_with_its_usage(way: Way) -> None:
    way.says(said := Said(TEXT))
    with openai_sdk(way) as sdk:
        stream = sdk.chat.completions.create(
            model=way.model, messages=HELLO, **WITH_USAGE
        )
        *chunks, last = list(stream)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == []
    assert last.choices == []
    assert_counted(last.usage, said)
    way.check_record(said, "stream")


def test_a_stream_ends_as_programs_without_an_sdk_expect(way: Way) -> None:
    with (
        openai_sdk(way) as sdk,
        sdk.chat.completions.with_streaming_response.create(
            model=way.model, messages=HELLO, stream=True
        ) as response,
    ):
        kind = response.headers["content-type"]
        # A line with a colon in front is a comment, which says that all is well.
        lines = [line for line in response.iter_lines() if line.strip()]
        lines = [line for line in lines if not line.startswith(":")]
    assert kind.partition(";")[0] == "text/event-stream"
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])


def test_tools_in_turn(way: Way) -> None:
    """The model calls two tools at once, and is told what each of them said."""
    way.says(CALLING, Said(TEXT))
    asked: dict[str, Any] = {"model": way.model, "tools": [WEATHER]}
    with openai_sdk(way) as sdk:
        answer = sdk.chat.completions.create(**asked, messages=HELLO)
        assert_calling(answer.choices[0])
        way.check_record(CALLING, "oneshot")
        results = [
            {"role": "tool", "tool_call_id": TOKYO.id, "content": "晴れ ☀️"},
            {"role": "tool", "tool_call_id": BERN.id, "content": "Räge"},
        ]
        turns = [*HELLO, answer.choices[0].message, *results]
        final = sdk.chat.completions.create(**asked, messages=turns)
    assert final.choices[0].message.content == TEXT
    first, second = way.upstream.requests
    assert tool_schemas(way.provider, first.json()) == {"weather": SCHEMA}
    assert tool_calls(second) == [BERN, TOKYO]
    assert tool_results(second) == {BERN.id: "Räge", TOKYO.id: "晴れ ☀️"}


def test_streamed_calls_are_put_together(way: Way) -> None:
    """The SDK's helper takes each call's pieces by their index."""
    way.says(CALLING)
    with (
        openai_sdk(way) as sdk,
        sdk.chat.completions.stream(
            model=way.model,
            messages=HELLO,
            tools=[WEATHER],
            stream_options={"include_usage": True},
        ) as stream,
    ):
        done = [
            (event.index, json.loads(event.arguments))
            for event in stream
            if event.type == "tool_calls.function.arguments.done"
        ]
        final = stream.get_final_completion()
    assert done == [(0, BERN.input), (1, TOKYO.input)]
    assert_calling(final.choices[0])
    assert_counted(final.usage, CALLING)
    way.check_record(CALLING, "stream")


@pytest.mark.parametrize(
    ("choice", "at_anthropic"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "tool", "name": "weather"},
        ),
    ],
    ids=["auto", "required", "none", "one"],
)
def test_which_tool_the_model_must_call(
    way: Way, choice: Any, at_anthropic: dict[str, str]
) -> None:
    with openai_sdk(way) as sdk:
        sdk.chat.completions.create(
            model=way.model, messages=HELLO, tools=[WEATHER], tool_choice=choice
        )
    expected = choice if way.provider == "openai" else at_anthropic
    assert way.asked().json()["tool_choice"] == expected


def test_images(way: Way) -> None:
    inline = f"data:image/png;base64,{PIXEL}"
    content: list[Any] = [
        {"type": "text", "text": "Was isch das?"},
        {"type": "image_url", "image_url": {"url": inline}},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    with openai_sdk(way) as sdk:
        sdk.chat.completions.create(
            model=way.model, messages=[{"role": "user", "content": content}]
        )
    [message] = way.asked().json()["messages"]
    png = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert (
        message["content"]
        == {
            "openai": content,
            "anthropic": [
                content[0],
                {"type": "image", "source": png},
                {"type": "image", "source": {"type": "url", "url": PICTURE}},
            ],
        }[way.provider]
    )


@pytest.mark.parametrize("stop", ["ENDE", ["ENDE", "終"]], ids=["one", "some"])
def test_sampling(way: Way, stop: str | list[str]) -> None:
    way.says(Said(TEXT, ends="sequence", sequence="ENDE"))
    with openai_sdk(way) as sdk:
        answer = sdk.chat.completions.create(
            model=way.model,
            messages=HELLO,
            max_completion_tokens=77,
            temperature=0.25,
            stop=stop,
        )
    assert answer.choices[0].finish_reason == "stop"
    body = way.asked().json()
    assert body["temperature"] == 0.25
    if way.provider == "openai":
        assert (body["max_completion_tokens"], body["stop"]) == (77, stop)
    else:
        assert body["max_tokens"] == 77
        assert body["stop_sequences"] == (stop if isinstance(stop, list) else [stop])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("ends", "reason"), [("length", "length"), ("refusal", "content_filter")]
)
def test_why_an_answer_ends(way: Way, ends: Any, reason: str, stream: bool) -> None:
    way.says(Said(TEXT, ends=ends))
    with openai_sdk(way) as sdk:
        said: Any = sdk.chat.completions.create(
            model=way.model, messages=HELLO, stream=stream
        )
        choice = (list(said)[-1] if stream else said).choices[0]
    assert choice.finish_reason == reason


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_error_of_the_provider(
    way: Way, status: int, kind: str, stream: bool
) -> None:
    text = "Sälü: zvil verlangt (限界)"
    way.refuses(status, error(way.provider, status, text), ("retry-after", "7"))
    with openai_sdk(way) as sdk, pytest.raises(getattr(openai, kind)) as caught:
        sdk.chat.completions.create(model=way.model, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.body["message"] == text
    if (record := way.record()) is not None:
        assert record["response"]["status"] == status
        assert record["upstream_status"] == str(status)
        assert record["ai"]["proxy"]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_compressed_answer(way: Way, stream: bool) -> None:
    way.upstream.handler = gzipped(Said(TEXT))
    with openai_sdk(way) as sdk:
        said: Any = sdk.chat.completions.create(
            model=way.model, messages=HELLO, stream=stream
        )
        if stream:
            # In a stream that is passed on compressed, the usage that the gateway asked
            # for is not taken out.
            chunks = [chunk for chunk in said if chunk.choices]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = said.choices[0].message.content
    assert text == TEXT


def test_an_answer_in_a_form(way: Way) -> None:
    """Programs ask for JSON of a schema."""
    form: Any = {"name": "weather_report", "schema": SCHEMA, "strict": True}
    way.says(Said(json.dumps(BERN.input)))
    with openai_sdk(way) as sdk:
        sdk.chat.completions.create(
            model=way.model,
            messages=HELLO,
            response_format={"type": "json_schema", "json_schema": form},
        )
    body = way.asked().json()
    if way.provider == "openai":
        assert body["response_format"]["json_schema"] == form
    else:
        assert body["output_config"]["format"] == {
            "type": "json_schema",
            "schema": SCHEMA,
        }


@through_gateway
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("said", [Said(TEXT), CALLING], ids=["text", "tools"])
def test_a_stream_that_ends_early(way: Way, said: Said, how: str) -> None:
    """A cut answer does not pass for a short one."""
    way.upstream.handler = cut_after(4, lambda r: events(r, said), how=how)
    with openai_sdk(way) as sdk:
        stream = sdk.chat.completions.create(
            model=way.model, messages=HELLO, tools=[WEATHER], stream=True
        )
        with pytest.raises(openai.APIError):
            list(stream)
    assert ended(way) == CUTS[how]


@through_gateway
def test_a_program_that_stops_reading(way: Way) -> None:
    way.upstream.handler = until_left(4, lambda r: events(r, Said(TEXT)))
    with openai_sdk(way) as sdk:
        with sdk.chat.completions.create(
            model=way.model, messages=HELLO, stream=True
        ) as stream:
            heard = ""
            while not heard:
                heard = next(stream).choices[0].delta.content or ""
        assert TEXT.startswith(heard)
    assert ended(way) == "client_abort"


@to_openai
def test_the_models(way: Way) -> None:
    with openai_sdk(way) as sdk:
        assert [model.id for model in sdk.models.list()] == ["gpt-4.1-mini"]
    assert (way.asked().method, way.asked().target) == ("GET", "/v1/models")


@to_openai
@pytest.mark.parametrize("asked", ["Grüezi", ["Grüezi", "世界"]], ids=["one", "two"])
def test_embeddings(way: Way, asked: Any) -> None:
    with openai_sdk(way, route="embeddings") as sdk:
        answer = sdk.embeddings.create(model="text-embedding-3-small", input=asked)
    count = 1 if isinstance(asked, str) else len(asked)
    vectors = [item.embedding for item in answer.data]
    assert vectors == [[x + place for x in VECTOR] for place in range(count)]
    assert answer.usage.prompt_tokens == 8
    assert way.asked().json()["input"] == asked
    if (record := way.record()) is not None:
        proxy = record["ai"]["proxy"]
        assert proxy["meta"]["request_model"] == "text-embedding-3-small"
        assert proxy["usage"]["prompt_tokens"] == 8
        assert proxy["usage"]["total_tokens"] == 8


@to_openai
def test_completions(way: Way) -> None:
    model = "gpt-3.5-turbo-instruct"
    way.says(said := Said(TEXT))
    with openai_sdk(way, route="completions") as sdk:
        answer = sdk.completions.create(model=model, prompt="Es war einmal")
    assert [choice.text for choice in answer.choices] == [TEXT]
    assert_counted(answer.usage, said)
    assert way.asked().json()["prompt"] == "Es war einmal"
    if (record := way.record()) is not None:
        proxy = record["ai"]["proxy"]
        assert proxy["meta"]["request_model"] == model
        assert proxy["usage"]["prompt_tokens"] == said.prompt
        assert proxy["usage"]["completion_tokens"] == said.completion


def assert_counted(usage: Any, said: Said) -> None:
    """The program is told what the provider counted, under OpenAI's names."""
    assert usage.prompt_tokens == said.prompt
    assert usage.completion_tokens == said.completion
    assert usage.total_tokens == said.prompt + said.completion
    assert usage.prompt_tokens_details.cached_tokens == said.cached
    if said.reasoning:
        assert usage.completion_tokens_details.reasoning_tokens == said.reasoning


def assert_calling(choice: Any) -> None:
    """The answer is `CALLING`."""
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Ich luege. "
    calls = choice.message.tool_calls
    assert [call.type for call in calls] == ["function", "function"]
    assert [
        ToolUse(call.function.name, json.loads(call.function.arguments), call.id)
        for call in calls
    ] == [BERN, TOKYO]


def tool_schemas(provider: Provider, body: dict[str, Any]) -> dict[str, Any]:
    """What each tool of a request takes, by its name."""
    if provider == "anthropic":
        return {tool["name"]: tool["input_schema"] for tool in body["tools"]}
    functions = [tool["function"] for tool in body["tools"]]
    return {function["name"]: function["parameters"] for function in functions}
