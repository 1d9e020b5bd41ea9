from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

from kongai.exchange import Exchange, Timings
from kongai.llm.call import Call
from kongai.llm.formats import AnswerReader, anthropic
from kongai.llm.usage import Usage
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.plugins.ai_statistics import Statistics
from kongai.schema import load

MODEL = "claude-sonnet-4-5"
DEEPSEEK = {
    "route_type": "llm/v1/chat",
    "logging": {"log_statistics": True},
    "model": {"provider": "deepseek"},
}


def reader(usage: Usage, *, broken: bool = False) -> AnswerReader:
    made = anthropic.whole_reader()
    made.usage, made.broken = usage, broken
    return made


def call(
    usage: Usage | None = None,
    *,
    milliseconds: float = 1415.5,
    first: float | None = None,
    **fields: Any,
) -> Call:
    """A chat call that was asked at second 1000 of the clock."""
    known: dict[str, Any] = {
        "provider": "anthropic",
        "path": "/v1/messages",
        "chat": True,
        "request_model": MODEL,
        "response_model": MODEL,
        "asked": 1000.0,
        "received": 1000 + milliseconds / 1000,
        "first_token": None if first is None else 1000 + first / 1000,
        "reader": reader(Usage(119, 29) if usage is None else usage),
    }
    return Call(**{**known, **fields})


def written(
    done: Call,
    *,
    options: Mapping[str, Any] | None = None,
    logging: Mapping[str, Any] | None = None,
    sent: float | None = 1000.5,
    started: datetime = datetime(2025, 11, 3, 12, tzinfo=timezone.utc),
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    by: Statistics | None = None,
) -> dict[str, Any]:
    """What is written into the record of a call."""
    settings = {
        "route_type": "llm/v1/chat",
        "llm_format": "anthropic",
        "logging": logging or {"log_statistics": True},
        "model": {
            "provider": "anthropic",
            "options": {"anthropic_version": "2023-06-01", **(options or {})},
        },
    }
    timings = Timings(started_at=int(started.timestamp() * 1000), sent=sent, end=1010.0)
    exchange = Exchange(
        Request(create_environ("/anything")),
        timings=timings,
        headers=Headers(headers or {}),
        body=body,
    )
    config = load(AIProxyConfig, settings)
    (by or Statistics(config)).write(exchange, done, "the-plugin", config.model)
    record: dict[str, Any] = {"kongai": {"ended": "ok"}}
    exchange.log.apply(record)
    return record


def usage_of(done: Call, **given: Any) -> dict[str, Any]:
    usage: dict[str, Any] = written(done, **given)["ai"]["proxy"]["usage"]
    return usage


def test_everything_that_is_written() -> None:
    used = Usage(1104, 29, 1000, {"5m": 60, "1h": 40}, reasoning_tokens=5)
    done = call(
        used, streaming=True, first=1286.7, response_model="claude-sonnet-4-5-x"
    )
    assert written(done)["ai"] == {
        "proxy": {
            "meta": {
                "plugin_id": "the-plugin",
                "provider_name": "anthropic",
                "request_model": MODEL,
                "response_model": "claude-sonnet-4-5-x",
                "request_mode": "stream",
                "llm_latency": 1415,
            },
            "usage": {
                "prompt_tokens": 1104,
                "prompt_tokens_details": {
                    "cached_tokens": 1000,
                    "cache_creation_tokens": 100,
                },
                "completion_tokens": 29,
                "completion_tokens_details": {"reasoning_tokens": 5},
                "total_tokens": 1133,
                # 4 read, 1,000 from the cache, 60 and 40 written to it, 29 said
                "cost": 0.001212,
                "time_per_token": 48.793103448276,
                "time_to_first_token": 1286,
            },
        }
    }


@pytest.mark.parametrize(
    ("latency", "tokens", "per_token"),
    [
        (1415, 29, 48.793103448276),
        (3310, 85, 38.941176470588),
        (100, 3, 33.333333333333),
    ],
)
def test_numbers_have_fourteen_digits(
    latency: int, tokens: int, per_token: float
) -> None:
    """As Kong's JSON library writes them."""
    done = call(Usage(1, tokens), milliseconds=latency + 0.5)
    assert repr(usage_of(done)["time_per_token"]) == repr(per_token)


def test_the_cost_has_fourteen_digits() -> None:
    prices = {"input_cost": 0.1, "output_cost": 0.2}
    cost = usage_of(call(Usage(3, 3)), options=prices)["cost"]
    assert repr(cost) == "9e-07"


