"""A streamed answer, in no vendor's words: what its pieces mean, one event each.

A stream is `Started`, then blocks one after the other, then `Stopped`, `Counted` and
`Ended`, in any order of these. A block begins with its ``...Start`` and lasts until the
next one begins. Calls of tools carry a number, because some vendors send the pieces of
several calls in turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from kongai.llm.chat import ChatAnswer, StopReason, Text, Thinking, ToolCall
from kongai.llm.usage import Usage


class Started(NamedTuple):
    """The answer has begun."""

    id: str | None
    model: str | None


class TextStart(NamedTuple):
    """A block of text begins; see `Text.cited`."""

    cited: bool = False


class TextDelta(NamedTuple):
    """The next characters of the text."""

    text: str


class ThinkingStart(NamedTuple):
    """A block of thinking begins; with `redacted` it is complete already."""

    redacted: str | None = None


class ThinkingDelta(NamedTuple):
    """The next characters of the thinking."""

    text: str


class Sealed(NamedTuple):
    """The vendor's signature of the thinking that has just come."""

    signature: str


class ToolStart(NamedTuple):
    """A call of a tool begins."""

    number: int
    id: str
    name: str


class ToolDelta(NamedTuple):
    """The next characters of a call's arguments."""

    number: int
    json: str


class Counted(NamedTuple):
    """The tokens so far; the last one holds."""

    usage: Usage


class Stopped(NamedTuple):
    """Why the answer ends."""

    reason: StopReason
    sequence: str | None = None


class Ended(NamedTuple):
    """The answer is complete."""


class Failed(NamedTuple):
    """The vendor gave up in the middle of the answer."""

    status: int
    message: str


class StillThere(NamedTuple):
    """The vendor is at work and has nothing to say."""


Event: TypeAlias = (
    Started
    | TextStart
    | TextDelta
    | ThinkingStart
    | ThinkingDelta
    | Sealed
    | ToolStart
    | ToolDelta
    | Counted
    | Stopped
    | Ended
    | Failed
    | StillThere
)


def assemble(events: Iterable[Event]) -> ChatAnswer:
    """The answer that a stream tells, piece by piece."""
    answer = ChatAnswer()
    calls: dict[int, ToolCall] = {}
    pieces: list[tuple[Text | Thinking | ToolCall, list[str]]] = []
    of_calls: dict[int, list[str]] = {}

    def begin(part: Text | Thinking | ToolCall) -> list[str]:
        answer.parts.append(part)
        pieces.append((part, []))
        return pieces[-1][1]

    for event in events:
        last = answer.parts[-1] if answer.parts else None
        match event:
            case Started(id, model):
                answer.id, answer.model = id, model
            case TextStart(cited):
                begin(Text("", cited=cited))
            case ThinkingStart(redacted):
                begin(Thinking(redacted=redacted))
            case TextDelta(text) if isinstance(last, Text):
                pieces[-1][1].append(text)
            case ThinkingDelta(text) if isinstance(last, Thinking):
                pieces[-1][1].append(text)
            case Sealed(signature) if isinstance(last, Thinking):
                last.signature = signature
            case ToolStart(number, id, name):
                calls[number] = ToolCall(id, name, "")
                of_calls[number] = begin(calls[number])
            case ToolDelta(number, json) if number in calls:
                of_calls[number].append(json)
            case Counted(usage):
                answer.usage = usage
            case Stopped(reason, sequence):
                answer.stop_reason, answer.stop_sequence = reason, sequence
            case _:
                pass
    for part, texts in pieces:
        if isinstance(part, ToolCall):
            part.arguments = "".join(texts) or "{}"
        else:
            part.text = "".join(texts)
    return answer


def replay(answer: ChatAnswer) -> Iterator[Event]:
    """The stream that tells an answer which came in one piece."""
    yield Started(answer.id, answer.model)
    for number, part in enumerate(answer.parts):
        if isinstance(part, Text):
            yield TextStart(part.cited)
            yield TextDelta(part.text)
        elif isinstance(part, Thinking):
            yield ThinkingStart(part.redacted)
            if part.text:
                yield ThinkingDelta(part.text)
            if part.signature is not None:
                yield Sealed(part.signature)
        else:
            yield ToolStart(number, part.id, part.name)
            yield ToolDelta(number, part.arguments)
    if answer.stop_reason is not None:
        yield Stopped(answer.stop_reason, answer.stop_sequence)
    if answer.usage is not None:
        yield Counted(answer.usage)
    yield Ended()
