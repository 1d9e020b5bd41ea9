"""Clients that are slow, and clients that are many."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse

import pytest

from .anthropic_api import message_events
from .conftest import (
    MODEL,
    PATH,
    USAGE,
    Line,
    exchange,
    request_body,
    request_headers,
    whole,
)
from .harness import Gateway, howto_config, wait_until
from .trailer import next_request, trailer
from .upstream import Connection, FakeUpstream, Request

EVENTS = list(message_events("one two three four", USAGE, model=MODEL))
QUICK = (
    *("--client-header-timeout", "0.4", "--client-body-timeout", "0.4"),
    *("--send-timeout", "0.5", "--keepalive-timeout", "0.6"),
)
NUMBERS = ("--max-connections", "12", "--max-exchanges", "3", "--max-body-memory", "2")


@contextmanager
def serving(*args: str, **ai_proxy: object) -> Iterator[Line]:
    with FakeUpstream(whole) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages", **ai_proxy)
        with Gateway(config, *args, "--status-listen", "0") as gateway:
            yield Line(gateway, upstream)
            assert upstream.errors == []


@pytest.fixture(scope="module")
def hasty() -> Iterator[Line]:
    """A gateway that does not wait for long."""
    with serving(*QUICK) as line:
        yield line


@pytest.fixture(scope="module")
def small() -> Iterator[Line]:
    """A gateway that takes few things at a time."""
    with serving(*NUMBERS, max_request_body_size=8 * 1024 * 1024) as line:
        yield line


def open_to(line: Line) -> socket.socket:
    host, port = line.gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def head(length: int, *more: str) -> bytes:
    fields = [f"{name}: {value}" for name, value in request_headers()]
    lines = [f"POST {PATH} HTTP/1.1", "Host: a", *fields, *more]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def everything(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as stream:
        return stream.read()


def test_a_head_that_drips(hasty: Line) -> None:
    with trailer(hasty.gateway, next_request(hasty)), open_to(hasty) as sock:
        start = time.monotonic()
        sock.settimeout(0.1)
        received = b""
        for byte in b"GET /anything HTTP/1.1\r\nHost: a\r\n" * 3:
            sock.send(bytes([byte]))
            try:
                received = sock.recv(1000)
                break
            except TimeoutError:
                continue
        assert time.monotonic() - start < 2
        assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"Connection: close" in received


def test_a_head_that_does_not_go_on(hasty: Line) -> None:
    with trailer(hasty.gateway, next_request(hasty)), open_to(hasty) as sock:
        sock.sendall(b"GET /anything HTTP/1.1\r\nHost: a\r\n")
        assert b" 408 " in everything(sock)


@pytest.mark.parametrize("said", [b"", b"\r\n"])
def test_a_connection_without_a_request(hasty: Line, said: bytes) -> None:
    with trailer(hasty.gateway, next_request(hasty)), open_to(hasty) as sock:
        sock.sendall(said)
        start = time.monotonic()
        assert everything(sock) == b""
        assert 0.3 < time.monotonic() - start < 3


def test_a_connection_that_is_kept_for_nothing(hasty: Line) -> None:
    with (
        trailer(hasty.gateway, next_request(hasty)) as after,
        closing(hasty.connect()) as connection,
    ):
        after.expects(exchange(connection, "POST", PATH, request_body()), "ok")
        assert connection.sock.recv(1) == b""


def test_a_body_that_does_not_go_on(hasty: Line) -> None:
    with trailer(hasty.gateway, next_request(hasty)) as after, open_to(hasty) as sock:
        seen = len(hasty.upstream.requests)
        sock.sendall(head(1000) + b'{"model":')
        answer = everything(sock)
        assert answer.startswith(b"HTTP/1.1 408 ")
        error = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert error["error"]["message"] == "Request timeout"
        after.expects(error["request_id"], "client_timeout")
        assert len(hasty.upstream.requests) == seen


def test_a_body_that_waits_for_a_slow_upstream_is_not_slow(hasty: Line) -> None:
    """What counts is how long the gateway waits for the client."""

    def slow(request: Request, connection: Connection) -> None:
        connection.sleep(0.9)
        whole(request, connection)

    with trailer(hasty.gateway, next_request(hasty)) as after:
        hasty.upstream.handler = slow
        after.expects(hasty.ask(request_body(system="x" * 300_000)), "ok")


def test_a_client_that_does_not_read(hasty: Line) -> None:
    def endless(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in EVENTS[:-2]:
            connection.chunk(event)
        while True:
            connection.chunk(b": " + b"x" * 60_000 + b"\n\n")

    with trailer(hasty.gateway, next_request(hasty)) as after:
        hasty.upstream.handler = endless
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(5)
            host, port = hasty.gateway.url.removeprefix("http://").split(":")
            sock.connect((host, int(port)))
            body = request_body(stream=True)
            sock.sendall(head(len(body)) + body)
            after.expects(None, "write_timeout")
            [record] = wait_until(
                lambda: [
                    r
                    for r in hasty.gateway.records(0)
                    if r["kongai"]["ended"] == "write_timeout"
                ],
                "record",
            )
            assert record["response"]["status"] == 200
            assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input
            assert record["kongai"]["usage_estimated"] is True


class Waiting:
    """A handler whose answers begin and then wait."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    def __call__(self, request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        self.connections.append(connection)
        assert connection.closed_by_peer(10)


