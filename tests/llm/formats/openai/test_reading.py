from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai import registry
from kongai.llm.formats import AnswerReader, RequestFacts, openai
from kongai.llm.request_body import BadBody, NoRequest
from kongai.llm.usage import Usage
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
CHAT, COMPLETION, EMBEDDING = (
    *("llm/v1/chat", "llm/v1/completions"),
    "llm/v1/embeddings",
)
COUNTS = {"prompt_tokens": 15, "completion_tokens": 9, "total_tokens": 24}
COUNTED = Usage(15, 9, counted=True)
DONE = b"data: [DONE]\n\n"


def event(**members: Any) -> bytes:
    data = json.dumps({"model": "gpt-x", **members}, ensure_ascii=False)
    return b"data: " + data.encode() + b"\n\n"


def delta(finish: str | None = None, **members: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": members, "finish_reason": finish}])


def read(*pieces: bytes, end: bool = True) -> AnswerReader:
    return fed(openai.stream_reader(), *pieces, end=end)


def fed(reader: AnswerReader, *pieces: bytes, end: bool = True) -> AnswerReader:
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    return reader


def facts(reader: AnswerReader) -> tuple[Any, ...]:
    return (
        reader.usage,
        reader.model,
        reader.started,
        reader.finished,
        reader.broken,
    )


def test_it_is_the_format_of_that_name() -> None:
    assert registry.format("openai") is openai


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/chat/completions"),
        ("/v1/chat/completions", "/chat/completions"),
        ("/v1/chat/completions/", "/chat/completions"),
        ("/openai/v1/embeddings", "/embeddings"),
        ("/v1/v1/completions", "/completions"),
        ("/models", "/models"),
        ("/v1/models/gpt-4o", "/models/gpt-4o"),
        ("/v1beta/models", None),
        ("/chatter", None),
        ("/messages", None),
        ("/v1/messages", None),
        ("/v1", None),
        ("/", None),
        ("", None),
    ],
)
def test_clients_say_the_version_or_not(path: str, meant: str | None) -> None:
    assert openai.api_path(path) == meant


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"messages": [1]}, (True, False, CHAT)),
        ({"prompt": "hi"}, (True, False, COMPLETION)),
        ({"prompt": ["hi"]}, (True, False, COMPLETION)),
        ({"prompt": [1, 2]}, (True, False, COMPLETION)),
        ({"input": "hi"}, (True, False, EMBEDDING)),
        ({"input": ["hi"]}, (True, False, EMBEDDING)),
        ({"messages": [1], "prompt": "hi"}, (True, True, CHAT)),
        ({"messages": [], "prompt": "hi"}, (True, False, COMPLETION)),
        ({"messages": [1], "prompt": []}, (True, False, CHAT)),
        ({"messages": [1], "input": "hi"}, (True, False, CHAT)),
        ({"messages": []}, (False, False, EMBEDDING)),
        ({"messages": "hi", "prompt": 1, "input": {}}, (False, False, EMBEDDING)),
    ],
)
def test_kinds_of_requests(
    members: dict[str, Any], expected: tuple[bool, bool, str]
) -> None:
    found = openai.read_request(json.dumps({"model": "m", **members}).encode())
    assert (found.has_prompt, found.ambiguous, found.kind) == expected


@pytest.mark.parametrize(
    ("members", "model", "streaming", "usage_in_stream"),
    [
        ({}, None, False, False),
        ({"model": ""}, None, False, False),
        ({"model": 7}, None, False, False),
        ({"model": "mödel", "stream": True}, "mödel", True, False),
        ({"stream": 1}, None, False, False),
        ({"stream_options": {"include_usage": True}}, None, False, True),
        ({"stream_options": {"include_usage": 1}}, None, False, False),
        ({"stream_options": [True]}, None, False, False),
    ],
)
def test_facts_of_a_request(
    members: dict[str, Any], model: str | None, streaming: bool, usage_in_stream: bool
) -> None:
    body = json.dumps({"messages": [1], **members}).encode()
    expected = RequestFacts(
        model, streaming, has_prompt=True, usage_in_stream=usage_in_stream
    )
    assert openai.read_request(body) == expected


