from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from kongai.llm.chat import (
    Losses,
    Media,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Untranslatable,
)
from kongai.llm.formats.anthropic.content import blocks_of, safe_id, written_content
from kongai.llm.json_fields import Fields

MARK = {"type": "ephemeral", "ttl": "1h"}


def read(content: Any, losses: list[str] | None = None) -> list[Part]:
    given = Fields.parse(json.dumps({"content": content}).encode())
    parts = blocks_of(given, "content")
    found = Losses()
    given.report(found)
    assert found.names() == (losses or [])
    return parts


def written(*parts: Part, losses: list[str] | None = None) -> Any:
    found = Losses()
    content = written_content(parts, found)
    assert found.names() == (losses or [])
    return json.loads(msgspec.json.encode(content))


BOTH = [
    {"type": "text", "text": " a ", "cache_control": MARK},
    {"type": "text", "text": "b\n"},
]
RESULT_OF_NOTHING: list[dict[str, Any]] = [
    {"type": "tool_result", "tool_use_id": "a", "content": []}
]


def source(**members: Any) -> dict[str, Any]:
    return {"type": "document", "source": members}


# Blocks that are the same when they are read and written again.
BLOCKS: dict[str, tuple[dict[str, Any], Part]] = {
    "text": (
        {"type": "text", "text": "a", "cache_control": MARK},
        Text("a", MARK),
    ),
    "image": (
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "aWk="},
            "cache_control": MARK,
        },
        Media("image", "image/png", "aWk=", cache=MARK),
    ),
    "image by its address": (
        {"type": "image", "source": {"type": "url", "url": "https://a"}},
        Media("image", url="https://a"),
    ),
    "PDF": (
        {
            **source(type="base64", media_type="application/pdf", data="eA=="),
            "title": "t",
        },
        Media("document", "application/pdf", "eA==", name="t"),
    ),
    "PDF by its address": (
        {**source(type="url", url="https://a"), "title": "t"},
        Media("document", url="https://a", name="t"),
    ),
    "thinking": (
        {"type": "thinking", "thinking": "hm", "signature": "seal"},
        Thinking("hm", "seal"),
    ),
    "thinking that is not shown": (
        {"type": "thinking", "thinking": "", "signature": "seal"},
        Thinking("", "seal"),
    ),
    "redacted thinking": (
        {"type": "redacted_thinking", "data": "xyz"},
        Thinking(redacted="xyz"),
    ),
    "call": (
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "f",
            "input": {"x": 1.0},
            "cache_control": MARK,
        },
        ToolCall("toolu_1", "f", '{"x": 1.0}', MARK),
    ),
    "result": (
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "source": {"type": "url", "url": "https://a"}},
            ],
            "is_error": True,
            "cache_control": MARK,
        },
        ToolResult("toolu_1", [Text("a"), Media("image", url="https://a")], True, MARK),
    ),
    "result with one text": (
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a"},
        ToolResult("toolu_1", [Text("a")]),
    ),
    "empty result": (
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": []},
        ToolResult("toolu_1"),
    ),
}


@pytest.mark.parametrize(("block", "part"), BLOCKS.values(), ids=BLOCKS.keys())
def test_blocks(block: dict[str, Any], part: Part) -> None:
    assert read([block]) == [part]
    assert written(part) == [block]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hi", [Text("hi")]),
        (None, []),
        ([], []),
        (
            [{"type": "text", "text": "a", "citations": []}],
            [Text("a", cited=True)],
        ),
        ([{"type": "text", "text": "a", "citations": None}], [Text("a")]),
        ([source(type="text", media_type="text/plain", data="a")], [Text("a")]),
        (
            [source(type="content", content=[{"type": "text", "text": "a"}])],
            [Text("a")],
        ),
        ([source(type="content", content="a")], [Text("a")]),
        ([{"type": "thinking", "thinking": "", "signature": ""}], []),
        ([{"type": "thinking", "thinking": "hm", "signature": ""}], [Thinking("hm")]),
        (
            [
                {
                    "type": "tool_use",
                    "id": "a",
                    "name": "f",
                    "caller": {"type": "direct"},
                }
            ],
            [ToolCall("a", "f", "{}")],
        ),
        ([{"type": "tool_result", "tool_use_id": "a"}], [ToolResult("a")]),
    ],
)
def test_content_that_is_read(content: Any, parts: list[Part]) -> None:
    assert read(content) == parts


PARTS = [
    {"type": "text", "text": "a"},
    {"type": "image", "source": {"type": "url", "url": "https://a"}},
]
OTHER_MARK = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (PARTS[:1], [Text("a", MARK)]),
        (PARTS, [Text("a"), Media("image", url="https://a", cache=MARK)]),
        ([{**PARTS[0], "cache_control": OTHER_MARK}], [Text("a", OTHER_MARK)]),
        ([], []),
    ],
)
@pytest.mark.parametrize("kind", ["search_result", "document"])
def test_a_point_for_the_cache_is_behind_the_last_part(
    kind: str, content: list[Any], parts: list[Part]
) -> None:
    block = {"type": kind, "content": content}
    if kind == "document":
        block = source(type="content", content=content)
    assert read([{**block, "cache_control": MARK}]) == parts


