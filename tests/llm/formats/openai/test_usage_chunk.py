from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai.llm.formats import openai
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def event(data: Any, end: bytes = b"\n") -> bytes:
    return b"data: " + json.dumps(data).encode() + end + end


def chunk(text: str, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **members}


def passed(*pieces: bytes) -> bytes:
    hider = openai.usage_hider()
    return b"".join([*(hider.feed(piece) for piece in pieces), hider.end()])


HIDDEN = {"id": "x", "choices": [], "usage": COUNTS}
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_at_every_cut_the_usage_is_taken_out_and_nothing_else(end: bytes) -> None:
    before = event(chunk("hi", usage=None), end) + event(chunk("ho"), end)
    after = b"data: [DONE]" + end + end
    stream = before + event(HIDDEN, end) + after
    for cut in range(len(stream) + 1):
        assert passed(*chop(stream, cut)) == before + after
    assert passed(*(stream[i : i + 1] for i in range(len(stream)))) == before + after


@pytest.mark.parametrize(
    "data",
    [
        chunk("hi", usage=COUNTS),
        {"choices": [], "usage": None},
        {"choices": None, "usage": COUNTS},
        {"usage": COUNTS},
        {"choices": [], "prompt_filter_results": [{}]},
        {"choices": [], "usage": [1]},
        {"choices": [], "usage": 1},
        {"choices": [], "x": "usage"},
        chunk('"usage" "choices": []'),
        [HIDDEN],
    ],
    ids=lambda data: ascii(data)[:40],
)
def test_what_tells_anything_else_stays(data: Any) -> None:
    assert passed(event(data), DONE) == event(data) + DONE


@pytest.mark.parametrize(
    "usage",
    [
        b'data: {"\\u0063hoices":[],"usage":{}}\n\n',
        b'data:{"usage":{"total_tokens":1},"choices" : [\t]}\n\n',
    ],
)
def test_the_usage_is_found_however_it_is_written(usage: bytes) -> None:
    before = event(chunk("a\nb", usage=None))
    assert passed(before + usage + DONE) == before + DONE
    assert passed(before, usage, DONE) == before + DONE


@pytest.mark.parametrize(
    "stream",
    [
        b": comment\n\n" + DONE,
        b'data: {"usage" no JSON\n\n',
        b"event: ping\ndata: {}\n\n",
        b"",
        b"\n\n\n\n",
        b"no stream at all",
        event(chunk("hi")) + b'data: {"choices": [], "usage',
    ],
)
def test_odd_streams_pass(stream: bytes) -> None:
    assert passed(stream) == stream
    assert passed(*chop(stream, 1, 2, 7, 12)) == stream


def test_nothing_is_held_back_that_is_complete() -> None:
    hider = openai.usage_hider()
    assert hider.feed(event(chunk("hi"))) == event(chunk("hi"))
    assert hider.feed(event(HIDDEN)) == b""
    assert hider.feed(DONE) == DONE


def test_no_more_than_an_events_beginning_is_held_back() -> None:
    hider = openai.usage_hider()
    large = event(chunk("x" * 100_000))
    pieces = [large[i : i + 1000] for i in range(0, len(large), 1000)]
    held = fed = 0
    for piece in pieces:
        fed += len(piece)
        held += len(piece) - len(hider.feed(piece))
        assert held < 20_000
    assert held == 0
    assert fed == len(large)


def test_after_a_large_event_the_usage_is_still_taken_out() -> None:
    large = event(chunk("x" * 50_000))
    stream = large + event(HIDDEN) + DONE
    for size in (100, 16384, 16385, 60_000):
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert passed(*pieces) == large + DONE


SPOKEN = [
    *(event(chunk("é", usage=COUNTS)), event(chunk("x" * 20_000)), DONE),
    *(b": comment\n\n", b"data: nothing\n\n", event({"choices": []})),
]


@unhurried
@given(
    st.lists(st.sampled_from([*SPOKEN, event(HIDDEN)]), max_size=6),
    st.lists(st.integers(0, 30_000), max_size=6),
)
def test_any_stream_in_any_cuts(stream: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(stream)
    pieces = chop(whole, *(min(cut, len(whole)) for cut in cuts))
    expected = b"".join(piece for piece in stream if piece != event(HIDDEN))
    assert passed(*pieces) == expected


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"stream":true}', {"include_usage": True}),
        (b'{"stream_options":null}', {"include_usage": True}),
        (b'{"stream_options":{"include_usage":false}}', {"include_usage": True}),
        (
            b'{"stream_options":{"include_obfuscation":false}}',
            {"include_obfuscation": False, "include_usage": True},
        ),
        (b'{"stream_options":{"x":-0}}', {"x": 0, "include_usage": True}),
        (b'{"stream_options":"secret"}', {"include_usage": True}),
    ],
)
def test_the_usage_is_asked_for(body: bytes, options: dict[str, Any]) -> None:
    asked = msgspec.json.encode(openai.ask_for_usage(body))
    assert json.loads(asked) == {"stream_options": options}
