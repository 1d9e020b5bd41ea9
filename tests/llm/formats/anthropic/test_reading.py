from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai import registry
from kongai.llm.formats import AnswerReader, RequestFacts, along, anthropic
from kongai.llm.request_body import BadBody, NoRequest
from kongai.llm.usage import Usage
from kongai.sse import ServerSentEvent, encode
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MESSAGES = b'[{"role":"user","content":"hi"}]'


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return encode(ServerSentEvent(kind.encode(), data.encode()))


def start(**usage: Any) -> bytes:
    message = {"id": "msg_1", "model": "claude-sonnet-4-5", "usage": usage}
    return event("message_start", message=message)


def text(text: str) -> bytes:
    return event("content_block_delta", delta={"type": "text_delta", "text": text})


def closing(**usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)


STOP = event("message_stop")


def counted(prompt: int = 0, completion: int = 0, **rest: Any) -> Usage:
    return Usage(prompt, completion, counted=True, **rest)


def read(*pieces: bytes, end: bool = True) -> AnswerReader:
    reader = anthropic.stream_reader()
    return fed(reader, pieces, end=end)


def read_whole(*pieces: bytes) -> AnswerReader:
    return fed(anthropic.whole_reader(), pieces)


def fed(
    reader: AnswerReader, pieces: Iterable[bytes], *, end: bool = True
) -> AnswerReader:
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    return reader


def beginning(value: bytes) -> str:
    return ascii(value[:20])


def facts(reader: AnswerReader) -> tuple[Any, ...]:
    return (
        reader.usage,
        reader.model,
        reader.started,
        reader.finished,
        reader.broken,
    )


def test_it_is_the_format_of_that_name() -> None:
    assert registry.format("anthropic") is anthropic


@pytest.mark.parametrize(
    ("body", "model", "streaming"),
    [
        (b'{"model":"m","messages":%b}', "m", False),
        (b'{"model":"m","messages":%b,"stream":true}', "m", True),
        (b'{"model":"m","messages":%b,"stream":false}', "m", False),
        (b'{"model":"m","messages":%b,"stream":null}', "m", False),
        (b'{"model":"m","messages":%b,"stream":1}', "m", False),
        (b'{"model":"m","messages":%b,"stream":"true"}', "m", False),
        (b'{"messages":%b}', None, False),
        (b'{"model":null,"messages":%b}', None, False),
        (b'{"model":"","messages":%b}', None, False),
        (b'{"model":7,"messages":%b}', None, False),
        (b'{"model":["m"],"messages":%b}', None, False),
        ('{"model":"mödel 🙂","messages":%b}'.encode(), "mödel 🙂", False),
        (b'{"model":"\\u006d","messages":%b}', "m", False),
        (b' {\n "messages" :\t%b , "model" : "m" } \n', "m", False),
        (b'{"model":"m","x":{"messages":[],"stream":true},"messages":%b}', "m", False),
        (b'{"model":"m","messages":%b,"new":[1e400,{"a":null}]}', "m", False),
    ],
)
def test_a_request(body: bytes, model: str | None, streaming: bool) -> None:
    expected = RequestFacts(model=model, streaming=streaming, has_prompt=True)
    assert anthropic.read_request(body.replace(b"%b", MESSAGES)) == expected


@pytest.mark.parametrize(
    "messages",
    [
        *(b"[]", b"[ ]", b"[ \n\t\r ]", b"null", b"{}", b'"hi"', b"1", b"true"),
        *(b'{"0":[1]}', b'"[1]"'),
    ],
)
def test_a_request_that_asks_nothing(messages: bytes) -> None:
    body = b'{"model":"m","stream":true,"messages":%b}' % messages
    assert anthropic.read_request(body) == RequestFacts("m", True, False)


@pytest.mark.parametrize(
    ("prompt", "ambiguous"),
    [(b'"hi"', True), (b'""', True), (b"null", False), (b'["hi"]', False)],
)
def test_a_chat_with_a_completions_prompt(prompt: bytes, ambiguous: bool) -> None:
    body = b'{"prompt":%b,"messages":[1]}' % prompt
    assert anthropic.read_request(body).ambiguous is ambiguous


@pytest.mark.parametrize(
    "messages", [b"[1]", b"[ 1 ]", b"[\n\n\n1]", b"[[]]", b"[\n[\n]\n]"]
)
def test_what_is_in_the_messages_is_the_providers_business(messages: bytes) -> None:
    body = b'{"model":"m","messages":%b}' % messages
    assert anthropic.read_request(body).has_prompt


