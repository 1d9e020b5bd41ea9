"""Streamed answers of Anthropic's Messages API, read and written.

What is written keeps the API's order: `message_start`; blocks one after the other, each
started, filled and stopped before the next one starts; `message_delta` with the reason
and the usage; `message_stop`. Providers of other formats may send calls of tools in
turns, and tell the usage last: pieces of a call whose turn has not come wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any

import msgspec

from kongai.llm.chat import Losses, StopReason, Untranslatable
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
)
from kongai.llm.formats import Envelope, StreamDecoder, StreamEncoder
from kongai.llm.formats.anthropic.answers import (
    REASONS,
    STOP_REASONS,
    written_usage,
)
from kongai.llm.formats.anthropic.content import safe_id
from kongai.llm.formats.anthropic.errors import decode_error, error_event
from kongai.llm.formats.anthropic.reading import (
    GivenUsage,
    decode_usage,
    read_completion,
    read_prompt,
)
from kongai.llm.json_fields import UNREADABLE, object_text
from kongai.llm.usage import Usage, estimate_tokens
from kongai.sse import Decoder, ServerSentEvent, encode

_NONE = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = _NONE


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    data: str | None = None
    citations: Any = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None
    container: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = _NONE
    context_management: Any = None


_DELTAS = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta")
_decode = msgspec.json.Decoder(_Event).decode


def stream_decoder() -> StreamDecoder:
    """A decoder for a streamed answer."""
    return _Decoder()


def stream_encoder(envelope: Envelope) -> StreamEncoder:
    """An encoder for a streamed answer."""
    return _Encoder(envelope)


def _given_usage(raw: msgspec.Raw) -> GivenUsage | None:
    """The usage that an event tells; one that can't be read costs no answer."""
    try:
        return decode_usage(raw)
    except UNREADABLE:
        return None


