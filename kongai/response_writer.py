"""Writes an answer to a connection: its head, its framing and its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from werkzeug.datastructures import Headers

from kongai import http1
from kongai.error_bodies import accepted, error_body
from kongai.errors import GatewayError
from kongai.forwarding import SERVER, reason_phrase

_LOOKED_AT = frozenset(("date", "upgrade", "content-length"))
# To ask costs as much as it saves once, and so is not done for all of a long stream.
_LOOKS = 8
_MAX_IN_HAND = 256 * 1024
"""Bytes of an answer that are held back at most."""


class Wire(Protocol):
    """Where an answer goes."""

    closing: bool
    """Whether this answer is the connection's last."""

    def send(self, data: bytes) -> None:
        """Write bytes to the client."""


class ResponseWriter:
    """Writes one answer; WSGI's `start_response` and `write` are methods of it.

    Args:
        wire: where to.
        message: the request it answers.
    """

    def __init__(self, wire: Wire, message: http1.Message) -> None:
        self.keep_alive = message.keep_alive
        self.sent_headers: list[tuple[str, str]] = []
        """The head's headers once it is written, for the record."""
        self._wire = wire
        self._message = message
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._head_sent = False
        self._bodiless = self._chunked = False
        self._length: int | None = None
        self._sent = 0
        self.is_whole: Callable[[], bool] | None = None
        """Whether all of the answer is there to be written; None if nobody knows."""
        self._looks = _LOOKS
        # What is held back, and how much that is.
        self._holding = False
        self._in_hand: list[bytes] = []
        self._in_hand_bytes = 0

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """WSGI's start_response; its `write` sends the head even with nothing else."""
        if self._head_sent and exc_info:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, list(headers)
        return self.flush

    def release(self) -> None:
        """Write what was held back."""
        if self._in_hand:
            pieces, self._in_hand = self._in_hand, []
            self._in_hand_bytes = 0
            self._wire.send(b"".join(pieces))

    def flush(self, data: bytes) -> None:
        """Write bytes, and the head before the first ones; b"" sends just the head."""
        out = b"" if self._head_sent else self._head()
        if data and not self._bodiless:
            if self._chunked:
                out += http1.chunk(data)
            else:
                if self._length is not None:
                    # What is more than announced would be read as the next answer.
                    data = data[: self._length - self._sent]
                    self._sent += len(data)
                out += data
        if not out:
            return
        if self._chunked and data and self._looks:
            self._looks -= 1
            if self.is_whole is not None and self.is_whole():
                # It can go with all that follows, the end included.
                self._looks, self._holding = 0, True
        if self._holding:
            self._in_hand.append(out)
            self._in_hand_bytes += len(out)
            if self._in_hand_bytes > _MAX_IN_HAND:
                self.release()
        else:
            self._wire.send(out)

    def write(self, data: bytes) -> None:
        """Write bytes; nothing at all for b"" (PEP 3333)."""
        if not data:
            return
        if self._chunked and not (self._looks or self._holding):
            # Most writes are an event of a stream.
            self._wire.send(http1.chunk(data))
        else:
            self.flush(data)

    def finish(self) -> None:
        """The application is done: end the answer as complete."""
        if not self._head_sent:
            if not self._no_body() and self._given("content-length") is None:
                self._headers.append(("Content-Length", "0"))
            self.flush(b"")
        if self._chunked:
            self._in_hand.append(http1.LAST_CHUNK)
            self.release()
        if self._length is not None and self._sent < self._length:
            self.keep_alive = False

    def fail(self, error: GatewayError) -> None:
        """There is no proper answer: say so if there is still time, else break off."""
        self.keep_alive = self._chunked = False
        if self._head_sent:
            return
        # The application's own, if it has begun: its record has that.
        request_id = self._given("x-kong-request-id") or uuid.uuid4().hex
        accept = accepted(Headers(self._message.headers), error)
        kind, text = error_body(error.message, request_id, accept)
        self._status = f"{error.status} {reason_phrase(error.status)}"
        self._headers = [("Content-Type", kind)] if kind is not None else []
        self._headers += [
            ("Content-Length", str(len(text))),
            *error.headers,
            ("Server", SERVER),
            ("X-Kong-Request-Id", request_id),
        ]
        self.flush(text)

    @property
    def ended_by_closing(self) -> bool:
        """Whether only the connection's end tells the client where the answer ends."""
        return self._head_sent and not self._chunked and self._length is None

    def go_ahead(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110, 10.1.1)."""
        if not self._head_sent:
            self._wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _given(self, name: str) -> str | None:
        """The first header of a name, which is given in lower case."""
        return next((v for n, v in self._headers if n.lower() == name), None)

    def _head(self) -> bytes:
        if not self._status:
            raise AssertionError("the application did not call start_response")
        message, headers = self._message, self._headers
        length: int | None = None
        dated = upgrade = False
        for name, value in headers:
            lower = name.lower()
            if lower not in _LOOKED_AT:
                continue
            if lower == "date":
                dated = True
            elif lower == "upgrade":
                upgrade = True
            elif length is None:
                length = int(value)
        if not dated:
            headers.append(("Date", http1.date(int(time.time()))))
        if self._no_body():
            self._bodiless = True
            length = None
        elif length is None:
            if message.version == "1.1":
                self._chunked = True
                headers.append(("Transfer-Encoding", "chunked"))
            else:
                self.keep_alive = False
        self._length = length
        # A request whose body was not read to its end hides where the next one starts.
        if not message.complete or self._wire.closing:
            self.keep_alive = False
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        elif message.version == "1.0":
            headers.append(("Connection", "keep-alive"))
        if upgrade:
            # It is for this connection, and must be named so (RFC 9110, section 7.8).
            headers.append(("Connection", "Upgrade"))
        head = http1.response_head("1.1", self._status, headers)
        self.sent_headers += headers
        self._head_sent = True
        return head

    def _no_body(self) -> bool:
        return self._message.method == "HEAD" or self._status[:3] in ("204", "304")