def test_what_is_no_request() -> None:
    with pytest.raises(NoRequest):
        anthropic.read_request(b"[1]")
    with pytest.raises(BadBody, match='"model" twice'):
        anthropic.read_request(b'{"model":"m","messages":[1],"model":"n"}')


def test_a_body_that_can_only_be_passed_on() -> None:
    body = b'{"model":"m","messages":["\\ud83d"]}'
    expected = RequestFacts("m", has_prompt=True, exact=False)
    assert anthropic.read_request(body) == expected


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/messages/", "/v1/messages"),
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/anything", "/anything"),
        ("/", None),
        ("", None),
    ],
)
def test_every_path_is_one_of_the_api(path: str, meant: str | None) -> None:
    assert anthropic.api_path(path) == meant


def test_every_stream_tells_its_usage_to_every_client() -> None:
    assert anthropic.ask_for_usage(b'{"stream":true}') == {}
    hider = anthropic.usage_hider()
    stream = start(input_tokens=1) + closing(output_tokens=2)
    assert hider.feed(stream) + hider.end() == stream


USAGES: dict[str, tuple[dict[str, Any], Usage]] = {
    "plain": ({"input_tokens": 119, "output_tokens": 29}, counted(119, 29)),
    "no counts": ({}, Usage()),
    "nulls": (
        {
            "input_tokens": None,
            "output_tokens": None,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
            "service_tier": None,
            "iterations": None,
            "output_tokens_details": None,
        },
        Usage(),
    ),
    "cache": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 1000,
            "output_tokens": 7,
        },
        counted(1104, 7, cached_tokens=1000, cache_writes={"5m": 100}),
    ),
    "cache by duration": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 100,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 40,
                "ephemeral_1h_input_tokens": 60,
            },
            "output_tokens": 7,
        },
        counted(104, 7, cache_writes={"5m": 40, "1h": 60}),
    ),
    "one hour alone": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 60,
            "cache_creation": {"ephemeral_1h_input_tokens": 60},
        },
        counted(64, 0, cache_writes={"1h": 60}),
    ),
    "more of an hour than there is": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_1h_input_tokens": 60},
        },
        counted(54, 0, cache_writes={"1h": 50}),
    ),
    "negative": ({"input_tokens": -4, "output_tokens": -7}, counted()),
    "thinking": (
        {
            "input_tokens": 4,
            "output_tokens": 70,
            "output_tokens_details": {"thinking_tokens": 50},
        },
        counted(4, 70, reasoning_tokens=50),
    ),
    "tier": (
        {"input_tokens": 4, "output_tokens": 7, "service_tier": "priority"},
        counted(4, 7, service_tier="priority"),
    ),
    "iterations": (
        {
            "input_tokens": 30,
            "output_tokens": 3,
            "iterations": [
                {"input_tokens": 10, "output_tokens": 1, "type": "compaction"},
                {
                    "input_tokens": 20,
                    "output_tokens": 2,
                    "cache_read_input_tokens": 5,
                    "cache_creation_input_tokens": 9,
                    "cache_creation": {"ephemeral_1h_input_tokens": 9},
                },
                {
                    "input_tokens": 1,
                    "output_tokens": 4,
                    "cache_read_input_tokens": 6,
                    "cache_creation_input_tokens": 2,
                },
            ],
        },
        counted(53, 7, cached_tokens=11, cache_writes={"5m": 2, "1h": 9}),
    ),
    "unknown counts": (
        {"input_tokens": 4, "output_tokens": 7, "gold": {"x": [1]}, "server": None},
        counted(4, 7),
    ),
}


@pytest.mark.parametrize(("given", "expected"), USAGES.values(), ids=USAGES.keys())
def test_usage_of_a_whole_answer(given: dict[str, Any], expected: Usage) -> None:
    body = {"type": "message", "model": "m", "content": [{"x": 1}], "usage": given}
    reader = read_whole(json.dumps(body).encode())
    assert reader.usage == expected
    assert (reader.model, reader.finished, reader.broken) == ("m", True, False)