class _Decoder:
    def __init__(self) -> None:
        self.losses = Losses()
        self._events = Decoder()
        self._usage = Usage()
        self._skipped: set[int] = set()

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
        """There is no more, and nothing was held back."""
        return []

    def _received(self, received: ServerSentEvent) -> Iterator[Event]:
        try:
            event = _decode(received.data)
        except UNREADABLE:
            raise Untranslatable("an event of the stream is no JSON object") from None
        match event.type:
            case "message_start":
                message = event.message or _Message()
                yield Started(message.id, message.model)
                given = _given_usage(message.usage)
                if given is not None:
                    # The prompt's tokens hold, should the stream break off.
                    read_prompt(self._usage, given)
                    yield Counted(copy(self._usage))
            case "content_block_start" if event.content_block is not None:
                yield from self._begun(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                yield from self._delta(event.index, event.delta)
            case "message_delta":
                given = _given_usage(event.usage)
                if given is not None:
                    read_prompt(self._usage, given)
                    read_completion(self._usage, given)
                if event.context_management:
                    self.losses.add("context_management")
                if event.delta is not None:
                    yield from self._stopped(event.delta)
                if given is not None and self._usage.counted:
                    yield Counted(copy(self._usage))
            case "message_stop":
                yield Ended()
            case "error":
                yield decode_error(0, received.data)
            case "ping":
                yield StillThere()

    def _stopped(self, delta: _Delta) -> Iterator[Event]:
        for name in ("container", "stop_details"):
            if getattr(delta, name):
                self.losses.add(name)
        if delta.stop_reason:
            reason = REASONS.get(delta.stop_reason, "end")
            yield Stopped(reason, delta.stop_sequence)

    def _begun(self, index: int, block: _Block) -> Iterator[Event]:
        if block.type == "text":
            yield TextStart(cited=block.citations is not None)
            if block.text:
                yield TextDelta(block.text)
        elif block.type == "thinking":
            yield ThinkingStart()
        elif block.type == "redacted_thinking":
            yield ThinkingStart(block.data)
        elif block.type == "tool_use":
            yield ToolStart(index, block.id, block.name)
        else:
            self.losses.add(f"content[{block.type}]")
            self._skipped.add(index)

    def _delta(self, index: int, delta: _Delta) -> Iterator[Event]:
        if index in self._skipped:
            return
        if delta.type == "text_delta":
            yield TextDelta(delta.text)
        elif delta.type == "thinking_delta":
            yield ThinkingDelta(delta.thinking)
        elif delta.type == "signature_delta" and delta.signature:
            yield Sealed(delta.signature)
        elif delta.type == "input_json_delta" and delta.partial_json:
            yield ToolDelta(index, delta.partial_json)
        elif delta.type == "citations_delta":
            self.losses.add("content[].citations")
        elif delta.type not in _DELTAS:
            self.losses.add(f"content[].delta[{delta.type}]")


class _Encoder:
    def __init__(self, envelope: Envelope) -> None:
        self.losses = Losses()
        self._envelope = envelope
        self._index = -1
        self._open: str | None = None
        self._call: int | None = None
        self._arguments: dict[int, list[str]] = {}
        self._waiting: dict[int, ToolStart] = {}
        self._held: list[Event] = []
        self._characters = 0
        self._usage: Usage | None = None
        self._stop: Stopped | None = None

    def encode(self, events: Iterable[Event]) -> bytes:
        """The bytes for the client; empty where the events say nothing to it.

        Raises:
            Untranslatable: a call of a tool has arguments that are no JSON object, or
                some that come too late.
        """
        return b"".join(piece for event in events for piece in self._event(event))

    def still_there(self) -> bytes:
        """A `ping`, as Anthropic sends it."""
        return _written("ping", {})

    def _event(self, event: Event) -> Iterator[bytes]:
        if self._must_wait(event):
            self._held.append(event)
            return
        match event:
            case Started(id, model):
                yield self._message_start(id, model)
            case TextStart():
                yield from self._stop_calls()
                yield from self._begin("text", {"type": "text", "text": ""})
            case TextDelta(text):
                self._characters += len(text)
                yield self._fill({"type": "text_delta", "text": text})
            case ThinkingStart(None):
                yield from self._stop_calls()
                block = {"type": "thinking", "thinking": "", "signature": ""}
                yield from self._begin("thinking", block)
            case ThinkingStart(data):
                yield from self._stop_calls()
                yield from self._begin(
                    "thinking", {"type": "redacted_thinking", "data": data}
                )
            case ThinkingDelta(text):
                self._characters += len(text)
                yield self._fill({"type": "thinking_delta", "thinking": text})
            case Sealed(signature):
                yield self._fill({"type": "signature_delta", "signature": signature})
            case ToolStart():
                yield from self._tool_start(event)
            case ToolDelta(number, json):
                yield from self._tool_delta(number, json)
            case Counted(usage):
                self._usage = usage
            case Stopped():
                self._stop = event
            case Ended():
                yield from self._end()
            case Failed(status, message):
                yield error_event(status, message, self._envelope.id)
            case StillThere():
                yield self.still_there()

    def _must_wait(self, event: Event) -> bool:
        """Whether it is text that came among the pieces of a call."""
        if isinstance(event, TextDelta):
            return bool(self._held)
        return isinstance(event, TextStart) and self._is_in_a_call()

    def _is_in_a_call(self) -> bool:
        """Whether some of a call's arguments have come, and not all."""
        open_calls = [] if self._call is None else [self._call]
        return any(
            self._arguments[number] and not self._is_complete(number)
            for number in (*open_calls, *self._waiting)
        )

    def _let_go(self) -> Iterator[bytes]:
        held, self._held = self._held, []
        for event in held:
            yield from self._event(event)

    def _message_start(self, id: str | None, model: str | None) -> bytes:
        message: dict[str, Any] = {
            "id": id or self._envelope.id,
            "type": "message",
            "role": "assistant",
            "model": model or self._envelope.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": written_usage(Usage(self._envelope.prompt_estimate)),
        }
        return _written("message_start", {"message": message})

    def _begin(self, kind: str, block: dict[str, Any]) -> Iterator[bytes]:
        yield from self._stop_block()
        self._index, self._open = self._index + 1, kind
        yield _written(
            "content_block_start", {"index": self._index, "content_block": block}
        )

    def _fill(self, delta: dict[str, Any]) -> bytes:
        return _written("content_block_delta", {"index": self._index, "delta": delta})

    def _stop_block(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._call is not None:
            yield from self._complete(self._call)
            self._call = None
        self._open = None
        yield _written("content_block_stop", {"index": self._index})

    def _complete(self, number: int) -> Iterator[bytes]:
        """Make sure that the arguments of a call are an object."""
        if not "".join(self._arguments[number]).strip():
            yield self._fill({"type": "input_json_delta", "partial_json": "{}"})
        elif not self._is_complete(number) and self._reason() != "length":
            raise Untranslatable("the arguments of a tool call are no JSON object")

    def _is_complete(self, number: int) -> bool:
        return object_text("".join(self._arguments[number])) is not None

    def _tool_start(self, start: ToolStart) -> Iterator[bytes]:
        self._arguments[start.number] = []
        self._characters += len(start.name)
        busy = self._call is not None and not self._is_complete(self._call)
        if busy or self._waiting:
            self._waiting[start.number] = start
            return
        yield from self._tool_block(start)

    def _tool_block(self, start: ToolStart) -> Iterator[bytes]:
        block = {"type": "tool_use", "id": safe_id(start.id), "name": start.name}
        yield from self._begin("tool", {**block, "input": {}})
        self._call = start.number

    def _tool_delta(self, number: int, json: str) -> Iterator[bytes]:
        if number not in self._arguments:
            return
        if number != self._call and number not in self._waiting and json.strip():
            raise Untranslatable("arguments of a tool call came behind its end")
        self._characters += len(json)
        self._arguments[number].append(json)
        if number == self._call:
            yield self._fill({"type": "input_json_delta", "partial_json": json})
        if self._held and not self._is_in_a_call():
            yield from self._let_go()

    def _stop_calls(self) -> Iterator[bytes]:
        """Stop the block that is open, and write the calls that waited for it."""
        yield from self._stop_block()
        for start in self._waiting.values():
            yield from self._tool_block(start)
            json = "".join(self._arguments[start.number])
            if json:
                yield self._fill({"type": "input_json_delta", "partial_json": json})
            yield from self._stop_block()
        self._waiting.clear()

    def _end(self) -> Iterator[bytes]:
        yield from self._stop_calls()
        yield from self._let_go()
        yield from self._stop_block()
        usage = self._usage
        if usage is None or not usage.counted:
            estimate = estimate_tokens(self._characters)
            usage = Usage(self._envelope.prompt_estimate, estimate)
        delta = {
            "stop_reason": STOP_REASONS[self._reason()],
            "stop_sequence": self._stop.sequence if self._stop else None,
        }
        yield _written("message_delta", {"delta": delta, "usage": written_usage(usage)})
        yield _written("message_stop", {})

    def _reason(self) -> StopReason:
        return self._stop.reason if self._stop else "end"


def _written(kind: str, fields: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": kind, **fields})
    return encode(ServerSentEvent(kind.encode(), data))
