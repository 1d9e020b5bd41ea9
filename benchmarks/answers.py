"""What the model answers, byte for byte: pure.

The same request always has the same answer, so that a client can tell whether a
gateway has passed on all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

INPUT_TOKENS = 119
CACHE_WRITE_TOKENS = 7
CACHE_READ_TOKENS = 11
PROMPT_TOKENS = INPUT_TOKENS + CACHE_WRITE_TOKENS + CACHE_READ_TOKENS
"""All that the model has read, as a record counts it."""
PIECE = "Stokes' theorem "
"""What the model writes again and again, a token each time."""


@dataclass(frozen=True)
class Answer:
    """An answer of the model.

    Args:
        content_type: its media type.
        pieces: what is written one by one: the whole document, or the events that
            begin a stream, those with its text, and its end.
        lead: how many of them are there at once.
    """

    content_type: str
    pieces: tuple[bytes, ...]
    lead: int = 1

    @property
    def body(self) -> bytes:
        """All of it, as a client has it in the end."""
        return b"".join(self.pieces)


@lru_cache(maxsize=64)
def answer(model: str, tokens: int, *, streamed: bool) -> Answer:
    """The answer of `model` that is `tokens` long."""
    if not streamed:
        whole = _message(model, PIECE * tokens, tokens)
        return Answer("application/json", (json.dumps(whole).encode(),))
    start = _message(model, "", 1) | {"content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": PIECE}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    head = (
        _event("message_start", message=start),
        _event("content_block_start", index=0, content_block=block),
        _event("ping"),
    )
    event = _event("content_block_delta", index=0, delta=delta)
    tail = (
        _event("content_block_stop", index=0)
        + _event("message_delta", delta=stop, usage={"output_tokens": tokens})
        + _event("message_stop")
    )
    kind = "text/event-stream; charset=utf-8"
    return Answer(kind, (*head, *(event for _ in range(tokens)), tail), len(head))


def _message(model: str, text: str, tokens: int) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "cache_creation_input_tokens": CACHE_WRITE_TOKENS,
            "cache_read_input_tokens": CACHE_READ_TOKENS,
            "output_tokens": tokens,
            "service_tier": "standard",
        },
    }


def _event(kind: str, **data: Mapping[str, Any] | int) -> bytes:
    text = json.dumps({"type": kind, **data}, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()
