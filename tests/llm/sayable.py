"""What of a conversation each format can say: the same conversation, reduced to that.

These are the losses of the formats, written down a second time. A name in `lost` is one
that has to be told; what changes without one (texts that are joined by a line feed)
means the same as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

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
_NO_PARAMETERS = '{"type":"object","properties":{}}'


def of(kind: Any, parts: Sequence[Part]) -> list[Any]:
    return [part for part in parts if isinstance(part, kind)]


# OpenAI's, in the dialect that takes the most (OpenRouter's).


def in_openai(chat: ChatRequest) -> Said:
    lost: set[str] = set()
    said = replace(
        chat,
        messages=[_openai_message(message, lost) for message in chat.messages],
        tools=[_with_parameters(tool) for tool in chat.tools],
        stop=chat.stop[:4],
        usage_in_stream=chat.stream,
    )
    if not chat.tools:
        said.tool_choice = said.parallel_tools = None
    if len(chat.stop) > 4:
        lost.add("stop")
    if chat.user is not None and len(chat.user) > 64:
        lost.add("user")
        said.user = None
    wanted = chat.reasoning
    if wanted is not None and not wanted.enabled:
        said.reasoning = Reasoning(False)
    elif wanted is not None and wanted.effort is not None:
        high = wanted.effort in ("high", "xhigh", "max")
        said.reasoning = Reasoning(effort="high" if high else wanted.effort)
    if chat.output is not None:
        said.output = replace(chat.output, name=chat.output.name or "output")
    return said, lost


def _openai_message(message: Message, lost: set[str]) -> Message:
    if message.role == "system":
        return Message("system", _line_by_line(message.parts))
    if message.role == "assistant":
        calls = of(ToolCall, message.parts)
        if any(call.cache for call in calls):
            lost.add("cache_control")
        texts = _line_by_line(of(Text, message.parts))
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
    return replace(tool, parameters=tool.parameters or _NO_PARAMETERS)


# Anthropic's, in a dialect that takes sampling and thinks as it sees fit.


def in_anthropic(chat: ChatRequest) -> Said:
    lost: set[str] = set()
    system = [p for m in chat.messages if m.role == "system" for p in m.parts]
    spoken = [message for message in chat.messages if message.role != "system"]
    messages = [_anthropic_message(message, lost) for message in spoken]
    said = replace(
        chat,
        messages=[Message("system", system)] * bool(system) + messages,
        tools=[_with_parameters(tool) for tool in chat.tools],
        parallel_tools=None,
        seed=None,
        frequency_penalty=None,
        presence_penalty=None,
        stop=[sequence for sequence in chat.stop if sequence.strip()],
        usage_in_stream=True,
    )
    if not chat.tools:
        said.tool_choice = None
    elif chat.parallel_tools is False and chat.tool_choice != ToolChoice("none"):
        said.parallel_tools = False
        said.tool_choice = chat.tool_choice or ToolChoice("auto")
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
    kept = [
        part
        for part in message.parts
        if not (isinstance(part, Thinking) and _unsigned(part))
    ]
    return Message(message.role, kept)


def _anthropic_reasoning(wanted: Reasoning | None, lost: set[str]) -> Reasoning | None:
    if wanted is None or not wanted.enabled:
        return None
    if wanted.budget is not None:
        lost.add("reasoning.budget")
    return Reasoning(effort="low" if wanted.effort == "minimal" else wanted.effort)


def _anthropic_output(output: OutputSchema, lost: set[str]) -> OutputSchema:
    if output.name not in (None, "output"):
        lost.add("output.name")
    if output.description is not None:
        lost.add("output.description")
    if output.strict is False:
        lost.add("output.strict")
    return OutputSchema(output.schema)


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
        usage=None if usage is None else replace(usage, reasoning_tokens=0),
    )


def counts(usage: Usage | None) -> Any:
    """A usage without OpenAI's own words for it."""
    if usage is None:
        return None
    return replace(usage, given_prompt_details={}, given_completion_details={})
