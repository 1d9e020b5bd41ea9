"""Kong's how-to, played to the end: Claude Code, the gateway, and an Anthropic."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .anthropic_api import Answer, ToolUse, Usage, message, message_events
from .claude_cli import ClaudeCode, installed_claude
from .harness import Gateway, howto_config
from .upstream import Connection, FakeUpstream, Request

SONNET = "claude-sonnet-4-20250514"
HAIKU = "claude-haiku-4-5-20251001"
KEY = "sk-ant-canary-4b1d0c5e9f"
WORD = "Grüße-日本-✓"
FINAL = f"Fertig: «{WORD}» steht in der Datei — 完了 🎉"

pytestmark = pytest.mark.timeout(120)


class Anthropic:
    """Plays the API: each turn of the conversation has one answer and one price."""

    def __init__(self, answer: Callable[[Request], tuple[Answer, Usage]]) -> None:
        self.answer = answer
        self.exchanges: list[tuple[Request, Usage]] = []

    def __call__(self, request: Request, connection: Connection) -> None:
        """The handler of a `FakeUpstream`."""
        path = request.target.partition("?")[0]
        if path.endswith("/v1/messages") and request.method == "POST":
            self._message(request, connection)
        elif path.endswith("/v1/messages/count_tokens"):
            connection.respond(200, body=b'{"input_tokens": 25003}')
        elif path.endswith("/v1/models"):
            connection.respond(200, body=b'{"data": [], "has_more": false}')
        else:
            connection.respond(200, body=b"{}")

    def _message(self, request: Request, connection: Connection) -> None:
        answer, usage = self.answer(request)
        self.exchanges.append((request, usage))
        model = request.json()["model"]
        if not request.json().get("stream"):
            body = message(answer, usage, model=model)
            connection.respond(200, body=json.dumps(body).encode())
            return
        connection.start_stream()
        for event in message_events(answer, usage, model=model):
            connection.chunk(event)
        connection.end()


def tool_results(request: Request) -> list[str]:
    """What the tools said, of all the turns in the request."""
    return [
        json.dumps(block["content"], ensure_ascii=False)
        for turn in request.json()["messages"]
        if isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] == "tool_result"
    ]


@pytest.fixture(scope="session")
def claude() -> Path:
    """The command, without which there is nothing to test."""
    return installed_claude()


def test_howto(claude: Path, tmp_path: Path) -> None:
    """Claude Code works through the gateway, and the log knows what it cost."""
    proof = tmp_path / "proof.txt"
    command = f"echo {WORD} | tee {shlex.quote(str(proof))}"
    write = ToolUse("Bash", {"command": command, "description": "Write the word"})

    def answer(request: Request) -> tuple[Answer, Usage]:
        if tool_results(request):
            return FINAL, Usage(6, 42, cache_write=310, cache_read=25_000)
        return write, Usage(119, 85, cache_write=25_000, cache_read=11)

    report, records, anthropic = converse(claude, tmp_path, answer)

    assert proof.read_text("utf-8") == f"{WORD}\n"
    assert report["result"] == FINAL
    first, second = (request for request, _ in anthropic.exchanges)
    assert tool_results(first) == []
    assert WORD in tool_results(second)[0]
    assert [record["ai"]["proxy"]["usage"]["prompt_tokens"] for record in records] == [
        119 + 25_000 + 11,
        6 + 310 + 25_000,
    ]


def test_subagent(claude: Path, tmp_path: Path) -> None:
    """A subagent on a smaller model is one more exchange, at its own price."""
    delegate = ToolUse(
        "Agent",
        {
            "description": "Greet",
            "prompt": "Say hello.",
            "subagent_type": "general-purpose",
            "model": "haiku",
        },
    )

    def answer(request: Request) -> tuple[Answer, Usage]:
        if "haiku" in request.json()["model"]:
            return "Grüezi!", Usage(2_000, 9, cache_write=4_000, cache_read=500)
        if tool_results(request):
            return FINAL, Usage(6, 42, cache_write=310, cache_read=25_000)
        return delegate, Usage(119, 85, cache_write=25_000, cache_read=11)

    report, records, anthropic = converse(claude, tmp_path, answer)

    assert report["result"] == FINAL
    assert [record["ai"]["proxy"]["meta"]["request_model"] for record in records] == [
        SONNET,
        HAIKU,
        SONNET,
    ]
    requests = [request for request, _ in anthropic.exchanges]
    assert [len(r.values("x-claude-code-agent-id")) for r in requests] == [0, 1, 0]
    assert "Grüezi!" in tool_results(requests[-1])[0]


def converse(
    command: Path,
    tmp_path: Path,
    answer: Callable[[Request], tuple[Answer, Usage]],
) -> tuple[dict[str, Any], list[dict[str, Any]], Anthropic]:
    """Hold one conversation and check what is true of every conversation.

    Returns the client's report, the records of the messages, and the other side.
    """
    anthropic = Anthropic(answer)
    with FakeUpstream(anthropic) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        with Gateway(config) as gateway:
            client = ClaudeCode(
                command, tmp_path / "home", f"{gateway.url}/anything", KEY, SONNET
            )
            report = client.ask(f"Schreibe {WORD}.", allowed_tools="Bash")
            gateway.records(len(anthropic.exchanges))
            assert gateway.stop() == 0
            records = gateway.records(0)
            assert_no_secret(gateway)

    for request, _ in anthropic.exchanges:
        assert_untouched(request)
    messages = list(of_messages(records))
    assert len(messages) == len(anthropic.exchanges)
    for record, (request, usage) in zip(messages, anthropic.exchanges, strict=True):
        assert_accounted(record, request, usage)
    cost = sum(record["ai"]["proxy"]["usage"]["cost"] for record in messages)
    assert cost == pytest.approx(report["total_cost_usd"], abs=1e-9)
    return report, messages, anthropic


def of_messages(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records of message exchanges; all others have counted no tokens."""
    for record in records:
        path = record["request"]["uri"].partition("?")[0]
        if (record["request"]["method"], path) == ("POST", "/anything/v1/messages"):
            yield record
        else:
            usage = record.get("ai", {}).get("proxy", {}).get("usage", {})
            assert not usage.get("total_tokens"), record


