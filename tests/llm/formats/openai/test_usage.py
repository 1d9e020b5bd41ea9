from __future__ import annotations

from typing import Any

import pytest

from kongai.llm.formats.openai.usage import read_usage, usage_of, written_usage
from kongai.llm.usage import Usage


def read(given: dict[str, Any]) -> Usage:
    usage = Usage()
    read_usage(given, usage)
    return usage


def counted(prompt: int = 0, completion: int = 0, **rest: Any) -> Usage:
    return Usage(prompt, completion, counted=True, **rest)


PLAIN = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
USAGES: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI": (
        {
            **PLAIN,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 15, "audio_tokens": 0},
        },
        counted(
            100,
            20,
            cached_tokens=60,
            reasoning_tokens=15,
            given_prompt_details={"cached_tokens": 60, "audio_tokens": 0},
            given_completion_details={"reasoning_tokens": 15, "audio_tokens": 0},
        ),
    ),
    "DeepSeek": (
        {**PLAIN, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
        counted(100, 20, cached_tokens=64),
    ),
    "Mistral": ({**PLAIN, "num_cached_tokens": 48}, counted(100, 20, cached_tokens=48)),
    "Moonshot": ({**PLAIN, "cached_tokens": 48}, counted(100, 20, cached_tokens=48)),
    "xAI counts thinking apart": (
        {
            **PLAIN,
            "total_tokens": 170,
            "completion_tokens_details": {"reasoning_tokens": 50},
        },
        counted(
            100,
            70,
            reasoning_tokens=50,
            given_completion_details={"reasoning_tokens": 50},
        ),
    ),
    "a total that is wrong": ({**PLAIN, "total_tokens": 999}, counted(100, 20)),
    "a total of thinking counted within": (
        {**PLAIN, "completion_tokens_details": {"reasoning_tokens": 20}},
        counted(
            100,
            20,
            reasoning_tokens=20,
            given_completion_details={"reasoning_tokens": 20},
        ),
    ),
    "OpenRouter writes to the cache": (
        {
            **PLAIN,
            "cost": 0.1,
            "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 40},
        },
        counted(
            100,
            20,
            cached_tokens=30,
            cache_writes={"5m": 40},
            given_prompt_details={"cached_tokens": 30, "cache_write_tokens": 40},
        ),
    ),
    "more cached than read": (
        {
            **PLAIN,
            "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 40},
        },
        counted(
            100,
            20,
            cached_tokens=100,
            given_prompt_details={"cached_tokens": 300, "cache_write_tokens": 40},
        ),
    ),
    "embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, counted(8)),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0}, counted()),
    "null details": ({**PLAIN, "prompt_tokens_details": None}, counted(100, 20)),
    "negative": ({"prompt_tokens": -1, "completion_tokens": -1}, counted()),
    "no numbers": (
        {"prompt_tokens": "100", "completion_tokens": True, "total_tokens": 120},
        Usage(),
    ),
    "numbers with a point": (
        {"prompt_tokens": 100.0, "completion_tokens": 20.0},
        counted(100, 20),
    ),
    "odd details": (
        {**PLAIN, "prompt_tokens_details": {"cached_tokens": None, "x": "secret"}},
        counted(100, 20),
    ),
    "nothing": ({}, Usage()),
}


@pytest.mark.parametrize(("given", "usage"), USAGES.values(), ids=USAGES.keys())
def test_usage_of_openais_kin(given: dict[str, Any], usage: Usage) -> None:
    assert read(given) == usage


@pytest.mark.parametrize(("given", "usage"), USAGES.values(), ids=USAGES.keys())
def test_some_repeat_it_in_every_chunk(given: dict[str, Any], usage: Usage) -> None:
    repeated = Usage()
    for _ in range(3):
        read_usage(given, repeated)
    assert repeated == usage


def test_what_is_not_given_stays_as_it_was() -> None:
    usage = read(PLAIN)
    read_usage({}, usage)
    assert usage == counted(100, 20)


def test_a_count_replaces_an_estimate() -> None:
    usage = Usage(1, 1, estimated=True)
    read_usage(PLAIN, usage)
    assert usage == counted(100, 20)


@pytest.mark.parametrize(
    ("chunk", "found"),
    [
        ({"usage": PLAIN}, PLAIN),
        ({"usage": None, "x_groq": {"id": "x", "usage": PLAIN}}, PLAIN),
        ({"usage": None, "x_groq": {"id": "x"}}, {}),
        ({"usage": [], "x_groq": "x"}, {}),
        ({}, {}),
    ],
)
def test_where_a_chunk_tells_it(chunk: dict[str, Any], found: dict[str, int]) -> None:
    assert usage_of(chunk) == found


def test_what_is_written_of_an_answer_of_another_format() -> None:
    usage = counted(
        100, 20, cached_tokens=60, cache_writes={"1h": 30}, reasoning_tokens=5
    )
    assert written_usage(usage) == {
        **PLAIN,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert written_usage(counted(100, 20)) == PLAIN
    assert written_usage(Usage()) == {}


def test_details_of_any_name_have_a_limit() -> None:
    details = {"x" * 65: 1, "cached_tokens": 2, **{str(n): n for n in range(1, 200)}}
    usage = Usage()
    read_usage({"prompt_tokens": 5, "prompt_tokens_details": details}, usage)
    assert usage.cached_tokens == 2
    assert len(usage.given_prompt_details) == 100
    assert all(len(name) <= 64 for name in usage.given_prompt_details)
