"""How long a prompt is, about, where nobody has counted it."""

from __future__ import annotations

from collections.abc import Iterable

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    Media,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from kongai.llm.usage import estimate_prompt


def prompt_tokens(chat: ChatRequest) -> int:
    """About how many tokens a request's prompt has, its tools included."""
    size = images = 0
    for tool in chat.tools:
        for text in (tool.name, tool.description, tool.parameters):
            size += len((text or "").encode("utf-8", "replace"))
    for message in chat.messages:
        more, shown = _size(message.parts)
        size, images = size + more, images + shown
    return estimate_prompt(size, images)


def _size(parts: Iterable[Part]) -> tuple[int, int]:
    """Bytes of text and number of images."""
    size = images = 0
    for part in parts:
        if isinstance(part, (Text, Thinking)):
            size += len(part.text.encode("utf-8", "replace"))
        elif isinstance(part, ToolCall):
            size += len((part.name + part.arguments).encode("utf-8", "replace"))
        elif isinstance(part, ToolResult):
            more, shown = _size(part.parts)
            size, images = size + more, images + shown
        elif isinstance(part, Media):
            images += 1
    return size, images


def answer_characters(answer: ChatAnswer) -> int:
    """How many characters an answer has, thoughts and calls of tools included."""
    return sum(
        len(part.name) + len(part.arguments)
        if isinstance(part, ToolCall)
        else len(part.text)
        for part in answer.parts
    )


def prompt_words(chat: ChatRequest) -> int:
    """How many words the messages have; pictures and calls of tools have none."""
    return sum(
        len(part.text.split())
        for message in chat.messages
        for part in message.parts
        if isinstance(part, Text)
    )
