"""What can go wrong, and whose fault it is.

::

    KongAIError
      ConfigError              the file or the arguments are wrong: `problems`
      GatewayError             an answer of the gateway's own: status, message, ended
        NoRouteMatched     404
        RequestRejected    400 / 413 ...   the client is at fault
          Refused                          it is no HTTP, or not what the server takes
          BodyIncomplete                   its body stops short
          ClientTimeout      408           its body comes too slowly
        NoServiceFound     503             the route leads nowhere
        NoPeer             503             its upstream has no target
        HTTPSRequired      426             the route does not serve plain HTTP
        ServerStopping     503             the server can't wait for the answer
        Overloaded         503             there is too much to do already
        LogUnavailable     503             no record could be written of it
        UpstreamError      502             the upstream is at fault
          UpstreamTimeout  504
          UpstreamTruncated                after the status has left: no status any more
      AnswerCut                the answer cannot be finished; a server must close the
                               connection without ending the body
    ClientGone (BaseException) the client has left: unwind, record, go
      ClientStalled            it is there, but does not read its answer

A `GatewayError`'s message is one of a closed list of texts, Kong's where Kong has one.
It never carries a URL, a header or another exception's text, so that no credential can
reach an answer or a record through it. `ended` is the word the record keeps for it
(`kongai.ended`).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from typing import NamedTuple

_logger = logging.getLogger("kongai")


class KongAIError(Exception):
    """The root of everything kongai raises on purpose."""


class Problem(NamedTuple):
    """One thing that is wrong with a configuration, and where."""

    path: str
    """Where in the data, as in ``services[0].plugins[1].config.path``."""
    message: str
    """What is wrong, in Kong's words where Kong has words for it."""
    line: int | None = None
    """The line of the file, counted from 1; None when there is no file."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(KongAIError):
    """A configuration that can't be used, with every problem found in it.

    Args:
        problems: what is wrong, in the order of the file.
        source: the file's name, or None for a configuration given as objects.
    """

    def __init__(self, problems: Iterable[Problem], source: str | None = None) -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line a problem: ``file:line: path: message``."""
        return [
            ":".join(part for part in (self.source, _text(problem.line)) if part)
            + (": " if self.source or problem.line else "")
            + str(problem)
            for problem in self.problems
        ]


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


class GatewayError(KongAIError):
    """An answer that the gateway gives in the upstream's place.

    Args:
        message: the text for the client; a constant, free of anything secret.
        status: the HTTP status.
        ended: the word for the record's ``kongai.ended``.
    """

    status = 500
    message = "An unexpected error occurred"
    ended = "internal"
    headers: tuple[tuple[str, str], ...] = ()
    """What the answer's head has beside the usual."""

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        ended: str | None = None,
    ) -> None:
        self.message = self.message if message is None else message
        self.status = self.status if status is None else status
        self.ended = self.ended if ended is None else ended
        super().__init__(self.message)

    @property
    def like(self) -> int:
        """The status with which an LLM's API says the same: its 503 is an overload."""
        return 500 if self.status == 503 else self.status


class NoRouteMatched(GatewayError):
    """No route fits the request."""

    status = 404
    message = "no Route matched with those values"
    ended = "no_route"


class NoServiceFound(GatewayError):
    """The route has no service, and no plugin said where to send the request."""

    status = 503
    message = "no Service found with those values"
    ended = "no_service"


class NoPeer(GatewayError):
    """The service's upstream has no target that could be asked."""

    status = 503
    message = "failure to get a peer from the ring-balancer"
    ended = "no_peer"


class HTTPSRequired(GatewayError):
    """The route takes no plain HTTP."""

    status = 426
    message = "Please use HTTPS protocol"
    ended = "https_required"


class ServerStopping(GatewayError):
    """The server stops, and the answer is not there yet or not complete."""

    status = 503
    message = "The gateway is stopping"
    ended = "shutdown"


class Overloaded(GatewayError):
    """There are as many connections, exchanges or bodies as the gateway can hold."""

    status = 503
    message = "The gateway is overloaded"
    ended = "overload"
    headers = (("Retry-After", "1"),)

    @property
    def like(self) -> int:
        """The same."""
        return self.status


class LogUnavailable(GatewayError):
    """The exchange would leave no record, and the log is required to have one."""

    status = 503
    message = "The log can't be written"
    ended = "log_unavailable"
    headers = (("Retry-After", "1"),)


class RequestRejected(GatewayError):
    """The request itself is not acceptable; the upstream never sees it."""

    status = 400
    message = "Bad request"
    ended = "bad_request"


class Refused(RequestRejected):
    """What a client sent is not a request that kongai's own server takes."""


class BodyIncomplete(RequestRejected):
    """The client stopped sending before its body's end."""

    message = "The request body is incomplete"
    ended = "client_abort"


class ClientTimeout(RequestRejected):
    """The client sends its request too slowly to wait for it."""

    status = 408
    message = "Request timeout"
    ended = "client_timeout"


class UpstreamError(GatewayError):
    """The upstream did not give a usable answer.

    Args:
        sent: whether any byte of the request may have reached the upstream. What was
            not sent may be tried again, whatever the method.
        hopeless: whether another try at the same address would end the same.
        stale: whether a connection that had been used before ended without a byte of
            the answer. Most likely the upstream has closed it as the request came.
    """

    status = 502
    message = "An invalid response was received from the upstream server"
    ended = "upstream_protocol"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        ended: str | None = None,
        sent: bool = True,
        hopeless: bool = False,
        stale: bool = False,
    ) -> None:
        super().__init__(message, status=status, ended=ended)
        self.sent = sent
        self.hopeless = hopeless
        self.stale = stale


class UpstreamTimeout(UpstreamError):
    """The upstream kept the gateway waiting longer than the service allows."""

    status = 504
    message = "The upstream server is timing out"
    ended = "first_byte_timeout"


class UpstreamTruncated(UpstreamError):
    """The answer stopped before its end, after its status was passed on."""

    message = "upstream stream ended early"
    ended = "upstream_cut"


class AnswerCut(KongAIError):
    """Raised out of an answer's body when it can't be completed.

    A WSGI server that lets it through closes the connection without the last chunk,
    which is how a client tells a cut answer from a finished one (RFC 9112, section 8).
    """


class ClientGone(BaseException):
    """The client has left: there is nobody to answer.

    Not an `Exception`, so that a plugin's ``except Exception`` does not swallow it.
    """

    ended = "client_abort"


class ClientStalled(ClientGone):
    """The client keeps its connection, but does not read what it is sent."""

    ended = "write_timeout"


def ended_by(error: BaseException | None, otherwise: str = "killed") -> str:
    """The record's word for an exchange that an exception ended.

    Args:
        error: the exception, if there was one.
        otherwise: the word for one that brings none of its own.
    """
    return str(getattr(error, "ended", otherwise))


def as_answer(error: Exception, request_id: str) -> GatewayError:
    """What the client is told of an error: the error itself, if it is meant for that.

    Of any other the client learns nothing; the log says what it was and where.
    """
    if isinstance(error, GatewayError):
        return error
    _logger.error("%s; request %s", whereabouts(error), request_id)
    return GatewayError()


def whereabouts(error: BaseException) -> str:
    """An exception for the error log: its class and where it came from.

    Its text stays out, because it may quote a URL, a header or a body.
    """
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{type(error).__name__} at " + " > ".join(places or ["an unknown place"])
