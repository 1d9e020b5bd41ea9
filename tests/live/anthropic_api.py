"""What Anthropic's Messages API says, as bytes: enough of it to play its part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """The tokens of one message, under Anthropic's rule: no token is counted twice."""

    input: int
    output: int
    cache_write: int = 0
    """Written to the cache for five minutes."""
    cache_read: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the prompt, cached or not."""
        return self.input + self.cache_write + self.cache_read

    def of_prompt(self) -> dict[str, int]:
        """The prompt's part, under Anthropic's names."""
        return {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.cache_write,
            "cache_read_input_tokens": self.cache_read,
        }


@dataclass(frozen=True)
class ToolUse:
    """An answer that asks the client to run a tool."""

    name: str
    input: Mapping[str, Any]
    id: str = "toolu_01KongaiLiveTest0000001"


Part = str | ToolUse
"""A text for the person, or a wish to run a tool."""
Answer = Part | tuple[Part, ...]


def parts_of(answer: Answer) -> tuple[Part, ...]:
    """The answer's parts, in order; a text or a wish alone is one."""
    return answer if isinstance(answer, tuple) else (answer,)


def sse(event: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event whose data is a JSON object."""
    return f"event: {event}\ndata: {_json(data)}\n\n".encode()


def message(
    answer: Answer,
    usage: Usage,
    *,
    model: str,
    message_id: str = "msg_01KongaiLiveTest00000001",
    stop_reason: str | None = None,
    stop_sequence: str | None = None,
) -> dict[str, Any]:
    """One whole answer, as it comes without ``stream``."""
    parts = parts_of(answer)
    usual = "end_turn" if all(isinstance(part, str) for part in parts) else "tool_use"
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_block(part) for part in parts],
        "stop_reason": stop_reason or usual,
        "stop_sequence": stop_sequence,
        "usage": {
            **usage.of_prompt(),
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": usage.output,
            "service_tier": "standard",
        },
    }


def message_events(
    answer: Answer,
    usage: Usage,
    *,
    model: str,
    message_id: str = "msg_01KongaiLiveTest00000001",
    stop_reason: str | None = None,
    stop_sequence: str | None = None,
    provisional_output: int = 1,
    cut: int = 9,
) -> Iterator[bytes]:
    """The events of one streamed answer, which comes in pieces of ``cut`` characters.

    As with the real API, ``message_start`` carries the prompt's tokens and a first
    guess at the output, and the closing ``message_delta`` the output in full.
    """

    def event(kind: str, **fields: Any) -> bytes:
        return sse(kind, {"type": kind, **fields})

    whole = message(
        answer,
        usage,
        model=model,
        message_id=message_id,
        stop_reason=stop_reason,
        stop_sequence=stop_sequence,
    )
    start = {
        **whole,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**whole["usage"], "output_tokens": provisional_output},
    }
    yield event("message_start", message=start)
    for index, part in enumerate(parts_of(answer)):
        if isinstance(part, str):
            text, delta, field = part, "text_delta", "text"
            block = {**_block(part), "text": ""}
        else:
            text, delta, field = _json(part.input), "input_json_delta", "partial_json"
            block = {**_block(part), "input": {}}
        yield event("content_block_start", index=index, content_block=block)
        if index == 0:
            yield event("ping")
        for begin in range(0, len(text), cut):
            piece = {"type": delta, field: text[begin : begin + cut]}
            yield event("content_block_delta", index=index, delta=piece)
        yield event("content_block_stop", index=index)
    yield event(
        "message_delta",
        delta={
            "stop_reason": whole["stop_reason"],
            "stop_sequence": whole["stop_sequence"],
        },
        usage={**usage.of_prompt(), "output_tokens": usage.output},
    )
    yield event("message_stop")


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {
        "type": "tool_use",
        "id": part.id,
        "name": part.name,
        "input": part.input,
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