@pytest.mark.parametrize(
    ("block", "lost"),
    [
        (
            {"type": "text", "text": "a", "citations": [{"url": "x"}]},
            ["content[].citations"],
        ),
        (
            {**source(type="text", data="a"), "title": "t", "context": "c"},
            ["content[].title", "content[].context"],
        ),
        (
            {"type": "search_result", "source": "s", "title": "t", "content": []},
            ["content[].source", "content[].title"],
        ),
        (
            {"type": "server_tool_use", "id": "x", "input": {}},
            ["content[server_tool_use]"],
        ),
        ({"text": "x"}, ["content[]"]),
        (
            {
                "type": "tool_result",
                "tool_use_id": "a",
                "content": [{"type": "tool_reference", "tool_name": "f"}],
            },
            ["content[].content[tool_reference]"],
        ),
    ],
)
def test_what_only_anthropic_knows_is_named(block: Any, lost: list[str]) -> None:
    read([block], losses=lost)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            source(type="file", file_id="secret"),
            "content[0]: a file by its id is known to Anthropic only",
        ),
        (
            {"type": "image"},
            "content[0]: a file by its id is known to Anthropic only",
        ),
        (source(type="new", data="secret"), "content[0]: unknown source"),
        (source(data="secret"), "content[0]: unknown source"),
        (source(type="url"), "content[0]: unknown source"),
        (source(type="base64", media_type="image/png"), "content[0]: unknown source"),
        ({"type": "text", "text": ["secret"]}, "content[0].text: expected a string"),
        (
            {"type": "text", "cache_control": "secret"},
            "content[0].cache_control: expected an object",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused(block: Any, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        read([block])
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ([Text("a")], "a"),
        ([Text("")], ""),
        ([], []),
        ([Text(" ")], " "),
        # A block without a visible character is refused by Anthropic.
        ([Text(""), Text("a"), Text(" \n\t")], [{"type": "text", "text": "a"}]),
        ([Text("\n"), Text(" ")], []),
        ([Text(" ", MARK)], []),
        ([Text(" a ", MARK), Text("b\n")], BOTH),
        ([ToolResult("a", [Text("\n"), Text("")])], RESULT_OF_NOTHING),
        ([ToolResult("a", [Text("\n")])], [{**RESULT_OF_NOTHING[0], "content": "\n"}]),
    ],
)
def test_texts_that_are_written(parts: list[Part], content: Any) -> None:
    assert written(*parts) == content


@pytest.mark.parametrize("thought", [Thinking("hm"), Thinking()])
def test_a_thought_is_never_sent_without_a_signature(thought: Thinking) -> None:
    assert written(thought, Text("a"), losses=["thinking"]) == [
        {"type": "text", "text": "a"}
    ]


def test_an_empty_seal_is_none() -> None:
    assert written(Thinking("hm", ""), losses=["thinking"]) == []


@pytest.mark.parametrize("arguments", ["", "{", "[1]", "no JSON"])
def test_arguments_that_are_no_object_are_wrapped(arguments: str) -> None:
    """As Anthropic asks for them in its guide to fine-grained tool streaming."""
    (block,) = written(ToolCall("a", "f", arguments))
    assert block["input"] == {"INVALID_JSON": arguments}


def test_arguments_keep_their_bytes() -> None:
    content = written_content([ToolCall("a", "f", '{"x": 1.0}')], Losses())
    assert b'"input":{"x": 1.0}' in msgspec.json.encode(content)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("toolu_01-A", "toolu_01-A"),
        ("functions.look:0", "functions_look_0_ec000204"),
        ("call|é", "call___b18307d4"),
        ("", ""),
    ],
)
def test_ids_in_characters_that_anthropic_takes(given: str, safe: str) -> None:
    assert safe_id(given) == safe
    (call,) = written(ToolCall(given, "f"))
    (result,) = written(ToolResult(given))
    assert call["id"] == result["tool_use_id"] == safe


def test_no_two_ids_become_one() -> None:
    """Anthropic refuses an id that comes twice."""
    given = ["a:b", "a.b", "a_b", "a|b", "é", "è"]
    assert len({safe_id(id) for id in given}) == len(given)


def test_a_document_that_is_a_text_is_written_as_one() -> None:
    data = base64.b64encode("é".encode()).decode()
    (block,) = written(Media("document", "text/markdown", data, name="t"))
    text = {"type": "text", "media_type": "text/plain", "data": "é"}
    assert block == {"type": "document", "source": text, "title": "t"}


@pytest.mark.parametrize(
    "media",
    [
        Media("document", "application/zip", "eA=="),
        Media("document", "text/plain", "secret!"),
        Media("document", "text/plain", "/w=="),
        Media("document"),
    ],
)
def test_any_other_document_is_refused(media: Media) -> None:
    with pytest.raises(Untranslatable, match="^a document that is neither a PDF nor"):
        written(media)
