"""Facts 1 to 12, live: what goes up, comes down, and is counted.

A client and a provider both speak Anthropic's API. See `acceptance` for how to read a
row, and `test_acceptance_files` for where the other facts are.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest

from kongai.testing import chop

from .acceptance import (
    ASKED,
    ASKED_TO_STREAM,
    DATED,
    EVENTS,
    META,
    MISSING,
    NO_COUNTS,
    PLUGIN_ID,
    STREAM,
    UNAUTHORIZED,
    UNPRICED,
    USAGE,
    WHOLE,
    Fact,
    Setup,
    acceptance_line,
    answer_of,
    facts,
    guarded,
    says,
    streams,
    tokens,
)
from .anthropic_api import Usage, message_events
from .conftest import KEY, MODEL, Line, request_body
from .upstream import JSON, Connection, Request

WIDE = b"".join(message_events("Zwölf «世界» 🙂🙂", Usage(15, 9), model=DATED, cut=3))
CACHED = Usage(4, 7, cache_write=100, cache_read=1000)
ZIPPED = gzip.compress(WHOLE)
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14"
WITH_KEY = (("x-api-key", KEY), *JSON)
PAYLOAD = "ai.proxy.payload"

SETUPS = {
    "elsewhere": Setup(options={"upstream_url": "UPSTREAM/llm/chat"}),
    "priced": Setup(options={"input_cost": 10, "output_cost": 10}),
    "half-priced": Setup(options={"input_cost": 10}),
    "no-statistics": Setup({"logging": {"log_statistics": False}}),
    "payloads": Setup({"logging": {"log_statistics": True, "log_payloads": True}}),
    "payloads-alone": Setup({"logging": {"log_payloads": True}}),
}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """The gateway of this file's rows."""
    with acceptance_line(SETUPS) as line:
        yield line


def late(request: Request, connection: Connection) -> None:
    """A handler that takes its time: for the head, for the text, for the end."""
    connection.sleep(0.03)
    if not request.json().get("stream"):
        connection.respond(200, body=WHOLE)
        return
    connection.start_stream()
    connection.chunk(b"".join(EVENTS[:3]))
    connection.sleep(0.03)
    connection.chunk(EVENTS[3])
    connection.sleep(0.15)
    connection.chunk(b"".join(EVENTS[4:]))
    connection.end()