def test_what_is_no_request() -> None:
    with pytest.raises(NoRequest):
        openai.read_request(b"[1]")
    with pytest.raises(BadBody, match='"stream" twice'):
        openai.read_request(b'{"stream":false,"messages":[1],"stream":true}')


def test_a_body_that_can_only_be_passed_on() -> None:
    body = b'{"model":"m","messages":["\\ud83d"]}'
    assert not openai.read_request(body).exact


def test_nothing_is_answered_locally() -> None:
    assert list(openai.LOCAL_PATHS) == []
    with pytest.raises(LookupError):
        openai.answer_locally("/chat/completions", b"{}")


def test_a_whole_answer() -> None:
    body = json.dumps({"model": "gpt-x", "usage": COUNTS, "choices": 1}).encode()
    reader = fed(openai.whole_reader(), *chop(body, 5))
    assert facts(reader) == (COUNTED, "gpt-x", True, True, False)


@pytest.mark.parametrize(
    ("body", "model"),
    [(b"{}", None), (b'{"model":1,"usage":"none"}', None), (b'{"model":"m"}', "m")],
)
def test_a_whole_answer_that_says_little(body: bytes, model: str | None) -> None:
    reader = fed(openai.whole_reader(), body)
    assert facts(reader) == (Usage(), model, True, True, False)


@pytest.mark.parametrize(
    ("body", "completion"),
    [
        ({"choices": [{"message": {"content": "12345"}}]}, 2),
        ({"choices": [{"text": "12345"}, {"text": "123"}]}, 2),
        (
            {
                "choices": [
                    {
                        "message": {
                            "content": [{"type": "text", "text": "12"}],
                            "reasoning_content": "34",
                            "refusal": "5",
                            "tool_calls": [
                                {"function": {"name": "6", "arguments": ""}}
                            ],
                        }
                    }
                ]
            },
            2,
        ),
        ({"choices": [{"message": {"content": "1"}}], "usage": {"x": 1}}, 1),
    ],
)
def test_a_whole_answer_without_a_count_is_estimated(
    body: dict[str, Any], completion: int
) -> None:
    reader = fed(openai.whole_reader(), json.dumps({"model": "m", **body}).encode())
    estimate = Usage(0, completion, estimated=True)
    assert facts(reader) == (estimate, "m", True, True, False)


@pytest.mark.parametrize(
    "choices",
    [[], 1, None, [1], [{}], [{"text": 1}], [{"message": "x"}], [{"message": {}}]],
)
def test_a_whole_answer_of_nothing_has_no_estimate(choices: Any) -> None:
    body = json.dumps({"model": "m", "choices": choices}).encode()
    reader = fed(openai.whole_reader(), body)
    assert facts(reader) == (Usage(), "m", True, True, False)


@pytest.mark.parametrize(("given", "tier"), [("flex", "flex"), (None, None), (1, None)])
def test_the_tier_that_served(given: Any, tier: str | None) -> None:
    expected = Usage(15, 9, service_tier=tier, counted=True)
    body = json.dumps({"usage": COUNTS, "service_tier": given}).encode()
    assert fed(openai.whole_reader(), body).usage == expected
    first = event(choices=[{"delta": {"content": "a"}}], service_tier=given)
    assert read(first, event(choices=[], usage=COUNTS), DONE).usage == expected


