"""The blocks of Anthropic's messages: texts, pictures, documents, thoughts, calls."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

from kongai.llm.chat import (
    INVALID_JSON,
    Losses,
    Media,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Untranslatable,
)
from kongai.llm.json_fields import Fields, object_text

_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
_PDF = "application/pdf"


def blocks_of(given: Fields, name: str) -> list[Part]:
    """Take a content: one string, or an array of blocks; what only Anthropic knows is
    left out and named.

    Raises:
        Untranslatable: it holds a file that only Anthropic has.
    """
    if given.starts(name) != b"[":
        text = given.text(name)
        return [] if text is None else [Text(text)]
    return [part for fields in given.objects(name) for part in _block(fields)]


def _block(fields: Fields) -> Iterator[Part]:
    kind = fields.text("type") or ""
    cache = fields.value("cache_control")
    match kind:
        case "text":
            cited = fields.starts("citations") == b"["
            yield Text(fields.text("text") or "", cache, cited)
        case "image":
            yield from _sourced(fields, "image", cache)
        case "document":
            yield from _sourced(fields, "document", cache)
        case "search_result":
            yield from _marked(blocks_of(fields, "content"), cache)
        case "thinking":
            text, signature = fields.text("thinking"), fields.text("signature")
            if text or signature:
                yield Thinking(text or "", signature or None)
        case "redacted_thinking":
            yield Thinking(redacted=fields.text("data"))
        case "tool_use":
            id, name = fields.text("id") or "", fields.text("name") or ""
            fields.drop("caller")
            yield ToolCall(id, name, fields.json("input") or "{}", cache)
        case "tool_result":
            parts: list[Any] = blocks_of(fields, "content")
            error = fields.flag("is_error") or False
            yield ToolResult(fields.text("tool_use_id") or "", parts, error, cache)
        case _:
            fields.lose(f"[{kind}]")


def _marked(parts: list[Part], cache: dict[str, Any] | None) -> list[Part]:
    """The parts of a block, the last one with the block's point for the cache."""
    if cache is not None and parts and isinstance(parts[-1], (Text, Media)):
        parts[-1].cache = parts[-1].cache or cache
    return parts


def _sourced(fields: Fields, kind: Any, cache: dict[str, Any] | None) -> Iterator[Part]:
    source = fields.object("source")
    how = source.text("type") if source else None
    if source is None or how == "file":
        raise fields.refusal("a file by its id is known to Anthropic only")
    if how == "text":
        source.drop("media_type")
        yield Text(source.text("data") or "", cache)
    elif how == "content":
        yield from _marked(blocks_of(source, "content"), cache)
    elif how == "url" and source.has("url"):
        url, name = source.text("url"), fields.text("title")
        yield Media(kind, url=url, name=name, cache=cache)
    elif how == "base64" and source.has("data"):
        media_type, data = source.text("media_type"), source.text("data")
        name = fields.text("title")
        yield Media(kind, media_type, data, name=name, cache=cache)
    else:
        raise fields.refusal("unknown source")


def written_content(
    parts: Sequence[Part], losses: Losses
) -> str | list[dict[str, Any]]:
    """Write a content: one string for one plain text, or else an array of blocks.

    Raises:
        Untranslatable: it can't be said, and can't be left out.
    """
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is None:
        return parts[0].text
    return [block for part in parts for block in _written(part, losses)]


def _written(part: Part, losses: Losses) -> Iterator[dict[str, Any]]:
    block: dict[str, Any]
    if isinstance(part, Text):
        if not part.text.strip():
            # Anthropic refuses a block of text with nothing but white space.
            return
        block = {"type": "text", "text": part.text}
    elif isinstance(part, Media):
        block = _written_media(part)
    elif isinstance(part, Thinking):
        yield from _written_thinking(part, losses)
        return
    elif isinstance(part, ToolCall):
        block = written_call(part)
    else:
        block = {"type": "tool_result", "tool_use_id": safe_id(part.call_id)}
        block["content"] = written_content(part.parts, losses)
        if part.is_error:
            block["is_error"] = True
    if part.cache is not None:
        block["cache_control"] = part.cache
    yield block


def _written_thinking(thought: Thinking, losses: Losses) -> Iterator[dict[str, Any]]:
    if thought.redacted is not None:
        yield {"type": "redacted_thinking", "data": thought.redacted}
    elif thought.signature:
        yield {
            "type": "thinking",
            "thinking": thought.text,
            "signature": thought.signature,
        }
    else:
        # Anthropic takes back only what it has signed.
        losses.add("thinking")


def written_call(call: ToolCall) -> dict[str, Any]:
    """A call of a tool as a block."""
    arguments = object_text(call.arguments) or {INVALID_JSON: call.arguments}
    return {
        "type": "tool_use",
        "id": safe_id(call.id),
        "name": call.name,
        "input": arguments,
    }


def safe_id(given: str) -> str:
    """An id of a call in the characters that Anthropic takes; no two become one."""
    if not _NO_ID.search(given):
        return given
    return f"{_NO_ID.sub('_', given)}_{sha256(given.encode()).hexdigest()[:8]}"


def _written_media(media: Media) -> dict[str, Any]:
    block: dict[str, Any] = {"type": media.kind}
    if media.url is not None:
        block["source"] = {"type": "url", "url": media.url}
    elif media.kind == "document" and media.media_type != _PDF:
        text = _text_of(media)
        block["source"] = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        block["source"] = {
            "type": "base64",
            "media_type": media.media_type,
            "data": media.data,
        }
    if media.name is not None and media.kind == "document":
        block["title"] = media.name
    return block


def _text_of(media: Media) -> str:
    if (media.media_type or "").startswith("text/"):
        with suppress(ValueError, binascii.Error):
            return base64.b64decode(media.data or "", validate=True).decode()
    raise Untranslatable(
        "a document that is neither a PDF nor a text can't be sent to Anthropic"
    )
