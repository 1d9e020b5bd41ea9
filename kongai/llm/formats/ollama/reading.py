"""What is read of Ollama's answers while they pass: the model and the counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kongai.llm.formats import AnswerReader
from kongai.llm.formats.along import WholeReader
from kongai.llm.json_fields import UNREADABLE
from kongai.llm.ndjson import Decoder, LineTooLong
from kongai.llm.usage import Usage, count_of, estimate_tokens

ENDPOINTS: Mapping[str, str] = {"llm/v1/chat": "/api/chat"}
"""By route type, the path below the root of the API."""


class Function(msgspec.Struct):
    """What a call calls, its arguments as they are written."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Call(msgspec.Struct):
    """A call of a tool; only newer versions give it an id."""

    function: Function
    id: Any = None


class Message(msgspec.Struct):
    """What the model says, or the next piece of it."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Line(msgspec.Struct):
    """A whole answer, or a line of a streamed one."""

    model: str | None = None
    created_at: str | None = None
    message: Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None
    status: Any = None
    """The status that an error would have had, from some versions."""


_decode_line = msgspec.json.Decoder(Line).decode


def parse(text: bytes) -> Line:
    """Read a line; what it can't read it raises as msgspec does."""
    text.decode()  # msgspec does not look into what it skips
    return _decode_line(text)


def read_counts(line: Line, usage: Usage) -> None:
    """Take over what a line counts; what is not given stays as it was."""
    if line.prompt_eval_count is not None:
        usage.prompt_tokens = count_of(line.prompt_eval_count)
        usage.counted = True
    if line.eval_count is not None:
        usage.completion_tokens = count_of(line.eval_count)
        usage.counted = True


def whole_reader() -> AnswerReader:
    """A reader for an answer that is one JSON object."""
    return WholeReader(_read_whole)


def stream_reader() -> AnswerReader:
    """A reader for an answer that is one JSON object a line."""
    return _StreamReader()


def _read_whole(body: bytes, usage: Usage) -> str | None:
    line = parse(body)
    read_counts(line, usage)
    return line.model


class _StreamReader:
    def __init__(self) -> None:
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False
        self._lines = Decoder()
        self._characters = 0

    def feed(self, data: bytes) -> None:
        if self.lost:
            return
        try:
            lines = self._lines.feed(data)
        except LineTooLong:
            self.broken = self.lost = True
            return
        for line in lines:
            self._line(line)

    def end(self) -> None:
        for line in self._lines.end():
            self._line(line)
        if not self.usage.counted and self._characters:
            self.usage.completion_tokens = estimate_tokens(self._characters)
            self.usage.estimated = True

    def _line(self, text: bytes) -> None:
        try:
            line = parse(text)
        except UNREADABLE:
            self.broken = True
            return
        if self.model is None:
            self.model = line.model
        if line.message is not None:
            characters = _characters(line.message)
            self.started = self.started or characters > 0
            self._characters += characters
        read_counts(line, self.usage)
        # An error ends a stream too: the API has said how it went.
        self.finished = self.finished or line.done or line.error is not None


def _characters(message: Message) -> int:
    count = len(message.content or "") + len(message.thinking or "")
    for call in message.tool_calls or ():
        count += len(call.function.name) + len(bytes(call.function.arguments))
    return count
