"""Exchanges between a client and a provider of different formats, through every cut.

A case is a directory of corpus/translations/CLIENT-PROVIDER. It holds the client's
request.json; dialect.json, what the provider takes beyond the usual; and what becomes
of the request: expected_request.json, or expected_refusal.json with the reason why it
can't be said. The provider's answer is response.json (whole), response.sse or
response.ndjson (streamed); what the client gets is expected_response with the ending
of its own format, or expected_failure.json has the reason why there is none.
expected_dropped.json names what could not be said, on both ways together, and
changed_on_return.json what of the request is another one after it has been translated
there and back again. Without these two, nothing is.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kongai import registry
from kongai.llm.chat import (
    INVALID_JSON,
    ChatAnswer,
    ChatRequest,
    GaveUp,
    Text,
    Thinking,
    ToolCall,
    Untranslatable,
)
from kongai.llm.events import Event, assemble
from kongai.llm.formats import Dialect, Envelope, Format, ProviderFormat
from kongai.llm.translate import StreamTranslator, Translation
from kongai.testing import chop, events

CORPUS = Path(__file__).parent / "corpus" / "translations"
PAIRS = ("anthropic-ollama", "anthropic-openai", "openai-anthropic", "openai-ollama")
CASES = sorted(path.parent for path in CORPUS.glob("*/*/request.json"))
REFUSED = [case for case in CASES if (case / "expected_refusal.json").exists()]
SAID = [case for case in CASES if case not in REFUSED]
FAILED = [case for case in CASES if (case / "expected_failure.json").exists()]
WHOLE = [case for case in SAID if (case / "response.json").exists()]
STREAMS = [
    case
    for case in SAID
    if (case / "response.sse").exists() or (case / "response.ndjson").exists()
]
TOLD = [case for case in STREAMS if case not in FAILED]
BOTH = [case for case in TOLD if case in WHOLE]
ANSWERED = [case for case in WHOLE if case not in FAILED]
THERE_AND_BACK = [case for case in SAID if not case.parent.name.endswith("-ollama")]

INPUTS = {"request.json", "dialect.json"}
STREAMED = {"response.sse", "response.ndjson"}
OUTPUTS = {
    "expected_request.json",
    "expected_refusal.json",
    "expected_response.json",
    "expected_response.sse",
    "expected_failure.json",
    "expected_dropped.json",
    "changed_on_return.json",
}
SHORT = 1500
"""Streams of up to so many bytes are cut at every place, longer ones at every 7th."""
DONE = b"data: [DONE]\n\n"
TAKES_ALL = {
    "anthropic": Dialect(top_k=True, reasoning="budget", cache_points=True),
    "openai": Dialect(
        top_k=True,
        reasoning="openrouter",
        past_reasoning="reasoning",
        cache_points=True,
    ),
}
"""Dialects in which a format says all that it can."""


def each(cases: Iterable[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", list(cases), ids=lambda case: f"{case.parent.name}-{case.name}"
    )


def loaded(case: Path, name: str, default: Any = None) -> Any:
    path = case / name
    return json.loads(path.read_bytes()) if path.exists() else default


def formats(case: Path) -> tuple[Format, ProviderFormat]:
    client, _, provider = case.parent.name.partition("-")
    return registry.format(client), registry.provider_format(provider)


def dialect(case: Path) -> Dialect:
    return Dialect(**loaded(case, "dialect.json", {}))


def asked(case: Path) -> tuple[Translation, bytes]:
    """The translation of a case, and the request for the provider."""
    client, provider = formats(case)
    chat = client.decode_request((case / "request.json").read_bytes())
    translation = Translation(client, provider, chat)
    return translation, translation.request(dialect(case))


def envelope(translation: Translation) -> Envelope:
    return Envelope(
        id="msg_given",
        model=translation.chat.model or "",
        created=1767225600,
        prompt_estimate=translation.prompt_estimate,
        usage_in_stream=translation.chat.usage_in_stream,
    )


def stream_of(case: Path) -> bytes:
    (name,) = (name for name in STREAMED if (case / name).exists())
    return (case / name).read_bytes()


def streamed(
    translation: Translation, pieces: Iterable[bytes]
) -> tuple[bytes, StreamTranslator]:
    """What the client gets of a stream that comes in pieces."""
    translator = translation.stream(envelope(translation))
    told = [translator.translate(piece) for piece in pieces]
    told.append(translator.end())
    if translator.failure is not None:
        raise translator.failure
    return b"".join(told), translator


def spoken(stream: bytes) -> list[tuple[str, Any]]:
    """The events of a stream, as a reader finds them that kongai has no part in."""
    done = [("message", "[DONE]")] if stream.endswith(DONE) else []
    return [*events([stream.removesuffix(DONE)]), *done]


def comments(stream: bytes) -> int:
    """How many there are; they are no events, but keep a client waiting."""
    return sum(line.startswith(b":") for line in stream.splitlines())


def provider_events(case: Path) -> list[Event]:
    decoder = formats(case)[1].stream_decoder()
    return [*decoder.feed(stream_of(case)), *decoder.end()]


def client_answer(case: Path, stream: bytes) -> ChatAnswer:
    """The answer that a client puts together from its stream."""
    decoder = formats(case)[0].stream_decoder()
    answer = assemble([*decoder.feed(stream), *decoder.end()])
    if case.parent.name.startswith("openai-"):
        # A message of OpenAI's has one text, wherever its pieces came.
        texts = [part for part in answer.parts if isinstance(part, Text)]
        calls = [part for part in answer.parts if isinstance(part, ToolCall)]
        thoughts = [part for part in answer.parts if isinstance(part, Thinking)]
        text = "".join(part.text for part in texts)
        answer.parts = [*thoughts, *([Text(text)] if text else []), *calls]
    return answer


def dropped(case: Path) -> list[str]:
    """What could not be said, of the request and of each answer to it."""
    translation, _ = asked(case)
    names = translation.chat.losses.names()
    if case in ANSWERED:
        body = (case / "response.json").read_bytes()
        _, answer = translation.answer(body, envelope(translation))
        names += answer.losses.names()
    if case in TOLD:
        _, translator = streamed(translation, [stream_of(case)])
        names += translator.losses()
    return list(dict.fromkeys(names))


def test_there_are_cases_of_every_pair() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(PAIRS)
    for pair, count in zip(PAIRS, (25, 80, 75, 18), strict=True):
        assert len([case for case in CASES if case.parent.name == pair]) >= count
    assert len(BOTH) >= 50


@each(sorted(CORPUS.glob("*/*")))
def test_no_file_of_a_case_is_unused(case: Path) -> None:
    names = {path.name for path in case.iterdir()}
    assert names <= INPUTS | STREAMED | OUTPUTS | {"response.json"}
    answers = names & (STREAMED | {"response.json"})
    assert len(names & STREAMED) <= 1
    assert ("expected_request.json" in names) != ("expected_refusal.json" in names)
    if "expected_refusal.json" in names:
        assert not answers | (names & OUTPUTS) - {"expected_refusal.json"}
    elif "expected_failure.json" in names:
        assert len(answers) == 1
        assert not names & {"expected_response.json", "expected_response.sse"}
    else:
        assert ("response.json" in names) == ("expected_response.json" in names)
        assert bool(names & STREAMED) == ("expected_response.sse" in names)
    for empty in {"expected_dropped.json", "changed_on_return.json"} & names:
        assert loaded(case, empty)


@each(SAID)
def test_the_request(case: Path) -> None:
    _, request = asked(case)
    assert json.loads(request) == loaded(case, "expected_request.json")


@each(REFUSED)
def test_a_request_that_can_t_be_said(case: Path) -> None:
    with pytest.raises(Untranslatable) as caught:
        asked(case)
    assert str(caught.value) == loaded(case, "expected_refusal.json")["reason"]


@each(SAID)
def test_what_is_left_out_is_named(case: Path) -> None:
    assert dropped(case) == loaded(case, "expected_dropped.json", [])


@each(ANSWERED)
def test_a_whole_answer(case: Path) -> None:
    translation, _ = asked(case)
    body = (case / "response.json").read_bytes()
    written, _ = translation.answer(body, envelope(translation))
    assert json.loads(written) == loaded(case, "expected_response.json")


@each(TOLD)
def test_a_stream(case: Path) -> None:
    expected = spoken((case / "expected_response.sse").read_bytes())
    written, translator = streamed(asked(case)[0], [stream_of(case)])
    assert spoken(written) == expected
    assert comments(written) == comments((case / "expected_response.sse").read_bytes())
    assert translator.finished


@each(TOLD)
def test_a_stream_at_every_cut(case: Path) -> None:
    """The same bytes, so the same events."""
    translation, _ = asked(case)
    data = stream_of(case)
    whole, _ = streamed(translation, [data])
    step = 1 if len(data) <= SHORT else 7
    for cut in range(0, len(data) + 1, step):
        assert streamed(translation, chop(data, cut))[0] == whole
    one_by_one = [data[index : index + 1] for index in range(len(data))]
    assert streamed(translation, one_by_one)[0] == whole
    chance = random.Random(case.name)
    for _ in range(20):
        cuts = sorted(chance.sample(range(len(data)), 5))
        assert streamed(translation, chop(data, *cuts))[0] == whole


@each(FAILED)
def test_an_answer_that_is_none(case: Path) -> None:
    translation, _ = asked(case)
    reason = loaded(case, "expected_failure.json")["reason"]
    if case in WHOLE:
        with pytest.raises(Untranslatable) as caught:
            translation.answer(
                (case / "response.json").read_bytes(), envelope(translation)
            )
        assert str(caught.value) == reason
        return
    data = stream_of(case)
    for cut in range(len(data) + 1):
        with pytest.raises(Untranslatable) as caught:
            streamed(translation, chop(data, cut))
        assert str(caught.value) == reason


@each(TOLD)
def test_a_stream_keeps_to_the_rules_of_its_format(case: Path) -> None:
    written, _ = streamed(asked(case)[0], [stream_of(case)])
    if case.parent.name.startswith("anthropic-"):
        keeps_anthropics_rules(spoken(written))
    else:
        keeps_openais_rules(spoken(written))


def keeps_anthropics_rules(spoken: list[tuple[str, Any]]) -> None:
    """https://docs.claude.com/en/docs/build-with-claude/streaming"""
    assert all(name == fields["type"] for name, fields in spoken)
    said = [fields for name, fields in spoken if name != "ping"]
    kinds = [fields["type"] for fields in said]
    if kinds[-1] == "error":
        assert set(said[-1]) == {"type", "error", "request_id"}
        # What had begun is left open.
        if len(kinds) == 1:
            return
    else:
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert kinds.count("message_delta") == kinds.count("message_stop") == 1
    assert kinds[0] == "message_start"
    assert kinds.count("message_start") == 1
    index, json_so_far = -1, ""
    current: Any = None
    for fields in said[1:]:
        kind = fields["type"]
        if kind == "content_block_start":
            assert current is None
            index, current, json_so_far = index + 1, fields["content_block"], ""
        if kind.startswith("content_block"):
            assert current is not None
            assert fields["index"] == index
        if kind == "content_block_delta":
            assert fields["delta"]["type"] in DELTAS[current["type"]]
            json_so_far += fields["delta"].get("partial_json", "")
        if kind == "content_block_stop":
            if current["type"] == "tool_use" and not was_cut_short(said):
                assert isinstance(json.loads(json_so_far), dict)
            current = None
    assert kinds[-1] == "error" or current is None


DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "redacted_thinking": set(),
    "tool_use": {"input_json_delta"},
}


def was_cut_short(said: list[dict[str, Any]]) -> bool:
    """Whether the limit of tokens was reached, in the middle of a call it may be."""
    return any(
        fields["delta"]["stop_reason"] == "max_tokens"
        for fields in said
        if fields["type"] == "message_delta"
    )


def keeps_openais_rules(spoken: list[tuple[str, Any]]) -> None:
    """The reference of Chat Completions, on streaming."""
    assert {name for name, _ in spoken} == {"message"}
    *chunks, last = [fields for _, fields in spoken]
    if last != "[DONE]":
        assert set(last) == {"error"}
    elif not chunks[-1]["choices"]:
        assert chunks.pop()["usage"]
    assert len({(chunk["id"], chunk["model"]) for chunk in chunks}) <= 1
    reasons: list[Any] = []
    calls: set[int] = set()
    for chunk in chunks:
        (choice,) = chunk["choices"]
        reasons.append(choice["finish_reason"])
        for call in choice["delta"].get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                calls.add(call["index"])
            assert call["index"] in calls
    assert not any(reasons[:-1])
    assert last != "[DONE]" or reasons[-1]
    if chunks:
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


@each(BOTH)
def test_a_stream_says_what_the_whole_answer_says(case: Path) -> None:
    _, provider = formats(case)
    whole = provider.decode_answer((case / "response.json").read_bytes())
    told = assemble(provider_events(case))
    assert as_understood(told) == as_understood(whole)


