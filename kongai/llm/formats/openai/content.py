"""The content of messages in OpenAI's format: texts, images, documents, thinking.

Providers have added thinking in members of their own: `reasoning_content` (DeepSeek),
`reasoning` (OpenRouter, and vLLM by now) and `reasoning_details` (OpenRouter), which
alone carries a vendor's signature; Mistral has it among the parts of the content.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from kongai.llm.chat import (
    Losses,
    Media,
    Part,
    Text,
    Thinking,
    ToolCall,
    Untranslatable,
    joined,
)
from kongai.llm.formats import Dialect
from kongai.llm.json_fields import Fields

_DATA_URI = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,(.*)", re.DOTALL)
_PLAIN_URI = re.compile(r"data:([^;,]*)(?:;[^;,]*)*,(.*)", re.DOTALL)
_USUAL_NAMES = {"image/jpg": "image/jpeg"}
_PDF = "application/pdf"
SIGNED = "anthropic-claude-v1"
"""How OpenRouter marks the thinking of Anthropic's models."""


def parts_of(given: Fields, name: str) -> list[Part]:
    """Take a content: one string, or an array of parts.

    Raises:
        Untranslatable: it holds what no other format can say, such as a voice.
    """
    if given.starts(name) != b"[":
        text = given.text(name)
        return [] if text is None else [Text(text)]
    return [part for fields in given.objects(name) for part in _part(fields)]


def _part(fields: Fields) -> Iterator[Part]:
    kind = fields.text("type") or ""
    cache = fields.value("cache_control")
    match kind:
        case "text" | "refusal":
            yield Text(fields.text(kind) or "", cache)
            if not fields.has("image_url"):
                return
            # Seen in the wild: a picture beside the text, in one part.
            yield _image(fields, None)
        case "image_url":
            if fields.has("text"):
                yield Text(fields.text("text") or "")
            yield _image(fields, cache)
        case "file":
            yield _file(fields, cache)
        case "document_url":
            yield Media("document", url=fields.text("document_url"), cache=cache)
        case "thinking":
            texts = list(fields.objects("thinking"))
            yield Thinking("".join(text.text("text") or "" for text in texts))
            for inner in (fields, *texts):
                for member in ("closed", "type"):
                    inner.drop(member)
        case _:
            raise fields.refusal(f"content of type {_word(kind)} can't be carried over")


def _word(kind: str) -> str:
    """A name out of a request, if it looks like one."""
    return kind if re.fullmatch(r"[a-z_0-9]{1,40}", kind) else "unknown"


def _image(fields: Fields, cache: dict[str, Any] | None) -> Media:
    if fields.starts("image_url") == b'"':
        url = fields.text("image_url") or ""
    else:
        given = fields.object("image_url")
        url = (given.text("url") if given else None) or ""
        if given is not None:
            given.drop_if("detail", "auto")
    found = _DATA_URI.fullmatch(url)
    plain = _PLAIN_URI.fullmatch(url)
    if found is not None:
        kind, data = found[1], found[2]
    elif plain is not None:
        kind = plain[1]
        data = base64.b64encode(unquote_to_bytes(plain[2])).decode()
    else:
        return Media("image", url=url, cache=cache)
    return Media("image", _USUAL_NAMES.get(kind, kind), data, cache=cache)


def _file(fields: Fields, cache: dict[str, Any] | None) -> Media:
    given = fields.object("file")
    data = given.text("file_data") if given else None
    if given is None or data is None:
        raise fields.refusal("a file by its id is known to one provider only")
    name = given.text("filename")
    found = _DATA_URI.fullmatch(data)
    if found is not None:
        kind, data = found[1], found[2]
    elif data.startswith(("http://", "https://")):
        return Media("document", url=data, name=name, cache=cache)
    else:
        kind = _PDF
    what = "image" if kind.startswith("image/") else "document"
    return Media(what, kind, data, name=name, cache=cache)  # type: ignore[arg-type]


