"""Conversations there and back: what a format can say comes back as it was said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from kongai.llm.chat import ChatAnswer, ChatRequest, GaveUp, Losses, Untranslatable
from kongai.llm.events import Event, Failed, assemble, replay
from kongai.llm.formats import (
    Dialect,
    Envelope,
    Format,
    ProviderFormat,
    anthropic,
    ollama,
    openai,
)
from kongai.llm.request_body import BadBody
from kongai.llm.translate import Translation
from kongai.sse import Decoder
from kongai.testing import chop
from tests.llm import sayable, strategies as some

thorough = settings(
    deadline=None,
    max_examples=40,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ENVELOPE = Envelope("spare", "asked", 7, prompt_estimate=3, usage_in_stream=True)
OPENAI = Dialect(
    top_k=True,
    cache_points=True,
    past_reasoning="reasoning",
    reasoning="openrouter",
)
ANTHROPIC = Dialect(top_k=True, cache_points=True, reasoning="adaptive")
DIALECTS = [
    *(OPENAI, ANTHROPIC, Dialect(), Dialect(reasoning="effort", plain_text=True)),
    Dialect(reasoning="budget", default_max_tokens=4096, one_sampler=True),
    Dialect(sampling=False, short_call_ids=True, stream_usage=False),
]


class Side:
    """A format, the dialect that takes the most of it, and what it can say."""

    def __init__(
        self,
        format: Format,
        dialect: Dialect,
        said: sayable.Sayable,
        answered: Callable[[ChatAnswer], ChatAnswer],
    ) -> None:
        self.format = format
        self.dialect = dialect
        self.said = said
        self.answered = answered

    def passed(self, chat: ChatRequest) -> ChatRequest:
        """A request that was written in this format and read again."""
        body = self.format.encode_request(chat, self.dialect)
        json.loads(body.decode())
        return self.format.decode_request(body)

    def whole(self, answer: ChatAnswer) -> ChatAnswer:
        body = self.format.encode_answer(answer, ENVELOPE)
        json.loads(body.decode())
        return self.format.decode_answer(body)

    def streamed(
        self, events: Iterable[Event], cuts: list[int]
    ) -> tuple[ChatAnswer, list[str]]:
        """The answer that a stream tells, and what was lost in writing it."""
        encoder = self.format.stream_encoder(ENVELOPE)
        stream = encoder.encode(events)
        decoder = self.format.stream_decoder()
        pieces = chop(stream, *(min(cut, len(stream)) for cut in cuts))
        found = [event for piece in pieces for event in decoder.feed(piece)]
        assert decoder.losses.names() == []
        return assemble([*found, *decoder.end()]), encoder.losses.names()


SIDES = {
    "openai": Side(openai, OPENAI, sayable.in_openai, sayable.answer_in_openai),
    "anthropic": Side(
        anthropic, ANTHROPIC, sayable.in_anthropic, sayable.answer_in_anthropic
    ),
}
every_side = pytest.mark.parametrize("side", SIDES.values(), ids=SIDES.keys())
both_ways = pytest.mark.parametrize(
    ("here", "there"),
    [(SIDES["openai"], SIDES["anthropic"]), (SIDES["anthropic"], SIDES["openai"])],
    ids=["openai", "anthropic"],
)


def fresh(chat: ChatRequest) -> ChatRequest:
    return replace(deepcopy(chat), losses=Losses())


@every_side
@thorough
@given(chat=some.requests())
def test_a_request_comes_back_as_far_as_the_format_can_say_it(
    side: Side, chat: ChatRequest
) -> None:
    expected, lost = side.said(fresh(chat))
    back = side.passed(chat)
    assert back == expected
    assert back.losses.names() == []
    assert set(chat.losses.names()) == lost


@both_ways
@thorough
@given(chat=some.requests())
def test_a_request_comes_back_from_another_format(
    here: Side, there: Side, chat: ChatRequest
) -> None:
    expected, lost = here.said(fresh(chat))[0], set[str]()
    for side in (there, here):
        expected, more = side.said(expected)
        lost |= more
    first = here.passed(chat)
    second = there.passed(first)
    assert here.passed(second) == expected
    assert {*first.losses.names(), *second.losses.names()} == lost


def told(answer: ChatAnswer) -> tuple[ChatAnswer, Any]:
    return replace(answer, usage=None), sayable.counts(answer.usage)


@every_side
@thorough
@given(answer=some.answers())
def test_an_answer_comes_back_as_far_as_the_format_can_say_it(
    side: Side, answer: ChatAnswer
) -> None:
    back = side.whole(deepcopy(answer))
    expected, usage = told(side.answered(answer))
    assert told(back)[0] == expected
    assert usage is None or told(back)[1] == usage
    assert back.losses.names() == []


@both_ways
@thorough
@given(answer=some.answers())
def test_an_answer_comes_back_from_another_format(
    here: Side, there: Side, answer: ChatAnswer
) -> None:
    expected = told(here.answered(there.answered(here.answered(answer))))
    back = told(here.whole(there.whole(here.whole(answer))))
    assert back[0] == expected[0]
    assert answer.usage is None or back[1] == expected[1]


@every_side
@thorough
@given(answer=some.answers(), data=st.data())
def test_a_stream_tells_what_the_whole_answer_does(
    side: Side, answer: ChatAnswer, data: st.DataObject
) -> None:
    events = data.draw(some.streams_of(answer))
    cuts = data.draw(st.lists(st.integers(0, 5000), max_size=8))
    streamed, lost = side.streamed(events, cuts)
    assert told(streamed) == told(side.whole(answer))
    assert lost == answer.losses.names()


# What no client or provider should send


FORMATS: list[ProviderFormat] = [openai, anthropic, ollama]
CLIENTS: list[Format] = [openai, anthropic]
odd_bodies = (
    st.binary(max_size=60)
    | st.text(r'{}[]:,"\role content1', max_size=40).map(str.encode)
    | some.odd_objects.map(json.dumps).map(str.encode)
)


def as_events(values: Iterable[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values)


odd_streams = (
    st.binary(max_size=60)
    | st.lists(some.odd_objects, max_size=4).map(as_events)
    | st.lists(some.odd_objects.map(json.dumps), max_size=4)
    .map("\n".join)
    .map(str.encode)
)


def requests_pass(format: Format, body: bytes) -> None:
    """Whatever can be read can be written everywhere, or is refused."""
    try:
        facts = format.read_request(body)
    except BadBody:
        facts = None
    if facts is not None and facts.exact:
        json.loads(msgspec.json.encode(dict(format.ask_for_usage(body))))
    for path in format.LOCAL_PATHS:
        with suppress(Untranslatable):
            json.loads(format.answer_locally(path, body))
    for other in FORMATS:
        for dialect in DIALECTS:
            with suppress(Untranslatable):
                translation = Translation(format, other, format.decode_request(body))
                json.loads(translation.request(dialect).decode())


def answers_pass(format: ProviderFormat, body: bytes) -> None:
    for client in CLIENTS:
        with suppress(Untranslatable, GaveUp):
            answer = format.decode_answer(body)
            json.loads(client.encode_answer(answer, ENVELOPE).decode())


def streams_pass(format: ProviderFormat, stream: bytes, cuts: list[int]) -> None:
    pieces = chop(stream, *(min(cut, len(stream)) for cut in cuts))
    for client in CLIENTS:
        translation = Translation(client, format, ChatRequest())
        translator = translation.stream(ENVELOPE)
        with suppress(Untranslatable):
            for piece in [*pieces]:
                translator.translate(piece).decode()
                if translator.failure is not None:
                    assert not translator.finished
                    break
            else:
                translator.end().decode()
        assert translator.usage.completion_tokens >= 0
        with suppress(Untranslatable, GaveUp):
            _, answer = translation.assembled(stream, ENVELOPE)
            assert translation.usage(answer).completion_tokens >= 0
        client.usage_hider().feed(stream)
        client.whole_of(stream)


def readers_pass(format: ProviderFormat, body: bytes) -> None:
    for reader in (format.whole_reader(), format.stream_reader()):
        reader.feed(body)
        reader.end()
        assert reader.usage.completion_tokens >= 0


@thorough
@given(odd_bodies)
def test_odd_requests_are_refused_or_pass(body: bytes) -> None:
    for format in CLIENTS:
        requests_pass(format, body)


@thorough
@given(odd_bodies)
def test_odd_answers_are_refused_or_pass(body: bytes) -> None:
    for format in FORMATS:
        answers_pass(format, body)
        readers_pass(format, body)


@thorough
@given(odd_streams, st.lists(st.integers(0, 200), max_size=4))
def test_odd_streams_are_refused_or_pass(stream: bytes, cuts: list[int]) -> None:
    for format in FORMATS:
        streams_pass(format, stream, cuts)
        readers_pass(format, stream)


@thorough
@given(odd_bodies, st.sampled_from([0, 400, 429, 500, 529]))
def test_odd_errors_are_errors(body: bytes, status: int) -> None:
    for format in FORMATS:
        failed = format.decode_error(status, body)
        assert isinstance(failed, Failed)
        assert failed.message
        assert failed.status == status or (status == 0 and failed.status >= 400)
        for client in CLIENTS:
            json.loads(client.error_body(failed.status, failed.message, "r"))


@every_side
@thorough
@given(chat=some.requests(), data=st.data())
def test_a_request_with_something_wrong_is_refused_or_passes(
    side: Side, chat: ChatRequest, data: st.DataObject
) -> None:
    body = json.loads(side.format.encode_request(chat, side.dialect))
    wrong = data.draw(some.damaged(body))
    requests_pass(side.format, json.dumps(wrong).encode())


@every_side
@thorough
@given(answer=some.answers(), data=st.data())
def test_an_answer_with_something_wrong_is_refused_or_passes(
    side: Side, answer: ChatAnswer, data: st.DataObject
) -> None:
    body = json.loads(side.format.encode_answer(answer, ENVELOPE))
    wrong = json.dumps(data.draw(some.damaged(body))).encode()
    answers_pass(side.format, wrong)
    readers_pass(side.format, wrong)


@every_side
@thorough
@given(answer=some.answers(), data=st.data())
def test_a_stream_with_something_wrong_is_refused_or_passes(
    side: Side, answer: ChatAnswer, data: st.DataObject
) -> None:
    written = side.format.stream_encoder(ENVELOPE).encode(replay(answer))
    events = [event.data for event in Decoder().feed(written)]
    values = [json.loads(event) for event in events if event != b"[DONE]"]
    stream = as_events(data.draw(some.damaged_items(values)))
    streams_pass(side.format, stream, data.draw(st.lists(st.integers(0, 999))))
    readers_pass(side.format, stream)
