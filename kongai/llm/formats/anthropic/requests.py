"""Requests of Anthropic's Messages API, read and written whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from kongai.llm.chat import (
    ChatRequest,
    Message,
    OutputSchema,
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
from kongai.llm.formats.anthropic.content import blocks_of, written_content
from kongai.llm.json_fields import Fields
from kongai.llm.schemas import closed, parameters_of

_MODES: dict[str, Literal["auto", "required", "none", "one"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
    "tool": "one",
}
_CHOICES = {"auto": "auto", "required": "any", "none": "none", "one": "tool"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576}
_LARGEST_BUDGET = 31999
_LEAST_BUDGET = 1024
_EFFORTS = {"minimal": "low"}


def decode_request(body: bytes) -> ChatRequest:
    """Read a request whole; what is not known is among its losses.

    Raises:
        Untranslatable: it is not as the format demands.
    """
    fields = Fields.of_request(body)
    choice, parallel = _tool_choice(fields)
    output = fields.object("output_config")
    metadata = fields.object("metadata")
    chat = ChatRequest(
        model=fields.text("model"),
        messages=_messages(fields),
        tools=list(_tools(fields)),
        tool_choice=choice,
        parallel_tools=parallel,
        max_tokens=fields.integer("max_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.integer("top_k"),
        stop=fields.texts("stop_sequences"),
        stream=fields.flag("stream") or False,
        usage_in_stream=True,
        reasoning=_reasoning(fields, output),
        output=_output(output),
        user=metadata.text("user_id") if metadata else None,
    )
    fields.report(chat.losses)
    return chat


def encode_request(chat: ChatRequest, dialect: Dialect) -> bytes:
    """Write a request; what can't be said is added to its losses.

    Raises:
        Untranslatable: it can't be left out either.
    """
    members: dict[str, Any] = {"model": chat.model}
    limit = chat.max_tokens or dialect.default_max_tokens
    system = [
        part
        for message in chat.messages
        if message.role == "system"
        for part in message.parts
        if not isinstance(part, Text) or part.text.strip()
    ]
    if system:
        members["system"] = written_content(system, chat.losses)
    members["messages"] = list(_written_messages(chat))
    choice = choice_of(chat)
    if chat.tools:
        members["tools"] = [_written_tool(tool) for tool in chat.tools]
        written = _written_choice(chat, choice)
        if written is not None:
            members["tool_choice"] = written
    thinking = _written_reasoning(chat, dialect, choice)
    if "thinking" in thinking and chat.max_tokens is None and limit is not None:
        # The limit is ours, and is meant for what is written after thinking.
        limit += thinking["thinking"].get("budget_tokens", 0)
    if limit is not None:
        members["max_tokens"] = limit
    members |= thinking
    members |= _written_sampling(chat, dialect, thinks="thinking" in thinking)
    if chat.output is not None:
        members["output_config"] = {
            **members.get("output_config", {}),
            "format": _written_output(chat),
        }
    if chat.user is not None:
        members["metadata"] = {"user_id": chat.user}
    members["stream"] = chat.stream
    return msgspec.json.encode(members)


def _messages(fields: Fields) -> list[Message]:
    messages = []
    system = blocks_of(fields, "system")
    if system:
        messages.append(Message("system", system))
    for given in fields.objects("messages"):
        role = given.text("role")
        if role not in ("user", "assistant", "system"):
            raise given.refusal("unknown role")
        messages.append(
            Message(role, blocks_of(given, "content"))  # type: ignore[arg-type]
        )
    return [message for message in messages if message.parts]


def _tools(fields: Fields) -> Iterator[Tool]:
    for given in fields.objects("tools"):
        kind = given.text("type")
        if kind not in (None, "custom"):
            # One that Anthropic runs, or whose parameters only Anthropic knows.
            given.lose(f"[{kind}]")
            continue
        yield Tool(
            given.text("name") or "",
            given.text("description"),
            given.json("input_schema"),
            given.flag("strict"),
            given.value("cache_control"),
        )


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    given = fields.object("tool_choice")
    if given is None:
        return None, None
    mode = _MODES.get(given.text("type") or "")
    if mode is None:
        raise given.refusal("expected a type of auto, any, none or tool")
    alone = given.flag("disable_parallel_tool_use")
    choice = ToolChoice(mode, given.text("name"))
    return choice, None if alone is None else not alone


def _reasoning(fields: Fields, output: Fields | None) -> Reasoning | None:
    given = fields.object("thinking")
    effort = output.text("effort") if output is not None else None
    if given is None:
        return None if effort is None else Reasoning(effort=effort)
    enabled = given.text("type") != "disabled"
    return Reasoning(enabled, effort, given.integer("budget_tokens"))


def _output(output: Fields | None) -> OutputSchema | None:
    given = output.object("format") if output is not None else None
    if given is None:
        return None
    kind = given.text("type")
    if kind != "json_schema":
        given.lose(f"[{kind}]")
        return None
    return OutputSchema(given.json("schema") or "{}")


def _written_messages(chat: ChatRequest) -> Iterator[dict[str, Any]]:
    begun = False
    if chat.messages and chat.messages[-1].role == "assistant":
        # To OpenAI it is an answer, to Anthropic the beginning of the next one.
        chat.losses.add("prefill")
    for message in chat.messages:
        if message.role == "system":
            if begun:
                chat.losses.add("system.position")
            continue
        begun = True
        content = written_content(message.parts, chat.losses)
        if isinstance(content, str) and message.role == "assistant":
            # Anthropic refuses texts of nothing but white space.
            content = content if content.strip() else ""
        if content or message.role == "user":
            yield {"role": message.role, "content": content}


def _written_tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    written["input_schema"] = parameters_of(tool)
    if tool.strict is not None:
        written["strict"] = tool.strict
    if tool.cache is not None:
        written["cache_control"] = tool.cache
    return written


def _written_choice(
    chat: ChatRequest, choice: ToolChoice | None
) -> dict[str, Any] | None:
    if choice is None and chat.parallel_tools is not False:
        return None
    mode = choice.mode if choice else "auto"
    written: dict[str, Any] = {"type": _CHOICES[mode]}
    if choice is not None and choice.name is not None:
        written["name"] = choice.name
    if chat.parallel_tools is False and mode != "none":
        written["disable_parallel_tool_use"] = True
    return written


def _written_sampling(
    chat: ChatRequest, dialect: Dialect, *, thinks: bool
) -> dict[str, Any]:
    members: dict[str, Any] = {}
    free = dialect.sampling and not thinks
    temperature, top_p = chat.temperature, chat.top_p
    if temperature is not None and temperature > 1:
        # Elsewhere the scale goes up to 2.
        chat.losses.add("temperature")
        temperature = 1.0
    if temperature is not None and free:
        members["temperature"] = temperature
    elif temperature not in (None, 1):
        chat.losses.add("temperature")
    single = dialect.one_sampler and "temperature" in members
    if top_p is not None and free and not single:
        members["top_p"] = top_p
    elif top_p not in (None, 1):
        chat.losses.add("top_p")
    if chat.top_k is not None and dialect.top_k and not thinks:
        members["top_k"] = chat.top_k
    elif chat.top_k is not None:
        chat.losses.add("top_k")
    if chat.seed is not None:
        chat.losses.add("seed")
    for name in ("frequency_penalty", "presence_penalty"):
        if getattr(chat, name):
            chat.losses.add(name)
    # Anthropic refuses those that are only white space.
    stop = [sequence for sequence in chat.stop if sequence.strip()]
    if len(stop) < len(chat.stop):
        chat.losses.add("stop")
    if stop:
        members["stop_sequences"] = stop
    return members


def _written_reasoning(
    chat: ChatRequest, dialect: Dialect, choice: ToolChoice | None
) -> dict[str, Any]:
    wanted = chat.reasoning
    if wanted is None or not wanted.enabled:
        return {}
    forced = choice is not None and choice.mode in ("required", "one")
    if dialect.reasoning is None or forced or _thought_is_missing(chat):
        chat.losses.add("reasoning")
        return {}
    effort = wanted.effort or "medium"
    if dialect.reasoning == "adaptive":
        if wanted.budget is not None:
            chat.losses.add("reasoning.budget")
        if effort in _EFFORTS:
            chat.losses.add("reasoning.effort")
        config = {"effort": _EFFORTS.get(effort, effort)} if wanted.effort else {}
        thinking: dict[str, Any] = {"thinking": {"type": "adaptive"}}
        return {**thinking, "output_config": config} if config else thinking
    budget = wanted.budget or _BUDGETS.get(effort, _LARGEST_BUDGET)
    if chat.max_tokens is not None:
        budget = min(budget, chat.max_tokens * 3 // 4)
    if budget < _LEAST_BUDGET:
        chat.losses.add("reasoning")
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _thought_is_missing(chat: ChatRequest) -> bool:
    """Whether a tool was called without a signed thought that could be given back.

    Anthropic refuses to think in the middle of such a turn.
    """
    turn = [message for message in chat.messages if message.role != "system"]
    if not turn or not any(isinstance(part, ToolResult) for part in turn[-1].parts):
        return False
    calling = next((m for m in reversed(turn) if m.role == "assistant"), None)
    if calling is None or not any(isinstance(p, ToolCall) for p in calling.parts):
        return False
    return not any(
        isinstance(part, Thinking) and (part.signature or part.redacted is not None)
        for part in calling.parts
    )


def _written_output(chat: ChatRequest) -> dict[str, Any]:
    output = chat.output
    assert output is not None
    if output.name not in (None, "output"):
        chat.losses.add("output.name")
    if output.description is not None:
        chat.losses.add("output.description")
    if output.strict is False:
        chat.losses.add("output.strict")
    return {"type": "json_schema", "schema": closed(output.schema)}
