"""Anthropic's Messages API, as its reference describes it (docs.anthropic.com).

Bodies are read into structs of the few fields that the gateway needs; everything else,
known or not, is skipped and passed on untouched. In a stream, `message_start` carries
the prompt's tokens and a provisional count of the answer's; each `message_delta`
carries the answer's count so far, and the last one holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kongai.llm.formats import AnswerReader, RequestFacts
from kongai.llm.usage import Usage, estimate_tokens
from kongai.sse import Decoder, EventTooLarge, ServerSentEvent, encode

MAX_WHOLE_ANSWER = 64 * 1024 * 1024
"""The longest whole answer that is read for statistics, in bytes."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


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


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None
    iterations: list[_Usage] | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_EMPTY_ARRAY = re.compile(rb"\[\s*\]")
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
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
    except _UNREADABLE:
        return RequestFacts()
    messages = bytes(request.messages)
    return RequestFacts(
        model=(request.model or None) if isinstance(request.model, str) else None,
        streaming=request.stream is True,
        has_prompt=messages[:1] == b"[" and not _EMPTY_ARRAY.fullmatch(messages),
        ambiguous=isinstance(request.prompt, str),
    )


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """Set top-level fields of a request that `read_request` could read.

    Every other value keeps its very bytes, and the keys their order.
    """
    request = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**request, **fields})


def whole_reader() -> AnswerReader:
    """A reader for an answer that is one JSON object."""
    return _WholeReader()


def stream_reader() -> AnswerReader:
    """A reader for an answer that is an event stream."""
    return _StreamReader()


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The error envelope of Anthropic's API."""
    error = {
        "type": "error",
        "error": {
            "type": _ERROR_TYPES.get(status, _default(status)),
            "message": message,
        },
        "request_id": request_id,
    }
    return json.dumps(error, separators=(",", ":")).encode()


def error_event(status: int, message: str, request_id: str) -> bytes:
    """The `error` event of Anthropic's streams.

    It starts with a blank line, which ends an event that was cut in the middle.
    """
    data = error_body(status, message, request_id)
    return b"\n\n" + encode(ServerSentEvent(b"error", data))


def _default(status: int) -> str:
    return "invalid_request_error" if status < 500 else "api_error"


class _WholeReader:
    def __init__(self) -> None:
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self.started = True
        self._size += len(data)
        if self._size <= MAX_WHOLE_ANSWER:
            self._pieces.append(data)
        else:
            self.broken = self.lost = True
            self._pieces.clear()

    def end(self) -> None:
        if self.broken:
            return
        try:
            message = _decode_message(b"".join(self._pieces))
        except _UNREADABLE:
            self.broken = True
            return
        self.finished = True
        self.model = message.model
        if message.usage is not None:
            _read_prompt(self.usage, message.usage)
            _read_completion(self.usage, message.usage)


class _StreamReader:
    def __init__(self) -> None:
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False
        self._decoder = Decoder()
        self._characters = 0
        self._counted = False

    def feed(self, data: bytes) -> None:
        if self.lost:
            return
        try:
            events = self._decoder.feed(data)
        except EventTooLarge:
            self.broken = self.lost = True
            return
        for event in events:
            self._event(event)

    def end(self) -> None:
        if not self._counted and self._characters:
            self.usage.completion_tokens = estimate_tokens(self._characters)
            self.usage.estimated = True

    def _event(self, event: ServerSentEvent) -> None:
        try:
            fields = _decode_event(event.data)
        except _UNREADABLE:
            self.broken = True
            return
        kind = fields.type
        if kind == "content_block_delta":
            self.started = True
            if fields.delta is not None:
                delta = fields.delta
                self._characters += len(delta.text or delta.thinking)
                self._characters += len(delta.partial_json)
        elif kind == "message_start" and fields.message is not None:
            self.model = fields.message.model
            if fields.message.usage is not None:
                _read_prompt(self.usage, fields.message.usage)
        elif kind == "message_delta" and fields.usage is not None:
            _read_prompt(self.usage, fields.usage)
            if fields.usage.output_tokens is not None:
                _read_completion(self.usage, fields.usage)
                self._counted = True
        elif kind in ("message_stop", "error"):
            # An error event ends a stream too: the API has said how it went.
            self.finished = True


def _read_prompt(usage: Usage, given: _Usage) -> None:
    """Take over the prompt's tokens; what is not given stays as it was."""
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


def _read_completion(usage: Usage, given: _Usage) -> None:
    usage.completion_tokens = _total(given, "output_tokens")
    if given.output_tokens_details is not None:
        usage.reasoning_tokens = given.output_tokens_details.thinking_tokens or 0


def _total(given: _Usage, name: str) -> int:
    """A count, summed over the iterations where the answer took several."""
    parts = given.iterations or [given]
    return sum(max(0, getattr(part, name) or 0) for part in parts)


def _cache_writes(given: _Usage) -> dict[str, int]:
    """Cache writes by time to live; what is not told apart counts as five minutes."""
    written = _total(given, "cache_creation_input_tokens")
    parts = [given.cache_creation]
    if given.iterations:
        parts = [part.cache_creation for part in given.iterations]
    hour = sum(part.ephemeral_1h_input_tokens or 0 for part in parts if part)
    hour = min(hour, written)
    writes = {"5m": written - hour, "1h": hour}
    return {ttl: tokens for ttl, tokens in writes.items() if tokens}
