"""What is read of OpenAI's format while it passes: a few facts, nothing changed.

Bodies are read into structs of the few fields that the gateway needs; everything else,
known or not, is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from kongai.llm.formats import AnswerReader, RequestFacts
from kongai.llm.formats.along import EventReader, WholeReader
from kongai.llm.formats.openai.usage import read_usage, usage_of
from kongai.llm.json_fields import UNREADABLE
from kongai.llm.request_body import read_body
from kongai.llm.usage import Usage, estimate_tokens

ENDPOINTS: Mapping[str, str] = {
    "llm/v1/chat": "/chat/completions",
    "llm/v1/completions": "/completions",
    "llm/v1/embeddings": "/embeddings",
}
"""By route type, the path below the root of the API."""

LOCAL_PATHS: Collection[str] = ()
"""The paths that can be answered without a provider: none."""

_RESOURCES = frozenset(
    {
        "assistants",
        "audio",
        "batches",
        "chat",
        "completions",
        "containers",
        "conversations",
        "embeddings",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "models",
        "moderations",
        "realtime",
        "responses",
        "threads",
        "uploads",
        "vector_stores",
        "videos",
    }
)
_VERSION = re.compile(r"(?:\A|.*/)v1(?=/|\Z)")
_DONE = b"[DONE]"


class _Text(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    text: str | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    model: Any = None
    usage: Any = None
    x_groq: Any = None
    service_tier: Any = None
    choices: list[_Choice] | None = None
    error: Any = None


class _Whole(msgspec.Struct):
    model: Any = None
    usage: Any = None
    service_tier: Any = None


class _Said(msgspec.Struct):
    message: _Text | None = None
    text: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Said] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


def api_path(path: str) -> str | None:
    """The path below the API's root that a client means.

    A client's base address may or may not end with the version.

    Args:
        path: what follows the route's path in the request.

    Returns:
        None for a path that is none of the API's, and for the route itself.
    """
    path = _VERSION.sub("", path, count=1).rstrip("/")
    if path.split("/")[1:2] and path.split("/")[1] in _RESOURCES:
        return path
    return None


def answer_locally(path: str, body: bytes) -> bytes:
    """Nothing of the API can be answered without a provider: see `LOCAL_PATHS`."""
    raise LookupError(path)


def read_request(body: bytes) -> RequestFacts:
    """Read a request's model, whether it asks for a stream, and whether it asks at all.

    Raises:
        BadBody: it can't be read, or in more than one way.
    """
    request = read_body(body)
    chat = request.is_filled_array("messages")
    completion = "prompt" in request.members and (
        request.is_text("prompt") or request.is_filled_array("prompt")
    )
    # Nothing depends on it where there are messages.
    embedding = not chat and (request.is_text("input") or request.is_array("input"))
    kind = "llm/v1/chat"
    if not chat:
        kind = "llm/v1/completions" if completion else "llm/v1/embeddings"
    return RequestFacts(
        model=request.text("model") or None,
        streaming=request.is_true("stream"),
        has_prompt=chat or completion or embedding,
        ambiguous=chat and completion,
        kind=kind,
        usage_in_stream="stream_options" in request.members
        and request.object("stream_options").is_true("include_usage"),
        exact=request.exact,
    )


def whole_reader() -> AnswerReader:
    """A reader for an answer that is one JSON object."""
    return WholeReader(_read_whole)


def stream_reader() -> AnswerReader:
    """A reader for an answer that is an event stream."""
    return _StreamReader()


def _note_tier(usage: Usage, tier: Any) -> None:
    if tier and isinstance(tier, str):
        usage.service_tier = tier


def _read_whole(body: bytes, usage: Usage) -> str | None:
    answer = _decode_whole(body)
    if isinstance(answer.usage, dict):
        read_usage(answer.usage, usage)
    _note_tier(usage, answer.service_tier)
    if not usage.counted:
        with suppress(*UNREADABLE):
            said = _decode_answer(body).choices or ()
            characters = sum(
                len(choice.text or "")
                + (0 if choice.message is None else _characters(choice.message))
                for choice in said
            )
            usage.completion_tokens = estimate_tokens(characters)
            usage.estimated = characters > 0
    return answer.model if isinstance(answer.model, str) else None


class _StreamReader(EventReader):
    _stopped = False

    def end(self) -> None:
        # Not every API of this format says [DONE], but each says why it stopped.
        self.finished = self.finished or self._stopped
        super().end()

    def read(self, data: bytes) -> None:
        if data == _DONE:
            self.finished = True
            return
        chunk = _decode_chunk(data)
        if chunk.error is not None:
            # An error ends a stream too: the API has said how it went.
            self.finished = True
        if not self.model and isinstance(chunk.model, str):
            # Azure's first chunk tells of the prompt, and has an empty name.
            self.model = chunk.model
        if chunk.usage is not None or chunk.x_groq is not None:
            usage = usage_of({"usage": chunk.usage, "x_groq": chunk.x_groq})
            read_usage(usage, self.usage)
            self.counted = self.usage.counted
        if chunk.service_tier:
            _note_tier(self.usage, chunk.service_tier)
        for choice in chunk.choices or ():
            characters = len(choice.text or "")
            if choice.delta is not None:
                characters += _characters(choice.delta)
            if characters:
                self.started = True
                self.characters += characters
            if choice.finish_reason:
                self._stopped = True


def _characters(delta: _Text) -> int:
    """How many characters of text and of arguments a delta brings."""
    content, thought = delta.content, delta.reasoning_content or delta.reasoning
    count = len(content) if isinstance(content, str) else 0
    if thought is not None or delta.refusal is not None:
        count += _length(thought) + _length(delta.refusal)
    if isinstance(content, list):
        count += sum(map(_length, _texts(content)))
    if isinstance(delta.tool_calls, list):
        count += sum(map(_length, _of_calls(delta.tool_calls)))
    return count


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _of_calls(calls: list[Any]) -> Iterator[Any]:
    """The names and arguments of calls of tools."""
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (function.get("name"), function.get("arguments"))


def _texts(content: Any) -> list[Any]:
    """The texts of a content, which Mistral sends in parts that may have parts."""
    if not isinstance(content, list):
        return [content]
    return [
        text
        for part in content
        if isinstance(part, dict)
        for text in _texts(part.get("thinking") or part.get("text"))
    ]
