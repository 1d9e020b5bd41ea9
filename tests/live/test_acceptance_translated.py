"""Facts 18, 20, 27 to 32 and 34, live: clients of OpenAI's format.

See `acceptance` for how to read a row, and `test_acceptance_files` for where the other
facts are.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from .acceptance import (
    MISSING,
    STREAM,
    WHOLE,
    Fact,
    Setup,
    acceptance_line,
    facts,
    says,
    streams,
    tokens,
)
from .conftest import KEY, Line
from .upstream import JSON

OPENAI: dict[str, Any] = {
    "model": {"provider": "openai"},
    "options": {"upstream_url": "UPSTREAM/v1/chat/completions"},
}
CHAT = {"llm_format": "openai"}
SETUPS = {
    "openai": Setup(CHAT, **OPENAI),
    "fixed": Setup(CHAT, {**OPENAI["model"], "name": "c1"}, OPENAI["options"]),
    "options": Setup(
        CHAT,
        OPENAI["model"],
        {**OPENAI["options"], "max_tokens": 1024, "top_p": 0.5},
    ),
    "claude": Setup(CHAT),
}
ANSWER = (
    b'{"id":"c", "object":"chat.completion", "model":"m", "choices":[{"index":0, '
    b'"message":{"role":"assistant","content":"hi"}, "finish_reason":"stop"}]}'
)
FIXTURE = (
    b'{"content":[{"text":"The sum of 1 + 1 is 2.","type":"text"}],'
    b'"model":"claude-2.1","stop_reason":"end_turn"}'
)
UNRELATED = b'{"unrelated": "JSON"}'
NO_CONTENT = (
    "transformation failed from type anthropic://llm/v1/chat: 'content' not in "
    "anthropic://llm/v1/chat response"
)
TOOL = {"type": "function", "function": {"name": "my_function", "parameters": {}}}
TURNS = [
    ("system", "You are a mathematician."),
    ("user", "What is 1 + 1?"),
    ("assistant", "The sum of 1 + 1 is 2?"),
    ("user", "Multiply that by 2"),
    ("assistant", "Certainly! If you multiply 2 by 2, the result is 4."),
    ("user", "Why can't you divide by zero?"),
]
BEARER = (("authorization", f"Bearer {KEY}"), *JSON)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """The gateway of this file's rows."""
    with acceptance_line(SETUPS) as line:
        yield line


def asked(**fields: Any) -> bytes:
    """A question in OpenAI's format; a field that is None is null."""
    messages = [{"role": "user", "content": "What is 1 + 1?"}]
    return json.dumps({"model": "claude-2.1", "messages": messages} | fields).encode()


@facts(
    Fact(
        number=18,
        says="a model that is null is the configured one",
        route="fixed",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(model=None),
        upstream=says(ANSWER),
        answer=ANSWER,
        seen={"target": "/v1/chat/completions", "body.model": "c1"},
        record={"ai.proxy.meta.request_model": "c1"},
    ),
    Fact(
        number=20,
        says="the configured options win, and others stay",
        route="options",
        path="/chat/completions",
        headers=BEARER,
        body=asked(max_tokens=256, temperature=0.1, top_p=0.2),
        upstream=says(ANSWER),
        seen={"body.max_tokens": 1024, "body.temperature": 0.1, "body.top_p": 0.5},
    ),
)
def test_requests_of_the_providers_own_format(fact: Fact, line: Line) -> None:
    fact.check(line)


@facts(
    *(
        Fact(
            number=30,
            says=f"tool_choice {name}",
            route="claude",
            path="",
            headers=BEARER,
            body=asked(tools=[TOOL], tool_choice=choice),
            upstream=says(FIXTURE),
            seen={"target": "/v1/messages", "body.tool_choice": expected},
        )
        for name, choice, expected in [
            ("auto", "auto", {"type": "auto"}),
            ("none", "none", {"type": "none"}),
            ("required", "required", {"type": "any"}),
            (
                "of a function",
                {"type": "function", "function": {"name": "my_function"}},
                {"type": "tool", "name": "my_function"},
            ),
        ]
    ),
    Fact(
        number=31,
        says="the system's text moves out of the turns",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(
            messages=[{"role": role, "content": text} for role, text in TURNS],
            max_tokens=512,
            temperature=0.5,
        ),
        upstream=says(FIXTURE),
        seen={
            "body.system": "You are a mathematician.",
            "body.messages": [{"role": r, "content": t} for r, t in TURNS[1:]],
            "body.max_tokens": 512,
            "body.temperature": 0.5,
            "body.stream": False,
            "authorization": [],
            "x-api-key": [KEY],
        },
    ),
)
def test_requests_for_anthropic(fact: Fact, line: Line) -> None:
    fact.check(line)


