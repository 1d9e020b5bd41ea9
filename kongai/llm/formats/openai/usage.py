"""Tokens as OpenAI's format counts them, under the names of its many kin too."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from kongai.llm.usage import Usage, count_of

_LONGEST_NAME, _MOST_DETAILS = 64, 100


def read_usage(given: Mapping[str, Any], usage: Usage) -> None:
    """Take over the counts of an answer; what is not given stays as it was."""
    prompt = _count(given, "prompt_tokens")
    completion = _count(given, "completion_tokens")
    if prompt is None and completion is None:
        return
    prompt_details = _details(given, "prompt_tokens_details")
    completion_details = _details(given, "completion_tokens_details")
    usage.counted, usage.estimated = True, False
    usage.prompt_tokens = prompt or 0
    usage.completion_tokens = completion or 0
    usage.reasoning_tokens = completion_details.get("reasoning_tokens", 0)
    extra = (_count(given, "total_tokens") or 0) - usage.total_tokens
    if extra and extra == usage.reasoning_tokens:
        # Some count what was thought apart from what was written (xAI).
        usage.completion_tokens += extra
    cached = (
        prompt_details.get("cached_tokens"),
        _count(given, "prompt_cache_hit_tokens"),  # DeepSeek
        _count(given, "num_cached_tokens"),  # Mistral
        _count(given, "cached_tokens"),
    )
    usage.cached_tokens = min(
        next((count for count in cached if count is not None), 0), usage.prompt_tokens
    )
    written = prompt_details.get(
        "cache_write_tokens",  # OpenRouter
        prompt_details.get("cache_creation_tokens", 0),  # Kong
    )
    written = min(written, usage.prompt_tokens - usage.cached_tokens)
    usage.cache_writes = {"5m": written} if written else {}
    usage.given_prompt_details = prompt_details
    usage.given_completion_details = completion_details


def usage_of(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage that a chunk of a stream tells; empty for most of them."""
    groq = chunk.get("x_groq")
    inner = groq.get("usage") if isinstance(groq, Mapping) else None
    for found in (chunk.get("usage"), inner):
        if isinstance(found, Mapping):
            return found
    return {}


def written_usage(usage: Usage) -> dict[str, Any]:
    """The counts of an answer as OpenAI's format has them."""
    if not usage.counted:
        return {}
    written: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if details := usage.prompt_details():
        written["prompt_tokens_details"] = details
    if details := usage.completion_details():
        written["completion_tokens_details"] = details
    return written


def _count(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return count_of(value)


def _details(given: Mapping[str, Any], name: str) -> dict[str, int]:
    details = given.get(name)
    if not isinstance(details, Mapping):
        return {}
    # They are the provider's own, and go into the record.
    names = (key for key in details if len(key) <= _LONGEST_NAME)
    counts = {key: _count(details, key) for key in islice(names, _MOST_DETAILS)}
    return {key: count for key, count in counts.items() if count is not None}