def assert_untouched(request: Request) -> None:
    """The upstream saw the request as the client made it."""
    assert request.target == "/v1/messages?beta=true"
    assert request.values("x-api-key") == [KEY]
    assert request.values("authorization") == [f"Bearer {KEY}"]
    assert request.values("anthropic-version") == ["2023-06-01"]
    [betas] = request.values("anthropic-beta")
    assert any(beta.startswith("claude-code-") for beta in betas.split(","))


def assert_accounted(record: dict[str, Any], request: Request, usage: Usage) -> None:
    """The record says who asked which model, and every token is in it once."""
    model = request.json()["model"]
    meta, counted = record["ai"]["proxy"]["meta"], record["ai"]["proxy"]["usage"]
    assert record["response"]["status"] == 200
    assert record["kongai"]["ended"] == "ok"
    assert meta["request_model"] == model
    assert meta["response_model"] == model
    assert meta["provider_name"] == "anthropic"
    assert meta["request_mode"] == "stream"
    assert 0 <= counted["time_to_first_token"] <= meta["llm_latency"]
    assert counted["prompt_tokens"] == usage.prompt
    assert counted["completion_tokens"] == usage.output
    assert counted["total_tokens"] == usage.prompt + usage.output
    assert counted["prompt_tokens_details"]["cached_tokens"] == usage.cache_read
    assert counted["cost"] > 0
    headers = record["request"]["headers"]
    assert headers["x-api-key"] == headers["authorization"] == "REDACTED"
    assert headers["content-length"] == str(len(request.body))


def assert_no_secret(gateway: Gateway) -> None:
    """Nothing the gateway wrote, whatever the file, holds the client's key."""
    files = [path for path in gateway.directory.rglob("*") if path.is_file()]
    assert gateway.log_path in files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