STREAMS: dict[str, tuple[list[bytes], tuple[Any, ...]]] = {
    "usage in a chunk of its own": (
        [
            delta(role="assistant", content=""),
            delta(content="hi"),
            delta("stop"),
            event(choices=[], usage=COUNTS),
            DONE,
        ],
        (COUNTED, "gpt-x", True, True, False),
    ),
    "usage in every chunk": (
        [
            event(choices=[{"delta": {"content": "hi"}}], usage={**COUNTS, "x": 1}),
            event(
                choices=[{"delta": {}, "finish_reason": "stop"}],
                usage={**COUNTS, "completion_tokens": 10},
            ),
            DONE,
        ],
        (Usage(15, 10, counted=True), "gpt-x", True, True, False),
    ),
    "Groq's usage": (
        [delta(content="hi"), event(x_groq={"usage": COUNTS}, choices=[]), DONE],
        (COUNTED, "gpt-x", True, True, False),
    ),
    "no count": (
        [
            delta(reasoning_content="12"),
            delta(reasoning="34", content="5"),
            delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            DONE,
        ],
        (Usage(0, 2, estimated=True), "gpt-x", True, True, False),
    ),
    "thinking told twice": (
        [delta(reasoning_content="1234", reasoning="1234"), DONE],
        (Usage(0, 1, estimated=True), "gpt-x", True, True, False),
    ),
    "a completion": (
        [event(choices=[{"text": "hello"}]), DONE],
        (Usage(0, 2, estimated=True), "gpt-x", True, True, False),
    ),
    "Azure's first chunk": (
        [
            b'data: {"model":"","choices":[],"prompt_filter_results":[]}\n\n',
            delta(content="hi"),
            DONE,
        ],
        (Usage(0, 1, estimated=True), "gpt-x", True, True, False),
    ),
    "no [DONE], but a reason": (
        [delta(content="hi"), delta("stop")],
        (Usage(0, 1, estimated=True), "gpt-x", True, True, False),
    ),
    "cut off": (
        [delta(content="hi")],
        (Usage(0, 1, estimated=True), "gpt-x", True, False, False),
    ),
    "an error": (
        [event(error={"message": "no"})],
        (Usage(), "gpt-x", False, True, False),
    ),
    "nothing but the role": (
        [delta(role="assistant", content=""), DONE],
        (Usage(), "gpt-x", False, True, False),
    ),
    "something that can't be read": (
        [delta(content="hi"), b"data: nothing\n\n", event(choices=[], usage=COUNTS)],
        (COUNTED, "gpt-x", True, False, True),
    ),
    "odd members": (
        [
            delta(content=1, tool_calls="x", reasoning=[1]),
            delta(tool_calls=[1, {"function": 1}, {"function": {"name": 1}}]),
            event(choices=None, usage=1, x_groq=1),
            event(choices=[{"delta": None}]),
            DONE,
        ],
        (Usage(), "gpt-x", False, True, False),
    ),
}


@pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_a_stream(stream: list[bytes], expected: tuple[Any, ...]) -> None:
    whole = b"".join(stream)
    assert facts(read(whole)) == expected
    assert facts(read(*(whole[i : i + 1] for i in range(len(whole))))) == expected


def test_a_reason_alone_is_no_end_before_the_end() -> None:
    assert not read(delta(content="hi"), delta("stop"), end=False).finished


def test_an_event_past_the_limit_ends_the_reading_and_nothing_else() -> None:
    reader = read(delta(content="hi"), end=False)
    fed(reader, b"data: ", *[b"x" * 2**20] * 17, b"\n\n", DONE)
    assert reader.broken
    assert reader.lost
    assert reader.usage == Usage(0, 1, estimated=True)


PIECES = st.sampled_from([piece for stream, _ in STREAMS.values() for piece in stream])


@unhurried
@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 1500), max_size=8))
def test_any_stream_in_any_cuts(stream: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(stream)
    pieces = chop(whole, *(min(cut, len(whole)) for cut in cuts))
    assert facts(read(*pieces)) == facts(read(whole))


@unhurried
@given(st.lists(st.binary(), max_size=5))
def test_reading_raises_nothing(pieces: list[bytes]) -> None:
    assert read(*pieces).usage == Usage()
    assert fed(openai.whole_reader(), *pieces).usage == Usage()
