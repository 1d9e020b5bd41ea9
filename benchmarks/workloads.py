"""What is sent, how the model is to answer, and what that may cost: pure.

The model of these exchanges (see `mock`) writes one token an event, and exactly as many
of them as the request's ``max_tokens``: that steers it through every gateway alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

MODEL = "claude-sonnet-4-20250514"
"""A model that has a price in kongai's table."""
CLAUDE_CODE_SIZE = 115_000
"""Bytes of a request of Claude Code's early in a session."""

_QUESTION = "What's the Stokes' theorem?"
_TOOLS = 24
_PARAMETERS = 8
_MESSAGE = "Look at the module that reads the file, and say what it does. "


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of exchange, repeated.

    Args:
        name: what `--only` calls it.
        title: what the table calls it.
        body: the request's body.
        tokens: how many events, or pieces of the whole answer, the model writes.
        streamed: whether the request asks for a stream.
        pace: seconds between two events; 0 for all in one burst.
        connections: how many clients there are, each with one request at a time.
        budget: how often nginx's CPU it may cost; None if there is no limit.
        per_event: whether the cost is counted for each event, not for each request.
    """

    name: str
    title: str
    body: bytes
    tokens: int
    streamed: bool = False
    pace: float = 0.0
    connections: int = 16
    budget: float | None = None
    per_event: bool = False

    @property
    def units(self) -> int:
        """In how many parts the cost of a request is divided."""
        return self.tokens if self.per_event else 1

    @property
    def unit(self) -> str:
        """What the cost is counted for."""
        return "event" if self.per_event else "request"

    def with_connections(self, connections: int) -> Workload:
        """The same with another number of clients."""
        return replace(self, connections=connections)


def small_body(tokens: int, *, streamed: bool = False, size: int = 200) -> bytes:
    """A question of exactly `size` bytes, which has to be enough for its envelope.

    Raises:
        ValueError: `size` is too small.
    """
    request: dict[str, object] = {
        "model": MODEL,
        "max_tokens": tokens,
        "stream": streamed,
        "messages": [{"role": "user", "content": _QUESTION}],
    }
    return _filled(request, size)


def claude_code_body(tokens: int, *, size: int = CLAUDE_CODE_SIZE) -> bytes:
    """A request like Claude Code's: three system blocks, 24 tools, some messages."""
    messages: list[dict[str, object]] = [
        {
            "role": "user" if number % 2 == 0 else "assistant",
            "content": [{"type": "text", "text": _MESSAGE * 20}],
        }
        for number in range(6)
    ]
    messages.append({"role": "user", "content": _QUESTION})
    request: dict[str, object] = {
        "model": MODEL,
        "max_tokens": tokens,
        "system": [
            {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
            for text in ("You are a tool.", "Be brief. " * 300, "Be exact. " * 900)
        ],
        "tools": [_tool(number) for number in range(_TOOLS)],
        "messages": messages,
    }
    return _filled(request, size)


def long_body(tokens: int, size: int) -> bytes:
    """A conversation of about `size` bytes, many messages if it is large."""
    step = 10_000
    messages: list[dict[str, object]] = [
        {
            "role": "user" if number % 2 == 0 else "assistant",
            "content": [{"type": "text", "text": "x" * (step - 75)}],
        }
        for number in range(max(0, size - 500) // step // 2 * 2)
    ]
    messages.append({"role": "user", "content": _QUESTION})
    request: dict[str, object] = {
        "model": MODEL,
        "max_tokens": tokens,
        "stream": False,
        "messages": messages,
    }
    return _filled(request, size)


def comparison() -> list[Workload]:
    """The rows of the table, with their budgets."""
    return [
        Workload(
            name="json",
            title="200-byte request, JSON answer",
            body=small_body(20),
            tokens=20,
            budget=5.0,
        ),
        Workload(
            name="stream-20",
            title="200-byte request, stream of 20 events",
            body=small_body(20, streamed=True),
            tokens=20,
            streamed=True,
            budget=2.2,
        ),
        Workload(
            name="stream-200",
            title="200-byte request, stream of 200 events in bursts",
            body=small_body(200, streamed=True),
            tokens=200,
            streamed=True,
            budget=1.4,
        ),
        Workload(
            name="claude-code",
            title="115 KB request, JSON answer",
            body=claude_code_body(20),
            tokens=20,
            budget=4.0,
        ),
        Workload(
            name="paced",
            title="one event, 100 streams paced at 20 ms",
            body=small_body(100, streamed=True),
            tokens=100,
            streamed=True,
            pace=0.02,
            connections=100,
            budget=2.0,
            per_event=True,
        ),
    ]


def _tool(number: int) -> dict[str, object]:
    """A tool with the schema of its input, of about 3.6 KB."""
    return {
        "name": f"Tool{number}",
        "description": "Reads or writes a thing, and says what has changed. " * 51,
        "input_schema": {
            "type": "object",
            "properties": {
                f"parameter_{index}": {
                    "type": "string",
                    "description": "What it is for, how it is written, and when. ",
                }
                for index in range(_PARAMETERS)
            },
            "required": ["parameter_0"],
            "additionalProperties": False,
        },
    }


def _filled(request: dict[str, object], size: int) -> bytes:
    """The request as JSON, its last question made as long as `size` asks."""
    missing = size - len(json.dumps(request).encode())
    if missing < 0:
        raise ValueError(f"{size} bytes are too few, by {-missing}")
    messages = request["messages"]
    assert isinstance(messages, list)
    messages[-1]["content"] += "x" * missing
    return json.dumps(request).encode()
