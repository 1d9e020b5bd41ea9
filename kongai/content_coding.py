"""Undoing a content-coding on a copy of a body as it passes (RFC 9110, section 8.4)."""

from __future__ import annotations

import zlib

from werkzeug.datastructures import Headers

MAX_DECODED = 64 * 1024 * 1024
"""The most that is decoded of one body, in bytes: a bomb ends here."""

_ANY_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


def takes_gzip(headers: Headers) -> bool:
    """Whether a client's `Accept-Encoding` has gzip in it, and not refused."""
    return accepts_gzip(headers.get("accept-encoding", ""))


def accepts_gzip(accepted: str) -> bool:
    """Whether the value of an `Accept-Encoding` has gzip in it, and not refused."""
    for part in accepted.split(","):
        coding, _, quality = part.partition(";")
        if coding.strip().lower() == "gzip":
            return quality.replace(" ", "").lower() not in ("q=0", "q=0.0")
    return False


def is_plain(coding: str) -> bool:
    """Whether a Content-Encoding leaves the body as it is; an empty one does."""
    return not coding or coding.strip().lower() in ("", "identity")


class ContentDecoder:
    """Decodes `gzip` and `deflate`; `identity` passes.

    It never fails: what can't be decoded sets `broken` and gives nothing.

    Args:
        coding: the Content-Encoding header's value, empty for none.
    """

    def __init__(self, coding: str) -> None:
        coding = coding.strip().lower()
        self.broken = coding not in ("", "identity", "gzip", "x-gzip", "deflate")
        self._plain = is_plain(coding)
        if not self._plain:
            self._zlib = zlib.decompressobj(_ANY_ZLIB_OR_GZIP)
        self._left = MAX_DECODED

    def feed(self, data: bytes) -> bytes:
        """The next bytes, decoded."""
        if self._plain:
            return data
        if self.broken:
            return b""
        try:
            decoded = self._zlib.decompress(data, self._left)
        except zlib.error:
            self.broken = True
            return b""
        self._left -= len(decoded)
        self.broken = self._left <= 0
        return decoded

    @property
    def complete(self) -> bool:
        """Whether the coded body has come to its own end."""
        return self._plain or self._zlib.eof
