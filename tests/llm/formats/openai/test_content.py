from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import (
    Losses,
    Media,
    Part,
    Text,
    Thinking,
    Untranslatable,
    joined,
)
from kongai.llm.formats import Dialect
from kongai.llm.formats.openai.content import content_of, parts_of, reasoning_of
from kongai.llm.json_fields import Fields

PNG = "data:image/png;base64,aWk="
PDF = "data:application/pdf;base64,eA=="
MARK = {"type": "ephemeral"}


def fields(**members: Any) -> Fields:
    return Fields.parse(json.dumps(members).encode())


def read(content: Any, losses: list[str] | None = None) -> list[Part]:
    given = fields(content=content)
    parts = parts_of(given, "content")
    found = Losses()
    given.report(found)
    assert found.names() == (losses or [])
    return parts


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hi", [Text("hi")]),
        ("", [Text("")]),
        (None, []),
        ([], []),
        (
            [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b", "cache_control": MARK},
            ],
            [Text("a"), Text("b", MARK)],
        ),
        ([{"type": "refusal", "refusal": "no"}], [Text("no")]),
        (
            [{"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}}],
            [Media("image", "image/png", "aWk=")],
        ),
        (
            [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}],
            [Media("image", url="https://a/b.png")],
        ),
        # Mistral's shorter form
        (
            [{"type": "image_url", "image_url": PNG}],
            [Media("image", "image/png", "aWk=")],
        ),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/gif;x=y;base64,"}}],
            [Media("image", "image/gif", "")],
        ),
        (
            [{"type": "image_url", "image_url": "data:image/jpg;base64,aWk="}],
            [Media("image", "image/jpeg", "aWk=")],
        ),
        (
            [
                {
                    "type": "image_url",
                    "image_url": "data:image/svg+xml;x=y,%3Ca%2C%C3%A9",
                }
            ],
            [Media("image", "image/svg+xml", "PGEsw6k=")],
        ),
        (
            [{"type": "image_url", "image_url": "data:image/jpg,hi, you"}],
            [Media("image", "image/jpeg", "aGksIHlvdQ==")],
        ),
        (
            [{"type": "image_url", "image_url": "data:no comma"}],
            [Media("image", url="data:no comma")],
        ),
        (
            [{"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}],
            [Media("document", "application/pdf", "eA==", name="a.pdf")],
        ),
        (
            [{"type": "file", "file": {"file_data": "eA=="}}],
            [Media("document", "application/pdf", "eA==")],
        ),
        (
            [{"type": "file", "file": {"file_data": "https://a/b.pdf"}}],
            [Media("document", url="https://a/b.pdf")],
        ),
        (
            [{"type": "file", "file": {"file_data": PNG}}],
            [Media("image", "image/png", "aWk=")],
        ),
        (
            [{"type": "document_url", "document_url": "https://a/b.pdf"}],
            [Media("document", url="https://a/b.pdf")],
        ),
        (
            [
                {
                    "type": "thinking",
                    "thinking": [
                        {"type": "text", "text": "h"},
                        {"type": "text", "text": "m"},
                    ],
                    "closed": True,
                }
            ],
            [Thinking("hm")],
        ),
        (
            [{"type": "text", "text": "see", "image_url": {"url": "https://a"}}],
            [Text("see"), Media("image", url="https://a")],
        ),
        (
            [{"type": "image_url", "text": "see", "image_url": {"url": "https://a"}}],
            [Text("see"), Media("image", url="https://a")],
        ),
    ],
)
def test_content_that_is_read(content: Any, parts: list[Part]) -> None:
    assert read(content) == parts