def test_more_streams_than_there_may_be(small: Line) -> None:
    with trailer(small.gateway, next_request(small)) as after, ExitStack() as stack:
        small.upstream.handler = Waiting()
        for _ in range(3):
            connection = stack.enter_context(closing(small.connect()))
            connection.request(
                "POST", PATH, request_body(stream=True), dict(request_headers())
            )
            response = connection.getresponse()
            after.expects(response.headers["x-kong-request-id"], "client_abort")
        start = time.monotonic()
        kept = stack.enter_context(closing(small.connect()))
        for _ in range(2):
            answer = exchange(kept, "POST", PATH, request_body())
            assert answer.status == 503
            assert answer.value("retry-after") == "1"
            assert answer.json()["error"] == {
                "type": "overloaded_error",
                "message": "The gateway is overloaded",
            }
            after.expects(answer, "overload")
        assert time.monotonic() - start < 1


def test_more_connections_than_there_may_be(small: Line) -> None:
    with trailer(small.gateway, next_request(small)), ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(open_to(small))
        start = time.monotonic()
        with open_to(small) as sock:
            sock.sendall(b"GET /anything HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = everything(sock)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert b"\r\nConnection: close\r\n" in answer
        assert time.monotonic() - start < 3


def test_those_who_were_turned_away_take_no_place(small: Line) -> None:
    with trailer(small.gateway, next_request(small)) as after, ExitStack() as late:
        with ExitStack() as inside:
            for _ in range(12):
                inside.enter_context(open_to(small))
            for _ in range(12):
                sock = late.enter_context(open_to(small))
                assert sock.recv(12) == b"HTTP/1.1 503"
        for _ in range(8):
            after.expects(small.ask(request_body()), "ok")


def test_more_bodies_than_memory_has_room_for(small: Line) -> None:
    with trailer(small.gateway, next_request(small)) as after, ExitStack() as stack:
        big = request_body(system="x" * 1_500_000)
        idle = stack.enter_context(open_to(small))
        # A length alone takes no room: whoever announces much may never send it.
        idle.sendall(head(len(big)) + big[:1000])
        after.expects(None, "client_abort")
        time.sleep(0.1)
        after.expects(small.ask(big), "ok")
        waiting = stack.enter_context(open_to(small))
        waiting.sendall(head(len(big)) + big[:-1000])
        # Of two that come at a time, the one whose bytes are read first has the room.
        time.sleep(0.3)

        def refused() -> bool:
            answer = small.ask(big)
            after.expects(answer, "overload" if answer.status == 503 else "ok")
            return answer.status == 503

        wait_until(refused, "refusal")
        chunked = dict(request_headers(("transfer-encoding", "chunked")))
        pieces = [big[i : i + 50_000] for i in range(0, len(big), 50_000)]
        connection = stack.enter_context(closing(small.connect()))
        connection.request("POST", PATH, iter(pieces), chunked, encode_chunked=True)
        with connection.getresponse() as response:
            assert response.status == 503
        after.expects(response.headers["x-kong-request-id"], "overload")
        waiting.sendall(big[-1000:])
        with HTTPResponse(waiting, method="POST") as response:
            response.begin()
            assert response.status == 200
            after.expects(response.headers["x-kong-request-id"], "ok")
            response.read()
        # And when it is answered, there is room again.
        after.expects(small.ask(big), "ok")


def test_a_body_whose_answer_streams_takes_no_room(small: Line) -> None:
    with trailer(small.gateway, next_request(small)) as after, ExitStack() as stack:
        small.upstream.handler = Waiting()
        big = request_body(stream=True, system="x" * 1_500_000)
        for _ in range(2):
            connection = stack.enter_context(closing(small.connect()))
            connection.request("POST", PATH, big, dict(request_headers()))
            response = connection.getresponse()
            assert response.status == 200
            after.expects(response.headers["x-kong-request-id"], "client_abort")
            assert response.read1().startswith(b"event: message_start")
