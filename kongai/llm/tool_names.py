"""Names of tools that are longer than a provider takes, shortened on the way there.

Names such as ``mcp__server__tool`` outgrow OpenAI's 64 characters. The short name is
made of the long one alone, so that a conversation keeps it from turn to turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from kongai.llm.chat import ChatRequest, Part, ToolCall
from kongai.llm.events import Event, ToolStart

_DIGITS = 8


def shorten(chat: ChatRequest, longest: int) -> dict[str, str]:
    """Shorten the names of a request's tools where they are too long.

    Args:
        chat: the request; its tools and the calls of its history are renamed.
        longest: the most characters of a name.

    Returns:
        The long names by their short ones.
    """
    # A tool that is offered no more may still be in the history.
    called = {
        part.name
        for message in chat.messages
        for part in message.parts
        if isinstance(part, ToolCall)
    }
    names = [tool.name for tool in chat.tools] + sorted(called)
    short = {name: _short(name, longest) for name in names if len(name) > longest}
    if not short:
        return {}
    for tool in chat.tools:
        tool.name = short.get(tool.name, tool.name)
    for message in chat.messages:
        _rename(message.parts, short)
    choice = chat.tool_choice
    if choice is not None and choice.name is not None:
        choice.name = short.get(choice.name, choice.name)
    return {new: old for old, new in short.items()}


def restore(parts: Iterable[Part], names: Mapping[str, str]) -> None:
    """Give the calls of an answer back the names that the client knows."""
    _rename(parts, names)


def restored(events: Iterable[Event], names: Mapping[str, str]) -> list[Event]:
    """The events of a stream with the names that the client knows."""
    return [
        event._replace(name=names.get(event.name, event.name))
        if isinstance(event, ToolStart)
        else event
        for event in events
    ]


def _rename(parts: Iterable[Part], names: Mapping[str, str]) -> None:
    for part in parts:
        if isinstance(part, ToolCall):
            part.name = names.get(part.name, part.name)


def _short(name: str, longest: int) -> str:
    digest = sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: longest - _DIGITS - 1]}_{digest}"
