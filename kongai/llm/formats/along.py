"""Reading along while an answer passes: what the readers of all formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from kongai.llm.json_fields import UNREADABLE
from kongai.llm.request_body import without_halves
from kongai.llm.usage import Usage, estimate_tokens
from kongai.sse import Decoder, EventTooLarge

MAX_WHOLE_ANSWER = 64 * 1024 * 1024
"""The longest whole answer that is read, in bytes."""


class Everything:
    """A `StreamFilter` that takes nothing out."""

    def feed(self, data: bytes) -> bytes:
        """The bytes as they are."""
        return data

    def end(self) -> bytes:
        """Nothing was held back."""
        return b""


class WholeReader:
    """An `AnswerReader` for an answer that is one JSON object.

    Args:
        read: given the body and a usage to fill, returns the model that answered. What
            it can't read it raises as msgspec does.
    """

    def __init__(self, read: Callable[[bytes, Usage], str | None]) -> None:
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False
        self._read = read
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self.started = True
        self._size += len(data)
        if self._size <= MAX_WHOLE_ANSWER:
            self._pieces.append(data)
        else:
            self.broken = self.lost = True
            self._pieces.clear()

    def end(self) -> None:
        """Read the body, if it was not too long."""
        if self.broken:
            return
        body = b"".join(self._pieces)
        try:
            self.model = self._read(body, self.usage)
        except UNREADABLE:
            self.broken = True
            self.lost = not _stops_short(body)
            return
        self.finished = True


def _stops_short(body: bytes) -> bool:
    """Whether what can't be read is JSON that breaks off, and not just odd."""
    try:
        msgspec.json.decode(without_halves(body), type=msgspec.Raw)
    except UNREADABLE as error:
        text = body.strip()
        unclosed = text[:1] == b"{" and text[-1:] != b"}"
        return unclosed or "truncated" in str(error)
    return False


class EventReader(ABC):
    """An `AnswerReader` for an answer that is an event stream, but for its events.

    A format's reader overrides `read`; it adds to `characters` what the answer says,
    and sets `counted` once the provider has told how much that is.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False
        self.characters = 0
        self.counted = False
        self._decoder = Decoder()

    @abstractmethod
    def read(self, data: bytes) -> None:
        """Read the data of one event.

        Raises:
            msgspec.DecodeError: it can't be read; it is left out then.
        """

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self.lost:
            return
        try:
            events = self._decoder.feed_data(data)
        except EventTooLarge:
            self.broken = self.lost = True
            return
        for event in events:
            try:
                self.read(event)
            except UNREADABLE:
                self.broken = True

    def end(self) -> None:
        """Estimate the answer's tokens if they were not counted."""
        if not self.counted and self.characters:
            self.usage.completion_tokens = estimate_tokens(self.characters)
            self.usage.estimated = True
