"""Streamed answers of OpenAI's Chat Completions API, read and written.

A chunk tells its deltas without saying what begins or ends. A block begins here when a
delta is of another kind than the last one, or of another call. The usage comes in a
chunk of its own behind the reason for stopping, in the last one with a choice, or, from
some providers, in every one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kongai.llm.chat import Losses, Thinking, Untranslatable
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
from kongai.llm.formats import Envelope, StreamDecoder, StreamEncoder
from kongai.llm.formats.openai.answers import (
    FINISH_REASONS,
    call_id,
    encode_answer,
    failure_of,
    stop_reason,
)
from kongai.llm.formats.openai.content import SIGNED, thinking_detail
from kongai.llm.formats.openai.errors import error_event, read_error
from kongai.llm.formats.openai.usage import (
    read_usage,
    usage_of,
    written_usage,
)
from kongai.llm.json_fields import UNREADABLE
from kongai.llm.usage import Usage
from kongai.sse import Decoder, ServerSentEvent, encode

_DONE = b"[DONE]"
_OF_CHUNKS = frozenset(
    {
        *("choices", "created", "error", "id", "model", "object", "obfuscation"),
        *("provider", "request_id", "service_tier", "sla_metrics"),
        *("system_fingerprint", "time_info", "usage", "usage_breakdown", "x_groq"),
    }
)
_KNOWN = frozenset(
    {
        "channel",
        "content",
        "function_call",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "role",
        "tool_calls",
    }
)


def stream_decoder() -> StreamDecoder:
    """A decoder for a streamed answer."""
    return _Decoder()


def stream_encoder(envelope: Envelope) -> StreamEncoder:
    """An encoder for a streamed answer."""
    return _Encoder(envelope)


def whole_of(stream: bytes) -> bytes | None:
    """A whole answer that says what a stream said, which is what Kong logs.

    Returns:
        None for what is no stream of this format.
    """
    decoder = _Decoder()
    try:
        events = [*decoder.feed(stream), *decoder.end()]
    except (Untranslatable, ValueError):
        return None
    answer = assemble(events)
    if not answer.parts:
        return None
    return encode_answer(answer, Envelope(answer.id or "", answer.model or "", 0))


def _chunk(data: bytes) -> dict[str, Any]:
    """A chunk; a usage that can't be read costs no answer, and is left out."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except UNREADABLE:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        for name in ("usage", "x_groq"):
            members.pop(name, None)
        return {name: msgspec.json.decode(raw) for name, raw in members.items()}


