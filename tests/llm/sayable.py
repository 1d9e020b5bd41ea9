"""What of a conversation each format can say: the same conversation, reduced to that.

These are the losses of the formats, written down a second time. A name in `lost` is one
that has to be told; what changes without one (texts that are joined by a line feed)
means the same as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    Media,
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
from kongai.llm.usage import Usage

Said: TypeAlias = tuple[ChatRequest, set[str]]
Sayable: TypeAlias = Callable[[ChatRequest], Said]
_CLOSED = {"additionalProperties": False}


def of(kind: Any, parts: Sequence[Part]) -> list[Any]:
    return [part for part in parts if isinstance(part, kind)]


# OpenAI's, in the dialect that takes the most (OpenRouter's).


def in_openai(chat: ChatRequest) -> Said:
    lost: set[str] = set()
    _note_prefill(chat, lost)
    messages = [_openai_message(message, lost) for message in _turns(chat.messages)]
    said = replace(
        chat,
        messages=_results_with_what_follows(messages),
        tools=[_openai_tool(tool, lost) for tool in chat.tools],
        tool_choice=_choice(chat, lost),
        stop=chat.stop[:4],
        usage_in_stream=chat.stream,
    )
    if not chat.tools:
        said.parallel_tools = None
    if len(chat.stop) > 4:
        lost.add("stop")
    if chat.user is not None and len(chat.user) > 64:
        lost.add("user")
        said.user = None
    wanted = chat.reasoning
    if wanted is not None and not wanted.enabled:
        said.reasoning = Reasoning(False)
    elif wanted is not None and wanted.effort is not None:
        above = wanted.effort in ("xhigh", "max")
        if above:
            lost.add("reasoning.effort")
        said.reasoning = Reasoning(effort="high" if above else wanted.effort)
    if chat.output is not None:
        said.output = replace(chat.output, name=chat.output.name or "output")
    return said, lost


def _turns(messages: Sequence[Message]) -> list[Message]:
    """Results must follow their calls: those in turns of their own are one turn."""
    turns: list[Message] = []
    for message in messages:
        more = turns and turns[-1].role == "user" and of(ToolResult, message.parts)
        before = turns.pop().parts if more else []
        turns.append(Message(message.role, [*before, *message.parts]))
    return turns


def _results_with_what_follows(messages: Sequence[Message]) -> list[Message]:
    """What a user says behind nothing but results is read as of the same turn."""
    read: list[Message] = []
    for message in messages:
        last = read[-1] if read else Message("system")
        if message.role == "user" and last.parts == of(ToolResult, last.parts) != []:
            last.parts.extend(message.parts)
        else:
            read.append(message)
    return read


def _openai_tool(tool: Tool, lost: set[str]) -> Tool:
    said = _with_parameters(tool)
    if said.strict and not _is_strict(json.loads(said.parameters or "")):
        lost.add("tools[].strict")
        said.strict = None
    return said


def _is_strict(schema: Any) -> bool:
    """Whether an object takes what it must be given, and nothing else."""
    if schema.get("type") != "object":
        return True
    members = schema.get("properties", {})
    return (
        schema.get("additionalProperties") is False
        and schema.get("required", []) == sorted(members)
        and all(map(_is_strict, members.values()))
    )


def _openai_message(message: Message, lost: set[str]) -> Message:
    if message.role == "system":
        return Message("system", _line_by_line(message.parts))
    if message.role == "assistant":
        calls = of(ToolCall, message.parts)
        if any(call.cache for call in calls):
            lost.add("cache_control")
        texts = _line_by_line(of(Text, message.parts))
        if not texts and not calls:
            texts = [Text("")]
        calls = [replace(call, cache=None) for call in calls]
        return Message("assistant", [*_thoughts(message.parts), *texts, *calls])
    results = of(ToolResult, message.parts)
    shown = [part for result in results for part in of(Media, result.parts)]
    shown += [part for part in message.parts if not isinstance(part, ToolResult)]
    told: list[Part] = [_openai_result(result, lost) for result in results]
    return Message("user", told + [_openai_media(part) for part in shown])


def _openai_result(result: ToolResult, lost: set[str]) -> ToolResult:
    texts = of(Text, result.parts)
    if result.is_error:
        lost.add("tool_result.is_error")
    if result.cache is not None and texts:
        texts[-1] = replace(texts[-1], cache=result.cache)
    elif result.cache is not None:
        lost.add("cache_control")
    return ToolResult(result.call_id, _line_by_line(texts) or [Text("")])


def _openai_media(part: Any) -> Part:
    if isinstance(part, Media) and part.kind == "document":
        return replace(part, name=part.name or "document.pdf")
    return part  # type: ignore[no-any-return]


def _line_by_line(parts: Sequence[Part]) -> list[Any]:
    """Several texts as one; those with a mark for the cache stay apart."""
    texts = of(Text, parts)
    if any(text.cache for text in texts) or not texts:
        return texts
    return [Text(_joined(texts))]


def _joined(texts: Sequence[Text]) -> str:
    joined = ""
    for index, text in enumerate(texts):
        cited = text.cited or (index > 0 and texts[index - 1].cited)
        joined += text.text if cited or not index else "\n" + text.text
    return joined


def _thoughts(parts: Sequence[Part]) -> list[Thinking]:
    """Those under seal as they are; without any, the text alone."""
    thoughts = of(Thinking, parts)
    under_seal = [thought for thought in thoughts if not _unsigned(thought)]
    if under_seal:
        return under_seal
    text = "\n".join(thought.text for thought in thoughts if thought.text)
    return [Thinking(text)] if text else []


def _unsigned(thought: Thinking) -> bool:
    return thought.signature is None and thought.redacted is None


def _with_parameters(tool: Tool) -> Tool:
    """A tool whose schema says that it is one of an object, and of which."""
    text = tool.parameters or "{}"
    given = json.loads(text)
    missing: dict[str, Any] = {} if "type" in given else {"type": "object"}
    if "properties" not in given and given.get("type", "object") == "object":
        missing["properties"] = {}
    if not missing:
        return replace(tool)
    members = [
        f"{msgspec.json.encode(name).decode()}:{json.dumps(value)}"
        for name, value in {**given, **missing}.items()
    ]
    return replace(tool, parameters="{" + ",".join(members) + "}")


def _choice(chat: ChatRequest, lost: set[str]) -> ToolChoice | None:
    """The choice, where the tool that is to be called is offered."""
    wanted = chat.tool_choice
    if wanted is None or (wanted.mode in ("auto", "none") and chat.tools):
        return wanted
    names = [tool.name for tool in chat.tools]
    if wanted.name in names or (wanted.mode == "required" and names):
        return wanted
    if wanted.mode in ("one", "required"):
        lost.add("tool_choice")
    return None


def _note_prefill(chat: ChatRequest, lost: set[str]) -> None:
    if chat.messages and chat.messages[-1].role == "assistant":
        lost.add("prefill")


# Anthropic's, in a dialect that takes sampling and thinks as it sees fit.


def in_anthropic(chat: ChatRequest) -> Said:
    lost: set[str] = set()
    _note_prefill(chat, lost)
    system = _visible([p for m in chat.messages if m.role == "system" for p in m.parts])
    spoken = [message for message in chat.messages if message.role != "system"]
    messages = [_anthropic_message(message, lost) for message in spoken]
    messages = [message for message in messages if message.parts]
    choice = _choice(chat, lost)
    said = replace(
        chat,
        messages=[Message("system", system)] * bool(system) + messages,
        tools=[_with_parameters(tool) for tool in chat.tools],
        tool_choice=choice,
        parallel_tools=None,
        seed=None,
        frequency_penalty=None,
        presence_penalty=None,
        stop=[sequence for sequence in chat.stop if sequence.strip()],
        usage_in_stream=True,
    )
    if chat.tools and chat.parallel_tools is False and choice != ToolChoice("none"):
        said.parallel_tools = False
        said.tool_choice = choice or ToolChoice("auto")
    if chat.temperature is not None and chat.temperature > 1:
        lost.add("temperature")
        said.temperature = 1.0
    if chat.seed is not None:
        lost.add("seed")
    lost |= {
        name
        for name in ("frequency_penalty", "presence_penalty")
        if getattr(chat, name)
    }
    if said.stop != chat.stop:
        lost.add("stop")
    said.reasoning = _anthropic_reasoning(chat.reasoning, lost)
    if chat.output is not None:
        said.output = _anthropic_output(chat.output, lost)
    return said, lost


def _anthropic_message(message: Message, lost: set[str]) -> Message:
    thoughts = of(Thinking, message.parts)
    if any(_unsigned(thought) for thought in thoughts):
        lost.add("thinking")
    if len(message.parts) == 1 and message.role == "assistant":
        kept = _visible(message.parts)
    else:
        kept = _anthropic_content(message.parts)
    return Message(
        message.role,
        [
            replace(part, parts=_anthropic_content(part.parts))
            if isinstance(part, ToolResult)
            else part
            for part in kept
            if not (isinstance(part, Thinking) and _unsigned(part))
        ],
    )


def _anthropic_content(parts: Sequence[Any]) -> list[Any]:
    """One plain text is a string, and that may be of nothing but white space."""
    plain = len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is None
    return [*parts] if plain else _visible(parts)


def _visible(parts: Sequence[Any]) -> list[Any]:
    return [p for p in parts if not isinstance(p, Text) or p.text.strip()]


def _anthropic_reasoning(wanted: Reasoning | None, lost: set[str]) -> Reasoning | None:
    if wanted is None or not wanted.enabled:
        return None
    if wanted.budget is not None:
        lost.add("reasoning.budget")
    if wanted.effort == "minimal":
        lost.add("reasoning.effort")
        return Reasoning(effort="low")
    return Reasoning(effort=wanted.effort)


def _anthropic_output(output: OutputSchema, lost: set[str]) -> OutputSchema:
    if output.name not in (None, "output"):
        lost.add("output.name")
    if output.description is not None:
        lost.add("output.description")
    if output.strict is False:
        lost.add("output.strict")
    shut = _shut(msgspec.json.decode(output.schema))
    return OutputSchema(msgspec.json.encode(shut).decode())


def _shut(schema: Any) -> Any:
    """A schema whose objects take nothing else, unless they say so."""
    if schema.get("type") != "object":
        return schema
    members = schema.get("properties", {})
    inner = {name: _shut(member) for name, member in members.items()}
    given = {**schema, "properties": inner} if "properties" in schema else schema
    return given if "additionalProperties" in given else {**given, **_CLOSED}


# Answers


def answer_in_openai(answer: ChatAnswer) -> ChatAnswer:
    calls = of(ToolCall, answer.parts)
    text = _joined(of(Text, answer.parts))
    reason = answer.stop_reason
    if reason in (None, "sequence", "pause", "end", "tool"):
        reason = "tool" if calls else "end"
    return ChatAnswer(
        answer.id,
        answer.model,
        [*_thoughts(answer.parts), *([Text(text)] if text else []), *calls],
        reason,
        usage=answer.usage,
    )


def answer_in_anthropic(answer: ChatAnswer) -> ChatAnswer:
    usage = answer.usage
    return replace(
        answer,
        parts=[
            Text(part.text) if isinstance(part, Text) else part for part in answer.parts
        ],
        stop_reason=answer.stop_reason or "end",
        usage=usage and msgspec.structs.replace(usage, reasoning_tokens=0),
    )


def counts(usage: Usage | None) -> Any:
    """A usage without OpenAI's own words for it."""
    if usage is None:
        return None
    return msgspec.structs.replace(
        usage, given_prompt_details={}, given_completion_details={}
    )
