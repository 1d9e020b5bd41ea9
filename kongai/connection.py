"""One client's connection: requests in, a WSGI application's answers out.

Written for sockets that wait without blocking others (gevent's); what it needs of the
event loop it is given. An answer is only ever ended as complete when the application
ended it; every other way out closes the connection without the last chunk.
"""

from __future__ import annotations

import io
import logging
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from werkzeug.datastructures import Headers

from kongai import http1
from kongai.error_bodies import accepted, error_body
from kongai.errors import (
    AnswerCut,
    ClientGone,
    GatewayError,
    Refused,
    ServerStopping,
    whereabouts,
)
from kongai.forwarding import SERVER, reason_phrase
from kongai.incoming import origin_form

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_logger = logging.getLogger("kongai")
_READ_SIZE = 65536
# A client that is refused a large body reads the answer only once it has sent it all.
_LINGER_SECONDS = 10.0
_LINGER_SILENCE = 1.0
_LINGER_BYTES = 64 * 1024 * 1024
IDLE_SECONDS = 75.0
"""How long a connection may be silent, or an answer unread."""


class Watch(Protocol):
    """Interrupts the exchange when the client leaves."""

    def start(self) -> None:
        """The request has come whole: nothing more is expected of the client."""

    def stop(self) -> None:
        """The exchange is at its end: leave it alone."""


