"""What is read of Anthropic's format while it passes: a few facts, nothing changed.

Bodies are read into structs of the few fields that the gateway needs; everything else,
known or not, is skipped and passed on untouched. In a stream, `message_start` carries
the prompt's tokens and a provisional count of the answer's; each `message_delta`
carries the answer's count so far, and the last one holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kongai.llm.formats import AnswerReader, RequestFacts, StreamFilter
from kongai.llm.formats.along import EventReader, Everything, WholeReader
from kongai.llm.request_body import (
    FILLED_ARRAY,
    NULL,
    STRING,
    TRUE,
    decode_text,
    read_body,
)
from kongai.llm.usage import MOST_TOKENS, Usage, count_of

ENDPOINTS: Mapping[str, str] = {"llm/v1/chat": "/v1/messages"}
"""By route type, the path below the root of the API."""


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


_NONE = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    model: str | None = None
    usage: msgspec.Raw = _NONE


class _Delta(msgspec.Struct):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Whole(msgspec.Struct):
    model: str | None = None
    usage: GivenUsage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = _NONE


_decode_usage: msgspec.json.Decoder[GivenUsage | None] = msgspec.json.Decoder(
    GivenUsage | None
)
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def read_request(body: bytes) -> RequestFacts:
    """Read a request's model, whether it asks for a stream, and whether it asks at all.

    Raises:
        BadBody: it can't be read, or in more than one way.
    """
    request = read_body(body)
    member = request.members.get
    model = member("model", NULL)
    return RequestFacts(
        model=(decode_text(model) or None) if STRING.match(model) else None,
        streaming=TRUE.match(member("stream", NULL)) is not None,
        has_prompt=FILLED_ARRAY.match(member("messages", NULL)) is not None,
        ambiguous=STRING.match(member("prompt", NULL)) is not None,
        exact=request.exact,
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
    message = _decode_whole(body)
    if message.usage is not None:
        read_prompt(usage, message.usage)
        read_completion(usage, message.usage)
    return message.model


class _StreamReader(EventReader):
    def read(self, data: bytes) -> None:
        fields = _decode_event(data)
        kind = fields.type
        if kind == "content_block_delta":
            self.started = True
            delta = fields.delta
            if delta is not None:
                said = delta.text or delta.thinking
                self.characters += len(said) + len(delta.partial_json)
        elif kind == "message_start" and fields.message is not None:
            self.model = fields.message.model
            given = decode_usage(fields.message.usage)
            if given is not None:
                read_prompt(self.usage, given)
        elif kind == "message_delta":
            given = decode_usage(fields.usage)
            if given is not None:
                read_prompt(self.usage, given)
            if given is not None and given.output_tokens is not None:
                read_completion(self.usage, given)
                self.counted = True
        elif kind in ("message_stop", "error"):
            # An error event ends a stream too: the API has said how it went.
            self.finished = True


def decode_usage(raw: msgspec.Raw) -> GivenUsage | None:
    """Read a usage apart from what tells it: that can be read where this can't."""
    return _decode_usage.decode(raw)


def read_prompt(usage: Usage, given: GivenUsage) -> None:
    """Take over the prompt's tokens; what is not given stays as it was."""
    if given.input_tokens is not None:
        usage.counted = True
    if given.service_tier is not None:
        usage.service_tier = given.service_tier
    if given.iterations:
        given = _summed(given, given.iterations)
    uncached, read = given.input_tokens, given.cache_read_input_tokens
    written = given.cache_creation_input_tokens
    if uncached is None:
        uncached = usage.uncached_tokens
    elif not 0 <= uncached <= MOST_TOKENS:
        uncached = 0
    if read is not None:
        usage.cached_tokens = read if 0 <= read <= MOST_TOKENS else 0
    if written is not None:
        _read_writes(usage, written if 0 <= written <= MOST_TOKENS else 0, given)
    usage.prompt_tokens = uncached + usage.cached_tokens
    if usage.cache_writes:
        usage.prompt_tokens += usage.cache_creation_tokens


def read_completion(usage: Usage, given: GivenUsage) -> None:
    """Take over the answer's tokens, of which each count is a sum so far."""
    if given.output_tokens is not None:
        usage.counted = True
    if given.iterations:
        given = _summed(given, given.iterations)
    usage.completion_tokens = count_of(given.output_tokens)
    if given.output_tokens_details is not None:
        usage.reasoning_tokens = count_of(given.output_tokens_details.thinking_tokens)


def _read_writes(usage: Usage, written: int, given: GivenUsage) -> None:
    """Take over the cache writes; what is not told apart counts as five minutes.

    Args:
        usage: takes them.
        written: how many tokens, whatever the time to live.
        given: may tell them apart.
    """
    hour = 0
    if given.cache_creation is not None:
        hour = min(count_of(given.cache_creation.ephemeral_1h_input_tokens), written)
    # A message_delta may repeat the sum and not say for how long each part lives.
    if hour:
        usage.cache_writes = {"5m": written - hour, "1h": hour}
        if hour == written:
            del usage.cache_writes["5m"]
    elif not usage.cache_writes or written != usage.cache_creation_tokens:
        usage.cache_writes = {"5m": written} if written else {}


def _summed(given: GivenUsage, parts: list[GivenUsage]) -> GivenUsage:
    """The usage of an answer that took several iterations, as if it were one's."""

    def total(name: str) -> int:
        return count_of(sum(count_of(getattr(part, name)) for part in parts))

    hour = sum(
        count_of(part.cache_creation.ephemeral_1h_input_tokens)
        for part in parts
        if part.cache_creation is not None
    )
    hour = min(hour, MOST_TOKENS)
    return GivenUsage(
        input_tokens=total("input_tokens"),
        output_tokens=total("output_tokens"),
        cache_creation_input_tokens=total("cache_creation_input_tokens"),
        cache_read_input_tokens=total("cache_read_input_tokens"),
        cache_creation=_CacheCreation(ephemeral_1h_input_tokens=hour),
        output_tokens_details=given.output_tokens_details,
    )
