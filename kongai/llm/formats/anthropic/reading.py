"""What is read of Anthropic's format while it passes: a few facts, nothing changed.

Bodies are read into structs of the few fields that the gateway needs; everything else,
known or not, is skipped and passed on untouched. In a stream, `message_start` carries
the prompt's tokens and a provisional count of the answer's; each `message_delta`
carries the answer's count so far, and the last one holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kongai.llm.formats import AnswerReader, RequestFacts, StreamFilter
from kongai.llm.formats.along import EventReader, Everything, WholeReader
from kongai.llm.json_fields import UNREADABLE
from kongai.llm.usage import Usage
from kongai.sse import ServerSentEvent

ENDPOINTS: Mapping[str, str] = {"llm/v1/chat": "/v1/messages"}
"""By route type, the path below the root of the API."""


class _Request(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw(b"null")
    model: Any = None
    stream: Any = None
    prompt: Any = None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class GivenUsage(msgspec.Struct):
    """The usage of an answer or an event, as far as it is counted."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None
    iterations: list[GivenUsage] | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: GivenUsage | None = None


class _Delta(msgspec.Struct):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: GivenUsage | None = None


_EMPTY_ARRAY = re.compile(rb"\[\s*\]")
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def read_request(body: bytes) -> RequestFacts:
    """Read a request's model, whether it asks for a stream, and whether it asks at all.

    What is not JSON, or not an object, gives the defaults.
    """
    try:
        request = _decode_request(body)
        body.decode()  # msgspec does not look into what it skips
    except UNREADABLE:
        return RequestFacts()
    messages = bytes(request.messages)
    return RequestFacts(
        model=(request.model or None) if isinstance(request.model, str) else None,
        streaming=request.stream is True,
        has_prompt=messages[:1] == b"[" and not _EMPTY_ARRAY.fullmatch(messages),
        ambiguous=isinstance(request.prompt, str),
    )


def api_path(path: str) -> str | None:
    """The path below the API's root that a client means: every path is one.

    Args:
        path: what follows the route's path in the request.

    Returns:
        None for the route itself.
    """
    return path.rstrip("/") or None


def ask_for_usage(body: bytes) -> Mapping[str, Any]:
    """Nothing: every stream tells its usage."""
    return {}


def usage_hider() -> StreamFilter:
    """Takes nothing out: every client gets the usage."""
    return Everything()


def whole_reader() -> AnswerReader:
    """A reader for an answer that is one JSON object."""
    return WholeReader(_read_whole)


def stream_reader() -> AnswerReader:
    """A reader for an answer that is an event stream."""
    return _StreamReader()


def _read_whole(body: bytes, usage: Usage) -> str | None:
    message = _decode_message(body)
    if message.usage is not None:
        read_prompt(usage, message.usage)
        read_completion(usage, message.usage)
    return message.model


class _StreamReader(EventReader):
    def read(self, event: ServerSentEvent) -> None:
        fields = _decode_event(event.data)
        kind = fields.type
        if kind == "content_block_delta":
            self.started = True
            if fields.delta is not None:
                delta = fields.delta
                self.characters += len(delta.text or delta.thinking)
                self.characters += len(delta.partial_json)
        elif kind == "message_start" and fields.message is not None:
            self.model = fields.message.model
            if fields.message.usage is not None:
                read_prompt(self.usage, fields.message.usage)
        elif kind == "message_delta" and fields.usage is not None:
            read_prompt(self.usage, fields.usage)
            if fields.usage.output_tokens is not None:
                read_completion(self.usage, fields.usage)
                self.counted = True
        elif kind in ("message_stop", "error"):
            # An error event ends a stream too: the API has said how it went.
            self.finished = True


def read_prompt(usage: Usage, given: GivenUsage) -> None:
    """Take over the prompt's tokens; what is not given stays as it was."""
    usage.counted = usage.counted or given.input_tokens is not None
    uncached = usage.uncached_tokens
    if given.input_tokens is not None or given.iterations:
        uncached = _total(given, "input_tokens")
    if given.cache_read_input_tokens is not None or given.iterations:
        usage.cached_tokens = _total(given, "cache_read_input_tokens")
    if given.cache_creation_input_tokens is not None or given.iterations:
        writes = _cache_writes(given)
        # A message_delta may repeat the sum and not say for how long each part lives.
        if "1h" in writes or sum(writes.values()) != usage.cache_creation_tokens:
            usage.cache_writes = writes
    if given.service_tier is not None:
        usage.service_tier = given.service_tier
    usage.prompt_tokens = uncached + usage.cached_tokens + usage.cache_creation_tokens


def read_completion(usage: Usage, given: GivenUsage) -> None:
    """Take over the answer's tokens, of which each count is a sum so far."""
    usage.counted = usage.counted or given.output_tokens is not None
    usage.completion_tokens = _total(given, "output_tokens")
    if given.output_tokens_details is not None:
        usage.reasoning_tokens = given.output_tokens_details.thinking_tokens or 0


def _total(given: GivenUsage, name: str) -> int:
    """A count, summed over the iterations where the answer took several."""
    parts = given.iterations or [given]
    return sum(max(0, getattr(part, name) or 0) for part in parts)


def _cache_writes(given: GivenUsage) -> dict[str, int]:
    """Cache writes by time to live; what is not told apart counts as five minutes."""
    written = _total(given, "cache_creation_input_tokens")
    parts = [given.cache_creation]
    if given.iterations:
        parts = [part.cache_creation for part in given.iterations]
    hour = sum(part.ephemeral_1h_input_tokens or 0 for part in parts if part)
    hour = min(hour, written)
    writes = {"5m": written - hour, "1h": hour}
    return {ttl: tokens for ttl, tokens in writes.items() if tokens}
