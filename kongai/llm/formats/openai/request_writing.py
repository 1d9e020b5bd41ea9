"""Requests of OpenAI's Chat Completions API, written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from kongai.llm.chat import (
    ChatRequest,
    Message,
    OutputSchema,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    choice_of,
)
from kongai.llm.formats import Dialect
from kongai.llm.formats.openai.content import (
    content_of,
    thinking_members,
    written_call,
)
from kongai.llm.json_fields import object_text
from kongai.llm.schemas import parameters_of, takes_all

_MOST_STOPS = 4
_LONGEST_USER = 64
_EFFORTS = {"xhigh": "high", "max": "high"}
_BUDGETS = ((2048, "low"), (16384, "medium"))
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")


def encode_request(chat: ChatRequest, dialect: Dialect) -> bytes:
    """Write a request; what can't be said is added to its losses.

    Raises:
        Untranslatable: it can't be left out either.
    """
    members: dict[str, Any] = {"model": chat.model}
    members["messages"] = list(_written_messages(chat, dialect))
    choice = choice_of(chat)
    if choice is not None:
        members["tool_choice"] = _written_choice(choice)
    if chat.tools:
        members["tools"] = [_written_tool(tool, chat, dialect) for tool in chat.tools]
        if chat.parallel_tools is not None:
            members["parallel_tool_calls"] = chat.parallel_tools
    limit = chat.max_tokens or dialect.default_max_tokens
    if limit is not None:
        members[dialect.max_tokens] = limit
    members |= _written_sampling(chat, dialect)
    members |= _written_reasoning(chat, dialect)
    if chat.output is not None:
        members["response_format"] = _written_output(chat.output)
    if chat.user is not None and dialect.user and len(chat.user) <= _LONGEST_USER:
        members["user"] = chat.user
    elif chat.user is not None:
        chat.losses.add("user")
    if chat.stream:
        members["stream"] = True
        if dialect.stream_usage:
            members["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(members)


def _written_messages(chat: ChatRequest, dialect: Dialect) -> Iterator[dict[str, Any]]:
    messages = _turns(chat.messages)
    if messages and messages[-1].role == "assistant":
        # To Anthropic it is the beginning of the answer, to OpenAI an answer.
        chat.losses.add("prefill")
    for message in messages:
        if message.role == "assistant":
            yield _written_assistant(message, chat, dialect)
        elif message.role == "system":
            texts = [part for part in message.parts if isinstance(part, Text)]
            if len(texts) < len(message.parts):
                chat.losses.add("system.content[]")
            system = content_of(texts, chat.losses, dialect, as_one=True)
            yield {"role": "system", "content": system}
        else:
            yield from _written_user(message, chat, dialect)


def _turns(messages: Sequence[Message]) -> list[Message]:
    """The messages, results of tools together in one: they must follow their calls."""
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        more = any(isinstance(part, ToolResult) for part in message.parts)
        if more and last is not None and last.role == message.role == "user":
            turns[-1] = Message("user", [*last.parts, *message.parts])
        else:
            turns.append(message)
    return turns


def _written_user(
    message: Message, chat: ChatRequest, dialect: Dialect
) -> Iterator[dict[str, Any]]:
    """The messages of a user's turn: results first, they must follow the calls."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    shown: list[Part] = []
    said = [part for part in message.parts if not isinstance(part, ToolResult)]
    if results and not dialect.user_after_tool:
        # Its texts can only be said with the last result.
        texts = [part for part in said if isinstance(part, Text)]
        said = [part for part in said if not isinstance(part, Text)]
        last = results[-1]
        results[-1] = replace(last, parts=[*last.parts, *texts])
    for result in results:
        texts = [part for part in result.parts if isinstance(part, Text)]
        # A message of a tool takes only text; what it shows follows in the user's.
        shown += [part for part in result.parts if not isinstance(part, Text)]
        if result.is_error:
            chat.losses.add("tool_result.is_error")
        if result.cache is not None and texts and dialect.cache_points:
            # A point behind the result is one behind the last of what it says.
            texts[-1] = replace(texts[-1], cache=result.cache)
        elif result.cache is not None:
            chat.losses.add("cache_control")
        yield {
            "role": "tool",
            "tool_call_id": _call_id(result.call_id, dialect),
            "content": content_of(texts, chat.losses, dialect, as_one=True),
        }
    shown += said
    if shown or not results:
        yield {"role": "user", "content": content_of(shown, chat.losses, dialect)}