COUNTS = (
    *("input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)
some_count = st.integers(-3, 20) | st.sampled_from([10**12, 10**12 + 1])


@given(
    st.fixed_dictionaries(dict.fromkeys(COUNTS, some_count)),
    st.none() | st.fixed_dictionaries({"ephemeral_1h_input_tokens": some_count}),
)
def test_one_iteration_is_counted_as_none(
    counts: dict[str, Any], told_apart: dict[str, Any] | None
) -> None:
    usage = {**counts, "cache_creation": told_apart}
    plain, summed = (
        read_whole(json.dumps({"usage": {**usage, **more}}).encode()).usage
        for more in ({}, {"iterations": [usage]})
    )
    assert plain == summed
    assert plain.prompt_tokens >= plain.cached_tokens + plain.cache_creation_tokens


@pytest.mark.parametrize(("given", "expected"), USAGES.values(), ids=USAGES.keys())
def test_usage_of_a_stream_that_says_it_all_at_its_end(
    given: dict[str, Any], expected: Usage
) -> None:
    reader = read(start(input_tokens=3, output_tokens=8), closing(**given), STOP)
    if "input_tokens" not in given or given["input_tokens"] is None:
        expected = counted(3)
    assert reader.usage == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ([start(input_tokens=15, output_tokens=1)], counted(15)),
        (
            [start(input_tokens=15, output_tokens=1), closing(output_tokens=9)],
            counted(15, 9),
        ),
        (
            [
                start(input_tokens=15),
                closing(output_tokens=4),
                closing(output_tokens=9),
            ],
            counted(15, 9),
        ),
        ([start(input_tokens=15), closing(output_tokens=0)], counted(15)),
        ([start(input_tokens=15), text("hi"), closing(output_tokens=0)], counted(15)),
        (
            [
                start(input_tokens=4, cache_read_input_tokens=1000),
                closing(output_tokens=7),
            ],
            counted(1004, 7, cached_tokens=1000),
        ),
        (
            [
                start(
                    input_tokens=4,
                    cache_creation_input_tokens=100,
                    cache_creation={"ephemeral_1h_input_tokens": 60},
                ),
                closing(
                    input_tokens=4,
                    cache_creation_input_tokens=100,
                    cache_read_input_tokens=0,
                    output_tokens=7,
                ),
            ],
            counted(104, 7, cache_writes={"5m": 40, "1h": 60}),
        ),
        (
            [
                start(input_tokens=4, cache_read_input_tokens=10),
                closing(input_tokens=5, cache_read_input_tokens=30, output_tokens=7),
            ],
            counted(35, 7, cached_tokens=30),
        ),
        (
            [start(input_tokens=4, service_tier="standard"), closing(output_tokens=7)],
            counted(4, 7, service_tier="standard"),
        ),
        (
            [
                start(input_tokens=4, cache_creation_input_tokens=100),
                closing(output_tokens=7),
            ],
            counted(104, 7, cache_writes={"5m": 100}),
        ),
    ],
)
def test_the_last_count_holds(stream: list[bytes], expected: Usage) -> None:
    assert read(*stream, STOP).usage == expected


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        ([{"text": "1"}], 1),
        ([{"text": "1234"}, {"text": "5"}], 2),
        ([{"text": "ééé🙂"}], 1),
        ([{"thinking": "12345"}], 2),
        ([{"partial_json": '{"a":'}, {"partial_json": "1}"}], 2),
        ([{"signature": "x" * 99}], 0),
        ([{"type": "citations_delta", "citation": {"cited_text": "x"}}], 0),
        ([], 0),
    ],
)
def test_output_is_estimated_where_no_count_came(
    deltas: list[dict[str, str]], tokens: int
) -> None:
    stream = [event("content_block_delta", index=0, delta=delta) for delta in deltas]
    no_count = [event("message_delta", delta={}), closing(input_tokens=15)]
    for last in ([], [STOP], [*no_count, STOP]):
        reader = read(start(input_tokens=15, output_tokens=1), *stream, *last)
        assert reader.usage == counted(15, tokens, estimated=tokens > 0)


def test_nothing_is_estimated_before_the_end() -> None:
    reader = read(start(input_tokens=15), text("hello"), end=False)
    assert reader.usage == counted(15)


@pytest.mark.parametrize(
    ("stream", "started", "finished"),
    [
        ([], False, False),
        ([start()], False, False),
        ([start(), event("ping"), event("content_block_start")], False, False),
        ([start(), text("a")], True, False),
        ([start(), text("a"), closing(output_tokens=1)], True, False),
        ([start(), text("a"), closing(output_tokens=1), STOP], True, True),
        ([start(), text("a"), STOP.rstrip(b"\n")], True, False),
        ([start(), event("error", error={"type": "overloaded_error"})], False, True),
        ([event("error", error={"type": "overloaded_error"})], False, True),
        ([b": message_stop\n\n"], False, False),
        ([start(), event("message_stopped")], False, False),
        ([event("message_start"), event("content_block_delta")], True, False),
        ([event("message_start", message={}), event("message_delta")], False, False),
    ],
)
def test_how_far_a_stream_has_come(
    stream: list[bytes], started: bool, finished: bool
) -> None:
    reader = read(*stream)
    assert (reader.started, reader.finished) == (started, finished)
    assert not reader.broken


