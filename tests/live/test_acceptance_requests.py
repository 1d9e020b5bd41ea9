"""Facts 13 to 26 and 33, live: keys, models, and bodies that are refused.

See `acceptance` for how to read a row, and `test_acceptance_files` for where the other
facts are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .acceptance import (
    ASKED,
    ASKED_TO_STREAM,
    EVENTS,
    GOOD_KEY,
    HAS_GOOD_KEY,
    META,
    MISSING,
    NO_COUNTS,
    STREAM,
    UNAUTHORIZED,
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
from .anthropic_api import Usage
from .conftest import KEY, MODEL, Line, request_body
from .upstream import JSON

LIMIT = 524288
NO_PROMPT = "request body doesn't contain valid prompts"
ENVELOPE = "the same text in {error: {message}}, without a type"
BAD_REQUEST = (
    b'{"type":"error", "error":{"type":"invalid_request_error","message":"x"}}'
)

SETUPS = {
    "may-override": Setup({"auth": {**HAS_GOOD_KEY, "allow_override": True}}),
    "must-not-override": Setup({"auth": HAS_GOOD_KEY}),
    "fixed-model": Setup(model={"name": "c1"}),
    "limit-1": Setup({"max_request_body_size": 1}),
    "no-streams": Setup({"response_streaming": "deny"}),
    "only-streams": Setup({"response_streaming": "always"}),
}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """The gateway of this file's rows."""
    with acceptance_line(SETUPS) as line:
        yield line


def of_size(size: int) -> bytes:
    """A question of exactly so many bytes."""
    body = request_body(padding="")
    return body.replace(b'"padding": "', b'"padding": "' + b"x" * (size - len(body)))


def refused(text: str) -> tuple[str, str]:
    """The gateway's error for a request that is wrong."""
    return "invalid_request_error", text


@facts(
    Fact(
        number=13,
        says="the client's key wins where it may, also a wrong one",
        route="may-override",
        upstream=guarded,
        status=401,
        answer=UNAUTHORIZED,
        seen={"x-api-key": [KEY]},
        record={"upstream_status": "401"},
    ),
    Fact(
        number=13,
        says="the configured key is for whoever has none",
        route="may-override",
        headers=JSON,
        upstream=guarded,
        seen={"x-api-key": [GOOD_KEY]},
    ),
    Fact(
        number=14,
        says="the configured key wins where the client's may not",
        route="must-not-override",
        upstream=guarded,
        seen={"x-api-key": [GOOD_KEY]},
        record={"request.headers.x-api-key": "REDACTED"},
    ),
    Fact(
        number=16,
        says="another model than the configured one is refused",
        kong=ENVELOPE,
        route="fixed-model",
        body=request_body(model="c2"),
        status=400,
        error=refused("cannot use own model - must be: c1"),
        seen=None,
        record={
            "source": "kong",
            "tries": [],
            "upstream_status": "",
            f"{META}.request_model": "c2",
        },
    ),
    Fact(
        number=17,
        says="a request without a model is refused where none is configured",
        body=json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode(),
        status=400,
        error=refused(
            "model parameter not found in request, nor in gateway configuration"
        ),
        seen=None,
        record={f"{META}.request_model": "UNSPECIFIED", **NO_COUNTS},
    ),
)
def test_keys_and_models(line: Line, fact: Fact) -> None:
    fact.check(line)


def of_model(model: str) -> Fact:
    """A row that asks a model, which answers with a name of its own."""
    return Fact(
        number=19,
        says=f"a model is that of its own request, {model}",
        body=request_body(model=model),
        upstream=says(answer_of("hi", Usage(1, 1), f"{model}-2025")),
        shown={"x-kong-llm-model": f"anthropic/{model}"},
        seen={"body.model": model},
        record={
            f"{META}.request_model": model,
            f"{META}.response_model": f"{model}-2025",
        },
    )


@facts(*(of_model(model) for model in ("m1", "m2")))
def test_a_model_does_not_leak_into_the_next_request(line: Line, fact: Fact) -> None:
    fact.check(line)
    for model in ("m2", "m1", "m2"):
        of_model(model).check(line)


def no_prompt(says: str, body: bytes, kind: str = "application/json") -> Fact:
    """A row whose body asks nothing."""
    return Fact(
        number=23,
        says=says,
        headers=(("x-api-key", KEY), ("Content-Type", kind)),
        body=body,
        status=400,
        error=refused(NO_PROMPT),
        seen=None,
        record={"source": "kong", "tries": [], **NO_COUNTS},
    )


def sized(says: str, size: int, **expected: object) -> Fact:
    """A row with a body of so many bytes."""
    row: dict[str, object] = {"number": 24, "says": says, "body": of_size(size)}
    return Fact(**(row | expected))  # type: ignore[arg-type]


def too_large(limit: int) -> dict[str, object]:
    """What comes of a body over the limit."""
    text = (
        f"Request exceeds the maximum size: {limit} bytes are allowed "
        "(max_request_body_size)"
    )
    return {
        "kong": NO_PROMPT + ", with 400",
        "status": 413,
        "error": ("request_too_large", text),
        "seen": None,
        "record": {"source": "kong", "kongai.ended": "too_large"},
    }


@facts(
    no_prompt("messages backwards", b'{"model":"m","segassem":[{"role":"user"}]}'),
    no_prompt("broken json", ASKED[:-1]),
    no_prompt("an empty body", b""),
    no_prompt("text plain", ASKED, "text/plain"),
    sized("500000 bytes pass", 500_000),
    sized("600000 bytes are too many", 600_000, **too_large(LIMIT)),
    sized("the limit itself passes", LIMIT, seen={"body": of_size(LIMIT)}),
    sized("one byte over the limit is too many", LIMIT + 1, **too_large(LIMIT)),
    sized(
        "a small body is measured like any other",
        4096,
        route="limit-1",
        **{**too_large(1), "kong": "200, as bodies of up to 8 KiB are not measured"},
    ),
    Fact(
        number=25,
        says="streams that are denied are refused",
        route="no-streams",
        body=ASKED_TO_STREAM,
        status=400,
        error=refused("response streaming is not enabled for this LLM"),
        seen=None,
    ),
    Fact(
        number=25,
        says="where streams are denied a whole answer is none",
        route="no-streams",
        upstream=says(WHOLE),
        answer=WHOLE,
    ),
    Fact(
        number=25,
        says="streams are forced on who did not ask for one",
        route="only-streams",
        upstream=streams(*EVENTS),
        answer=STREAM,
        shown={"content-type": "text/event-stream; charset=utf-8"},
        seen={"body.stream": True, "body.model": MODEL},
        record={f"{META}.request_mode": "stream", **tokens(15, 9)},
    ),
    Fact(
        number=26,
        says="a chat that is a completion as well is refused",
        body=request_body(prompt="hi"),
        status=400,
        error=refused("request matches multiple LLM request formats"),
        seen=None,
        record={"source": "kong", "tries": []},
    ),
    Fact(
        number=33,
        says="an error instead of a stream is no stream",
        body=ASKED_TO_STREAM,
        upstream=says(BAD_REQUEST, JSON, 400),
        status=400,
        answer=BAD_REQUEST,
        shown={"content-type": "application/json", "x-kong-llm-model": MISSING},
        record={"upstream_status": "400", "source": "upstream", **NO_COUNTS},
    ),
)
def test_bodies_and_formats(line: Line, fact: Fact) -> None:
    fact.check(line)
