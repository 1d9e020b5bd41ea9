"""The chunk of a stream that tells its usage: asked for, and taken out again.

A stream tells its usage only when the client asks (`stream_options.include_usage`).
The gateway counts either way: it asks in the client's place, and the client does not
see the chunk that it did not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from kongai.llm.formats import StreamFilter
from kongai.llm.json_fields import UNREADABLE

_BETWEEN = re.compile(rb"\r\n\r\n|\n\n|\r\r")

# Nearly every chunk has choices, and so is none with the usage alone.
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')

_LONGEST = 16384
"""Bytes of the longest event that may be one with the usage."""


class _Options(msgspec.Struct):
    stream_options: dict[str, msgspec.Raw] | None = None


class _Chunk(msgspec.Struct):
    choices: list[Any] | None = None
    usage: dict[str, Any] | None = None


def ask_for_usage(body: bytes) -> Mapping[str, Any]:
    """The top-level fields to set in a request so that its stream tells its usage."""
    try:
        given = msgspec.json.decode(body, type=_Options).stream_options
    except msgspec.ValidationError:
        given = None
    return {"stream_options": {**(given or {}), "include_usage": True}}


def usage_hider() -> StreamFilter:
    """Takes the usage out of a stream, and holds back what may become it."""
    return _UsageHider()


class _UsageHider:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return those that may go on."""
        data = self._rest + data
        events, self._rest = _whole_events(data)
        if not (self._rest or _may_tell_usage(data)):
            return data
        passed = [event for event in events if not _tells_usage(event)]
        if len(self._rest) > _LONGEST:
            # It is none, then; and what comes of it later does not look like one.
            passed.append(self._rest)
            self._rest = b""
        return b"".join(passed)

    def end(self) -> bytes:
        """There is no more: the bytes that were held back."""
        rest, self._rest = self._rest, b""
        return rest


def _whole_events(data: bytes) -> tuple[list[bytes], bytes]:
    """The events that have come as a whole, and what is left."""
    if b"\r" not in data:
        *events, rest = data.split(b"\n\n")
        return [event + b"\n\n" for event in events], rest
    events, start = [], 0
    for found in _BETWEEN.finditer(data):
        events.append(data[start : found.end()])
        start = found.end()
    return events, data[start:]


def _may_tell_usage(text: bytes) -> bool:
    """Whether there may be an event in it that tells the usage, and nothing else."""
    # With a backslash, the name may be written in another way.
    return b'"usage"' in text and (
        b"\\" in text or _NO_CHOICES.search(text) is not None
    )


def _tells_usage(event: bytes) -> bool:
    """Whether an event tells the usage, and nothing else."""
    if not _may_tell_usage(event):
        return False
    text = event.strip()
    if not text.startswith(b"data:"):
        return False
    try:
        chunk = msgspec.json.decode(text.removeprefix(b"data:"), type=_Chunk)
    except UNREADABLE:
        return False
    return chunk.choices == [] and chunk.usage is not None
