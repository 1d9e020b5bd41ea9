"""Tokens, as every provider's answer is counted in Kong's record."""

from __future__ import annotations

from typing import Any

import msgspec

CHARACTERS_PER_TOKEN = 4
"""Kong's estimate where a provider gives no count."""
MOST_TOKENS = 10**12
"""No exchange has more; a count beyond is none, and would spoil every sum."""
_TOKENS_PER_WORD = 1.8
_TOKENS_PER_IMAGE = 1600
"""The most that Anthropic counts for an image, whatever its size."""


class Usage(msgspec.Struct):
    """The tokens of one answer.

    `prompt_tokens` counts everything the model read: what was not cached, what was read
    from the cache and what was written to it (Kong 3.15's rule).
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens read from the provider's cache."""
    cache_writes: dict[str, int] = msgspec.field(default_factory=dict)
    """Prompt tokens written to the cache, by time to live: ``{"5m": 100, "1h": 0}``."""
    reasoning_tokens: int = 0
    service_tier: str | None = None
    estimated: bool = False
    """Whether something of it was estimated from the length of the text."""
    counted: bool = False
    """Whether the provider gave any count at all."""
    given_prompt_details: dict[str, int] = msgspec.field(default_factory=dict)
    given_completion_details: dict[str, int] = msgspec.field(default_factory=dict)
    """The details under the names that OpenAI's format has for them, zeros too."""

    @property
    def total_tokens(self) -> int:
        """What was read and what was written, together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cache_creation_tokens(self) -> int:
        """Prompt tokens written to the cache, whatever the time to live."""
        return sum(self.cache_writes.values()) if self.cache_writes else 0

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens that had nothing to do with the cache."""
        return self.prompt_tokens - self.cached_tokens - self.cache_creation_tokens

    def prompt_details(self) -> dict[str, Any]:
        """Kong's `prompt_tokens_details`: as given, or else what is not zero."""
        details: dict[str, Any] = {}
        if self.cached_tokens:
            details["cached_tokens"] = self.cached_tokens
        if self.cache_writes and (written := sum(self.cache_writes.values())):
            details["cache_creation_tokens"] = written
        return details | self.given_prompt_details

    def completion_details(self) -> dict[str, Any]:
        """Kong's `completion_tokens_details`: as given, or else what is not zero."""
        if self.given_completion_details:
            return dict(self.given_completion_details)
        return (
            {"reasoning_tokens": self.reasoning_tokens} if self.reasoning_tokens else {}
        )


def count_of(number: float | None) -> int:
    """A count of tokens as a provider gives it; 0 for what can't be one."""
    return int(number) if number and 0 < number <= MOST_TOKENS else 0


def estimate_tokens(characters: int) -> int:
    """About how many tokens a text of so many characters has."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def estimate_by_words(words: int, *, streamed: bool) -> int:
    """Kong's estimate of a prompt, where a provider gives no count."""
    return round(words * _TOKENS_PER_WORD) if streamed else words


def estimate_prompt(texts_size: int, images: int = 0) -> int:
    """About how many tokens a prompt has.

    Args:
        texts_size: bytes of UTF-8 of all its texts, names and schemas. Bytes and not
            characters, because scripts beyond Latin take more tokens a character.
        images: how many images it holds.
    """
    return estimate_tokens(texts_size) + images * _TOKENS_PER_IMAGE
