from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from kongai.body import Body
from kongai.errors import (
    AnswerCut,
    ClientGone,
    ClientStalled,
    RequestRejected,
    ServerStopping,
    UpstreamTruncated,
)
from kongai.exchange import Exchange
from kongai.llm.formats import anthropic
from kongai.testing import events

SECRET = "c4nary-5f1d"
STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
WHOLE = {"Content-Type": "application/json", "Content-Length": "100"}


class Chunks:
    """A filtered answer: pieces and exceptions; notes when it is closed."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self._pieces = iter(pieces)
        self.steps: list[str] = []
        self.on_close: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        self.steps.append("closed")
        if self.on_close is not None:
            raise self.on_close

    def finish(self, exchange: Exchange) -> None:
        self.steps.append("finished")


def body_of(
    chunks: Chunks,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    status: int = 200,
) -> tuple[Exchange, Body]:
    exchange = Exchange(EnvironBuilder(method=method).get_request())
    response = Response(status=status, headers=WHOLE if headers is None else headers)
    exchange.response = response
    exchange.error_format = anthropic
    return exchange, Body(exchange, chunks, chunks.finish)


def test_a_body_passes_its_chunks_and_then_ends_the_exchange() -> None:
    chunks = Chunks(b"a", b"bc")
    exchange, body = body_of(chunks)
    assert list(body) == [b"a", b"bc"]
    assert list(body) == []
    assert (exchange.ended, chunks.steps) == (None, [])
    assert exchange.timings.received is not None
    for _ in range(3):
        body.close()
    assert (exchange.ended, chunks.steps) == ("ok", ["closed", "finished"])


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_body_closed_before_its_end_was_left_by_the_client(taken: int) -> None:
    exchange, body = body_of(Chunks(b"a", b"b"))
    for _ in range(taken):
        next(body)
    body.close()
    assert exchange.ended == "client_abort"
    assert exchange.timings.received is None


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)]
)
def test_what_has_no_body_is_complete_unread(method: str, status: int) -> None:
    exchange, body = body_of(Chunks(), method=method, status=status)
    body.close()
    assert exchange.ended == "ok"


@pytest.mark.parametrize(
    ("error", "seen", "ended"),
    [
        (ClientGone(), ClientGone, "client_abort"),
        (ServerStopping(), AnswerCut, "shutdown"),
        (SystemExit(), SystemExit, "killed"),
    ],
)
def test_who_interrupts_a_body_says_why(
    error: BaseException, seen: type[BaseException], ended: str
) -> None:
    chunks = Chunks(b"a", error)
    exchange, body = body_of(chunks)
    next(body)
    with pytest.raises(seen):
        next(body)
    body.close()
    assert exchange.ended == ended
    assert chunks.steps == ["closed", "finished"]


def test_a_server_that_stops_between_two_chunks_says_why() -> None:
    exchange, body = body_of(Chunks(b"a", b"b"))
    next(body)
    try:
        raise ServerStopping
    except ServerStopping:
        body.close()
    assert exchange.ended == "shutdown"


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (UpstreamTruncated(), "upstream_cut"),
        (UpstreamTruncated(ended="stream_idle_timeout"), "stream_idle_timeout"),
        (RequestRejected(), "bad_request"),
        (ValueError(SECRET), "internal"),
    ],
)
def test_a_body_that_breaks_off_is_cut(
    error: Exception, ended: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange, body = body_of(Chunks(b"a", error, b"never"))
    assert next(body) == b"a"
    for _ in range(2):
        with pytest.raises(AnswerCut) as caught:
            next(body)
        # What a server would print of it.
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert exchange.ended == ended
    assert exchange.error is error
    body.close()
    assert exchange.ended == ended
    assert exchange.timings.received is None
    if isinstance(error, ValueError):
        [entry] = caplog.records
        assert entry.getMessage().startswith("ValueError at ")
        assert entry.getMessage().endswith(f"; request {exchange.id}")
    else:
        assert caplog.records == []


@pytest.mark.parametrize("error", [UpstreamTruncated(), ValueError(SECRET)])
def test_a_stream_that_breaks_off_ends_with_an_error_event(error: Exception) -> None:
    exchange, body = body_of(Chunks(b"data: {}\n\n", error), STREAM)
    next(body)
    [(name, data)] = events([next(body)])
    assert name == "error"
    assert data["request_id"] == exchange.id
    assert SECRET not in json.dumps(data)
    with pytest.raises(AnswerCut):
        next(body)


def no_format(exchange: Exchange) -> None:
    exchange.error_format = None


@pytest.mark.parametrize(
    ("headers", "change"),
    [
        (WHOLE, None),
        ({**STREAM, "Content-Length": "100"}, None),
        ({**STREAM, "Content-Encoding": "gzip"}, None),
        (STREAM, no_format),
    ],
)
def test_where_no_event_fits_there_is_only_the_cut(
    headers: dict[str, str], change: Callable[[Exchange], None] | None
) -> None:
    exchange, body = body_of(Chunks(UpstreamTruncated()), headers)
    if change is not None:
        change(exchange)
    with pytest.raises(AnswerCut):
        next(body)


@pytest.mark.parametrize(
    ("headers", "is_stream"),
    [
        (STREAM, True),
        ({"Content-Type": "text/event-stream"}, True),
        ({"Content-Type": "text/plain"}, False),
        ({"Content-Type": "application/json"}, False),
    ],
)
def test_a_stream_is_known_by_its_type(
    headers: dict[str, str], is_stream: bool
) -> None:
    _, body = body_of(Chunks(), headers)
    assert body.is_stream == is_stream


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        (WHOLE, 300 + 1),
        # Chunked coding frames each with its size in hex and two line ends.
        (STREAM, len(b"12c\r\n") + 300 + 2 + len(b"1\r\n") + 1 + 2),
    ],
    ids=["length", "chunked"],
)
def test_bytes_are_counted_as_they_are_framed(
    headers: dict[str, str], size: int
) -> None:
    exchange, body = body_of(Chunks(b"x" * 300, b"y"), headers)
    list(body)
    assert exchange.bytes_sent == size


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), RuntimeError("generator ignored GeneratorExit")]
)
def test_chunks_that_do_not_close_cost_no_record(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = Chunks(b"a")
    chunks.on_close = error
    exchange, body = body_of(chunks)
    list(body)
    body.close()
    assert chunks.steps == ["closed", "finished"]
    assert exchange.ended == "ok"
    assert f"{type(error).__name__} at " in caplog.text
    assert SECRET not in caplog.text


def test_a_client_that_leaves_while_chunks_close_costs_no_record() -> None:
    chunks = Chunks(b"a")
    chunks.on_close = ClientGone()
    _, body = body_of(chunks)
    with pytest.raises(ClientGone):
        body.close()
    assert chunks.steps == ["closed", "finished"]


def test_chunks_need_not_be_a_generator() -> None:
    steps: list[str] = []
    exchange = body_of(Chunks())[0]
    body = Body(exchange, iter([b"a"]), lambda _: steps.append("finished"))
    assert list(body) == [b"a"]
    body.close()
    assert steps == ["finished"]


@pytest.mark.parametrize(
    ("gone", "ended"),
    [(ClientGone(), "client_abort"), (ClientStalled(), "write_timeout")],
)
def test_what_was_read_to_its_end_and_not_taken_is_no_success(
    gone: ClientGone, ended: str
) -> None:
    exchange, body = body_of(Chunks(b"a"))
    list(body)
    try:
        raise gone
    except ClientGone:
        body.close()
    assert exchange.ended == ended
