"""One client's connection: requests in, a WSGI application's answers out.

Written for sockets that wait without blocking others (gevent's); what it needs of the
event loop it is given. An answer is only ever ended as complete when the application
ended it; every other way out closes the connection without the last chunk.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

from kongai import http1
from kongai.errors import (
    AnswerCut,
    ClientGone,
    ClientStalled,
    ClientTimeout,
    GatewayError,
    Refused,
    ServerStopping,
    whereabouts,
)
from kongai.incoming import origin_form
from kongai.limits import Limits
from kongai.request_input import RequestInput
from kongai.response_writer import ResponseWriter
from kongai.socket_options import notice_silent_deaths, reset_on_close, send_at_once

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Refuse: TypeAlias = Callable[
    ["WSGIEnvironment", "StartResponse", GatewayError], Iterable[bytes]
]
"""Answers a request that the server does not take, as a WSGI application would."""

_logger = logging.getLogger("kongai")
_READ_SIZE = 65536
# Less at a time than of a body: it may be thousands of small requests.
_HEAD_SIZE = 16384
# A client that is refused a large body reads the answer only once it has sent it all.
_LINGER_SECONDS = 10.0
_LINGER_SILENCE = 1.0
_LINGER_BYTES = 64 * 1024 * 1024
# So many writes are made before the others may have to have their turn.
_WRITES_IN_A_TURN = 4


class Socket(Protocol):
    """What a connection needs of a socket; Python's own has it."""

    def settimeout(self, seconds: float, /) -> None:
        """How long each `recv` and `send` waits from now on."""

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        """Set an option of the socket."""

    def recv(self, size: int, /) -> bytes:
        """Read what has come, after waiting for something; b"" at the end."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Write as much as there is room for, after waiting for some."""

    def shutdown(self, how: int, /) -> None:
        """Close one direction."""

    def close(self) -> None:
        """Close both."""


class Host(Protocol):
    """What a connection needs of the server around it and of its event loop."""

    def watch(self, *, whole: bool) -> None:
        """Interrupt the exchange if the client leaves.

        Args:
            whole: whether the request has come whole: then nothing more is expected of
                the client. Otherwise what can be read may be the rest of it.
        """

    def unwatch(self) -> None:
        """The exchange is at its end: leave it alone."""

    def share(self) -> None:
        """Let other connections have their turn, if this one has had a long one."""

    def done(self) -> None:
        """The exchange is over, and its record written."""


