from __future__ import annotations

from typing import Any

import pytest

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    Media,
    Message,
    Part,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from kongai.llm.estimate import answer_characters, prompt_tokens, prompt_words


def chat(*parts: Part) -> ChatRequest:
    return ChatRequest(messages=[Message("user", list(parts))])


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (Text(""), 0),
        (Text("12345678"), 2),
        (Text("123456789"), 3),
        (Text("日本語の"), 3),
        (Text("\ud83d"), 1),
        (Thinking("1234", signature="x" * 100), 1),
        (Thinking(redacted="x" * 100), 0),
        (ToolCall("x" * 100, "1234", '{"a":12}'), 3),
        (Media("image", "image/png", "x" * 1000), 1600),
        (Media("document", url="https://a"), 1600),
        (ToolResult("x" * 100, [Text("1234"), Media("image", url="u")]), 1601),
    ],
)
def test_a_part_of_a_prompt(part: Part, tokens: int) -> None:
    assert prompt_tokens(chat(part)) == tokens


def test_a_whole_prompt() -> None:
    request = chat(Text("1234"))
    request.messages += [Message("system", [Text("1234")]), Message("assistant")]
    request.tools = [Tool("1234", "1234", '{"a":12}'), Tool("1234")]
    assert prompt_tokens(request) == 7


def test_four_bytes_a_token_are_counted_over_the_whole_prompt() -> None:
    """Many short texts take no more tokens than a long one."""
    assert prompt_tokens(chat(*[Text("x")] * 100)) == 25


@pytest.mark.parametrize(
    ("parts", "characters"),
    [
        ([], 0),
        ([Text("日本"), Text("!")], 3),
        ([Thinking("hm", "seal"), Thinking(redacted="xyz")], 2),
        ([ToolCall("an id", "look", '{"a":1}')], 11),
    ],
)
def test_the_length_of_an_answer(parts: list[Any], characters: int) -> None:
    assert answer_characters(ChatAnswer(parts=parts)) == characters


def test_words() -> None:
    """Kong counts them in the texts of messages."""
    request = chat(Text(" one two\nthree "), Media("image", url="a b"), Text("four"))
    request.messages.append(Message("assistant", [ToolCall("a b", "c", "{ }")]))
    request.tools = [Tool("name", "a b c")]
    assert prompt_words(request) == 4
