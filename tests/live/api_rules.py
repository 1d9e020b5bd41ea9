"""What the real APIs refuse: the rules that a request in either format has to keep.

A scripted upstream that takes anything would let a gateway send anything.  Each rule is
one that the API itself answers with a 400; their texts are near the API's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

_ANTHROPIC_FIELDS = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "system",
        "tools",
        "tool_choice",
        "metadata",
        "stop_sequences",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "thinking",
        "context_management",
        "output_config",
        "service_tier",
        "container",
        "mcp_servers",
        "cache_control",
    ]
)
_SAMPLING = {"temperature", "top_p", "top_k"}
_OPENAI_FIELDS = frozenset(
    [
        "model",
        "messages",
        "max_completion_tokens",
        "max_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "temperature",
        "top_p",
        "n",
        "stop",
        "stream",
        "stream_options",
        "seed",
        "user",
        "response_format",
        "reasoning_effort",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "verbosity",
        "modalities",
        "prediction",
        "prompt_cache_key",
    ]
)
_MEMBERS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {
        *("role", "content", "name", "tool_calls", "refusal", "audio"),
        "annotations",  # of an answer that is given back as it came
    },
    "tool": {"role", "content", "tool_call_id"},
}
_TEXT = {"text": {"type", "text"}}
_PARTS = {
    **_TEXT,
    "image_url": {"type", "image_url"},
    "file": {"type", "file"},
    "input_audio": {"type", "input_audio"},
}
"""The parts of a user's message; all others have text."""


def anthropic_complaints(
    body: Mapping[str, Any], version: str = "2023-06-01"
) -> Iterator[str]:
    """Why Anthropic would refuse this request, of this version of the API."""
    gone = _SAMPLING if version > "2023-06-01" else set()
    for name in sorted(body.keys() - (_ANTHROPIC_FIELDS - gone)):
        yield f"{name}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int):
        yield "max_tokens: Field required"
    messages = body.get("messages")
    if not messages:
        yield "messages: at least one message is required"
        return
    asked: list[str] = []
    for role, blocks in _turns(messages):
        if role not in ("user", "assistant"):
            yield f"messages: Input tag '{role}' found using 'role'"
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        if asked and sorted(results) != sorted(asked):
            yield f"messages: {asked}: tool_use ids without tool_result blocks"
        elif results and not asked:
            yield f"messages: {results}: unexpected tool_use_id in tool_result blocks"
        asked = [b["id"] for b in blocks if b["type"] == "tool_use"]
        yield from (f"messages: {text}" for text in _of_blocks(blocks))
    if asked:
        yield "messages: the last one asks for tools"
    for tool in body.get("tools", ()):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
            yield f"tools: {tool['name']!r} should match '^[a-zA-Z0-9_-]{{1,128}}$'"
        if "type" not in tool and tool["input_schema"].get("type") != "object":
            yield "tools: input_schema.type: Input should be 'object'"


def openai_complaints(body: Mapping[str, Any]) -> Iterator[str]:
    """Why OpenAI would refuse this request."""
    for name in sorted(body.keys() - _OPENAI_FIELDS):
        yield f"Unrecognized request argument supplied: {name}"
    if str(body.get("model")).startswith(("gpt-5", "o")):
        if "max_tokens" in body:
            yield "'max_tokens' is not supported: use 'max_completion_tokens' instead"
        for name in ("stop", "top_p", "presence_penalty", "frequency_penalty"):
            if name in body:
                yield f"Unsupported parameter: '{name}'"
        if body.get("temperature", 1) != 1:
            yield "Unsupported value: 'temperature'"
    if "stream_options" in body and not body.get("stream"):
        yield "The 'stream_options' parameter is only allowed when 'stream' is enabled"
    if len(body.get("user", "")) > 64:
        yield "Invalid 'user': string too long"
    if not body.get("messages"):
        yield "Invalid 'messages': empty array"
        return
    yield from _of_messages(body["messages"])
    if "tools" not in body:
        for name in ("tool_choice", "parallel_tool_calls"):
            if name in body:
                yield f"'{name}' is only allowed when 'tools' are specified"
    elif not body["tools"]:
        yield "Invalid 'tools': empty array"
    for tool in body.get("tools", ()):
        function = tool.get("function", {})
        if tool.keys() != {"type", "function"} or tool["type"] != "function":
            yield f"Invalid tool: {sorted(tool)}"
        elif not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
            yield f"Invalid 'tools.function.name': {function['name']!r}"
        elif function.get("parameters", {"type": "object"}).get("type") != "object":
            yield f"Invalid schema for function '{function['name']}'"


def _turns(
    messages: list[dict[str, Any]],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Roles and their blocks; messages of one role in a row are one turn.

    What the system says in the middle of a conversation is no turn.
    """
    turns = (message for message in messages if message["role"] != "system")
    for role, group in groupby(turns, key=itemgetter("role")):
        yield role, [block for message in group for block in _blocks(message)]


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    assert isinstance(content, list), content
    return content


def _of_blocks(blocks: list[dict[str, Any]]) -> Iterator[str]:
    kinds = [block["type"] for block in blocks]
    if "tool_result" in kinds and kinds != sorted(
        kinds, key=lambda kind: kind != "tool_result"
    ):
        yield "tool_result blocks must come first"
    for block in blocks:
        if block["type"] == "text" and not block["text"]:
            yield "text content blocks must be non-empty"
        if block["type"] == "tool_use" and not isinstance(block["input"], dict):
            yield "tool_use.input: Input should be a valid dictionary"
        if block["type"] == "image" and "source" not in block:
            yield "image.source: Field required"


def _of_messages(messages: list[dict[str, Any]]) -> Iterator[str]:
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        at, role = f"messages[{place}]", message["role"]
        if role not in _MEMBERS:
            yield f"Invalid value: '{role}' ({at}.role)"
            continue
        for name in sorted(message.keys() - _MEMBERS[role]):
            yield f"Unknown parameter: '{at}.{name}'"
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                yield f"{at}: 'tool' must be a response to a message with 'tool_calls'"
            else:
                open_calls.remove(message["tool_call_id"])
        elif open_calls:
            yield f"{at}: 'tool_calls' must be followed by tool messages: {open_calls}"
        calls = message.get("tool_calls", [])
        if "tool_calls" in message and not calls:
            yield f"Invalid '{at}.tool_calls': empty array"
        for call in calls:
            open_calls.append(call["id"])
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                yield f"{at}: arguments are no object"
        content = message.get("content")
        if content is None and not calls:
            yield f"Invalid value for '{at}.content': expected a string, got null"
        allowed = _PARTS if role == "user" else _TEXT
        for part in content if isinstance(content, list) else ():
            if part["type"] not in allowed:
                yield f"Invalid content type '{part['type']}' ({at}, role {role})"
            else:
                for name in sorted(part.keys() - allowed[part["type"]]):
                    yield f"Unknown parameter: '{at}.content.{name}'"
    if open_calls:
        yield f"messages: no response to {open_calls}"
