"""Newline-delimited JSON: bytes in, lines out.

A line ends in LF, and a CR before it is no part of it; blank lines say nothing. As with
`kongai.sse`, the stream comes in any cuts, a cut may fall inside a character, and no
more than one line is kept.
"""

from __future__ import annotations

from kongai.sse import MAX_EVENT_SIZE

MAX_LINE_SIZE = MAX_EVENT_SIZE
"""The longest line a `Decoder` accepts unless told otherwise, in bytes."""


class LineTooLong(ValueError):
    """A line grew past the decoder's limit."""


class Decoder:
    """Turns bytes into the lines that they complete, whatever the cuts.

    Args:
        max_line_size: the longest line accepted, in bytes, its end not counted.
    """

    def __init__(self, *, max_line_size: int = MAX_LINE_SIZE) -> None:
        self._max_line_size = max_line_size
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that they complete.

        Raises:
            LineTooLong: a line passed the limit; the decoder is then of no use.
        """
        *ends, rest = data.split(b"\n")
        lines: list[bytes] = []
        for end in ends:
            self._keep(end)
            lines += self.end()
        self._keep(rest)
        return lines

    def end(self) -> list[bytes]:
        """There is no more; the last line, if it has no end and is not blank."""
        line = b"".join(self._partial).strip()
        self._partial.clear()
        self._size = 0
        return [line] if line else []

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_line_size:
            raise LineTooLong(f"a line is longer than {self._max_line_size} bytes")
        if piece:
            self._partial.append(piece)
