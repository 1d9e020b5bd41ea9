from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from kongai.llm.pricing import (
    PriceTable,
    Rates,
    load,
    price_table,
    tier_factor,
    typed_table,
)
from kongai.llm.usage import Usage

NOON = datetime(2025, 11, 3, 12, tzinfo=timezone.utc)

USAGES = {
    "nothing": Usage(),
    "plain": Usage(119, 29),
    "cache read": Usage(1104, 7, cached_tokens=1000, cache_writes={"5m": 100}),
    "one hour": Usage(500, 3, cached_tokens=100, cache_writes={"5m": 100, "1h": 250}),
    "all cached": Usage(300, 1, cached_tokens=100, cache_writes={"1h": 200}),
    "below the tier": Usage(199_999, 1000, cached_tokens=99_999),
    "at the tier": Usage(200_000, 1000, cached_tokens=100_000),
    "above the tier": Usage(200_001, 1000, cached_tokens=100_001),
    "far above the tier": Usage(
        900_000, 64_000, cached_tokens=400_000, cache_writes={"5m": 100, "1h": 90_000}
    ),
}


def anthropic_models() -> list[str]:
    providers = {provider.id: provider for provider in get_snapshot().providers}
    return [model.id for model in providers["anthropic"].models]


def theirs(model: str, usage: Usage, when: datetime) -> float:
    """The price by genai-prices' own sum, in decimals."""
    writes: dict[str, Any] = {}
    if usage.cache_writes.get("1h"):
        writes["cache_write_1h_tokens"] = usage.cache_writes["1h"]
    counted = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_creation_tokens,
        output_tokens=usage.completion_tokens,
        **writes,
    )
    price = genai_prices.calc_price(
        counted, model, provider_id="anthropic", genai_request_timestamp=when
    )
    return float(price.total_price)


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES.keys())
@pytest.mark.parametrize("model", anthropic_models())
def test_every_model_costs_what_genai_prices_says(model: str, usage: Usage) -> None:
    """Some prices change with the date, some with the length of the prompt."""
    for when in (NOON, NOON + timedelta(days=365)):
        table = price_table("anthropic", model, when)
        assert table is not None
        assert table.cost(usage) == pytest.approx(theirs(model, usage, when), rel=1e-12)


def test_the_models_have_tiers_to_test() -> None:
    tables = [price_table("anthropic", model, NOON) for model in anthropic_models()]
    assert any(table and len(table.tiers) > 1 for table in tables)


def test_claude_codes_own_sum() -> None:
    usage = Usage(137, 20, cached_tokens=11, cache_writes={"5m": 7})
    table = price_table("anthropic", "claude-sonnet-4-20250514", NOON)
    assert usage.uncached_tokens == 119
    assert table is not None
    assert table.cost(usage) == pytest.approx(0.00068655, rel=1e-12)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "gpt-nothing-like-this"),
        ("anthropic", ""),
        ("nobody", "claude-sonnet-4-5"),
    ],
)
def test_what_the_table_lacks_has_no_price(provider: str, model: str) -> None:
    assert price_table(provider, model, NOON) is None


def test_a_model_is_looked_up_once_an_hour() -> None:
    load()
    first = price_table("anthropic", "claude-haiku-4-5", NOON)
    before = price_table.cache_info()
    assert price_table("anthropic", "claude-haiku-4-5", NOON) is first
    assert price_table.cache_info().hits == before.hits + 1
    price_table("anthropic", "claude-haiku-4-5", NOON - timedelta(days=9999))
    assert price_table.cache_info().misses == before.misses + 1


MILLION = 1_000_000
USED = Usage(
    4 * MILLION,
    MILLION,
    cached_tokens=MILLION,
    cache_writes={"5m": MILLION, "1h": MILLION},
)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, 4 * 3 + 15),
        ({"cache_read_cost": 0.3}, 3 + 0.3 + 3 + 3 + 15),
        ({"cache_read_cost": 0}, 3 + 0 + 3 + 3 + 15),
        ({"cache_write_cost": 4}, 3 + 3 + 4 + 4 + 15),
        ({"cache_write_cost": 4, "cache_write_costs": {"1h": 6}}, 3 + 3 + 4 + 6 + 15),
        ({"cache_write_costs": {"5m": 5}}, 3 + 3 + 5 + 3 + 15),
        ({"factors": [(MILLION, 2, 10)]}, 4 * 3 * 2 + 15 * 10),
        (
            {"cache_read_cost": 1, "cache_write_cost": 4, "factors": [(9, 2, 1)]},
            (3 + 1 + 4 + 4) * 2 + 15,
        ),
    ],
)
def test_typed_prices(prices: dict[str, Any], cost: float) -> None:
    table = typed_table(input_cost=3, output_cost=15, **prices)
    assert table.cost(USED) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("prompt", "factor"),
    [(0, 1), (99, 1), (100, 1), (101, 2), (1000, 2), (1001, 3), (10**9, 3)],
)
def test_the_highest_threshold_passed_holds(prompt: int, factor: int) -> None:
    table = typed_table(
        input_cost=1, output_cost=1, factors=[(100, 2, 2), (1000, 3, 3)]
    )
    assert table.rates(prompt).input == factor


def test_a_cache_write_of_unknown_duration_costs_as_plain_input() -> None:
    rates = Rates(input=3, output=15, cache_read=0.3, cache_write={"5m": 4})
    table = PriceTable([(-1, rates)])
    assert table.cost(Usage(MILLION, cache_writes={"1d": MILLION})) == 3


@pytest.mark.parametrize(
    ("tier", "factor"),
    [
        (None, 1),
        ("", 1),
        ("standard", 1),
        ("batch", 0.5),
        ("BATCH", 0.5),
        ("priority", 1.5),
        ("high-Priority", 2),
    ],
)
def test_tier_factor(tier: str | None, factor: float) -> None:
    factors = [("Batch", 0.5), ("priority", 1.5), ("high-priority", 2)]
    assert tier_factor(tier, factors) == factor
    assert tier_factor(tier, []) == 1