@facts(
    Fact(
        number=27,
        says="an answer of Anthropic's is one of OpenAI's",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(),
        upstream=says(FIXTURE),
        shown={
            "x-kong-llm-model": "anthropic/claude-2.1",
            "content-type": "application/json",
        },
        record={"ai.proxy.meta.response_model": "claude-2.1"},
    ),
    Fact(
        number=29,
        says="a usage that is not told",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(),
        upstream=says(FIXTURE),
        # Estimated: a fourth of the characters.
        record={**tokens(4, 6), "kongai.usage_estimated": True},
    ),
)
def test_answers_of_anthropic(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    said = answer.json()
    [choice] = said["choices"]
    content = "The sum of 1 + 1 is 2."
    assert choice["message"] == {"role": "assistant", "content": content}
    assert choice["finish_reason"] == "stop"
    assert said["object"] == "chat.completion"
    assert said["usage"] == "no usage data returned from upstream"
    assert answer.value("content-length") == str(len(answer.body))


@facts(
    Fact(
        number=29,
        says="a usage of unknown names",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(),
        upstream=says(FIXTURE[:-1] + b',"usage":{"foo":1}}'),
        # Estimated: a fourth of the characters.
        record={**tokens(4, 6), "kongai.usage_estimated": True},
    ),
)
def test_a_usage_of_unknown_names_is_empty(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    assert answer.json()["usage"] == {}


NOT_TRANSLATED: Mapping[str, Any] = {
    "status": 500,
    "route": "claude",
    "path": "/v1/chat/completions",
    "body": asked(),
    "upstream": says(UNRELATED),
    "shown": {"x-kong-llm-model": MISSING},
    "record": {"source": "kong", "kongai.ended": "transformation_failed"},
}


@facts(
    Fact(
        number=28,
        says="what is no answer is an error of the gateway's",
        kong="{error: {message}} without a type",
        headers=BEARER,
        **NOT_TRANSLATED,
    ),
)
def test_an_answer_that_is_none(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    assert answer.json()["error"]["message"] == NO_CONTENT
    assert answer.value("content-length") == str(len(answer.body))


@facts(
    Fact(
        number=34,
        says="an answer in gzip for who takes it",
        route="claude",
        path="/v1/chat/completions",
        headers=(*BEARER, ("accept-encoding", "gzip, identity")),
        body=asked(),
        upstream=says(WHOLE),
        seen={"accept-encoding": ["gzip, identity"]},
        shown={"content-encoding": "gzip", "content-length": MISSING},
        record=tokens(119, 29),
    ),
    Fact(
        number=34,
        says="the error of an answer that is none in gzip",
        headers=(*BEARER, ("accept-encoding", "gzip, identity")),
        **{
            **NOT_TRANSLATED,
            "shown": {"content-encoding": "gzip", "content-length": MISSING},
        },
    ),
    Fact(
        number=34,
        says="an answer that came in gzip",
        route="claude",
        path="/v1/chat/completions",
        headers=(*BEARER, ("accept-encoding", "gzip, identity")),
        body=asked(),
        upstream=says(gzip.compress(WHOLE), (*JSON, ("content-encoding", "gzip"))),
        shown={"content-encoding": "gzip", "content-length": MISSING},
        record=tokens(119, 29),
    ),
)
def test_answers_in_gzip(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    said = json.loads(gzip.decompress(answer.body))
    if fact.status == 200:
        assert said["choices"][0]["message"]["content"] == "It is 2."
        assert said["usage"]["total_tokens"] == 148
    else:
        assert said["error"]["message"] == NO_CONTENT


@facts(
    Fact(
        number=34,
        says="a plain answer for who takes no gzip",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(),
        upstream=says(gzip.compress(WHOLE), (*JSON, ("content-encoding", "gzip"))),
        seen={"accept-encoding": ["identity"]},
        shown={"content-encoding": MISSING},
    ),
)
def test_answers_out_of_gzip(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    assert answer.json()["choices"][0]["message"]["content"] == "It is 2."
    assert answer.value("content-length") == str(len(answer.body))


@facts(
    Fact(
        number=32,
        says="a stream of Anthropic's is one of OpenAI's",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(stream=True),
        upstream=streams(STREAM),
        shown={"content-type": "text/event-stream"},
        record={**tokens(15, 9), "ai.proxy.meta.request_mode": "stream"},
    ),
    Fact(
        number=32,
        says="a stream in single bytes",
        route="claude",
        path="/v1/chat/completions",
        headers=BEARER,
        body=asked(stream=True),
        upstream=streams(*(STREAM[i : i + 1] for i in range(len(STREAM)))),
        record=tokens(15, 9),
    ),
)
def test_streams_of_anthropic(fact: Fact, line: Line) -> None:
    answer, _ = fact.check(line)
    parts = answer.body.decode().split("\n\n")
    # Anthropic's ping is a comment.
    lines = [part for part in parts if part and not part.startswith(":")]
    assert len(lines) == 8
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(part.removeprefix("data: ")) for part in lines[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "1 + 1 = 2"
    assert deltas[0]["role"] == "assistant"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