def _written_assistant(
    message: Message, chat: ChatRequest, dialect: Dialect
) -> dict[str, Any]:
    written: dict[str, Any] = {"role": "assistant"}
    texts = [part for part in message.parts if isinstance(part, Text)]
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    thinking = [part for part in message.parts if isinstance(part, Thinking)]
    if len(texts) + len(calls) + len(thinking) < len(message.parts):
        chat.losses.add("assistant.content[]")
    written["content"] = (
        content_of(texts, chat.losses, dialect, as_one=True) if texts else None
    )
    if thinking:
        written |= thinking_members(
            thinking,
            chat.losses,
            member=dialect.past_reasoning,
            sealed=dialect.reasoning == "openrouter",
        )
    if calls:
        written["tool_calls"] = [
            written_call(call, _call_id(call.id, dialect)) for call in calls
        ]
        if any(call.cache for call in calls):
            chat.losses.add("cache_control")
    elif not texts:
        written["content"] = ""
    return written


def _call_id(given: str, dialect: Dialect) -> str:
    """An id as the provider takes it; the same for a call and for its result."""
    if not dialect.short_call_ids or _SHORT_ID.fullmatch(given):
        return given
    number = 0
    for byte in given.encode():
        number = (number * 257 + byte + 1) % 36**9
    digits = []
    for _ in range(9):
        number, digit = divmod(number, 36)
        digits.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(digits)


def _written_tool(tool: Tool, chat: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = parameters_of(tool)
    if tool.strict and not takes_all(function["parameters"]):
        # Anthropic's strictness allows for properties that may be left out.
        chat.losses.add("tools[].strict")
    elif tool.strict is not None:
        function["strict"] = tool.strict
    written: dict[str, Any] = {"type": "function", "function": function}
    if tool.cache is not None and dialect.cache_points:
        written["cache_control"] = tool.cache
    elif tool.cache is not None:
        chat.losses.add("cache_control")
    return written


def _written_choice(choice: ToolChoice) -> Any:
    if choice.mode == "one":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _written_sampling(chat: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, usual in (("temperature", 1), ("top_p", 1)):
        value = getattr(chat, name)
        if value is not None and dialect.sampling:
            members[name] = value
        elif value not in (None, usual):
            chat.losses.add(name)
    if chat.top_k is not None and dialect.top_k:
        members["top_k"] = chat.top_k
    elif chat.top_k is not None:
        chat.losses.add("top_k")
    for name in ("seed", "frequency_penalty", "presence_penalty"):
        if getattr(chat, name) is not None:
            members[name] = getattr(chat, name)
    if chat.stop and dialect.sampling and dialect.stop:
        members["stop"] = chat.stop[:_MOST_STOPS]
        if len(chat.stop) > _MOST_STOPS:
            chat.losses.add("stop")
    elif chat.stop:
        chat.losses.add("stop")
    return members


def _written_reasoning(chat: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    wanted = chat.reasoning
    if chat.tools and not dialect.tools_with_reasoning:
        if wanted is not None and wanted.enabled:
            chat.losses.add("reasoning")
        return {"reasoning_effort": "none"}
    if wanted is None:
        return {}
    if dialect.reasoning == "openrouter":
        return {"reasoning": _for_openrouter(wanted, chat)}
    if dialect.reasoning is None or not wanted.enabled:
        if wanted.enabled or dialect.reasoning is not None:
            chat.losses.add("reasoning")
        return {}
    effort = wanted.effort
    if effort is None and wanted.budget is not None:
        effort = next((e for most, e in _BUDGETS if wanted.budget <= most), "high")
    if effort is None:
        # It thinks as much as it sees fit, which is what was asked for.
        return {}
    return {"reasoning_effort": _word(effort, chat)}


def _word(effort: str, chat: ChatRequest) -> str:
    """How much to think, in a word that every model knows."""
    if effort in _EFFORTS:
        chat.losses.add("reasoning.effort")
    return _EFFORTS.get(effort, effort)


def _for_openrouter(wanted: Reasoning, chat: ChatRequest) -> dict[str, Any]:
    if not wanted.enabled:
        return {"enabled": False}
    if wanted.effort is not None:
        return {"effort": _word(wanted.effort, chat)}
    if wanted.budget is not None:
        return {"max_tokens": wanted.budget}
    return {"enabled": True}


def _written_output(output: OutputSchema) -> dict[str, Any]:
    schema: dict[str, Any] = {"name": output.name or "output"}
    if output.description is not None:
        schema["description"] = output.description
    schema["schema"] = object_text(output.schema) or {}
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}