class Connection:
    """Serves one connection until it is closed.

    Args:
        sock: the client's socket.
        environ: what every request's WSGI environment has in common.
        application: the WSGI application.
        host: the server around it.
        limits: how long to wait for the client.
        refuse: answers what is no request, once its target is known; it may raise the
            error that it is given.
    """

    def __init__(
        self,
        sock: Socket,
        environ: dict[str, Any],
        application: WSGIApplication,
        host: Host,
        limits: Limits | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        self.busy = False
        """Whether a request is being answered."""
        self.recording = False
        """Whether an exchange is at its end, and must not be interrupted any more."""
        self.closing = False
        """Whether to close after the present answer; a server that stops sets it."""
        self._sock = sock
        self._environ = environ
        self._application = application
        self._host = host
        self._limits = limits or Limits()
        self._refuse = refuse or _raise
        self._parser = http1.RequestParser()
        self._refusal: Refused | None = None
        self._refused = False
        self._body_bytes = 0
        self._body_seconds = 0.0
        # The time-out of the socket, and how often it was written to.
        self._timeout = 0.0
        self._watched = False
        self._writes = 0
        send_at_once(sock)
        notice_silent_deaths(sock, self._limits.write)

    def serve(self) -> None:
        """Answer requests until one side is done."""
        try:
            while self._serve_next():
                pass
        except Refused as refusal:
            self._turn_down(refusal)
        except (ClientGone, ServerStopping, OSError):
            pass
        finally:
            self._close()

    def close(self) -> None:
        """Close without a word, before anything was read."""
        self._sock.close()

    def turn_away(self, error: GatewayError) -> None:
        """Close without reading a request, after saying why."""
        self._refused = True
        try:
            ResponseWriter(self, http1.Message()).fail(error)
        except ClientGone:
            pass
        finally:
            self._close()

    def receive(self, message: http1.Message) -> None:
        """Wait for more of a request that is not complete.

        Raises:
            ClientGone: the client closed the connection.
            ClientTimeout: it is silent for too long, or sends too slowly.
            Refused: what came is not HTTP.
        """
        if self._refusal is not None:
            raise self._refusal
        began = time.monotonic()
        self._wait_at_most(self._limits.body)
        try:
            data = self._sock.recv(_READ_SIZE)
        except TimeoutError as error:
            raise ClientTimeout from error
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        self._body_bytes += len(data)
        self._body_seconds += time.monotonic() - began
        self._feed(data)
        if message.complete:
            self._watched = True
            self._host.watch(whole=True)
        elif self._is_too_slow():
            raise ClientTimeout
        self._host.share()

    def _is_too_slow(self) -> bool:
        limits, seconds = self._limits, self._body_seconds
        needed = seconds * limits.body_rate
        return seconds > limits.body_grace and self._body_bytes < needed

    def send(self, data: bytes) -> None:
        """Write bytes to the client.

        Raises:
            ClientStalled: it has not taken any for too long.
            ClientGone: it does not take them any more.
        """
        sock, seconds = self._sock, self._limits.write
        if seconds != self._timeout:
            self._wait_at_most(seconds)
        try:
            sent = sock.send(data)
            if sent < len(data):
                left = memoryview(data)[sent:]
                while left:
                    left = left[sock.send(left) :]
        except TimeoutError as error:
            raise ClientStalled from error
        except OSError as error:
            raise ClientGone from error
        self._writes += 1
        if self._writes == _WRITES_IN_A_TURN:
            self._writes = 0
            self._host.share()

    def _wait_at_most(self, seconds: float) -> None:
        self._timeout = seconds
        self._sock.settimeout(seconds)

    def _serve_next(self) -> bool:
        message = self._next_message()
        if message is None:
            return False
        self._body_bytes, self._body_seconds = 0, 0.0
        writer = self._exchange(message, self._application)
        if not writer.keep_alive or self.closing:
            return False
        self._parser.messages.popleft()
        return True

    def _exchange(
        self, message: http1.Message, application: WSGIApplication
    ) -> ResponseWriter:
        self.busy = True
        writer = ResponseWriter(self, message)
        try:
            self._answer(message, writer, application)
        finally:
            if self._watched:
                # Who closed the answer has waited for the rest of the request.
                self._host.unwatch()
                self._watched = False
            self.busy = False
            self._host.done()
        return writer

    def _next_message(self) -> http1.Message | None:
        """The next request, its head complete; None when the client is done."""
        until = None
        while not self._parser.messages:
            if self._refusal is not None:
                raise self._refusal
            if self._parser.in_head:
                until = until or time.monotonic() + self._limits.head
                data = self._more_of_head(until)
            else:
                self._wait_at_most(self._limits.idle)
                data = self._sock.recv(_HEAD_SIZE)
            if not data or self.closing:
                return None
            self._feed(data)
        return self._parser.messages[0]

    def _more_of_head(self, until: float) -> bytes:
        # All of it has to come in time: a byte now and then does not help.
        self._wait_at_most(max(0.001, until - time.monotonic()))
        try:
            return self._sock.recv(_HEAD_SIZE)
        except TimeoutError as error:
            raise Refused("Request timeout", status=408) from error

    def _feed(self, data: bytes) -> None:
        """Parse; what is wrong behind a good request has to wait for its answer."""
        try:
            self._parser.feed(data)
        except Refused as refusal:
            self._refusal = refusal
            messages = self._parser.messages
            if not messages or not messages[0].complete:
                raise

    def _answer(
        self,
        message: http1.Message,
        writer: ResponseWriter,
        application: WSGIApplication,
    ) -> None:
        environ = self._request_environ(message, writer)
        chunks: Iterable[bytes] = ()
        self._watched = True
        self._host.watch(whole=message.complete)
        try:
            chunks = application(environ, writer.start)
            writer.is_whole = getattr(chunks, "is_whole", None)
            try:
                for data in chunks:
                    writer.write(data)
            except Exception:
                # What came before it broke off is the client's all the same.
                writer.release()
                raise
            writer.finish()
        except AnswerCut:
            writer.keep_alive = False
            if writer.ended_by_closing:
                # Then a reset is the one way to say that this is not the end.
                reset_on_close(self._sock)
        except ClientStalled:
            # What it has not taken would keep the system busy for minutes.
            reset_on_close(self._sock)
            raise
        except ServerStopping:
            raise
        except GatewayError as error:
            writer.fail(error)
        except Exception as error:
            _logger.error("%s", whereabouts(error))
            # While the error is known as the reason.
            _close(chunks)
            chunks = ()
            writer.fail(GatewayError())
        finally:
            # From here on the client may leave: what happened is written down in peace.
            self._host.unwatch()
            self._watched = False
            # The answer leads back to the writer: in a circle, it would stay in memory.
            writer.is_whole = None
            self.recording = True
            _close(chunks)
            self.recording = False

    def _request_environ(
        self, message: http1.Message, writer: ResponseWriter
    ) -> dict[str, Any]:
        target = message.target
        if not target.startswith("/"):
            target = origin_form(target)
        path, _, query = target.partition("?")
        if "%" in path:
            path = unquote_to_bytes(path).decode("latin-1")
        headers: list[tuple[str, str]] = []
        environ = {
            **self._environ,
            "REQUEST_METHOD": message.method,
            "REQUEST_URI": target,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": f"HTTP/{message.version}",
            "wsgi.input": RequestInput(message, self.receive, writer.go_ahead),
            "wsgi.input_terminated": True,
            "kongai.headers": headers,
            "kongai.sent_headers": writer.sent_headers,
        }
        variables = _variables
        for pair in message.headers:
            name, value = pair
            variable = variables[name]
            if variable is None:
                continue
            headers.append(pair)
            if variable in environ:
                comma = "; " if variable == "HTTP_COOKIE" else ", "
                value = environ[variable] + comma + value
            environ[variable] = value
        return environ

    def _turn_down(self, refusal: Refused) -> None:
        """Say why, and close; what can be told of the request is put on record."""
        self._refused = True
        message = self._parser.coming
        with suppress(ClientGone, ServerStopping):
            if message is None:
                ResponseWriter(self, http1.Message()).fail(refusal)
            else:
                self._exchange(
                    message,
                    lambda environ, start: self._refuse(environ, start, refusal),
                )

    def _close(self) -> None:
        """Close so that the last answer still arrives.

        Closing with unread bytes resets the connection, and the client may lose what it
        has not read: so first stop sending, then read for a moment.
        """
        messages = self._parser.messages
        try:
            if self._refused or (messages and not messages[0].complete):
                self._linger()
        except (OSError, ServerStopping):
            pass
        finally:
            self._sock.close()

    def _linger(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        self._wait_at_most(_LINGER_SILENCE)
        deadline = time.monotonic() + _LINGER_SECONDS
        left = _LINGER_BYTES
        while left > 0 and time.monotonic() < deadline:
            data = self._sock.recv(_READ_SIZE)
            if not data:
                return
            left -= len(data)
            self._host.share()


def _variable(name: str) -> str | None:
    """Where the environment has a field; None if it is left out."""
    # `x-api_key` and `x-api-key` would be one variable: nginx drops the former.
    if "_" in name:
        return None
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


_variables = http1.KnownNames(_variable)


def _raise(
    environ: WSGIEnvironment, start_response: StartResponse, error: GatewayError
) -> Iterable[bytes]:
    raise error


def _close(chunks: Iterable[bytes]) -> None:
    try:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    except Exception as error:
        _logger.error("%s", whereabouts(error))
