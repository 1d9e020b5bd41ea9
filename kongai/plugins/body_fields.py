"""The fields of a request's body: found by name, and taken out without touching others.

Forms, JSON objects and multipart forms have fields. A body of another type has none,
and neither has one that is not what its type says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from werkzeug.http import parse_options_header

from kongai.incoming import query_arguments, query_without
from kongai.llm.json_fields import UNREADABLE

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_MULTIPART = "multipart/form-data"


def has_fields(content_type: str) -> bool:
    """Whether a body of this type has fields."""
    return parse_options_header(content_type)[0].lower() in (_FORM, _JSON, _MULTIPART)


def values(body: bytes, content_type: str, name: str) -> list[Any]:
    """The values of a field: texts, or of JSON whatever it holds; none without it."""
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    if kind == _FORM:
        return list(query_arguments(body.decode("latin-1")).get(name, ()))
    if kind == _JSON:
        return list(_decoded(members(body).get(name)))
    if kind == _MULTIPART:
        parts = _parts(body, options.get("boundary", ""))
        return [_content(part) for part in parts if _part_name(part) == name]
    return []


def without(body: bytes, content_type: str, name: str) -> bytes:
    """The body without a field; byte for byte the same if it has none of this name."""
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    if kind == _FORM:
        return query_without(body.decode("latin-1"), name).encode("latin-1")
    if kind == _JSON:
        found = members(body)
        if found.pop(name, None) is None:
            return body
        return msgspec.json.encode(found)
    if kind == _MULTIPART:
        return _without_part(body, options.get("boundary", ""), name)
    return body


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each as it is written."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return {}


def _decoded(member: msgspec.Raw | None) -> Iterator[Any]:
    if member is not None:
        with suppress(*UNREADABLE):
            yield msgspec.json.decode(member)


def _pieces(body: bytes, boundary: str) -> list[bytes]:
    """What stands between a multipart body's delimiters (RFC 2046, section 5.1.1).

    The first piece precedes the parts, and the last one starts with two dashes.
    """
    delimiter = re.escape(b"--" + boundary.encode())
    return re.split(rb"(?:\A|\r\n)" + delimiter + rb"(?=[ \t]*\r\n|--)", body)


def _parts(body: bytes, boundary: str) -> Iterator[bytes]:
    pieces = _pieces(body, boundary) if boundary else []
    if pieces and pieces[-1].startswith(b"--"):
        yield from pieces[1:-1]


def _without_part(body: bytes, boundary: str, name: str) -> bytes:
    parts = list(_parts(body, boundary))
    kept = [part for part in parts if _part_name(part) != name]
    if len(kept) == len(parts):
        return body
    before, *_, after = _pieces(body, boundary)
    delimiter = b"\r\n--" + boundary.encode()
    text = delimiter.join([before, *kept, after])
    return text if before else text.removeprefix(b"\r\n")


def _part_name(part: bytes) -> str | None:
    head = part.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
    for line in head.split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            return parse_options_header(value.strip())[1].get("name")
    return None


def _content(part: bytes) -> str:
    return part.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
