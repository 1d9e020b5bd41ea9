"""The answer's body on its way to the client, and the end of the exchange with it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator

from kongai.errors import (
    AnswerCut,
    ClientGone,
    GatewayError,
    ServerStopping,
    as_answer,
    ended_by,
    whereabouts,
)
from kongai.exchange import Exchange
from kongai.sse import is_event_stream

_logger = logging.getLogger("kongai")
_NO_BODY = (204, 304)
_OF_THE_BODY = frozenset({"content-type", "content-length", "content-encoding"})


class Body:
    """An iterable for a WSGI server. Closing it ends the exchange, exactly once.

    A body ends in one of three ways. It is read to its end, and that was a success; it
    breaks off, and then a stream says so in the client's format and `AnswerCut` keeps
    the server from ending it as if nothing had happened; or it is closed before its
    end, because the client has gone.

    Args:
        exchange: the exchange it is the answer of.
        chunks: the bytes, filtered.
        finish: the log phase.
    """

    _closed = True

    def __init__(
        self,
        exchange: Exchange,
        chunks: Iterator[bytes],
        finish: Callable[[Exchange], None],
    ) -> None:
        self._exchange = exchange
        self._chunks = chunks
        self._finish = finish
        self._cut = False
        response = exchange.response
        assert response is not None
        told: dict[str, str] = {}
        for name, value in response.headers:
            lower = name.lower()
            if lower in _OF_THE_BODY:
                told.setdefault(lower, value)
        self.is_stream = is_event_stream(told.get("content-type"))
        self._framed = "content-length" not in told
        self._can_add_event = (
            self.is_stream and self._framed and "content-encoding" not in told
        )
        # What has no body is complete as it is, and a server need not ask for it.
        self._complete = exchange.method == "HEAD" or response.status_code in _NO_BODY
        if self._complete:
            self._chunks = iter(())
        self._closed = False

    def is_whole(self) -> bool:
        """Whether all that is still to be read is here already.

        Who sends it can then send it at once.
        """
        upstream = self._exchange.upstream_response
        if upstream is None or upstream.whole is None:
            return False
        return self._exchange.source == "upstream" and upstream.whole()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._cut:
            raise AnswerCut
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._complete = True
            self._exchange.timings.received = time.perf_counter()
            raise
        except Exception as error:
            chunk = self._broken(error)
            if not chunk:
                # Not chained: servers print tracebacks, and its text may quote a key.
                raise AnswerCut from None
        except BaseException as gone:
            self._exchange.ended = ended_by(gone)
            raise
        size = len(chunk)
        # A chunk of chunked coding is framed by its size in hex and two line ends.
        self._exchange.bytes_sent += size + (len(f"{size:x}") + 4) * self._framed
        return chunk

    def close(self) -> None:
        """End the exchange: let go of the upstream, write the record."""
        if self._closed:
            return
        self._closed = True
        exchange = self._exchange
        if exchange.ended is None:
            # Nobody asked for more: what the server is leaving with says why. The last
            # of what was read to its end may not have been taken.
            gone = sys.exc_info()[1]
            untaken = isinstance(gone, (ClientGone, ServerStopping))
            ok = self._complete and not untaken
            exchange.ended = "ok" if ok else _why_gone(gone)
        try:
            self._close_chunks()
        finally:
            self._finish(exchange)

    def __del__(self) -> None:
        # An application that embeds the gateway may drop an answer unclosed.
        if not self._closed:
            self.close()

    def _broken(self, error: Exception) -> bytes:
        """Note why the answer broke off; what is left to say, if it is a stream."""
        exchange = self._exchange
        self._cut = True
        exchange.error = error
        failure = as_answer(error, exchange.id)
        exchange.ended = failure.ended
        call = exchange.llm
        finished = call is not None and call.reader is not None and call.reader.finished
        if finished or not (self._can_add_event and exchange.error_format):
            return b""
        return exchange.error_format.error_event(
            failure.like, failure.message, exchange.id
        )

    def _close_chunks(self) -> None:
        # A generator that never started does not run its `finally`; the upstream is
        # therefore closed by name in the log phase.
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        except Exception as error:
            _logger.error("%s; request %s", whereabouts(error), self._exchange.id)


def _why_gone(error: BaseException | None) -> str:
    """The record's word for what a server gives an answer up with.

    An `OSError` is a client that has left, to servers that find out by writing.
    """
    mistaken = isinstance(error, Exception) and not isinstance(error, OSError)
    return ended_by(error, GatewayError.ended if mistaken else ClientGone.ended)
