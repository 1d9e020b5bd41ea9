"""Server-sent events: bytes in, events out; events in, bytes out.

The rules are those of the HTML standard, section 9.2.6 ("interpreting an event
stream"): lines end in CR LF, LF or CR; one byte-order mark at the start is dropped;
a line that starts with a colon is a comment; a blank line dispatches the event; what
follows the last blank line is not an event and is dropped.

`Decoder` takes the stream in any cuts and costs time linear in its length. It works
on bytes, because a cut may fall inside a character and because a relay never needs the
text. It keeps at most one event in memory and refuses one larger than its limit.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

CONTENT_TYPE = "text/event-stream"

MAX_EVENT_SIZE = 16 * 1024 * 1024
"""The largest event a `Decoder` accepts unless told otherwise, in bytes."""

_BOM = b"\xef\xbb\xbf"
# An event as nearly every server writes it; or else, in the last group, all that is
# left from there on.
_PLAIN = re.compile(rb"(?:event: (.*)\n)?data: (.*)\n\n|((?s:.)+)")
_ONE = re.compile(rb"(?:event: .*\n)?data: (.*)\n\n")
_Found: TypeAlias = "tuple[bytes, bytes, bytes]"
"""An event's name and data, and nothing."""


def is_event_stream(content_type: str | None) -> bool:
    """Whether a Content-Type is that of an event stream."""
    return (content_type or "").partition(";")[0].strip().lower() == CONTENT_TYPE


class EventTooLarge(ValueError):
    """An event grew past the decoder's limit."""


class ServerSentEvent(NamedTuple):
    """One event of a stream; text is still bytes."""

    event: bytes
    """The `event` field, empty when the stream named none (then it means `message`)."""
    data: bytes
    """The `data` lines, joined by a line feed."""


class Decoder:
    """Turns the bytes of an event stream into events, whatever the cuts.

    Args:
        max_event_size: the largest event accepted, in bytes of its lines.
    """

    def __init__(self, *, max_event_size: int = MAX_EVENT_SIZE) -> None:
        self._max_event_size = max_event_size
        self._at_start = self._between = True
        self._skip_line_feed = False
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._size = 0
        self._event = b""
        self._data: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Whether bytes of an event have come that no blank line has ended yet."""
        return bool(self._partial or self._event or self._data)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and return the events that they complete.

        Raises:
            EventTooLarge: an event passed the limit; the decoder is then of no use.
        """
        return [ServerSentEvent(event, text) for event, text, _ in self._found(data)]

    def feed_data(self, data: bytes) -> list[bytes]:
        """As `feed`, for who needs of the events nothing but their data.

        Raises:
            EventTooLarge: as by `feed`.
        """
        if self._between and b"\r" not in data and len(data) <= self._max_event_size:
            # As most chunks of a stream that takes its time.
            one = _ONE.match(data)
            if one is not None and one.end() == len(data):
                self._at_start = False
                return [one[1]]
        return [text for _, text, _ in self._found(data)]

    def _found(self, data: bytes) -> list[_Found]:
        """The events that these bytes complete, those of the usual form all at once."""
        if b"\r" in data or len(data) > self._max_event_size:
            return self._read(data)
        begun: list[_Found] = []
        if not self._between:
            end = data.find(b"\n\n") + 2
            if end < 2:
                return self._read(data)
            begun, data = self._read(data[:end]), data[end:]
            if not self._between:
                return begun + self._read(data)
        found: list[_Found] = _PLAIN.findall(data)
        rest = found[-1][2] if found else b""
        if rest:
            found.pop()
        if found:
            self._at_start = False
        if begun:
            found = begun + found
        return found + self._read(rest) if rest else found

    def _read(self, data: bytes) -> list[_Found]:
        """The events that these bytes complete, line by line."""
        events = self._lines(data)
        self._between = not (self.pending or self._size or self._skip_line_feed)
        return events

    def _lines(self, data: bytes) -> list[_Found]:
        if self._at_start and data:
            data = self._without_mark(data)
        if self._skip_line_feed and data:
            # The CR that ended the last line was the first half of a CR LF.
            self._skip_line_feed = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return []
        lines = data.splitlines(keepends=True)
        if data[-1] == 0x0D:
            self._skip_line_feed = True
        rest = b"" if data[-1] in b"\r\n" else lines.pop()
        events: list[_Found] = []
        for line in lines:
            if self._partial:
                self._partial.append(line)
                line = b"".join(self._partial)
                self._partial.clear()
                self._partial_size = 0
            event = self._line(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        if rest:
            self._partial.append(rest)
            self._partial_size += len(rest)
            self._check_size()
        return events

    def _without_mark(self, data: bytes) -> bytes:
        head = b"".join(self._partial) + data
        self._partial.clear()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._partial.append(head)
            return b""
        self._at_start = False
        return head.removeprefix(_BOM)

    def _check_size(self) -> None:
        if self._size + self._partial_size > self._max_event_size:
            raise EventTooLarge(f"an event is larger than {self._max_event_size} bytes")

    def _line(self, line: bytes) -> _Found | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        self._check_size()
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value
        return None

    def _dispatch(self) -> _Found | None:
        event, data = self._event, self._data
        self._event, self._data, self._size = b"", [], 0
        return (event, b"\n".join(data), b"") if data else None


def encode(event: ServerSentEvent) -> bytes:
    """Write one event as a stream has it, the closing blank line included.

    Raises:
        ValueError: the event's name holds a line end, which the format can't carry.
    """
    if b"\n" in event.event or b"\r" in event.event:
        raise ValueError("an event's name can't contain a line end")
    name = b"event: %b\n" % event.event if event.event else b""
    lines = event.data.splitlines() if event.data else [b""]
    if event.data.endswith((b"\n", b"\r")):
        lines.append(b"")
    return name + b"".join(b"data: %b\n" % line for line in lines) + b"\n"
