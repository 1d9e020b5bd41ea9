"""Requests of Ollama's chat API, written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kongai.llm.chat import (
    INVALID_JSON,
    ChatRequest,
    Losses,
    Media,
    OutputSchema,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Untranslatable,
    joined,
)
from kongai.llm.formats import Dialect
from kongai.llm.json_fields import object_text
from kongai.llm.schemas import parameters_of

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
)
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_TAKES_EFFORT = "gpt-oss"


def encode_request(chat: ChatRequest, dialect: Dialect) -> bytes:
    """Write a request; what can't be said is added to its losses.

    Raises:
        Untranslatable: it holds a document, or an image that is not there itself.
    """
    members: dict[str, Any] = {"model": chat.model, "messages": list(_messages(chat))}
    choice = chat.tool_choice.mode if chat.tool_choice else "auto"
    if chat.tools and choice != "none":
        members["tools"] = [_written_tool(tool, chat.losses) for tool in chat.tools]
    # Without it an answer would be streamed.
    members["stream"] = chat.stream
    if chat.output is not None:
        members["format"] = _written_output(chat.output, chat.losses)
    options = _options(chat)
    if options:
        members["options"] = options
    if chat.reasoning is not None:
        members["think"] = _think(chat.reasoning, chat)
    if choice not in ("auto", "none"):
        chat.losses.add("tool_choice")
    if chat.parallel_tools is False:
        chat.losses.add("parallel_tool_calls")
    if chat.user is not None:
        chat.losses.add("user")
    if _has_cache_points(chat):
        chat.losses.add("cache_control")
    return msgspec.json.encode(members)


def _options(chat: ChatRequest) -> dict[str, Any]:
    options = {name: getattr(chat, name) for name in _SAMPLING}
    options |= {"stop": chat.stop or None, "num_predict": chat.max_tokens}
    return {name: value for name, value in options.items() if value is not None}


def _messages(chat: ChatRequest) -> Iterator[dict[str, Any]]:
    names: dict[str, str] = {}
    for message in chat.messages:
        shown: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                if shown:
                    yield _written_message(message.role, shown, chat.losses)
                    shown = []
                yield _written_result(part, names, chat.losses)
                continue
            if isinstance(part, ToolCall):
                names[part.id] = part.name
            shown.append(part)
        if shown or not message.parts:
            yield _written_message(message.role, shown, chat.losses)


def _written_message(
    role: str, parts: Sequence[Part], losses: Losses
) -> dict[str, Any]:
    texts = [part for part in parts if isinstance(part, Text)]
    written: dict[str, Any] = {"role": role, "content": joined(texts)}
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    thinking = "\n".join(thought.text for thought in thoughts if thought.text)
    if thinking:
        written["thinking"] = thinking
    if any(thought.signature for thought in thoughts):
        losses.add("thinking.signature")
    if any(thought.redacted for thought in thoughts):
        losses.add("thinking.redacted")
    images = [_written_image(part) for part in parts if isinstance(part, Media)]
    if images:
        written["images"] = images
    calls = [_written_call(part) for part in parts if isinstance(part, ToolCall)]
    if calls:
        written["tool_calls"] = calls
    return written


def _written_result(
    result: ToolResult, names: dict[str, str], losses: Losses
) -> dict[str, Any]:
    written = _written_message("tool", result.parts, losses)
    if result.call_id in names:
        written["tool_name"] = names[result.call_id]
    if result.is_error:
        losses.add("tool_result.is_error")
    return written


def _written_image(media: Media) -> str:
    if media.kind != "image":
        raise Untranslatable("a document can't be sent to Ollama")
    if media.data is None:
        raise Untranslatable("an image by its address can't be sent to Ollama")
    return media.data


def _written_call(call: ToolCall) -> dict[str, Any]:
    arguments = object_text(call.arguments) or {INVALID_JSON: call.arguments}
    return {"function": {"name": call.name, "arguments": arguments}}


def _written_tool(tool: Tool, losses: Losses) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = parameters_of(tool)
    if tool.strict:
        losses.add("tools[].strict")
    return {"type": "function", "function": function}


def _written_output(output: OutputSchema, losses: Losses) -> Any:
    if output.description is not None:
        losses.add("output.description")
    return object_text(output.schema) or {}


def _think(wanted: Reasoning, chat: ChatRequest) -> bool | str:
    if not wanted.enabled:
        return False
    if wanted.budget is not None:
        chat.losses.add("reasoning.budget")
    effort = _EFFORTS.get(wanted.effort or "")
    # Other models refuse a word.
    return effort if effort and _TAKES_EFFORT in (chat.model or "").lower() else True


def _has_cache_points(chat: ChatRequest) -> bool:
    parts = [part for message in chat.messages for part in message.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    inner = [part for result in results for part in result.parts]
    marked = (getattr(part, "cache", None) for part in (*parts, *inner, *chat.tools))
    return any(cache is not None for cache in marked)