ODD = {
    "no JSON": b"data: nothing\n\n",
    "no object": b"data: [1]\n\n",
    "OpenAI's end": b"data: [DONE]\n\n",
    "invalid UTF-8": event("content_block_delta", delta={"text": "x"}).replace(
        b'"x"', b'"\xff"'
    ),
    "a count that is a text": closing(output_tokens="nine"),
    "a text that is null": event("content_block_delta", delta={"text": None}),
    "half a surrogate pair": b'data: {"type":"ping","delta":{"text":"\\ud83d"}}\n\n',
    "nested too deep": b"data: " + b'{"delta":' * 20_000 + b"\n\n",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_event_that_cannot_be_read_is_left_out(odd: bytes) -> None:
    stream = [
        start(input_tokens=15, output_tokens=1),
        odd,
        text("hello"),
        closing(output_tokens=9),
        STOP,
    ]
    reader = read(*stream)
    assert facts(reader) == (counted(15, 9), "claude-sonnet-4-5", True, True, True)
    assert facts(read(b"".join(stream))) == facts(reader)


def test_an_event_past_the_limit_ends_the_reading_and_nothing_else() -> None:
    reader = read(start(input_tokens=15), text("hello"))
    piece = b"x" * (1024 * 1024)
    fed(reader, [b"data: ", *[piece] * 17, b"\n\n", closing(output_tokens=9), STOP])
    assert reader.broken
    assert reader.usage == counted(15, 2, estimated=True)


SPOKEN = [
    start(input_tokens=15, output_tokens=1),
    text("é🙂"),
    text("hello"),
    event("content_block_delta", delta={"partial_json": '{"a":'}),
    event("message_delta", delta={}),
    closing(output_tokens=9),
    closing(output_tokens=10, cache_read_input_tokens=4),
    event("ping"),
    event("error", error={}),
    STOP,
    b": comment\n\n",
    *ODD.values(),
]


@unhurried
@given(
    st.lists(st.sampled_from(SPOKEN), max_size=8),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_any_stream_in_any_cuts(stream: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(stream)
    pieces = chop(whole, *(min(cut, len(whole)) for cut in cuts))
    assert facts(read(*pieces)) == facts(read(whole))


@unhurried
@given(st.lists(st.binary(), max_size=5))
def test_reading_an_answer_raises_nothing(pieces: list[bytes]) -> None:
    assert read(*pieces).usage == Usage()
    assert not read_whole(*pieces).usage.total_tokens


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"<html>", b'{"model":1}', b'{"usage":[]}'),
        *(b'{"model":"m"}x', b'{"model":"\xff"}', b"[" * 100_000),
    ],
    ids=beginning,
)
def test_a_whole_answer_that_cannot_be_read(body: bytes) -> None:
    reader = read_whole(body)
    assert reader.broken
    assert not reader.finished
    assert reader.usage == Usage()
    assert reader.model is None


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        *((b'{"model":"m","x":1', False), (b'{"model":1,"x":[1', False), (b"", False)),
        *((b'{"a":"\\ud8', False), (b'{"a":{"b":1}', False), (b'{"a":nu', False)),
        *((b'{"usage":[]}', True), (b'{"a":"\\ud83d"}', True), (b"<html>", True)),
    ],
)
def test_what_breaks_off_is_told_from_what_is_odd(body: bytes, *, lost: bool) -> None:
    """Where HTTP does not say where an answer ends, only the first is a cut."""
    reader = read_whole(body)
    assert (reader.broken, reader.finished, reader.lost) == (True, False, lost)


def test_a_whole_answer_without_usage() -> None:
    reader = read_whole(b'{"type":"message","model":"m"}')
    assert facts(reader) == (Usage(), "m", True, True, False)


def test_a_whole_answer_is_unfinished_before_its_end() -> None:
    reader = anthropic.whole_reader()
    seen = [(reader.started, reader.finished)]
    reader.feed(b'{"model":"m"}')
    seen.append((reader.started, reader.finished))
    reader.end()
    seen.append((reader.started, reader.finished))
    assert seen == [(False, False), (True, False), (True, True)]


def test_a_whole_answer_past_the_limit_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(along, "MAX_WHOLE_ANSWER", 100)
    at_limit = b'{"model":"m"}'.ljust(100)
    assert read_whole(*chop(at_limit, 50)).model == "m"
    reader = read_whole(*chop(at_limit + b" ", 50, 100))
    assert reader.broken
    assert reader.model is None
