"""What `ai-proxy` writes into the record: `ai.proxy.meta` and `ai.proxy.usage`.

The names and units are Kong's: latencies in whole milliseconds, money in USD, numbers
with 14 significant digits.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from kongai import redact
from kongai.exchange import Exchange, milliseconds
from kongai.llm.call import Call, cut
from kongai.llm.chat import Untranslatable
from kongai.llm.estimate import prompt_words
from kongai.llm.pricing import PriceTable, price_table, tier_factor, typed_table
from kongai.llm.usage import Usage, estimate_by_words

if TYPE_CHECKING:
    from kongai.plugins.ai_proxy_config import AIProxyConfig, Model
    from kongai.providers.options import Options

_LONGEST_MODEL = 200
"""Characters of a model's name; a longer one has no price, and is not remembered."""
_LONGEST_SHOWN, _MOST_KEPT = 64, 256
"""Characters of a name that is remembered as one to show, and how many are."""
_DIGITS = "%.14g"
_UNSPECIFIED = "UNSPECIFIED"
_HOUR = 3_600_000
"""Milliseconds."""


class Statistics:
    """Turns a finished call into fields of the record."""

    def __init__(self, target: AIProxyConfig) -> None:
        self._target = target
        self._format = target.client_format
        self._prices = _typed_prices(target.model.options)
        factors = target.model.options.service_tier_factor
        self._tier_factors = [(factor.tier, factor.factor) for factor in factors]
        self._priced_as = target.provider.prices
        self._priced: tuple[int, dict[str, PriceTable]] = (0, {})
        """The number of an hour, and the prices that were found for it, by model."""
        self._shown: set[str] = set()
        """Names of models that show at a glance that they can be shown."""

    def write(
        self, exchange: Exchange, call: Call, plugin_id: str, model: Model
    ) -> None:
        """Set the fields of one call.

        Args:
            exchange: the exchange, at its end.
            call: what the plugin knows of it.
            plugin_id: the plugin's id, for `meta.plugin_id`.
            model: the model's settings, their templates filled in.
        """
        latency = 0
        if call.asked is not None and exchange.timings.sent is not None:
            end = call.received or exchange.timings.end
            latency = milliseconds(call.asked, end)
        # A client may write anything there, even its key.
        requested = call.request_model or _UNSPECIFIED
        if requested not in self._shown:
            requested = self._name_shown(requested)
        answered = call.response_model
        if not answered or answered == call.request_model:
            answered = requested
        elif answered not in self._shown:
            answered = self._name_shown(answered)
        refused = call.chat and call.asked is None
        meta: dict[str, Any] = {
            "plugin_id": plugin_id,
            # A refused request was for no provider yet.
            "provider_name": _UNSPECIFIED if refused else call.provider,
            "request_model": requested,
            "response_model": answered,
            "request_mode": "stream" if call.streaming else "oneshot",
            "llm_latency": latency,
        }
        if call.provider == "azure":
            meta |= _of_azure(model.options)
        fields: dict[str, Any] = {"meta": meta}
        if call.chat:
            usage = Usage() if call.reader is None else call.reader.usage
            if usage.estimated and not usage.prompt_tokens:
                usage.prompt_tokens = self.estimated_prompt(exchange, call)
            fields["usage"] = self._usage(exchange, call, usage, latency)
        if self._target.logging.log_payloads:
            fields["payload"] = self._payload(exchange, call)
        exchange.log.set("ai.proxy", fields)
        session = exchange.headers.get("x-claude-code-session-id")
        if session is not None:
            exchange.log.set("kongai.session", cut(session))

    def estimated_prompt(self, exchange: Exchange, call: Call) -> int:
        """Kong's estimate of the prompt's tokens, by the words of the messages."""
        if call.prompt_estimate is not None:
            return call.prompt_estimate
        if call.chat and self._target.route_type == "llm/v1/chat":
            with suppress(Untranslatable):
                chat = self._format.decode_request(call.body or exchange.body or b"")
                return estimate_by_words(prompt_words(chat), streamed=call.streaming)
        return 0

    def _name_shown(self, name: str) -> str:
        """The name of a model for the record; it is remembered if it can't be a key."""
        if len(name) > _LONGEST_SHOWN or not redact.is_harmless(name):
            return redact.text(name)
        if len(self._shown) >= _MOST_KEPT:
            self._shown.clear()
        self._shown.add(name)
        return name

    def _usage(
        self, exchange: Exchange, call: Call, usage: Usage, latency: int
    ) -> dict[str, Any]:
        first = latency
        if call.streaming:
            first = milliseconds(call.asked or 0.0, call.first_token)
        if usage.estimated:
            exchange.log.set("kongai.usage_estimated", True)
        if call.reader is not None and call.reader.broken:
            exchange.log.set("kongai.usage_unread", True)
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        return {
            "prompt_tokens": prompt,
            "prompt_tokens_details": usage.prompt_details(),
            "completion_tokens": completion,
            "completion_tokens_details": usage.completion_details(),
            "total_tokens": prompt + completion,
            "cost": self._cost(exchange, call, usage) if prompt + completion else 0,
            "time_per_token": (
                float(_DIGITS % (latency / completion)) if completion else 0
            ),
            "time_to_first_token": first,
        }

    def _cost(self, exchange: Exchange, call: Call, usage: Usage) -> float:
        prices, source = self._prices, "config"
        if prices is None:
            source = "table"
            hour = exchange.timings.started_at // _HOUR
            known_hour, known = self._priced
            if hour == known_hour and call.response_model is not None:
                prices = known.get(call.response_model)
            if prices is None:
                prices = self._table_prices(call, hour)
        if prices is None:
            exchange.log.set("kongai.price", "unknown")
            return 0
        exchange.log.set("kongai.price", source)
        cost = prices.cost(usage)
        if self._tier_factors:
            cost *= tier_factor(usage.service_tier, self._tier_factors)
        return float(_DIGITS % cost)

    def _table_prices(self, call: Call, hour: int) -> PriceTable | None:
        """The prices of the table in an hour, given by its number."""
        provider = self._priced_as
        if provider is None:
            return None
        begin = datetime.fromtimestamp(hour * 3600, timezone.utc)
        for model in (call.response_model, call.request_model):
            if model and len(model) <= _LONGEST_MODEL:
                prices = price_table(provider, model, begin)
                if prices is not None:
                    if model == call.response_model:
                        self._remember(model, prices, hour)
                    return prices
        return None

    def _remember(self, model: str, prices: PriceTable, hour: int) -> None:
        known_hour, known = self._priced
        if known_hour != hour or len(known) >= _MOST_KEPT:
            known = {}
        known[model] = prices
        self._priced = (hour, known)

    def _payload(self, exchange: Exchange, call: Call) -> dict[str, str]:
        asked = call.body or exchange.body or b""
        answered = b"".join(call.payload or ())
        if call.streaming and answered:
            answered = self._format.whole_of(answered) or answered
        return {
            "request": redact.text(asked.decode("utf-8", "replace")),
            "response": redact.text(answered.decode("utf-8", "replace")),
        }


def _of_azure(options: Options) -> dict[str, str | None]:
    """What Kong tells of a call to Azure beside."""
    return {
        "azure_instance_id": options.azure_instance,
        "azure_deployment_id": options.azure_deployment_id,
        "azure_api_version": options.azure_api_version,
    }


def _typed_prices(options: Options) -> PriceTable | None:
    """The file's prices; as in Kong, they need both an input and an output price."""
    if options.input_cost is None or options.output_cost is None:
        return None
    return typed_table(
        input_cost=options.input_cost,
        output_cost=options.output_cost,
        cache_read_cost=options.cache_read_cost,
        cache_write_cost=options.cache_write_cost,
        cache_write_costs={c.ttl: c.cost for c in options.cache_write_cost_list},
        factors=[
            (int(f.above), f.input_factor, f.output_factor)
            for f in options.context_window_factor
        ],
    )