@pytest.mark.parametrize("streaming", [False, True])
def test_the_time_to_the_first_token(streaming: bool) -> None:
    """Of a whole answer, it is the time to the answer."""
    first = usage_of(call(streaming=streaming, first=700.5))["time_to_first_token"]
    assert first == (700 if streaming else 1415)


def test_a_stream_that_said_nothing_has_no_first_token() -> None:
    assert usage_of(call(Usage(15), streaming=True))["time_to_first_token"] == 0


def test_without_tokens_nothing_is_divided_by_them() -> None:
    usage = usage_of(call(Usage()))
    assert usage["time_per_token"] == usage["cost"] == usage["total_tokens"] == 0


def test_a_call_that_was_cut_lasts_until_the_exchange_ends() -> None:
    meta = written(call(received=None))["ai"]["proxy"]["meta"]
    assert meta["llm_latency"] == 10_000


def test_a_call_that_was_never_sent_took_no_time() -> None:
    proxied = written(call(received=None), sent=None)["ai"]["proxy"]
    assert proxied["meta"]["llm_latency"] == 0
    assert proxied["usage"]["time_to_first_token"] == 0


@pytest.mark.parametrize(
    ("asked", "answered", "meta"),
    [
        ("a", "b", ("a", "b")),
        ("a", None, ("a", "a")),
        (None, None, ("UNSPECIFIED", "UNSPECIFIED")),
    ],
)
def test_models(asked: str | None, answered: str | None, meta: tuple[str, str]) -> None:
    done = call(request_model=asked, response_model=answered)
    found = written(done)["ai"]["proxy"]["meta"]
    assert (found["request_model"], found["response_model"]) == meta


def test_a_key_in_the_place_of_a_model_is_shown_at_no_time() -> None:
    writer = Statistics(load(AIProxyConfig, DEEPSEEK))
    key = "sk-ant-canary-0123456789"
    for asked, shown in ((key, "REDACTED"), ("m", "m"), (key, "REDACTED"), ("m", "m")):
        done = call(request_model=asked, response_model=asked + "-1")
        meta = written(done, by=writer)["ai"]["proxy"]["meta"]
        assert meta["request_model"] == shown
        assert meta["response_model"] == (shown if "sk-" in asked else "m-1")
    assert not [name for name in writer._shown if "sk-" in name]


def test_of_names_only_so_many_are_remembered() -> None:
    writer = Statistics(load(AIProxyConfig, DEEPSEEK))
    for number in range(1000):
        name = f"deepseek-chat-{number}"
        done = call(request_model=name, response_model=name)
        assert written(done, by=writer)["ai"]["proxy"]["meta"]["request_model"] == name
    written(call(request_model="m" * 256, response_model=None), by=writer)
    assert len(writer._shown) <= 256
    assert len(writer._priced[1]) <= 256
    assert "m" * 256 not in writer._shown


def test_a_call_that_is_no_chat_has_no_usage() -> None:
    done = call(chat=False, reader=None, asked=None, request_model=None)
    assert set(written(done)["ai"]["proxy"]) == {"meta"}


PRICES = {"input_cost": 10, "output_cost": 10}
MILLION = 1_000_000


@pytest.mark.parametrize(
    ("used", "options", "cost"),
    [
        (Usage(25, 12), PRICES, 0.00037),
        (Usage(18, 13), PRICES, 0.00031),
        (Usage(MILLION, 0, MILLION), PRICES, 10),
        (Usage(MILLION, 0, MILLION), {**PRICES, "cache_read_cost": 1}, 1),
        (Usage(MILLION, 0, MILLION), {**PRICES, "cache_read_cost": 0}, 0),
        (Usage(MILLION, 0, 0, {"5m": MILLION}), {**PRICES, "cache_write_cost": 12}, 12),
        (
            Usage(MILLION, 0, 0, {"1h": MILLION}),
            {
                **PRICES,
                "cache_write_cost": 12,
                "cache_write_cost_list": [{"ttl": "1h", "cost": 20}],
            },
            20,
        ),
        (
            Usage(200_001, 0),
            {
                "input_cost": 10,
                "output_cost": 1,
                "context_window_factor": [
                    {"above": "200000", "input_factor": 2, "output_factor": 1}
                ],
            },
            4.00002,
        ),
        (
            Usage(MILLION, 0, service_tier="Priority"),
            {**PRICES, "service_tier_factor": [{"tier": "prio", "factor": 1.5}]},
            15,
        ),
        (
            Usage(MILLION, 0, service_tier="standard"),
            {**PRICES, "service_tier_factor": [{"tier": "prio", "factor": 1.5}]},
            10,
        ),
    ],
)
def test_typed_prices(used: Usage, options: dict[str, Any], cost: float) -> None:
    record = written(call(used), options=options)
    assert record["ai"]["proxy"]["usage"]["cost"] == pytest.approx(cost, rel=1e-12)
    assert record["kongai"]["price"] == "config"


