"""Requests of OpenAI's Chat Completions API, read whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from kongai.llm.chat import (
    ChatRequest,
    Message,
    OutputSchema,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kongai.llm.formats.openai.content import (
    parts_of,
    reasoning_of,
)
from kongai.llm.json_fields import Fields

_CHOICES: dict[str, Literal["auto", "required", "none"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Mistral's word
}


def decode_request(body: bytes) -> ChatRequest:
    """Read a request whole; what is not known is among its losses.

    Raises:
        Untranslatable: it is not as the format demands.
    """
    fields = Fields.of_request(body)
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
        user=fields.text("user" if fields.has("user") else "safety_identifier"),
    )
    options = fields.object("stream_options")
    if options is not None:
        chat.usage_in_stream = options.flag("include_usage") or False
        options.drop("include_obfuscation")
    if fields.has("n") and fields.integer("n") != 1:
        chat.losses.add("n")
    fields.report(chat.losses)
    return chat


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _messages(fields: Fields) -> list[Message]:
    """The conversation, results of tools gathered into turns of the user."""
    messages: list[Message] = []
    # Calls of functions had no ids before there were tools.
    functions = 0
    for given in fields.objects("messages"):
        role = given.text("role")
        if role in ("tool", "function"):
            _turn(messages).parts.append(_tool_result(given, functions))
        elif role == "user":
            _turn(messages).parts.extend(parts_of(given, "content"))
        elif role in ("system", "developer"):
            messages.append(Message("system", parts_of(given, "content")))
        elif role == "assistant":
            functions += given.has("function_call")
            parts = _assistant_parts(given, functions)
            messages.append(Message("assistant", parts))
        else:
            raise given.refusal("unknown role")
    return messages


def _turn(messages: list[Message]) -> Message:
    """The user's turn to add to: one that holds only results, or else a new one."""
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not _only_results(last):
        last = Message("user")
        messages.append(last)
    return last


def _only_results(message: Message) -> bool:
    return bool(message.parts) and all(
        isinstance(part, ToolResult) for part in message.parts
    )


def _tool_result(given: Fields, number: int) -> ToolResult:
    parts: list[Any] = parts_of(given, "content")
    if given.has("tool_call_id"):
        return ToolResult(given.text("tool_call_id") or "", parts)
    return ToolResult(_legacy_id(given.text("name") or "", number), parts)


def _legacy_id(name: str, number: int) -> str:
    """The id of a call of a function; Anthropic refuses one that comes twice."""
    return f"call_{name}_{number}"


def _assistant_parts(given: Fields, number: int) -> list[Part]:
    parts: list[Part] = [*reasoning_of(given), *parts_of(given, "content")]
    refusal = given.text("refusal")
    if refusal:
        parts.append(Text(refusal))
    for call in given.objects("tool_calls"):
        for member in ("type", "index"):
            call.drop(member)
        id, custom = call.text("id") or "", call.object("custom")
        function = call.object("function")
        if function is not None:
            parts.append(_call(id, function))
        elif custom is not None:
            # A tool whose input is free text; its result needs the call it is of.
            said = msgspec.json.encode({"input": custom.text("input") or ""})
            parts.append(ToolCall(id, custom.text("name") or "", said.decode()))
        else:
            raise call.refusal("a call of an unknown kind can't be carried over")
    legacy = given.object("function_call")
    if legacy is not None:
        called = _call("", legacy)
        called.id = _legacy_id(called.name, number)
        parts.append(called)
    return parts


def _call(id: str, function: Fields) -> ToolCall:
    name, arguments = function.text("name"), function.text("arguments")
    return ToolCall(id, name or "", arguments or "{}")


def _tools(fields: Fields) -> Iterator[Tool]:
    for given in fields.objects("tools"):
        kind = given.text("type") or "function"
        function = given.object("function")
        if function is None:
            # As with Anthropic's own, a tool that only this vendor runs.
            given.lose(f"[{kind}]")
            continue
        yield _tool(function, given.value("cache_control"))
    for function in fields.objects("functions"):
        yield _tool(function, None)


def _tool(function: Fields, cache: dict[str, Any] | None) -> Tool:
    return Tool(
        function.text("name") or "",
        function.text("description"),
        function.json("parameters"),
        function.flag("strict"),
        cache,
    )


def _tool_choice(fields: Fields) -> ToolChoice | None:
    member = "tool_choice" if fields.has("tool_choice") else "function_call"
    if fields.starts(member) == b'"':
        word = _CHOICES.get(fields.text(member) or "")
        if word is None:
            raise fields.refusal(f"{member}: expected one of auto, none, required")
        return ToolChoice(word)
    given = fields.object(member)
    if given is None:
        return None
    if member == "function_call":
        return ToolChoice("one", given.text("name"))
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
