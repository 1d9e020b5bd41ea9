"""Bytes that are nearly HTTP, and others, for the parser and for the server."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import h11
import pytest
from hypothesis import given, settings, strategies as st

from kongai.errors import Refused
from kongai.http1 import Message, RequestParser
from tests.http.client import Client
from tests.http.live_server import LiveServer
from tests.http.mutations import mutated, segments

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FINE = {200, 400, 405, 413, 414, 417, 431, 501, 505}
EXAMPLES = 300
SOME, MANY = 300, 50_000


class Parsed(NamedTuple):
    """A request, whoever has parsed it."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes


def parse(*pieces: bytes) -> tuple[list[Message], int | None]:
    """The requests that come of bytes, the last one perhaps not whole; the refusal."""
    parser = RequestParser()
    try:
        for piece in pieces:
            parser.feed(piece)
    except Refused as refusal:
        return list(parser.messages), refusal.status
    return list(parser.messages), None


def whole(messages: list[Message]) -> list[Parsed]:
    return [
        Parsed(
            message.method,
            message.target,
            message.version,
            [(name.lower(), value) for name, value in message.headers],
            b"".join(message.chunks),
        )
        for message in messages
        if message.complete
    ]


def by_h11(data: bytes) -> Parsed | None:
    """The first request as h11 sees it; None if it takes none."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=10**6)
    connection.receive_data(data)
    request: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                break
            else:
                return None
    except h11.RemoteProtocolError:
        return None
    return Parsed(
        request.method.decode("latin-1"),
        request.target.decode("latin-1"),
        request.http_version.decode("latin-1"),
        [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers],
        body,
    )


def check(data: bytes, pieces: list[bytes]) -> None:
    """Only requests and refusals come of it; cuts don't matter; h11 agrees."""
    messages, status = parse(data)
    in_pieces, status_in_pieces = parse(*pieces)
    taken = whole(messages)
    assert whole(in_pieces) == taken
    assert (status_in_pieces is None) == (status is None)
    # Known to be looser: empty lines before a request (RFC 9112, section 2.2).
    if taken and not data.startswith((b"\r", b"\n")):
        theirs = by_h11(data)
        assert theirs is not None, data
        assert normal(taken[0]) == normal(theirs), data


def normal(request: Parsed) -> Parsed:
    """Without an offer to upgrade, which is passed over; h11 lowers codings."""
    kept = [
        (name, value.lower() if name == "transfer-encoding" else value)
        for name, value in request.headers
        if name != "upgrade"
    ]
    return request._replace(headers=kept)


def any_bytes(data: st.DataObject) -> tuple[bytes, list[bytes]]:
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=200), max_size=5))
    return b"".join(pieces), pieces


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    check(*any_bytes(data))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**64))
def test_bytes_that_are_nearly_http(seed: int) -> None:
    random = Random(seed)
    data = mutated(random)
    check(data, segments(random, data))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, deadline=None)
@given(st.data())
def test_any_bytes_at_length(data: st.DataObject) -> None:
    check(*any_bytes(data))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, deadline=None)
@given(st.integers(0, 2**64))
def test_bytes_that_are_nearly_http_at_length(seed: int) -> None:
    random = Random(seed)
    data = mutated(random)
    check(data, segments(random, data))


def ask(server: LiveServer, *pieces: bytes) -> list[int]:
    """The answers to bytes; the server closes behind them, however little they are."""
    with Client(server.port) as client:
        client.send(*pieces)
        client.no_more()
        client.read()
        assert client.closed, b"".join(pieces)
        return [answer.status for answer in client.answers]


def harass(server: LiveServer, random: Random, times: int) -> None:
    for number in range(times):
        data = mutated(random)
        assert FINE.issuperset(ask(server, *segments(random, data))), data
        if number % 50 == 0:
            with Client(server.port) as client:
                client.send(NEXT)
                client.read()
                assert [answer.status for answer in client.answers] == [200]


def test_a_server_that_gets_what_is_nearly_http(server: LiveServer) -> None:
    harass(server, Random(1), SOME)
    assert server.complaints() == ""


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_server_that_gets_what_is_nearly_http_at_length(server: LiveServer) -> None:
    harass(server, Random(2), MANY)
    assert server.complaints() == ""