@each(ANSWERED)
def test_a_whole_answer_told_as_a_stream(case: Path) -> None:
    translation, _ = asked(case)
    body = (case / "response.json").read_bytes()
    if case.name == "arguments_that_are_no_json_whole":
        with pytest.raises(Untranslatable, match="no JSON object"):
            translation.replayed(body, envelope(translation))
        return
    stream, _ = translation.replayed(body, envelope(translation))
    whole = (case / "expected_response.json").read_bytes()
    expected = formats(case)[0].decode_answer(whole)
    if not translation.chat.usage_in_stream:
        expected.usage = None
    assert as_understood(client_answer(case, stream)) == as_understood(expected)


@each(TOLD)
def test_a_stream_told_as_a_whole_answer(case: Path) -> None:
    translation, _ = asked(case)
    stream, translator = streamed(translation, [stream_of(case)])
    if any(name == "error" or "error" in fields for name, fields in spoken(stream)):
        with pytest.raises(GaveUp):
            translation.assembled(stream_of(case), envelope(translation))
        return
    body, answer = translation.assembled(stream_of(case), envelope(translation))
    whole = formats(case)[0].decode_answer(body)
    if not translation.chat.usage_in_stream or not translator.usage.counted:
        whole.usage = None
    told = client_answer(case, stream)
    if not translator.usage.counted:
        told.usage = None
    assert as_understood(told) == as_understood(whole)
    assert (answer.usage is not None) == translator.usage.counted


