"""Kong's how-to for OpenAI, played to the end: Claude Code, the gateway, and an OpenAI.

::

    Claude Code  ──>  Tap  ──>  Gateway  ──>  ScriptedLLM, in OpenAI's format

The tap has what Claude Code really said, to hold against what the provider was told.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .anthropic_api import ToolUse
from .claude_cli import ClaudeCode, installed_claude
from .harness import Gateway, howto_config
from .scripted_llm import (
    KEYS,
    Said,
    ScriptedLLM,
    system_text,
    tool_calls,
    tool_results,
)
from .tap import Tap
from .upstream import FakeUpstream, Request

MODEL = "gpt-5-mini"
CLIENT_KEY = "sk-ant-canary-77c1e0aa42"
WORD = "Grüße-日本-✓"
FINAL = f"Fertig: «{WORD}» steht in der Datei — 完了 🎉 é́ 👩‍🚀\n\n한국어, עברית."

pytestmark = pytest.mark.timeout(120)


class Exchange(NamedTuple):
    """One question: what the client sent, what the provider got, what was written."""

    client: Request
    provider: Request
    said: Said
    record: dict[str, Any]


@pytest.fixture(scope="module")
def claude() -> Path:
    """The command, without which there is nothing to test."""
    return installed_claude()


def test_howto(claude: Path, tmp_path: Path) -> None:
    """Claude Code works with OpenAI's model, and the log knows what it used."""
    proof = tmp_path / "proof.txt"
    command = f"echo {WORD} | tee {shlex.quote(str(proof))}"
    write = ToolUse(
        "Bash",
        {"command": command, "description": "Write the word 「字」"},
        "call_KongaiLiveWrite00001",
    )
    calling = Said(("Gärn: ", write), prompt=25_130, completion=85, cached=11)
    final = Said(FINAL, prompt=25_316, completion=42, cached=25_088, reasoning=20)

    report, exchanges = converse(
        claude,
        tmp_path,
        lambda request: final if tool_results(request) else calling,
        asks_for=MODEL,
    )

    assert proof.read_text("utf-8") == f"{WORD}\n"
    assert report["result"] == FINAL
    first, second = exchanges
    assert tool_results(first.provider) == {}
    assert tool_calls(second.provider) == [write]
    assert tool_results(second.provider) == {write.id: WORD}
    assert {exchange.client.json()["model"] for exchange in exchanges} == {MODEL}
    counted = report["modelUsage"][MODEL]
    assert counted["inputTokens"] == (25_130 - 11) + (25_316 - 25_088)
    assert counted["cacheReadInputTokens"] == 11 + 25_088
    assert counted["outputTokens"] == 85 + 42


def test_a_claude_code_that_knows_nothing_of_it(claude: Path, tmp_path: Path) -> None:
    """With an alias for all names, it may ask for whatever models it likes."""
    delegate = ToolUse(
        "Agent",
        {
            "description": "Greet",
            "prompt": "Say hello.",
            "subagent_type": "general-purpose",
            "model": "haiku",
        },
        "call_KongaiLiveAgent00001",
    )
    greeting = Said("Grüezi 世界!", prompt=6_500, completion=9, cached=500)
    delegating = Said(delegate, prompt=25_130, completion=85)
    final = Said(FINAL, prompt=25_316, completion=42, cached=25_088)

    title = Said('{"title": "Grüsse in eine Datei"}', prompt=900, completion=12)

    title_asked_for = threading.Event()

    def answer(request: Request) -> Said:
        if "response_format" in request.json():
            title_asked_for.set()
            return title
        if "Say hello." in last_message(request):
            return greeting
        if tool_results(request):
            assert title_asked_for.wait(10)
            return final
        return delegating

    report, exchanges = converse(
        claude, tmp_path, answer, model={"model_alias": "*"}, asks_for=None
    )

    assert report["result"] == FINAL
    # The conversation's title, which is asked for on the side.
    [titled] = [exchange for exchange in exchanges if exchange.said is title]
    exchanges.remove(titled)
    schema = titled.client.json()["output_config"]["format"]["schema"]
    form = titled.provider.json()["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", schema)
    assert [exchange.said for exchange in exchanges] == [delegating, greeting, final]
    assert "Grüezi 世界!" in tool_results(exchanges[-1].provider)[delegate.id]
    asked_for = [exchange.client.json()["model"] for exchange in exchanges]
    assert all(name.startswith("claude-") for name in asked_for)
    assert ["haiku" in name for name in asked_for] == [False, True, False]


