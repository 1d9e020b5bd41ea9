"""Whole answers of OpenAI's Chat Completions API, read and written."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from kongai.llm.chat import (
    ChatAnswer,
    GaveUp,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    Untranslatable,
    joined,
)
from kongai.llm.formats import Envelope
from kongai.llm.formats.openai.content import (
    parts_of,
    reasoning_of,
    thinking_members,
    written_call,
)
from kongai.llm.formats.openai.errors import decode_error
from kongai.llm.formats.openai.usage import read_usage, written_usage
from kongai.llm.json_fields import Fields
from kongai.llm.usage import Usage

_NO_USAGE = "no usage data returned from upstream"
"""Kong's text, in the place of a usage that the provider did not tell."""
_REASONS: dict[str, StopReason] = {
    "stop": "end",
    "length": "length",
    "model_length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "refusal",
}
_FAILURES = frozenset({"abort", "error", "insufficient_system_resource"})
"""What vLLM, Mistral, OpenRouter and DeepSeek give as reasons where they gave up."""
FINISH_REASONS: dict[StopReason, str] = {
    "end": "stop",
    "sequence": "stop",
    "pause": "stop",
    "length": "length",
    "tool": "tool_calls",
    "refusal": "content_filter",
}
"""How the format says why an answer ended."""
_MEANINGLESS = (
    *("object", "created", "system_fingerprint", "service_tier", "request_id"),
    *("index", "role", "native_finish_reason", "seed", "stop_reason"),
    *("provider", "time_info", "usage_breakdown", "x_groq"),
)
"""Members that tell of the call, and nothing of what was answered."""


def failure_of(finish_reason: str | None) -> GaveUp | None:
    """The failure that a reason for stopping tells; None for all that are none."""
    if finish_reason not in _FAILURES:
        return None
    return GaveUp(502, f"the provider gave up: {finish_reason}")


def stop_reason(given: str | None, *, with_calls: bool, refused: bool) -> StopReason:
    """Why an answer ended, by what it says and by what it holds."""
    if refused:
        return "refusal"
    reason = _REASONS.get(given or "stop", "end")
    # Not every kin of the API says that it stopped to have a tool called, and some say
    # so without a call.
    if reason in ("end", "tool"):
        return "tool" if with_calls else "end"
    return reason


def decode_answer(body: bytes) -> ChatAnswer:
    """Read a whole answer.

    Raises:
        Untranslatable: it is none; the text says what is missing, in Kong's words.
        GaveUp: it is an error, although its status says otherwise.
    """
    try:
        fields = Fields.parse(body)
    except Untranslatable:
        raise Untranslatable("failed to decode openai response") from None
    if fields.has("error", empty=False):
        failed = decode_error(0, body)
        raise GaveUp(failed.status, failed.message)
    choices = (
        list(fields.objects("choices")) if fields.starts("choices") == b"[" else []
    )
    if not choices:
        raise Untranslatable("'choices' not in llm/v1/chat response")
    answer = ChatAnswer(fields.text("id"), fields.text("model"))
    told = fields.starts("service_tier") == b'"'
    tier = fields.text("service_tier") if told else None
    for other in choices[1:]:
        other.lose("[1:]")
    choice = choices[0]
    message = choice.object("message")
    if message is None:
        raise Untranslatable("'choices[0].message' not in llm/v1/chat response")
    for name in _MEANINGLESS:
        for part in (fields, choice, message):
            part.drop(name)
    finish_reason = choice.text("finish_reason")
    failure = failure_of(finish_reason)
    if failure is not None:
        raise failure
    refused = message.starts("refusal") == b'"' and message.has("refusal", empty=False)
    answer.parts = _parts(message, answer)
    with_calls = any(isinstance(part, ToolCall) for part in answer.parts)
    answer.stop_reason = stop_reason(
        finish_reason, with_calls=with_calls, refused=refused
    )
    # Where there was no usage, Kong puts a text in its place.
    usage = _usage(fields)
    if usage is not None:
        answer.usage = Usage()
        read_usage(usage, answer.usage)
        answer.usage.service_tier = tier or None
    fields.report(answer.losses)
    return answer


def _usage(fields: Fields) -> dict[str, Any] | None:
    """The usage, if there is one that can be read."""
    told = fields.starts("usage") == b"{"
    usage = None
    if told:
        with suppress(Untranslatable):
            usage = fields.value("usage")
    fields.drop("usage")
    return usage


def _parts(message: Fields, answer: ChatAnswer) -> list[Text | Thinking | ToolCall]:
    parts: list[Text | Thinking | ToolCall] = [*reasoning_of(message)]
    for part in parts_of(message, "content"):
        if isinstance(part, Thinking) or (isinstance(part, Text) and part.text):
            parts.append(part)
        elif not isinstance(part, Text):
            answer.losses.add("choices[].message.content[]")
    refusal = message.text("refusal")
    if refusal:
        parts.append(Text(refusal))
    for index, call in enumerate(message.objects("tool_calls")):
        function = call.object("function")
        if function is None:
            call.lose(f"[{call.text('type') or 'unknown'}]")
            continue
        for name in ("type", "index"):
            call.drop(name)
        id = call.text("id") or call_id(answer.id, index)
        parts.append(_call(id, function))
    legacy = message.object("function_call")
    if legacy is not None:
        parts.append(_call(call_id(answer.id, 0), legacy))
    return parts


def _call(id: str, function: Fields) -> ToolCall:
    name = function.text("name") or ""
    if function.starts("arguments") == b"{":
        # Ollama and others give the object itself.
        return ToolCall(id, name, function.json("arguments") or "{}")
    return ToolCall(id, name, function.text("arguments") or "{}")


def call_id(answer_id: str | None, index: int) -> str:
    """An id for a call that came without; none of the conversation's has it yet."""
    return f"call_{answer_id or ''}_{index}"


def encode_answer(answer: ChatAnswer, envelope: Envelope) -> bytes:
    """Write a whole answer; what can't be said is added to its losses."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    texts = [part for part in answer.parts if isinstance(part, Text)]
    if texts:
        message["content"] = joined(texts)
    thinking = [part for part in answer.parts if isinstance(part, Thinking)]
    if thinking:
        message |= thinking_members(
            thinking, answer.losses, member="reasoning_content", sealed=True
        )
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    if calls:
        message["tool_calls"] = [written_call(call, call.id) for call in calls]
    if answer.stop_reason == "pause":
        answer.losses.add("stop_reason")
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISH_REASONS[answer.stop_reason or "end"],
    }
    usage = _NO_USAGE if answer.usage is None else written_usage(answer.usage)
    return msgspec.json.encode(
        {
            "id": answer.id or envelope.id,
            "object": "chat.completion",
            "created": envelope.created,
            "model": answer.model or envelope.model,
            "choices": [choice],
            "usage": usage,
        }
    )
