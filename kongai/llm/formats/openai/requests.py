"""Requests of OpenAI's Chat Completions API, read and written whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

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
)
from kongai.llm.formats import Dialect
from kongai.llm.formats.openai.content import (
    content_of,
    parts_of,
    reasoning_of,
    thinking_members,
)
from kongai.llm.json_fields import Fields, object_text

_MOST_STOPS = 4
_LONGEST_USER = 64
_NO_PARAMETERS = '{"type":"object","properties":{}}'
_CHOICES: dict[str, Literal["auto", "required", "none"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Mistral's word
}
_EFFORTS = {"xhigh": "high", "max": "high"}
_BUDGETS = ((2048, "low"), (16384, "medium"))
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")


def decode_request(body: bytes) -> ChatRequest:
    """Read a request whole; what is not known is among its losses.

    Raises:
        Untranslatable: it is not as the format demands.
    """
    fields = Fields.parse(body)
    chat = ChatRequest(
        model=fields.text("model"),
        messages=_messages(fields),
        tools=list(_tools(fields)),
        tool_choice=_tool_choice(fields),
        parallel_tools=fields.flag("parallel_tool_calls"),
        max_tokens=_first(
            fields.integer("max_completion_tokens"), fields.integer("max_tokens")
        ),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.integer("top_k"),
        seed=fields.integer("seed"),
        frequency_penalty=fields.number("frequency_penalty"),
        presence_penalty=fields.number("presence_penalty"),
        stop=_stop(fields),
        stream=fields.flag("stream") or False,
        reasoning=_reasoning(fields),
        output=_output(fields),
        user=_first(fields.text("user"), fields.text("safety_identifier")),
    )
    options = fields.object("stream_options")
    if options is not None:
        chat.usage_in_stream = options.flag("include_usage") or False
        options.drop("include_obfuscation")
    if fields.has("n") and fields.integer("n") != 1:
        chat.losses.add("n")
    fields.report(chat.losses)
    return chat


def encode_request(chat: ChatRequest, dialect: Dialect) -> bytes:
    """Write a request; what can't be said is added to its losses.

    Raises:
        Untranslatable: it can't be left out either.
    """
    members: dict[str, Any] = {"model": chat.model}
    members["messages"] = list(_written_messages(chat, dialect))
    if chat.tools:
        members["tools"] = [_written_tool(tool, chat, dialect) for tool in chat.tools]
        if chat.tool_choice is not None:
            members["tool_choice"] = _written_choice(chat.tool_choice)
        if chat.parallel_tools is not None:
            members["parallel_tool_calls"] = chat.parallel_tools
    limit = _first(chat.max_tokens, dialect.default_max_tokens)
    if limit is not None:
        members[dialect.max_tokens] = limit
    members |= _written_sampling(chat, dialect)
    members |= _written_reasoning(chat, dialect)
    if chat.output is not None:
        members["response_format"] = _written_output(chat.output)
    if chat.user is not None and len(chat.user) <= _LONGEST_USER:
        members["user"] = chat.user
    elif chat.user is not None:
        chat.losses.add("user")
    if chat.stream:
        members["stream"] = True
        if dialect.stream_usage:
            members["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(members)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _messages(fields: Fields) -> list[Message]:
    """The conversation, results of tools gathered into turns of the user."""
    messages: list[Message] = []
    for given in fields.objects("messages"):
        role = given.text("role")
        if role == "tool":
            _add_to_turn(messages, [_tool_result(given)])
        elif role == "user":
            parts = parts_of(given, "content")
            last = messages[-1] if messages else None
            if last and last.role == "user" and _only_results(last):
                last.parts.extend(parts)
            else:
                messages.append(Message("user", parts))
        elif role in ("system", "developer"):
            messages.append(Message("system", parts_of(given, "content")))
        elif role == "assistant":
            messages.append(Message("assistant", _assistant_parts(given)))
        else:
            raise given.refusal("unknown role")
    return messages


def _add_to_turn(messages: list[Message], results: list[Part]) -> None:
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not _only_results(last):
        last = Message("user")
        messages.append(last)
    last.parts.extend(results)


def _only_results(message: Message) -> bool:
    return bool(message.parts) and all(
        isinstance(part, ToolResult) for part in message.parts
    )


def _tool_result(given: Fields) -> ToolResult:
    parts: list[Any] = parts_of(given, "content")
    return ToolResult(given.text("tool_call_id") or "", parts)


def _assistant_parts(given: Fields) -> list[Part]:
    parts: list[Part] = [*reasoning_of(given), *parts_of(given, "content")]
    refusal = given.text("refusal")
    if refusal:
        parts.append(Text(refusal))
    for call in given.objects("tool_calls"):
        function = call.object("function")
        if function is None:
            call.lose(f"[{call.text('type') or 'unknown'}]")
            continue
        for name in ("type", "index"):
            call.drop(name)
        parts.append(
            ToolCall(
                call.text("id") or "",
                function.text("name") or "",
                function.text("arguments") or "{}",
            )
        )
    return parts


def _tools(fields: Fields) -> Iterator[Tool]:
    for given in fields.objects("tools"):
        kind = given.text("type") or "function"
        function = given.object("function")
        if function is None:
            # As with Anthropic's own, a tool that only this vendor runs.
            given.lose(f"[{kind}]")
            continue
        yield Tool(
            function.text("name") or "",
            function.text("description"),
            function.json("parameters"),
            function.flag("strict"),
            given.value("cache_control"),
        )


def _tool_choice(fields: Fields) -> ToolChoice | None:
    if fields.starts("tool_choice") == b'"':
        word = _CHOICES.get(fields.text("tool_choice") or "")
        if word is None:
            raise fields.refusal("tool_choice: expected one of auto, none, required")
        return ToolChoice(word)
    given = fields.object("tool_choice")
    if given is None:
        return None
    function = given.object("function")
    if function is None:
        given.lose(f"[{given.text('type') or 'unknown'}]")
        return None
    given.drop("type")
    return ToolChoice("one", function.text("name"))


def _stop(fields: Fields) -> list[str]:
    if fields.starts("stop") == b'"':
        return [fields.text("stop") or ""]
    return fields.texts("stop")


def _reasoning(fields: Fields) -> Reasoning | None:
    effort = fields.text("reasoning_effort")
    given = fields.object("reasoning")
    budget = None
    if given is not None:
        effort = _first(effort, given.text("effort"))
        budget = given.integer("max_tokens")
        if effort is None and given.flag("enabled") is False:
            effort = "none"
        given.drop("enabled")
    if given is None and effort is None:
        return None
    return Reasoning(effort != "none", None if effort == "none" else effort, budget)


def _output(fields: Fields) -> OutputSchema | None:
    given = fields.object("response_format")
    if given is None:
        return None
    kind = given.text("type")
    schema = given.object("json_schema")
    if kind == "text":
        return None
    if kind != "json_schema" or schema is None:
        given.lose(f"[{kind}]")
        return None
    return OutputSchema(
        schema.json("schema") or "{}",
        schema.text("name"),
        schema.text("description"),
        schema.flag("strict"),
    )


def _written_messages(chat: ChatRequest, dialect: Dialect) -> Iterator[dict[str, Any]]:
    for message in chat.messages:
        if message.role == "assistant":
            yield _written_assistant(message, chat, dialect)
        elif message.role == "system":
            texts = [part for part in message.parts if isinstance(part, Text)]
            if len(texts) < len(message.parts):
                chat.losses.add("system.content[]")
            system = content_of(texts, chat.losses, dialect, joined=True)
            yield {"role": "system", "content": system}
        else:
            yield from _written_user(message, chat, dialect)


def _written_user(
    message: Message, chat: ChatRequest, dialect: Dialect
) -> Iterator[dict[str, Any]]:
    """The messages of a user's turn: results first, they must follow the calls."""
    shown: list[Part] = []
    results = [part for part in message.parts if isinstance(part, ToolResult)]
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
            "content": content_of(texts, chat.losses, dialect, joined=True),
        }
    shown += [part for part in message.parts if not isinstance(part, ToolResult)]
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
        content_of(texts, chat.losses, dialect, joined=True) if texts else None
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
            {
                "id": _call_id(call.id, dialect),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
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
    parameters = tool.parameters or _NO_PARAMETERS
    function["parameters"] = object_text(parameters) or object_text(_NO_PARAMETERS)
    if tool.strict is not None:
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
    if chat.stop and dialect.sampling:
        members["stop"] = chat.stop[:_MOST_STOPS]
        if len(chat.stop) > _MOST_STOPS:
            chat.losses.add("stop")
    elif chat.stop:
        chat.losses.add("stop")
    return members


def _written_reasoning(chat: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    wanted = chat.reasoning
    if wanted is None:
        return {}
    if dialect.reasoning == "openrouter":
        return {"reasoning": _for_openrouter(wanted)}
    if dialect.reasoning is None or not wanted.enabled:
        if wanted.enabled or dialect.reasoning is not None:
            chat.losses.add("thinking")
        return {}
    effort = wanted.effort
    if effort is None and wanted.budget is not None:
        effort = next((e for most, e in _BUDGETS if wanted.budget <= most), "high")
    if effort is None:
        # It thinks as much as it sees fit, which is what was asked for.
        return {}
    return {"reasoning_effort": _EFFORTS.get(effort, effort)}


def _for_openrouter(wanted: Reasoning) -> dict[str, Any]:
    if not wanted.enabled:
        return {"enabled": False}
    if wanted.effort is not None:
        return {"effort": _EFFORTS.get(wanted.effort, wanted.effort)}
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