def content_of(
    parts: Sequence[Part],
    losses: Losses,
    dialect: Dialect,
    *,
    as_one: bool = False,
) -> str | list[dict[str, Any]]:
    """Write a content: one string where it can be, or else an array of parts.

    Args:
        parts: what it holds.
        losses: takes what can't be said.
        dialect: what the API takes.
        as_one: whether several texts may become one, a line for each.

    Raises:
        Untranslatable: it can't be left out.
    """
    marked = any(getattr(part, "cache", None) is not None for part in parts)
    if marked and not dialect.cache_points:
        losses.add("cache_control")
        marked = False
    texts = [part for part in parts if isinstance(part, Text)]
    plain = len(texts) == len(parts) and not marked
    if plain and (as_one or dialect.plain_text or len(texts) <= 1):
        return joined(texts)
    return [_written(part, dialect) for part in parts]


def _written(part: Part, dialect: Dialect) -> dict[str, Any]:
    written: dict[str, Any]
    if isinstance(part, Text):
        written = {"type": "text", "text": part.text}
    elif isinstance(part, Media) and part.kind == "image":
        url = part.url or f"data:{part.media_type};base64,{part.data}"
        written = {"type": "image_url", "image_url": {"url": url}}
    elif isinstance(part, Media):
        if part.data is None:
            raise Untranslatable(
                "a document by its address can't be sent to this provider"
            )
        name = part.name or "document.pdf"
        data = f"data:{part.media_type};base64,{part.data}"
        written = {"type": "file", "file": {"filename": name, "file_data": data}}
    else:
        raise Untranslatable("this part of a message is not the user's to send")
    if dialect.cache_points and part.cache is not None:
        written["cache_control"] = part.cache
    return written


def reasoning_of(given: Fields) -> list[Thinking]:
    """Take what a message tells of the model's thinking, told once or several times."""
    texts = [given.text(name) for name in ("reasoning_content", "reasoning")]
    found = [
        thought
        for fields in given.objects("reasoning_details")
        for thought in _details(fields)
    ]
    if found:
        return found
    return [Thinking(text) for text in texts if text][:1]


def _details(fields: Fields) -> Iterator[Thinking]:
    kind = fields.text("type") or ""
    signed = fields.text("format") == SIGNED
    for member in ("index", "id"):
        fields.drop(member)
    if kind == "reasoning.text":
        signature = fields.text("signature") if signed else None
        yield Thinking(fields.text("text") or "", signature)
    elif kind == "reasoning.summary":
        yield Thinking(fields.text("summary") or "")
    elif kind == "reasoning.encrypted" and signed:
        yield Thinking(redacted=fields.text("data"))
    else:
        fields.lose(f"[{kind}]")


def thinking_members(
    thoughts: Sequence[Thinking], losses: Losses, *, member: str | None, sealed: bool
) -> dict[str, Any]:
    """Write what the model thought into a message.

    Args:
        thoughts: its thoughts.
        losses: takes what can't be said.
        member: the member that takes their text; None where there is none.
        sealed: whether their signatures can be told, as OpenRouter takes them.
    """
    if member is None:
        losses.add("thinking")
        return {}
    text = "\n".join(thought.text for thought in thoughts if thought.text)
    members: dict[str, Any] = {member: text} if text else {}
    under_seal = [thought for thought in thoughts if _sealed(thought)]
    if under_seal and sealed:
        members["reasoning_details"] = [thinking_detail(t) for t in under_seal]
    elif under_seal:
        losses.add("thinking.signature")
    return members


def written_call(call: ToolCall, id: str) -> dict[str, Any]:
    """A call of a tool as an entry of `tool_calls`, under an id of its own."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": id, "type": "function", "function": function}


def _sealed(thought: Thinking) -> bool:
    return bool(thought.signature) or thought.redacted is not None


def thinking_detail(thought: Thinking) -> dict[str, Any]:
    """One entry of `reasoning_details`, which carries the vendor's seal."""
    if thought.redacted is not None:
        detail = {"type": "reasoning.encrypted", "data": thought.redacted}
    else:
        detail = {"type": "reasoning.text", "text": thought.text}
        if thought.signature is not None:
            detail["signature"] = thought.signature
    return {**detail, "format": SIGNED}
