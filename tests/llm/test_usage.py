from __future__ import annotations

import pytest

from kongai.llm.usage import (
    MOST_TOKENS,
    Usage,
    count_of,
    estimate_by_words,
    estimate_prompt,
    estimate_tokens,
)


@pytest.mark.parametrize(
    ("characters", "tokens"),
    [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (25, 7), (4_000_001, 1_000_001)],
)
def test_four_characters_are_about_a_token(characters: int, tokens: int) -> None:
    assert estimate_tokens(characters) == tokens


@pytest.mark.parametrize(
    ("given", "count"),
    [
        *((7, 7), (1.5, 1), (0, 0), (-5, 0), (None, 0), (MOST_TOKENS, MOST_TOKENS)),
        *((MOST_TOKENS + 1, 0), (10**4000, 0), (1e308, 0), (float("inf"), 0)),
    ],
)
def test_what_is_no_count_is_none(given: float | None, count: int) -> None:
    assert count_of(given) == count


def test_nothing_was_used() -> None:
    usage = Usage()
    assert usage.total_tokens == usage.uncached_tokens == 0
    assert usage.prompt_details() == usage.completion_details() == {}
    assert not usage.estimated


def test_the_parts_of_a_prompt() -> None:
    """Kong 3.15 counts everything the model read, cached or not."""
    usage = Usage(1110, 7, cached_tokens=1000, cache_writes={"5m": 60, "1h": 40})
    assert usage.total_tokens == 1117
    assert usage.cache_creation_tokens == 100
    assert usage.uncached_tokens == 10
    assert usage.prompt_details() == {
        "cached_tokens": 1000,
        "cache_creation_tokens": 100,
    }


@pytest.mark.parametrize(
    ("usage", "of_prompt", "of_completion"),
    [
        (Usage(9, 9), {}, {}),
        (Usage(9, 9, cached_tokens=4), {"cached_tokens": 4}, {}),
        (Usage(9, cache_writes={"1h": 4}), {"cache_creation_tokens": 4}, {}),
        (Usage(9, cache_writes={"5m": 0, "1h": 0}), {}, {}),
        (Usage(9, 9, reasoning_tokens=5), {}, {"reasoning_tokens": 5}),
    ],
)
def test_details_say_what_is_not_zero(
    usage: Usage, of_prompt: dict[str, int], of_completion: dict[str, int]
) -> None:
    assert usage.prompt_details() == of_prompt
    assert usage.completion_details() == of_completion


def test_details_that_were_given_are_shown_as_they_came() -> None:
    """Kong shows OpenAI's details, zeros and all; what is computed is added."""
    usage = Usage(9, 9, cached_tokens=4, cache_writes={"5m": 2}, reasoning_tokens=3)
    usage.given_prompt_details = {"cached_tokens": 4, "audio_tokens": 0}
    usage.given_completion_details = {"audio_tokens": 0}
    assert usage.prompt_details() == {
        "cached_tokens": 4,
        "cache_creation_tokens": 2,
        "audio_tokens": 0,
    }
    assert usage.completion_details() == {"audio_tokens": 0}


@pytest.mark.parametrize(
    ("words", "streamed", "tokens"),
    [(10, False, 10), (10, True, 18), (3, True, 5), (0, True, 0), (0, False, 0)],
)
def test_kongs_estimate_by_words(words: int, streamed: bool, tokens: int) -> None:
    assert estimate_by_words(words, streamed=streamed) == tokens


@pytest.mark.parametrize(
    ("size", "images", "tokens"), [(0, 0, 0), (9, 0, 3), (0, 2, 3200), (4, 1, 1601)]
)
def test_an_estimate_of_a_prompt(size: int, images: int, tokens: int) -> None:
    assert estimate_prompt(size, images) == tokens


def test_two_answers_share_no_counts() -> None:
    Usage().cache_writes["5m"] = 1
    assert Usage().cache_writes == {}