def test_what_is_not_known_of_a_part_is_named() -> None:
    url = {"url": "https://a", "detail": "high"}
    read(
        [
            {"type": "image_url", "image_url": url},
            {"type": "text", "text": "a", "annotations": [1]},
        ],
        losses=["content[].image_url.detail", "content[].annotations"],
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"type": "input_audio", "input_audio": {"data": "secret"}},
            "content[0]: content of type input_audio can't be carried over",
        ),
        ({"text": "x"}, "content[0]: content of type unknown can't be carried over"),
        (
            {"type": "My Secret!"},
            "content[0]: content of type unknown can't be carried over",
        ),
        (
            {"type": "file", "file": {"file_id": "secret"}},
            "content[0]: a file by its id is known to one provider only",
        ),
        (
            {"type": "image_url", "image_url": 1},
            "content[0].image_url: expected an object",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused(part: Any, said: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        read([part])
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        ([], ""),
        ([Text("a"), Text("b")], "a\nb"),
        ([Text("a"), Text("b", cited=True), Text("c"), Text("d")], "abc\nd"),
        ([Text("a", cited=True), Text("b", cited=True)], "ab"),
    ],
)
def test_pieces_of_a_sentence_are_not_torn_apart(texts: list[Text], text: str) -> None:
    assert joined(texts) == text


@pytest.mark.parametrize(
    ("dialect", "as_one", "content"),
    [
        (Dialect(), True, "a\nb"),
        (Dialect(plain_text=True), False, "a\nb"),
        (
            Dialect(),
            False,
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        ),
    ],
)
def test_several_texts(dialect: Dialect, as_one: bool, content: Any) -> None:
    losses = Losses()
    parts = [Text("a"), Text("b")]
    assert content_of(parts, losses, dialect, as_one=as_one) == content
    assert losses.names() == []


@pytest.mark.parametrize(
    ("media", "written"),
    [
        (
            Media("image", "image/png", "aWk=", name="x"),
            {"type": "image_url", "image_url": {"url": PNG}},
        ),
        (
            Media("image", url="https://a"),
            {"type": "image_url", "image_url": {"url": "https://a"}},
        ),
        (
            Media("document", "application/pdf", "eA==", name="a.pdf"),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
        ),
        (
            Media("document", "application/pdf", "eA=="),
            {"type": "file", "file": {"filename": "document.pdf", "file_data": PDF}},
        ),
    ],
)
def test_media_that_is_written(media: Media, written: Any) -> None:
    assert content_of([media], Losses(), Dialect(plain_text=True)) == [written]


def test_a_document_by_its_address_is_refused() -> None:
    with pytest.raises(Untranslatable, match="by its address"):
        content_of([Media("document", url="https://secret")], Losses(), Dialect())


def detail(**members: Any) -> dict[str, Any]:
    return {"format": "anthropic-claude-v1", "index": 0, **members}


@pytest.mark.parametrize(
    ("members", "thoughts"),
    [
        ({"reasoning_content": "hm"}, [Thinking("hm")]),
        ({"reasoning": "hm"}, [Thinking("hm")]),
        ({"reasoning_content": "hm", "reasoning": "hm"}, [Thinking("hm")]),
        ({"reasoning_content": "", "reasoning": None}, []),
        (
            {
                "reasoning": "hm",
                "reasoning_details": [
                    detail(type="reasoning.text", text="hm", signature="seal"),
                    detail(type="reasoning.encrypted", data="xyz"),
                ],
            },
            [Thinking("hm", "seal"), Thinking(redacted="xyz")],
        ),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "so"},
                    {"type": "reasoning.text", "text": "hm"},
                ]
            },
            [Thinking("so"), Thinking("hm")],
        ),
    ],
)
def test_thinking_under_its_many_names(members: Any, thoughts: list[Thinking]) -> None:
    assert reasoning_of(fields(**members)) == thoughts


def test_a_seal_of_another_vendor_is_not_taken_for_anthropics() -> None:
    """Anthropic refuses a signature that is not its own."""
    other = {"format": "openai-responses-v1"}
    signed = {"type": "reasoning.text", "text": "hm", "signature": "secret", **other}
    encrypted = {"type": "reasoning.encrypted", "data": "secret", **other}
    given = fields(reasoning_details=[signed, encrypted])
    assert reasoning_of(given) == [Thinking("hm")]
    losses = Losses()
    given.report(losses)
    assert losses.names() == [
        "reasoning_details[].signature",
        "reasoning_details[reasoning.encrypted]",
    ]