def as_understood(answer: ChatAnswer) -> ChatAnswer:
    """An answer with its calls as clients understand them, however they are spaced."""
    answer = copy.deepcopy(answer)
    for part in answer.parts:
        if isinstance(part, ToolCall):
            part.arguments = understood(part.arguments)
    return answer


def understood(arguments: str) -> str:
    try:
        found = json.loads(arguments)
    except ValueError:
        return arguments
    return str(found.get(INVALID_JSON, json.dumps(found)))


@each(THERE_AND_BACK)
def test_what_a_request_is_after_it_has_been_there_and_back(case: Path) -> None:
    client, provider = case.parent.name.split("-")
    decode, encode = registry.format(client), registry.format(provider)
    chat = decode.decode_request((case / "request.json").read_bytes())
    there = encode.encode_request(copy.deepcopy(chat), TAKES_ALL[provider])
    back = encode.decode_request(there)
    changed = sorted(set(changes(members(chat), members(back))))
    assert changed == loaded(case, "changed_on_return.json", [])


def members(chat: ChatRequest) -> dict[str, Any]:
    """A request as plain data; the texts of JSON as what they mean."""
    found = dataclasses.asdict(chat)
    del found["losses"]
    if not chat.stream:
        del found["usage_in_stream"]
    return {name: meant(value) for name, value in found.items()}


def meant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: meant(item) for key, item in value.items()}
    if isinstance(value, list):
        return [meant(item) for item in value]
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def changes(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two pieces of data differ; the places of a list have the same name."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from changes(one[key], other[key], f"{path}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for first, second in zip(one, other, strict=True):
            yield from changes(first, second, f"{path}[]")
    elif one != other:
        yield path
