"""Whole answers of Anthropic's Messages API, read and written."""

from __future__ import annotations

from typing import Any

import msgspec

from kongai.llm.chat import (
    ChatAnswer,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    Untranslatable,
)
from kongai.llm.estimate import answer_characters
from kongai.llm.formats import Envelope
from kongai.llm.formats.anthropic.content import blocks_of, written_call
from kongai.llm.formats.anthropic.reading import (
    GivenUsage,
    read_completion,
    read_prompt,
)
from kongai.llm.json_fields import UNREADABLE, Fields
from kongai.llm.usage import Usage, estimate_tokens

REASONS: dict[str, StopReason] = {
    "compaction": "pause",
    "end_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "pause",
    "refusal": "refusal",
    "stop_sequence": "sequence",
    "tool_use": "tool",
}
STOP_REASONS: dict[StopReason, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "pause": "pause_turn",
    "refusal": "refusal",
    "sequence": "stop_sequence",
    "tool": "tool_use",
}
"""How the format says why an answer ended."""


def decode_answer(body: bytes) -> ChatAnswer:
    """Read a whole answer.

    Raises:
        Untranslatable: it is none; the text says what is missing, in Kong's words.
    """
    try:
        fields = Fields.parse(body)
    except Untranslatable:
        raise Untranslatable("failed to decode anthropic response") from None
    if fields.starts("content") != b"[":
        raise Untranslatable("'content' not in anthropic://llm/v1/chat response")
    answer = ChatAnswer(fields.text("id"), fields.text("model"))
    for name in ("type", "role"):
        fields.drop(name)
    for part in blocks_of(fields, "content"):
        if isinstance(part, (Text, Thinking, ToolCall)):
            answer.parts.append(part)
        else:
            answer.losses.add("content[]")
    reason = fields.text("stop_reason")
    answer.stop_reason = REASONS.get(reason, "end") if reason else None
    answer.stop_sequence = fields.text("stop_sequence")
    usage = fields.json("usage")
    if usage is not None:
        answer.usage = read_usage(usage.encode())
    fields.report(answer.losses)
    return answer


def read_usage(given: bytes) -> Usage:
    """The usage of an answer; nothing of what is none."""
    usage = Usage()
    try:
        found = msgspec.json.decode(given, type=GivenUsage)
    except UNREADABLE:
        return usage
    read_prompt(usage, found)
    read_completion(usage, found)
    return usage


def encode_answer(answer: ChatAnswer, envelope: Envelope) -> bytes:
    """Write a whole answer; what can't be said is added to its losses."""
    reason = answer.stop_reason or "end"
    usage = answer.usage
    if usage is None or not usage.counted:
        written = estimate_tokens(answer_characters(answer))
        usage = Usage(envelope.prompt_estimate, written)
    return msgspec.json.encode(
        {
            "id": answer.id or envelope.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model or envelope.model,
            "content": [_written(part) for part in answer.parts],
            "stop_reason": STOP_REASONS[reason],
            "stop_sequence": answer.stop_sequence,
            "usage": written_usage(usage),
        }
    )


def written_usage(usage: Usage) -> dict[str, Any]:
    """The counts of an answer as Anthropic's format has them."""
    return {
        "input_tokens": usage.uncached_tokens,
        "cache_creation_input_tokens": usage.cache_creation_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _written(part: Text | Thinking | ToolCall) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, ToolCall):
        return written_call(part)
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    # Clients expect a signature; where there is none, there is none.
    signature = part.signature or ""
    return {"type": "thinking", "thinking": part.text, "signature": signature}
