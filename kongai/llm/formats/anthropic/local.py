"""What of Anthropic's API can be answered without Anthropic."""

from __future__ import annotations

import msgspec

from kongai.llm.estimate import prompt_tokens
from kongai.llm.formats.anthropic.requests import decode_request

_COUNT_TOKENS = "/v1/messages/count_tokens"


def whole_of(stream: bytes) -> bytes | None:
    """Nothing: a stream is logged as it is."""
    return None


def answer_locally(path: str, body: bytes) -> bytes | None:
    """An estimate of a prompt's tokens, for providers that count none.

    Args:
        path: the API's path; None is returned for any other than that of counting.
        body: the request's.

    Raises:
        Untranslatable: it is not as the format demands.
    """
    if path != _COUNT_TOKENS:
        return None
    return msgspec.json.encode({"input_tokens": prompt_tokens(decode_request(body))})