class Connection:
    """Serves one connection until it is closed.

    Args:
        sock: the client's socket.
        environ: what every request's WSGI environment has in common.
        application: the WSGI application.
        watch: tells when the client leaves.
    """

    def __init__(
        self,
        sock: socket.socket,
        environ: dict[str, Any],
        application: WSGIApplication,
        watch: Watch,
    ) -> None:
        self.busy = False
        """Whether a request is being answered."""
        self.closing = False
        """Whether to close after the present answer; a server that stops sets it."""
        self._sock = sock
        self._environ = environ
        self._application = application
        self._watch = watch
        self._parser = http1.RequestParser()
        self._refusal: Refused | None = None
        sock.settimeout(IDLE_SECONDS)
        # Without it, each event of a stream waits for the acknowledgement of the last.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Answer requests until one side is done."""
        try:
            while self._serve_one():
                pass
        except Refused as refusal:
            self._refuse(refusal)
        except (ClientGone, ServerStopping, OSError):
            pass
        finally:
            self._close()

    def receive(self, message: http1.Message) -> None:
        """Wait for more of a request that is not complete.

        Raises:
            ClientGone: the client closed the connection, or is silent for too long.
            Refused: what came is not HTTP.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            data = self._sock.recv(_READ_SIZE)
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        self._feed(data)
        if message.complete:
            self._watch.start()

    def send(self, data: bytes) -> None:
        """Write bytes to the client.

        Raises:
            ClientGone: it does not take them.
        """
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ClientGone from error

    def _serve_one(self) -> bool:
        message = self._next_message()
        if message is None:
            return False
        self.busy = True
        answer = _Answer(self, message)
        try:
            if message.complete:
                self._watch.start()
            self._answer(message, answer)
        finally:
            self._watch.stop()
            self.busy = False
        if not answer.keep_alive or self.closing:
            return False
        self._parser.messages.popleft()
        return True

    def _next_message(self) -> http1.Message | None:
        """The next request, its head complete; None when the client is done."""
        while not self._parser.messages:
            if self._refusal is not None:
                raise self._refusal
            data = self._sock.recv(_READ_SIZE)
            if not data or self.closing:
                return None
            self._feed(data)
        return self._parser.messages[0]

    def _feed(self, data: bytes) -> None:
        """Parse; what is wrong behind a good request has to wait for its answer."""
        try:
            self._parser.feed(data)
        except Refused as refusal:
            self._refusal = refusal
            messages = self._parser.messages
            if not messages or not messages[0].complete:
                raise

    def _answer(self, message: http1.Message, answer: _Answer) -> None:
        chunks: Iterable[bytes] = ()
        try:
            chunks = self._application(
                self._request_environ(message, answer), answer.start
            )
            for data in chunks:
                answer.write(data)
            answer.finish()
        except AnswerCut:
            answer.keep_alive = False
            if answer.ended_by_closing:
                # Then a reset is the one way to say that this is not the end.
                linger = struct.pack("ii", 1, 0)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except ServerStopping:
            raise
        except Refused as refusal:
            answer.fail(refusal)
        except Exception as error:
            _logger.error("%s", whereabouts(error))
            answer.fail(GatewayError())
        finally:
            # From here on the client may leave: what happened is written down in peace.
            self._watch.stop()
            _close(chunks)

    def _request_environ(
        self, message: http1.Message, answer: _Answer
    ) -> dict[str, Any]:
        target = origin_form(message.target)
        path, _, query = target.partition("?")
        environ = {
            **self._environ,
            "REQUEST_METHOD": message.method,
            "REQUEST_URI": target,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": f"HTTP/{message.version}",
            "wsgi.input": _Input(self, message, answer),
            "wsgi.input_terminated": True,
        }
        environ["kongai.sent_headers"] = answer.sent_headers
        headers = environ["kongai.headers"] = []
        for name, value in message.headers:
            # `x-api_key` and `x-api-key` would be one variable: nginx drops the former.
            if "_" in name:
                continue
            headers.append((name, value))
            key = "HTTP_" + name.upper().replace("-", "_")
            if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
                key = key[5:]
            if key in environ:
                value = environ[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value
            environ[key] = value
        return environ

    def _refuse(self, refusal: Refused) -> None:
        try:
            _Answer(self, http1.Message(method=self._parser.method)).fail(refusal)
        except ClientGone:
            return

    def _close(self) -> None:
        """Close so that the last answer still arrives.

        Closing with unread bytes resets the connection, and the client may lose what it
        has not read: so first stop sending, then read for a moment.
        """
        messages = self._parser.messages
        try:
            if self._refusal or (messages and not messages[0].complete):
                self._linger()
        except (OSError, ServerStopping):
            pass
        finally:
            self._sock.close()

    def _linger(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(_LINGER_SILENCE)
        deadline = time.monotonic() + _LINGER_SECONDS
        left = _LINGER_BYTES
        while left > 0 and time.monotonic() < deadline:
            data = self._sock.recv(_READ_SIZE)
            if not data:
                return
            left -= len(data)


def _close(chunks: Iterable[bytes]) -> None:
    try:
        getattr(chunks, "close", lambda: None)()
    except Exception as error:
        _logger.error("%s", whereabouts(error))


class _Answer:
    """Writes one answer: its head, its framing, its end."""

    def __init__(self, connection: Connection, message: http1.Message) -> None:
        self.keep_alive = message.keep_alive
        self.sent_headers: list[tuple[str, str]] = []
        """The head's headers once it is written, for the record."""
        self._connection = connection
        self._message = message
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._head_sent = False
        self._chunked = False
        self._length: int | None = None
        self._sent = 0

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """WSGI's start_response; its `write` sends the head even with nothing else."""
        if self._head_sent and exc_info:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, list(headers)
        return self.flush

    def flush(self, data: bytes) -> None:
        """Write bytes, and the head before the first ones; b"" sends just the head."""
        head = b"" if self._head_sent else self._head()
        body = self._framed(data)
        if head or body:
            self._connection.send(head + body)

    def write(self, data: bytes) -> None:
        """Write bytes; nothing at all for b"" (PEP 3333)."""
        if data:
            self.flush(data)

    def finish(self) -> None:
        """The application is done: end the answer as complete."""
        unframed = self._length_given() is None and not self._no_body()
        if not self._head_sent and unframed:
            self._headers.append(("Content-Length", "0"))
        self.flush(b"")
        if self._chunked:
            self._connection.send(http1.LAST_CHUNK)
        if self._length is not None and self._sent < self._length:
            self.keep_alive = False

    def fail(self, error: GatewayError) -> None:
        """There is no proper answer: say so if there is still time, else break off."""
        self.keep_alive = self._chunked = False
        if self._head_sent:
            return
        request_id = uuid.uuid4().hex
        accept = accepted(Headers(self._message.headers), error)
        kind, text = error_body(error.message, request_id, accept)
        self._status = f"{error.status} {reason_phrase(error.status)}"
        self._headers = [("Content-Type", kind)] if kind is not None else []
        self._headers += [
            ("Content-Length", str(len(text))),
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
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _length_given(self) -> int | None:
        for name, value in self._headers:
            if name.lower() == "content-length":
                return int(value)
        return None

    def _head(self) -> bytes:
        if not self._status:
            raise AssertionError("the application did not call start_response")
        message, headers = self._message, self._headers
        if not any(name.lower() == "date" for name, _ in headers):
            headers.append(("Date", http1.date(int(time.time()))))
        self._length = self._length_given()
        if self._no_body():
            self._length = None
        elif self._length is None:
            if message.version == "1.1":
                self._chunked = True
                headers.append(("Transfer-Encoding", "chunked"))
            else:
                self.keep_alive = False
        # A request whose body was not read to its end hides where the next one starts.
        if not message.complete or self._connection.closing:
            self.keep_alive = False
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        elif message.version == "1.0":
            headers.append(("Connection", "keep-alive"))
        if any(name.lower() == "upgrade" for name, _ in headers):
            # It is for this connection, and must be named so (RFC 9110, section 7.8).
            headers.append(("Connection", "Upgrade"))
        head = http1.response_head("1.1", self._status, headers)
        self.sent_headers += headers
        self._head_sent = True
        return head

    def _no_body(self) -> bool:
        status = self._status[:3]
        return self._message.method == "HEAD" or status in ("204", "304")

    def _framed(self, data: bytes) -> bytes:
        if not data or self._no_body():
            return b""
        if self._length is not None:
            # What is more than announced would be read as the next answer.
            data = data[: self._length - self._sent]
        self._sent += len(data)
        return http1.chunk(data) if self._chunked and data else data


class _Input(io.RawIOBase):
    """`wsgi.input`: the request's body, read from the connection as it is asked for."""

    def __init__(
        self, connection: Connection, message: http1.Message, answer: _Answer
    ) -> None:
        self._connection = connection
        self._message = message
        self._answer = answer
        expect = message.header("expect") or ""
        self._awaited = expect.lower() == "100-continue" and message.version == "1.1"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        chunks, message = self._message.chunks, self._message
        while not chunks and not message.complete:
            if self._awaited:
                self._awaited = False
                self._answer.go_ahead()
            self._connection.receive(message)
        if not chunks:
            return b""
        data = chunks.popleft()
        if len(data) > size:
            chunks.appendleft(data[size:])
            data = data[:size]
        return data

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the body's end; all of it without a size."""
        if size is None or size < 0:
            return self.readall()
        pieces = []
        while size and (piece := self._next(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read1(self, size: int) -> bytes:
        """Read at most `size` bytes, as many as have come; b"" at the body's end."""
        return self._next(size)
