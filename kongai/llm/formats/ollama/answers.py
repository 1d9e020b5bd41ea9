"""Answers of Ollama's chat API, read whole and line by line, and its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kongai.llm.chat import ChatAnswer, Losses, StopReason, Untranslatable
from kongai.llm.errors import TOO_LONG, plain_message
from kongai.llm.events import (
    Counted,
    Ended,
    Event,
    Failed,
    Started,
    Stopped,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolDelta,
    ToolStart,
    assemble,
)
from kongai.llm.formats import StreamDecoder
from kongai.llm.formats.ollama.reading import Call, Line, Message, parse, read_counts
from kongai.llm.json_fields import UNREADABLE
from kongai.llm.ndjson import Decoder
from kongai.llm.usage import Usage

_BAD_GATEWAY = 502
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_DIGITS = re.compile(r"[^0-9]+")
_MOST_DIGITS = 32


def decode_answer(body: bytes) -> ChatAnswer:
    """Read a whole answer.

    Raises:
        Untranslatable: it is none; the text says what is missing, in Kong's words.
    """
    line = _line(body)
    if line.message is None:
        raise Untranslatable("'message' not in ollama response")
    line.done = True
    return assemble(_Telling().events(line))


def stream_decoder() -> StreamDecoder:
    """A decoder for a streamed answer."""
    return _StreamDecoder()


def decode_error(status: int, body: bytes) -> Failed:
    """Read an error of the API, or whatever came in place of one."""
    if status < 400:
        status = _BAD_GATEWAY
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE:
        return Failed(status, plain_message(status, body))
    return _failed(status, found.get("error"))


def _failed(status: int, error: Any) -> Failed:
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str) or not message:
        message = plain_message(status, b"")
    if "context length" in message:
        message = f"{TOO_LONG}: {message}"
    return Failed(status, message)


def _line(text: bytes) -> Line:
    try:
        return parse(text)
    except UNREADABLE:
        raise Untranslatable("failed to decode ollama response") from None


def _arguments(given: msgspec.Raw) -> str:
    """A call's arguments as text; some imitations of the API write them as one."""
    text = bytes(given).decode()
    if text.startswith('"'):
        text = msgspec.json.decode(text, type=str)
    return "{}" if text in ("", "null") else text


class _Telling:
    """Tells the lines of one answer as events."""

    def __init__(self) -> None:
        self._started = False
        self._stamp = ""
        self._calls = 0
        self._block: type[TextStart] | type[ThinkingStart] | None = None

    def events(self, line: Line) -> Iterator[Event]:
        if not self._started:
            self._started = True
            self._stamp = _NO_DIGITS.sub("", line.created_at or "")[:_MOST_DIGITS]
            yield Started(None, line.model)
        if line.message is not None:
            yield from self._message(line.message)
        if line.done:
            yield Stopped(self._reason(line))
            usage = Usage()
            read_counts(line, usage)
            if usage.counted:
                yield Counted(usage)
            yield Ended()

    def _message(self, message: Message) -> Iterator[Event]:
        if message.thinking:
            if self._block is not ThinkingStart:
                self._block = ThinkingStart
                yield ThinkingStart()
            yield ThinkingDelta(message.thinking)
        if message.content:
            if self._block is not TextStart:
                self._block = TextStart
                yield TextStart()
            yield TextDelta(message.content)
        for call in message.tool_calls or ():
            self._block = None
            number, self._calls = self._calls, self._calls + 1
            yield ToolStart(number, self._id(call, number), call.function.name)
            yield ToolDelta(number, _arguments(call.function.arguments))

    def _id(self, call: Call, number: int) -> str:
        if isinstance(call.id, str) and _ID.fullmatch(call.id):
            return call.id
        # The time makes it another one than those of earlier answers.
        return f"call_{number}_{self._stamp}" if self._stamp else f"call_{number}"

    def _reason(self, line: Line) -> StopReason:
        if self._calls:
            return "tool"
        return "length" if line.done_reason == "length" else "end"


class _StreamDecoder:
    def __init__(self) -> None:
        self.losses = Losses()
        self._lines = Decoder()
        self._telling = _Telling()
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        lines = self._lines.feed(data)
        return [event for line in lines for event in self._events(line)]

    def end(self) -> list[Event]:
        try:
            return [event for text in self._lines.end() for event in self._events(text)]
        except Untranslatable:
            # It was cut off within a line, and that nothing has ended it says so.
            return []

    def _events(self, text: bytes) -> Iterator[Event]:
        if self._over:
            return
        line = _line(text)
        if line.error is not None:
            self._over = True
            known = isinstance(line.status, int) and 400 <= line.status < 600
            yield _failed(line.status if known else _BAD_GATEWAY, line.error)
            return
        self._over = line.done
        yield from self._telling.events(line)