@facts(
    Fact(
        number=1,
        says="a whole answer comes back byte for byte and names its model",
        upstream=says(WHOLE),
        answer=WHOLE,
        shown={
            "x-kong-llm-model": f"anthropic/{MODEL}",
            "content-length": str(len(WHOLE)),
        },
    ),
    Fact(
        number=1,
        says="a compressed answer comes back as it is",
        upstream=says(ZIPPED, (*JSON, ("Content-Encoding", "gzip"))),
        answer=ZIPPED,
        shown={"content-encoding": "gzip", "x-kong-llm-model": f"anthropic/{MODEL}"},
        record=tokens(119, 29),
    ),
    Fact(
        number=2,
        says="the request goes up as it came, the version set",
        headers=(*WITH_KEY, ("anthropic-beta", BETAS)),
        body=ASKED + b" \n",
        seen={
            "target": "/v1/messages?beta=true",
            "body": ASKED + b" \n",
            "x-api-key": [KEY],
            "anthropic-version": ["2023-06-01"],
            "anthropic-beta": [BETAS],
        },
    ),
    Fact(
        number=2,
        says="the path is that of upstream_url and the query the client's",
        route="elsewhere",
        seen={"target": "/llm/chat?beta=true"},
        record={"upstream_uri": "/llm/chat?beta=true"},
    ),
    Fact(
        number=3,
        says="the version is the configured one whatever the client says",
        headers=(*WITH_KEY, ("anthropic-version", "2099-01-01")),
        seen={"anthropic-version": ["2023-06-01"]},
    ),
    Fact(
        number=4,
        says="the record counts the tokens and names the plugin",
        body=request_body(model=UNPRICED),
        upstream=says(answer_of("It is 2.", Usage(119, 29), UNPRICED)),
        record={
            **tokens(119, 29),
            f"{USAGE}.cost": 0,
            f"{USAGE}.prompt_tokens_details": {},
            f"{USAGE}.completion_tokens_details": {},
            f"{META}.request_mode": "oneshot",
            f"{META}.provider_name": "anthropic",
            f"{META}.plugin_id": PLUGIN_ID,
            f"{META}.request_model": UNPRICED,
            f"{META}.response_model": UNPRICED,
            PAYLOAD: MISSING,
            "kongai.price": "unknown",
        },
    ),
    Fact(
        number=4,
        says="a model of the price table has a cost without prices in the file",
        kong="cost 0",
        upstream=says(WHOLE),
        record={
            **tokens(119, 29),
            f"{USAGE}.cost": re.compile(r"0\.000\d+"),
            "kongai.price": "table",
        },
    ),
    Fact(
        number=6,
        says="a stream comes back byte for byte and its last count holds",
        kong="completion 10 in 3.13, which adds up the provisional count",
        body=ASKED_TO_STREAM,
        upstream=streams(*EVENTS),
        answer=STREAM,
        shown={"content-type": "text/event-stream; charset=utf-8"},
        record={
            **tokens(15, 9),
            f"{META}.request_mode": "stream",
            f"{META}.request_model": MODEL,
            f"{META}.response_model": DATED,
        },
    ),
    Fact(
        number=8,
        says="tokens from and for the cache are counted in whole answers",
        kong="prompt 4, total 11 in 3.13",
        upstream=says(answer_of("hi", CACHED, MODEL)),
        record={
            **tokens(1104, 7),
            f"{USAGE}.prompt_tokens_details": {
                "cached_tokens": 1000,
                "cache_creation_tokens": 100,
            },
        },
    ),
    Fact(
        number=8,
        says="tokens from and for the cache are counted in streams",
        kong="prompt 4, total 11 in 3.13",
        body=ASKED_TO_STREAM,
        upstream=streams(*message_events("hi", CACHED, model=MODEL)),
        record=tokens(1104, 7),
    ),
    Fact(
        number=9,
        says="prices in the file are per million tokens",
        route="priced",
        upstream=says(answer_of("hi", Usage(25, 12), MODEL)),
        record={f"{USAGE}.cost": 0.00037, "kongai.price": "config"},
    ),
    Fact(
        number=9,
        says="one price alone is none and an unknown model costs 0",
        route="half-priced",
        body=request_body(model=UNPRICED),
        upstream=says(answer_of("hi", Usage(25, 12), UNPRICED)),
        record={f"{USAGE}.cost": 0, "kongai.price": "unknown"},
    ),
    Fact(
        number=9,
        says="one price alone is none and the table has a known model's",
        kong="cost 0",
        route="half-priced",
        upstream=says(answer_of("hi", Usage(25, 12), MODEL)),
        record={f"{USAGE}.cost": re.compile("8.5e-05"), "kongai.price": "table"},
    ),
    Fact(
        number=10,
        says="without log_statistics there is no ai in the record",
        route="no-statistics",
        shown={"x-kong-llm-model": f"anthropic/{MODEL}"},
        record={"ai": MISSING, "response.status": 200},
    ),
    Fact(
        number=10,
        says="without log_statistics there is no ai in a stream's record",
        route="no-statistics",
        body=ASKED_TO_STREAM,
        upstream=streams(*EVENTS),
        answer=STREAM,
        record={"ai": MISSING, "response.status": 200},
    ),
    Fact(
        number=11,
        says="payloads are strings",
        route="payloads",
        body=request_body(messages=[{"role": "user", "content": "What is 1 + 1?"}]),
        upstream=says(WHOLE),
        record={
            f"{PAYLOAD}.request": re.compile(r'\{.*"What is 1 \+ 1\?".*\}'),
            f"{PAYLOAD}.response": WHOLE.decode(),
        },
    ),
    Fact(
        number=11,
        says="the payload of a stream is its events",
        route="payloads",
        body=ASKED_TO_STREAM,
        upstream=streams(*EVENTS),
        record={
            f"{PAYLOAD}.request": ASKED_TO_STREAM.decode(),
            f"{PAYLOAD}.response": STREAM.decode(),
        },
    ),
    Fact(
        number=11,
        says="payloads without statistics are not logged",
        route="payloads-alone",
        record={"ai": MISSING},
    ),
    Fact(
        number=12,
        says="without a key the upstream's 401 is the client's",
        headers=JSON,
        upstream=guarded,
        status=401,
        answer=UNAUTHORIZED,
        shown={"x-kong-llm-model": MISSING},
        seen={"x-api-key": [], "authorization": []},
        record={
            **NO_COUNTS,
            f"{META}.request_model": MODEL,
            "upstream_status": "401",
            "source": "upstream",
        },
    ),
)
def test_what_goes_up_comes_down_and_is_counted(line: Line, fact: Fact) -> None:
    fact.check(line)


@facts(
    Fact(number=5, says="latencies of a whole answer", upstream=late),
    Fact(
        number=5,
        says="latencies of a stream",
        body=ASKED_TO_STREAM,
        upstream=late,
    ),
)
def test_latencies_fit_together(line: Line, fact: Fact) -> None:
    _, record = fact.check(line)
    meta, used = record["ai"]["proxy"]["meta"], record["ai"]["proxy"]["usage"]
    latency, first = meta["llm_latency"], used["time_to_first_token"]
    assert isinstance(latency, int)
    assert isinstance(first, int)
    if meta["request_mode"] == "stream":
        assert latency >= 210
        assert 60 <= first <= latency - 50
    else:
        assert latency >= 30
        assert 0 <= first <= latency
    per_token = latency / used["completion_tokens"]
    assert used["time_per_token"] == pytest.approx(per_token, abs=0.0005)


def cut(size: int) -> Fact:
    """A row whose stream comes in pieces of so many bytes."""
    return Fact(
        number=7,
        says=f"cuts make no difference, {size} bytes at a time",
        body=ASKED_TO_STREAM,
        upstream=streams(*chop(WIDE, *range(size, len(WIDE), size))),
        answer=WIDE,
        record={**tokens(15, 9), f"{META}.response_model": DATED, "kongai.ended": "ok"},
    )


@facts(*(cut(size) for size in (1, 2, 3, 7, 61, 1000)))
def test_cuts_make_no_difference(line: Line, fact: Fact) -> None:
    fact.check(line)