class _Decoder:
    def __init__(self) -> None:
        self.losses = Losses()
        self._events = Decoder()
        self._id: str | None = None
        self._started = self._ended = self._refused = False
        self._block: type[Event] | None = None
        self._calls: list[str | None] = []
        self._numbers: dict[int, int] = {}
        self._finish: str | None = None
        self._usage = Usage()

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete.

        Raises:
            Untranslatable: an event is no JSON.
            EventTooLarge: an event passed the limit.
        """
        return [
            event
            for received in self._events.feed(data)
            for event in self._received(received)
        ]

    def end(self) -> list[Event]:
        """There is no more; the events that were held back."""
        # Not every API of this format says [DONE], but each says why it stopped.
        return list(self._end()) if self._finish is not None else []

    def _received(self, event: ServerSentEvent) -> Iterator[Event]:
        if self._ended:
            return
        if event.data.strip() == _DONE:
            yield from self._end()
            return
        try:
            chunk = _chunk(event.data)
        except UNREADABLE:
            raise Untranslatable("an event of the stream is no JSON object") from None
        if chunk.get("error") is not None:
            self._ended = True
            yield read_error(0, chunk)
            return
        for name in chunk:
            if name not in _OF_CHUNKS and chunk[name]:
                self.losses.add(name)
        choices = _objects(chunk.get("choices"))
        if choices and not self._started:
            # Azure's first chunk has none, and neither id nor model.
            self._started = True
            self._id = _text(chunk, "id")
            yield Started(self._id, _text(chunk, "model"))
        usage = usage_of(chunk)
        tier = _text(chunk, "service_tier")
        self._usage.service_tier = tier or self._usage.service_tier
        if usage:
            # Some tell it in every chunk; what a broken stream has used is known then.
            read_usage(usage, self._usage)
            if self._usage.counted:
                yield Counted(self._usage)
        for choice in choices:
            if choice.get("index") in (None, 0):
                yield from self._choice(choice)
            else:
                self.losses.add("choices[1:]")

    def _choice(self, choice: dict[str, Any]) -> Iterator[Event]:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            for name in delta:
                if name not in _KNOWN and delta[name]:
                    self.losses.add(f"choices[].delta.{name}")
            yield from self._thinking(delta)
            yield from self._content(delta)
            for call in _objects(delta.get("tool_calls")):
                yield from self._call(call)
            legacy = delta.get("function_call")
            if isinstance(legacy, dict):
                yield from self._call({"index": 0, "function": legacy})
        self._finish = _text(choice, "finish_reason") or self._finish

    def _thinking(self, delta: dict[str, Any]) -> Iterator[Event]:
        text = _text(delta, "reasoning_content") or _text(delta, "reasoning")
        details = _objects(delta.get("reasoning_details"))
        if text:
            yield from self._begin(ThinkingStart)
            yield ThinkingDelta(text)
        for detail in details:
            if detail.get("format") != SIGNED:
                if detail.get("type") == "reasoning.encrypted":
                    self.losses.add("choices[].delta.reasoning_details")
                continue
            signature, data = _text(detail, "signature"), _text(detail, "data")
            if signature:
                yield from self._begin(ThinkingStart)
                yield Sealed(signature)
                self._block = None
            elif data:
                self._block = None
                yield ThinkingStart(data)

    def _content(self, delta: dict[str, Any]) -> Iterator[Event]:
        content = delta.get("content")
        if isinstance(content, str) and content:
            yield from self._text(content)
        for part in _objects(content):
            # Mistral's thinking models send parts.
            if part.get("type") == "thinking":
                for thought in _objects(part.get("thinking")):
                    yield from self._begin(ThinkingStart)
                    yield ThinkingDelta(_text(thought, "text") or "")
            elif _text(part, "text"):
                yield from self._text(part["text"])
        refusal = _text(delta, "refusal")
        if refusal:
            self._refused = True
            yield from self._text(refusal)

    def _text(self, text: str) -> Iterator[Event]:
        yield from self._begin(TextStart)
        yield TextDelta(text)

    def _begin(self, block: type[TextStart | ThinkingStart]) -> Iterator[Event]:
        if self._block is not block:
            self._block = block
            yield block()

    def _call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call.get("function")
        if not isinstance(function, dict):
            return
        index = call.get("index")
        id, name = _text(call, "id"), _text(function, "name")
        number = self._known_call(index, id, name)
        if number is None:
            number = len(self._calls)
            self._calls.append(id)
            self._block = ToolStart
            yield ToolStart(number, id or call_id(self._id, number), name or "")
        if isinstance(index, int):
            self._numbers[index] = number
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if isinstance(arguments, str) and arguments:
            yield ToolDelta(number, arguments)

    def _known_call(self, index: Any, id: str | None, name: str | None) -> int | None:
        """The number of the call that a piece is of; None if it begins another one."""
        if not isinstance(index, int):
            # Without an index, a new id or name is a new call.
            last = len(self._calls) - 1
            new = id != self._calls[last] if id and self._calls else bool(name)
            return None if new or not self._calls else last
        number = self._numbers.get(index)
        if number is None or not (id and name):
            return number
        # Gemini has the same index for all calls that it makes at once.
        return number if self._calls[number] in (None, id) else None

    def _end(self) -> Iterator[Event]:
        if self._ended or not self._started:
            return
        self._ended = True
        failure = failure_of(self._finish)
        if failure is not None:
            yield Failed(failure.status, failure.message)
            return
        yield Stopped(
            stop_reason(
                self._finish, with_calls=bool(self._calls), refused=self._refused
            )
        )
        yield Ended()


class _Encoder:
    def __init__(self, envelope: Envelope) -> None:
        self.losses = Losses()
        self._envelope = envelope
        self._id, self._model = envelope.id, envelope.model
        self._numbers: dict[int, int] = {}
        self._without_arguments: dict[int, None] = {}
        self._thought = Thinking()
        self._thinking: list[str] = []
        self._texts = 0
        self._cited = False
        self._usage: Usage | None = None
        self._reason: str | None = None

    def encode(self, events: Iterable[Event]) -> bytes:
        """The bytes for the client; empty where the events say nothing to it."""
        return b"".join(piece for event in events for piece in self._event(event))

    def still_there(self) -> bytes:
        """A comment, which clients skip."""
        return b": ping\n\n"

    def _event(self, event: Event) -> Iterator[bytes]:
        match event:
            case Started(id, model):
                self._id, self._model = id or self._id, model or self._model
                yield self._delta({"role": "assistant", "content": ""})
            case TextStart(cited):
                apart = self._texts and not (cited or self._cited)
                self._texts, self._cited = self._texts + 1, cited
                if apart:
                    yield self._delta({"content": "\n"})
            case TextDelta(text):
                yield self._delta({"content": text})
            case ThinkingStart(redacted):
                self._thought, self._thinking = Thinking(redacted=redacted), []
                if redacted is not None:
                    yield self._detail()
            case ThinkingDelta(text):
                self._thinking.append(text)
                yield self._delta({"reasoning_content": text})
            case Sealed(signature):
                self._thought.text = "".join(self._thinking)
                self._thought.signature = signature
                yield self._detail()
            case ToolStart(number, id, name):
                index = self._numbers.setdefault(number, len(self._numbers))
                self._without_arguments[index] = None
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id, "type": "function"}
                yield self._delta({"tool_calls": [{**call, "function": function}]})
            case ToolDelta(number, json):
                yield self._arguments(self._numbers.get(number, 0), json)
            case Counted(usage):
                self._usage = usage
            case Stopped(reason):
                self._reason = FINISH_REASONS[reason]
                if reason == "pause":
                    self.losses.add("stop_reason")
            case Ended():
                yield from self._end()
            case Failed(status, message):
                yield error_event(status, message, self._envelope.id)
            case StillThere():
                yield self.still_there()

    def _end(self) -> Iterator[bytes]:
        for index in list(self._without_arguments):
            # Clients read them as JSON, which an empty text is not.
            yield self._arguments(index, "{}")
        yield self._delta({}, self._reason or "stop")
        if self._envelope.usage_in_stream and self._usage is not None:
            yield self._chunk([], {"usage": written_usage(self._usage)})
        yield encode(ServerSentEvent(b"", _DONE))

    def _arguments(self, index: int, json: str) -> bytes:
        self._without_arguments.pop(index, None)
        call = {"index": index, "function": {"arguments": json}}
        return self._delta({"tool_calls": [call]})

    def _detail(self) -> bytes:
        return self._delta({"reasoning_details": [thinking_detail(self._thought)]})

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }
        return self._chunk([choice], {})

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._envelope.created,
            "model": self._model,
            "choices": choices,
            **more,
        }
        return encode(ServerSentEvent(b"", msgspec.json.encode(chunk)))


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) else None


def _objects(given: Any) -> list[dict[str, Any]]:
    """The objects of an array, or nothing of what is none."""
    items = given if isinstance(given, list) else []
    return [item for item in items if isinstance(item, dict)]