def converse(
    command: Path,
    tmp_path: Path,
    answer: Callable[[Request], Said],
    *,
    asks_for: str | None,
    model: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[Exchange]]:
    """Hold one conversation and check what is true of every conversation.

    Args:
        command: Claude Code.
        tmp_path: an empty directory.
        answer: what the provider says to a request.
        asks_for: the model that the client is set up with.
        model: more settings of the gateway's model.

    Returns:
        What the client reports, and the exchanges that asked the model.
    """
    openai = ScriptedLLM(answer, wire=61)
    with FakeUpstream(openai) as upstream:
        config = howto_config(
            f"{upstream.url}/v1/chat/completions",
            auth={
                "header_name": "Authorization",
                "header_value": "{vault://env/openai-auth}",
            },
            model={
                "provider": "openai",
                "name": MODEL,
                "options": {"upstream_url": f"{upstream.url}/v1/chat/completions"},
                **(model or {}),
            },
        )
        env = {"OPENAI_AUTH": f"Bearer {KEYS['openai']}"}
        with (
            Gateway(config, env=env) as gateway,
            FakeUpstream(tap := Tap(gateway.url)) as tapped,
        ):
            client = ClaudeCode(
                command,
                tmp_path / "home",
                f"{tapped.url}/anything",
                CLIENT_KEY,
                asks_for,
            )
            report = client.ask(f"Schreibe {WORD}.", allowed_tools="Bash,Agent")
            gateway.records(len(tapped.requests))
            assert gateway.stop() == 0
            records = {r["request"]["id"]: r for r in gateway.records(0)}
            assert_no_secret(gateway)
            complaints = gateway.stderr_text().splitlines()[1:]

    assert complaints == []
    # No request is refused or goes elsewhere; two at once may change places.
    assert set(upstream.requests) == set(openai.asked)
    got = {request.values("x-kong-request-id")[0]: request for request in openai.asked}
    exchanges = []
    for number, request in tap.exchanges:
        if is_message(request):
            asked = got.pop(number)
            exchanges.append(Exchange(request, asked, answer(asked), records[number]))
    assert got == {}
    for exchange in exchanges:
        assert_addressed(exchange)
        assert_all_is_said(exchange)
        assert_accounted(exchange)
    return report, exchanges


def is_message(request: Request) -> bool:
    """Whether a client's request asks the model."""
    path = request.target.partition("?")[0]
    return (request.method, path) == ("POST", "/anything/v1/messages")


def last_message(request: Request) -> str:
    """The last message that the provider got, as text."""
    return json.dumps(request.json()["messages"][-1], ensure_ascii=False)


def assert_addressed(exchange: Exchange) -> None:
    """The provider is asked for its own model, in its own way, with its own key."""
    request, body = exchange.provider, exchange.provider.json()
    assert request.method == "POST"
    assert request.target.partition("?")[0] == "/v1/chat/completions"
    assert request.values("authorization") == [f"Bearer {KEYS['openai']}"]
    assert request.values("content-type") == ["application/json"]
    names = {name.lower() for name, _ in request.headers}
    foreign = [n for n in names if n.startswith("anthropic-") or n == "x-api-key"]
    assert foreign == []
    assert CLIENT_KEY not in repr(request.headers)
    assert CLIENT_KEY.encode() not in request.body

    assert body["model"] == MODEL
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["max_completion_tokens"] == exchange.client.json()["max_tokens"]
    assert "max_tokens" not in body


def assert_all_is_said(exchange: Exchange) -> None:
    """Prompts arrive in full and in order, and tools with what they take."""
    given, got = exchange.client.json(), exchange.provider.json()

    system = [block["text"] for block in given["system"]]
    assert sum(map(len, system)) > 500
    assert got["messages"][0]["role"] == "system"
    assert_in_order(system, system_text(exchange.provider))

    said = [text for message in given["messages"] for text in texts_of(message)]
    assert said
    heard = [text for message in got["messages"][1:] for text in texts_of(message)]
    assert_in_order(said, "\n".join(heard))

    tools = got.get("tools", [])
    assert tools or got["response_format"]
    assert [tool["type"] for tool in tools] == ["function"] * len(given["tools"])
    assert [tool["function"] for tool in tools] == [
        {
            "name": tool["name"],
            "description": tool["description"],
            "parameters": tool["input_schema"],
        }
        for tool in given["tools"]
    ]


def texts_of(message: dict[str, Any]) -> Iterator[str]:
    """The texts of a message in either format, results of tools apart."""
    content = message["content"]
    if message["role"] == "tool" or content is None:
        return
    if isinstance(content, str):
        yield content
        return
    for part in content:
        if part["type"] == "text":
            yield part["text"]


def assert_in_order(pieces: list[str], text: str) -> None:
    """Each piece is there in full, after the one before it."""
    at = 0
    for piece in pieces:
        found = text.find(piece, at)
        assert found >= 0, piece
        at = found + len(piece)


def assert_accounted(exchange: Exchange) -> None:
    """The record has OpenAI's own counts, and says what got lost on the way."""
    record, said, asked = exchange.record, exchange.said, exchange.client.json()
    assert record["response"]["status"] == 200
    assert record["upstream_status"] == "200"
    meta, usage = record["ai"]["proxy"]["meta"], record["ai"]["proxy"]["usage"]
    assert meta["provider_name"] == "openai"
    assert meta["request_model"] == meta["response_model"] == MODEL
    assert meta["request_mode"] == "stream"
    assert 0 <= usage["time_to_first_token"] <= meta["llm_latency"]
    assert usage["prompt_tokens"] == said.prompt
    assert usage["completion_tokens"] == said.completion
    assert usage["total_tokens"] == said.prompt + said.completion
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": said.cached,
        "audio_tokens": 0,
    }
    assert usage["completion_tokens_details"] == {
        "reasoning_tokens": said.reasoning,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    assert usage["cost"] > 0

    ours = record["kongai"]
    assert ours["ended"] == "ok"
    [session] = exchange.client.values("x-claude-code-session-id")
    assert ours["session"] == session
    assert isinstance(ours["dropped"], list)
    assert ("context_management" in ours["dropped"]) == ("context_management" in asked)
    headers = record["request"]["headers"]
    assert headers["authorization"] == "REDACTED"
    assert headers.get("x-api-key", "REDACTED") == "REDACTED"


def assert_no_secret(gateway: Gateway) -> None:
    """Nothing the gateway wrote, whatever the file, holds a key."""
    files = [path for path in gateway.directory.rglob("*") if path.is_file()]
    assert gateway.log_path in files
    written = b"".join(path.read_bytes() for path in files)
    for key in (CLIENT_KEY, KEYS["openai"]):
        assert key.encode() not in written
