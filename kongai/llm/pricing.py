"""What an answer costs, in USD.

Prices typed into the configuration win; otherwise they come from the table of
genai-prices, which is part of the installation and is never fetched. A look-up takes
far longer than the sum, so that each model is looked up once an hour: some prices
depend on the time of day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from kongai.llm.usage import Usage

_MILLION = 1_000_000


class Rates(NamedTuple):
    """Prices in USD per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: Mapping[str, float]
    """By time to live, ``5m`` and ``1h``."""

    def cost(self, usage: Usage) -> float:
        """What this usage costs, in USD."""
        writes, uncached = 0.0, usage.prompt_tokens - usage.cached_tokens
        for ttl, tokens in usage.cache_writes.items():
            writes += tokens * self.cache_write.get(ttl, self.input)
            uncached -= tokens
        return (
            uncached * self.input
            + usage.cached_tokens * self.cache_read
            + writes
            + usage.completion_tokens * self.output
        ) / _MILLION


class PriceTable(NamedTuple):
    """A model's rates, which may rise with the length of the prompt."""

    tiers: Sequence[tuple[int, Rates]]
    """Pairs of a number of prompt tokens and the rates for prompts longer than it,
    the highest number first; the last one's is -1."""

    def rates(self, prompt_tokens: int) -> Rates:
        """The rates for a prompt of so many tokens; they hold for all of them."""
        for above, rates in self.tiers:
            if prompt_tokens > above:
                return rates
        raise LookupError(f"no rates for {prompt_tokens} tokens")

    def cost(self, usage: Usage) -> float:
        """What this usage costs, in USD."""
        return self.rates(usage.prompt_tokens).cost(usage)


@lru_cache(maxsize=1024)
def price_table(provider: str, model: str, hour: datetime) -> PriceTable | None:
    """The prices of a model, from the table of genai-prices.

    Args:
        provider: as genai-prices names it, for example ``anthropic``.
        model: the model's name, as the answer or the request gives it.
        hour: the time of the request, cut to the hour, with its time zone.

    Returns:
        None for a model that the table does not have.
    """
    # Costs 0.3 s, which no script that only imports kongai should pay.
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = found.get_prices(hour)
    starts = {
        tier.start
        for price in vars(prices).values()
        for tier in getattr(price, "tiers", ())
    }
    return PriceTable(
        [
            (start, _rates(prices, start))
            for start in sorted({-1, *starts}, reverse=True)
        ]
    )


def load() -> None:
    """Load the table now, so that the first answer need not wait for it."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def _rates(prices: Any, above: int) -> Rates:
    def price(name: str, otherwise: float) -> float:
        value = getattr(prices, name, None)
        if value is None:
            return otherwise
        if not hasattr(value, "tiers"):
            return float(value)
        reached = [tier.price for tier in value.tiers if tier.start <= above]
        return float(reached[-1] if reached else value.base)

    read = price("input_mtok", 0.0)
    write = price("cache_write_mtok", read)
    return Rates(
        input=read,
        output=price("output_mtok", 0.0),
        cache_read=price("cache_read_mtok", read),
        cache_write={"5m": write, "1h": price("cache_write_1h_mtok", write)},
    )


def typed_table(
    *,
    input_cost: float,
    output_cost: float,
    cache_read_cost: float | None = None,
    cache_write_cost: float | None = None,
    cache_write_costs: Mapping[str, float] | None = None,
    factors: Sequence[tuple[int, float, float]] = (),
) -> PriceTable:
    """The prices of a configuration, all in USD per million tokens.

    Args:
        input_cost, output_cost: what the model reads and writes.
        cache_read_cost, cache_write_cost: None prices the cache as plain input.
        cache_write_costs: by time to live; these win over `cache_write_cost`.
        factors: a number of prompt tokens, and the factors on the input's and the
            output's prices for prompts longer than it.
    """
    read = input_cost if cache_read_cost is None else cache_read_cost
    write = input_cost if cache_write_cost is None else cache_write_cost
    writes = {"5m": write, "1h": write, **(cache_write_costs or {})}
    return PriceTable(
        [
            (
                above,
                Rates(
                    input_cost * of_input,
                    output_cost * of_output,
                    read * of_input,
                    {ttl: price * of_input for ttl, price in writes.items()},
                ),
            )
            for above, of_input, of_output in sorted(
                [(-1, 1, 1), *factors], reverse=True
            )
        ]
    )


def tier_factor(tier: str | None, factors: Sequence[tuple[str, float]]) -> float:
    """The factor of an answer's service tier; 1 when none fits.

    A factor's name fits when it is part of the tier's, in any case; the longest wins.
    """
    if not factors:
        return 1.0
    found = [(name, f) for name, f in factors if name.lower() in (tier or "").lower()]
    return max(found, key=lambda pair: len(pair[0]))[1] if found else 1.0
