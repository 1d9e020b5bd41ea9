"""What OpenAI's Chat Completions API says, as bytes: enough of it to play its part."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from .anthropic_api import Answer, ToolUse, parts_of

CREATED = 1754432618
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Tokens:
    """The tokens of one answer, under OpenAI's rule: details are parts of counts."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    def usage(self) -> dict[str, Any]:
        """All the counts, under OpenAI's names."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def completion(
    answer: Answer,
    tokens: Tokens,
    *,
    model: str,
    finish_reason: str | None = None,
    completion_id: str = "chatcmpl-KongaiLiveTest0000001",
) -> dict[str, Any]:
    """One whole answer, as it comes without ``stream``."""
    texts, calls = _texts_and_calls(answer)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": None,
        "annotations": [],
    }
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason or ("tool_calls" if calls else "stop"),
    }
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": tokens.usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_kongai",
    }


def completion_events(
    answer: Answer,
    tokens: Tokens,
    *,
    model: str,
    finish_reason: str | None = None,
    completion_id: str = "chatcmpl-KongaiLiveTest0000001",
    include_usage: bool = True,
    interleaved: bool = False,
    cut: int = 9,
) -> Iterator[bytes]:
    """The events of one streamed answer, which comes in pieces of ``cut`` characters.

    As with the real API, each chunk but the last says ``usage: null`` if the usage was
    asked for, and nothing of it otherwise.  Calls of tools come one after the other;
    with ``interleaved``, as some compatible APIs send them, their pieces take turns.
    """
    texts, calls = _texts_and_calls(answer)
    envelope = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_kongai",
    }

    def event(choices: list[Any], usage: Mapping[str, Any] | None = None) -> bytes:
        chunk: dict[str, Any] = {**envelope, "choices": choices}
        if include_usage:
            chunk["usage"] = usage
        # Padding of changing length, which hides from listeners how long words are.
        chunk["obfuscation"] = "Kongai"[: 1 + len(json.dumps(choices)) % 6]
        return f"data: {_json(chunk)}\n\n".encode()

    def delta(fields: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": fields, "logprobs": None}
        return event([{**choice, "finish_reason": finish}])

    start = "" if texts else None
    yield delta({"role": "assistant", "content": start, "refusal": None})
    for piece in _pieces("".join(texts), cut):
        yield delta({"content": piece})
    of_calls = [list(_call_deltas(i, call, cut)) for i, call in enumerate(calls)]
    for turn in zip_longest(*of_calls) if interleaved else of_calls:
        for fields in turn:
            if fields is not None:
                yield delta({"tool_calls": [fields]})
    yield delta({}, finish_reason or ("tool_calls" if calls else "stop"))
    if include_usage:
        yield event([], tokens.usage())
    yield DONE


def error(
    message: str, *, kind: str = "invalid_request_error", code: str | None = None
) -> bytes:
    """The body of an error."""
    fields = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": fields}, indent=2).encode()


def text_completion(text: str, tokens: Tokens, *, model: str) -> dict[str, Any]:
    """One whole answer of the older API, which continues a text."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "cmpl-KongaiLiveTest0000001",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": tokens.usage(),
    }


def embeddings(
    vectors: list[list[float]], prompt_tokens: int, *, model: str, encoding: str
) -> dict[str, Any]:
    """One vector for each input, as numbers or as the base64 of 32-bit floats."""

    def encoded(vector: list[float]) -> Any:
        if encoding != "base64":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encoded(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _texts_and_calls(answer: Answer) -> tuple[list[str], list[ToolUse]]:
    parts = parts_of(answer)
    texts = [part for part in parts if isinstance(part, str)]
    return texts, [part for part in parts if isinstance(part, ToolUse)]


def _call(call: ToolUse) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _json(call.input)}
    return {"id": call.id, "type": "function", "function": function}


def _call_deltas(index: int, call: ToolUse, cut: int) -> Iterator[dict[str, Any]]:
    whole = _call(call)
    start = {**whole["function"], "arguments": ""}
    yield {"index": index, **whole, "function": start}
    for piece in _pieces(whole["function"]["arguments"], cut):
        yield {"index": index, "function": {"arguments": piece}}


def _pieces(text: str, length: int) -> Iterator[str]:
    for begin in range(0, len(text), length):
        yield text[begin : begin + length]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
