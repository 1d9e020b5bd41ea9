"""What of Anthropic's API can be answered without Anthropic."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from kongai.llm.chat import Untranslatable
from kongai.llm.estimate import prompt_tokens
from kongai.llm.formats.anthropic.requests import decode_request

LOCAL_PATHS: Collection[str] = ("/v1/messages/count_tokens",)
"""The paths that can be answered without a provider."""


def whole_of(stream: bytes) -> bytes | None:
    """Nothing: a stream is logged as it is."""
    return None


def answer_locally(path: str, body: bytes) -> bytes:
    """An estimate of a prompt's tokens, for providers that count none.

    Args:
        path: that of counting, which is the only one.
        body: the request's.

    Raises:
        Untranslatable: it is not as the format demands.
    """
    chat = decode_request(body)
    if not chat.messages:
        raise Untranslatable("messages: expected at least one message")
    return msgspec.json.encode({"input_tokens": prompt_tokens(chat)})