@pytest.mark.parametrize(
    ("asked", "answered", "cost", "price"),
    [
        # The model that answered counts; Haiku 4.5 costs 1, Opus 4.5 costs 5.
        ("claude-opus-4-5", "claude-haiku-4-5-20251001", 1, "table"),
        ("claude-opus-4-5", None, 5, "table"),
        ("claude-opus-4-5", "nobody-knows", 5, "table"),
        ("nobody-knows", "nobody-knows", 0, "unknown"),
        (None, None, 0, "unknown"),
    ],
)
def test_prices_of_the_table(
    asked: str | None, answered: str | None, cost: float, price: str
) -> None:
    done = call(Usage(MILLION), request_model=asked, response_model=answered)
    record = written(done)
    assert record["ai"]["proxy"]["usage"]["cost"] == cost
    assert record["kongai"]["price"] == price


@pytest.mark.parametrize(
    ("started", "cost"),
    [(datetime(2026, 1, 1), 10), (datetime(2026, 9, 1), 5)],
)
def test_the_price_is_that_of_the_day(started: datetime, cost: float) -> None:
    """Long prompts to Opus 4.6 cost twice as much until March 2026."""
    done = call(Usage(MILLION), response_model="claude-opus-4-6")
    when = started.replace(tzinfo=timezone.utc)
    assert usage_of(done, started=when)["cost"] == cost


def test_one_writer_prices_each_call_by_its_own_hour() -> None:
    """The table has DeepSeek at half the price from 16:30 to 00:30 UTC."""
    writer = Statistics(load(AIProxyConfig, DEEPSEEK))
    costs = [
        usage_of(
            call(Usage(MILLION), response_model="deepseek-chat"),
            started=datetime(2025, 6, 3, hour, 59, 59, tzinfo=timezone.utc),
            by=writer,
        )["cost"]
        for hour in (12, 17, 17, 12)
    ]
    assert costs == [0.27, 0.135, 0.135, 0.27]


def test_the_tiers_factor_is_on_the_tables_prices_too() -> None:
    factor = {"service_tier_factor": [{"tier": "batch", "factor": 0.5}]}
    done = call(Usage(MILLION, service_tier="batch"))
    assert usage_of(done)["cost"] == 6
    assert usage_of(done, options=factor)["cost"] == 3


def test_where_nothing_was_used_no_price_is_named() -> None:
    assert written(call(Usage()))["kongai"] == {"ended": "ok"}


@pytest.mark.parametrize(
    ("done", "marks"),
    [
        (call(), {}),
        (call(Usage(15, 7, estimated=True)), {"usage_estimated": True}),
        (call(reader=reader(Usage(15, 7), broken=True)), {"usage_unread": True}),
    ],
)
def test_marks(done: Call, marks: dict[str, bool]) -> None:
    assert written(done)["kongai"] == {"ended": "ok", "price": "table", **marks}


def test_the_session_is_named() -> None:
    record = written(call(), headers={"X-Claude-Code-Session-Id": "s-1"})
    assert record["kongai"]["session"] == "s-1"


def test_payloads() -> None:
    logging = {"log_statistics": True, "log_payloads": True}
    done = call(payload=[b'{"text":"\xc3', b'\xa9\xff","key":"sk-ant-api03-abcd"}'])
    record = written(done, logging=logging, body=b'{"say":"Bearer abc"}')
    assert record["ai"]["proxy"]["payload"] == {
        "request": '{"say":"REDACTED"}',
        "response": '{"text":"é\ufffd","key":"REDACTED"}',
    }


def test_payloads_of_a_call_that_had_none() -> None:
    logging = {"log_statistics": True, "log_payloads": True}
    record = written(call(), logging=logging)
    assert record["ai"]["proxy"]["payload"] == {"request": "", "response": ""}


def test_of_a_session_only_a_names_length_is_kept() -> None:
    record = written(call(), headers={"X-Claude-Code-Session-Id": "s" * 10_000})
    assert record["kongai"]["session"] == "s" * 256


def test_an_estimate_that_was_made_before_the_body_was_dropped() -> None:
    done = call(Usage(0, 7, estimated=True), prompt_estimate=12)
    assert usage_of(done)["prompt_tokens"] == 12
