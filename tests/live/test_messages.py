"""What Claude Code needs of a gateway, on real sockets: every byte, every failure."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPResponse, IncompleteRead, parse_headers
from typing import Any, BinaryIO

import pytest

from kongai.testing import chop, events

from .anthropic_api import message, message_events, sse
from .conftest import (
    KEY,
    MODEL,
    PATH,
    PLAIN_KEY,
    TEXT,
    USAGE,
    Answer,
    Line,
    assert_no_secret,
    exchange,
    record_of,
    request_body,
    request_headers,
    streamed,
    whole,
)
from .harness import Gateway, howto_config
from .ports import closed_port
from .upstream import EVENT_STREAM, JSON, Connection, FakeUpstream, Request

LIMIT = 524288
MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = list(message_events(TEXT, USAGE, model=MODEL))
CLAUDE_CODE_BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "context-management-2025-06-27,prompt-caching-scope-2026-01-05"
)

Handler = Callable[[Request, Connection], None]


def session_body(size: int) -> bytes:
    """A question as large as Claude Code's: system blocks, tools, a conversation."""
    system = [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"ttl": "1h"}}
    ]
    tools = [
        {"name": f"Tool{n}", "input_schema": {"type": "object"}} for n in range(24)
    ]
    text = "Zeile «ü» 日本\n" * (size // 16)
    asked = request_body(system=system, tools=tools, stream=False)
    body = json.loads(asked) | {"messages": [{"role": "user", "content": text}]}
    encoded = json.dumps(body, ensure_ascii=False).encode()
    return encoded + b" " * (size - len(encoded))


def body_of(size: int) -> bytes:
    """A question of exactly so many bytes."""
    body = request_body(padding="")
    return body.replace(b'"padding": "', b'"padding": "' + b"x" * (size - len(body)))


def raw(gateway: Gateway) -> socket.socket:
    """A client's connection for bytes as they are."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def head(
    method: str = "POST", path: str = PATH, *more: tuple[str, str], length: int = -1
) -> bytes:
    """A request's head as bytes; framed by a length unless `more` frames it."""
    fields = [("host", "gateway"), *request_headers(*more)]
    if length >= 0:
        fields.append(("content-length", str(length)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields), "", ""]
    return "\r\n".join(lines).encode()


def read_answer(sock: socket.socket, method: str = "POST") -> Answer:
    """The next answer on a connection."""
    with closing(HTTPResponse(sock, method=method)) as response:
        response.begin()
        return Answer(
            response.status, response.reason, response.getheaders(), response.read()
        )


def read_cut_answer(sock: socket.socket) -> tuple[list[tuple[str, str]], bytes]:
    """Head and body of an answer that must break off before its own end."""
    with closing(HTTPResponse(sock, method="POST")) as response:
        response.begin()
        with pytest.raises(IncompleteRead) as cut:
            response.read()
        assert sock.recv(1) == b""
        return response.getheaders(), cut.value.partial


def answering(body: bytes, *headers: tuple[str, str], status: int = 200) -> Handler:
    """A handler that gives one answer in one piece."""
    return lambda _, connection: connection.respond(status, headers or JSON, body)


def streaming(*chunks: bytes) -> Handler:
    """A handler that sends chunks and ends well."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for chunk in chunks:
            connection.chunk(chunk)
        connection.end()

    return handler


@contextmanager
def own_line(config: str) -> Iterator[Line]:
    """A gateway of its own; `UPSTREAM` in the config is the upstream's address."""
    with (
        FakeUpstream(whole) as upstream,
        Gateway(config.replace("UPSTREAM", upstream.url)) as gateway,
    ):
        yield Line(gateway, upstream)
        assert_no_secret(gateway)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Line]:
    """A gateway that gives up on an upstream after 200 ms of silence."""
    config = howto_config("UPSTREAM/v1/messages")
    config = config.replace("  routes:", "  read_timeout: 200\n  routes:")
    with own_line(config) as line:
        yield line


def envelope(answer: Answer) -> tuple[str, str]:
    """Type and message of an error of the gateway's own, in Anthropic's shape."""
    assert answer.value("content-type").startswith("application/json")
    assert answer.value("content-length") == str(len(answer.body))
    said = answer.json()
    assert said.keys() == {"type", "error", "request_id"}
    assert said["type"] == "error"
    assert said["error"].keys() == {"type", "message"}
    assert said["request_id"] == answer.value("x-kong-request-id")
    return said["error"]["type"], said["error"]["message"]


# What goes up


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            request_body(brand_new_field={"b": [1, None, {"deep": 1e-7}], "a": 0}),
            id="unknown fields",
        ),
        pytest.param(
            request_body(
                system=[
                    {"type": "text", "text": "x-anthropic-billing-header: cc=1;"},
                    {"type": "text", "text": "You", "cache_control": {"type": "e"}},
                ]
            ),
            id="system array",
        ),
        pytest.param(
            request_body(
                messages=[
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "", "signature": "EqQB/+="}
                        ],
                    },
                    {"role": "user", "content": "go on"},
                ]
            ),
            id="signature",
        ),
        pytest.param(
            b'\r\n {\t"max_tokens" :1 ,\n\n"model": "claude-haiku-4-5"  ,'
            b'"messages":[ {"role":"user","content":"\\u00fc\\/\\ud83d\\ude00 \xc3\xbc"'
            b" } ]}\n",
            id="spaces and escapes",
        ),
        pytest.param(
            b'{"model":"claude-haiku-4-5","max_tokens":1,"z":{"b":1,"b":2},"a":1.0,'
            b'"messages":[{"role":"user","content":"a","content":"b"}],"n":1E400}',
            id="duplicate keys",
        ),
        pytest.param(session_body(115_000), id="115 kB"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_request_arrives_byte_for_byte(line: Line, body: bytes, framing: str) -> None:
    """A rewritten prefix would destroy the provider's prompt cache."""
    if framing == "length":
        answer = line.ask(body)
    else:
        with raw(line.gateway) as sock:
            sock.sendall(head("POST", PATH, ("Transfer-Encoding", "chunked")))
            for piece in chop(body, 1, 2, len(body) // 2):
                sock.sendall(b"%X;x=y\r\n%b\r\n" % (len(piece), piece))
            sock.sendall(b"0\r\n\r\n")
            answer = read_answer(sock)
    assert answer.status == 200
    [request] = line.upstream.requests
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(body).digest()
    assert request.values("content-length") == [str(len(body))]
    record = line.record(answer)
    assert record["ai"]["proxy"]["meta"]["request_model"] == MODEL
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input


@pytest.mark.parametrize(
    "query", ["?beta=true", "", "?", "?a=%20b+c&&d=%C3%BC&beta=true&e", "?x=%2Fv1%2F?y"]
)
def test_the_query_is_kept(line: Line, query: str) -> None:
    assert line.ask(request_body(), f"/anything/v1/messages{query}").status == 200
    assert line.upstream.requests[0].target == f"/v1/messages{query}"


def test_the_clients_headers_are_kept(line: Line) -> None:
    """Whatever a client says with `anthropic-...` or `x-...` is for the provider."""
    sent = [
        ("x-api-key", KEY),
        ("authorization", f"Bearer {KEY}"),
        ("anthropic-beta", CLAUDE_CODE_BETAS),
        ("anthropic-beta", "another-2026-01-01"),
        ("Anthropic-Brand-New", "a, b;  c"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("content-type", "application/json; charset=utf-8"),
        ("user-agent", "claude-cli/2.1.197 (external, cli)"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "1f2a"),
        ("X-Stainless-Retry-Count", "0"),
    ]
    assert line.ask(request_body(), headers=sent).status == 200
    [request] = line.upstream.requests
    assert [pair for pair in request.headers if pair in sent] == sent
    assert request.values("anthropic-version") == ["2023-06-01"]


def test_hop_by_hop_headers_stay_here(line: Line) -> None:
    """What concerns one connection is not passed on to the next (RFC 9110, 7.6.1)."""
    hops = [
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", f"Basic {KEY}"),
        ("te", "gzip"),
    ]
    assert line.ask(request_body(), headers=request_headers(*hops)).status == 200
    [request] = line.upstream.requests
    assert request.values("connection") == ["keep-alive"]  # the gateway's own
    assert [name for name, _ in hops[1:] if request.values(name)] == []


# What comes back


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
def test_the_upstreams_errors_are_the_clients(line: Line, status: int) -> None:
    """Clients recover by the very wording, and wait as long as they are told to."""
    body = b'{"type":"error", "error":{"type":"x","message":"too long: \\u00fc"}}'
    said = [
        ("Content-Type", "application/json"),
        ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
        ("retry-after", "17"),
        ("x-should-retry", "true"),
        ("anthropic-organization-id", "4f3e"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2026-08-01T12:00:00Z"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2, 3"),
    ]
    line.upstream.handler = answering(body, *said, status=status)
    answer = line.ask(request_body(stream=True))
    assert (answer.status, answer.body) == (status, body)
    assert [pair for pair in answer.headers if pair in said] == said
    if status == 529:
        assert answer.reason == "Overloaded"
    assert len(line.upstream.requests) == 1
    record = line.record(answer)
    assert record["response"]["status"] == status
    assert record["upstream_status"] == str(status)
    assert (record["source"], record["kongai"]["ended"]) == ("upstream", "ok")
    assert record["ai"]["proxy"]["usage"]["total_tokens"] == 0


def test_a_redirection_is_the_clients_to_follow(line: Line) -> None:
    """The credentials were meant for one host."""
    elsewhere = ("Location", f"{line.upstream.url}/elsewhere")
    line.upstream.handler = answering(b"moved", elsewhere, status=307)
    answer = line.ask(request_body())
    assert (answer.status, answer.body) == (307, b"moved")
    assert answer.value("location") == elsewhere[1]
    assert len(line.upstream.requests) == 1


def test_the_first_event_does_not_wait_for_the_second(line: Line) -> None:
    """Head and first event are at the client within 50 ms of their leaving."""
    told = threading.Event()
    sent: list[float] = []

    def handler(request: Request, connection: Connection) -> None:
        told.clear()
        connection.start_stream()
        sent.append(time.monotonic())
        assert told.wait(5)
        told.clear()
        sent.append(time.monotonic())
        connection.chunk(EVENTS[0])
        assert told.wait(5)
        for event in EVENTS[1:]:
            connection.chunk(event)
        connection.end()

    line.upstream.handler = handler
    delays: list[tuple[float, ...]] = []
    for _ in range(3):
        sent.clear()
        with closing(line.connect()) as connection:
            connection.request("POST", PATH, request_body(), dict(request_headers()))
            with connection.getresponse() as response:
                got_head = time.monotonic()
                told.set()
                assert response.read1() == EVENTS[0]
                got_event = time.monotonic()
                told.set()
                assert response.read() == b"".join(EVENTS[1:])
        delays.append((got_head - sent[0], got_event - sent[1]))
    assert min(delay for delay, _ in delays) < 0.05, delays
    assert min(delay for _, delay in delays) < 0.05, delays


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_events_keep_their_pace_on_a_connection_that_is_used_again(
    line: Line, framing: str
) -> None:
    """Nagle's algorithm would hold them back until the head is acknowledged.

    That takes 40 ms, and shows from a connection's second answer on.
    """
    sent: list[float] = []

    def handler(request: Request, connection: Connection) -> None:
        sent.clear()
        if framing == "chunked":
            connection.start_stream()
        else:
            connection.send(OK + b"Content-Type: text/event-stream\r\n\r\n")
        send = connection.chunk if framing == "chunked" else connection.send
        for number in range(6):
            connection.sleep(0.01)
            sent.append(time.monotonic())
            send(sse("ping", {"type": "ping", "n": number}))
        send(sse("message_stop", {"type": "message_stop"}))
        (connection.end if framing == "chunked" else connection.close)()

    line.upstream.handler = handler
    delays: list[list[float]] = []
    with closing(line.connect()) as connection:
        for _ in range(6):
            connection.request("POST", PATH, request_body(), dict(request_headers()))
            with connection.getresponse() as response:
                came: list[float] = []
                while piece := response.read1():
                    came += [time.monotonic()] * piece.count(b"event: ping")
            delays.append([b - a for a, b in zip(sent, came, strict=True)])
    for of_one_event in zip(*delays[1:], strict=True):
        assert statistics.median(of_one_event) < 0.01, delays


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(
            [*EVENTS[:2], sse("ping", {"type": "ping"}), *EVENTS[2:]], id="ping"
        ),
        pytest.param([b": keep-alive\n\n", b":\r\n\r\n", *EVENTS], id="comments"),
        pytest.param(
            [event.replace(b"\n", b"\r\n") for event in EVENTS], id="carriage returns"
        ),
        pytest.param([b"\xef\xbb\xbf", b"".join(EVENTS)], id="mark, then all at once"),
        pytest.param(
            [*EVENTS[:-1], b"id: 7\nretry: 3\nnew: x\n", EVENTS[-1]], id="fields"
        ),
        pytest.param([bytes([b]) for b in b"".join(EVENTS)], id="byte by byte"),
        pytest.param(
            [*EVENTS[:3], sse("brand_new", {"type": "brand_new"}), *EVENTS[3:]],
            id="unknown event",
        ),
    ],
)
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_arrives_byte_for_byte(
    line: Line, stream: list[bytes], framing: str
) -> None:
    def until_closed(request: Request, connection: Connection) -> None:
        connection.send(OK + b"Content-Type: text/event-stream\r\n\r\n")
        for piece in stream:
            connection.send(piece)
        connection.close()

    line.upstream.handler = streaming(*stream) if framing == "chunked" else until_closed
    answer = line.ask(request_body(stream=True))
    assert answer.status == 200
    assert answer.body == b"".join(stream)
    assert answer.value("content-type").startswith("text/event-stream")
    record = line.record(answer)
    assert record["kongai"]["ended"] == "ok"
    usage = record["ai"]["proxy"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (119, 29)
    assert record["ai"]["proxy"]["meta"]["request_mode"] == "stream"


# Content-codings


def zipped(pieces: list[bytes]) -> list[bytes]:
    """Gzip, each piece flushed, as a server compresses an event stream."""
    coder = zlib.compressobj(wbits=31)
    coded = [coder.compress(p) + coder.flush(zlib.Z_SYNC_FLUSH) for p in pieces]
    return [*coded, coder.flush()]


WHOLE = json.dumps(message(TEXT, USAGE, model=MODEL)).encode()


@pytest.mark.parametrize("accepted", ["gzip, deflate, br, zstd", "identity", "*", None])
@pytest.mark.parametrize(
    ("coding", "body", "counted"),
    [
        ("identity", [WHOLE], True),
        ("gzip", [gzip.compress(WHOLE)], True),
        ("deflate", [zlib.compress(WHOLE)], True),
        ("br", [b"\x0b\x02\x80opaque to the gateway\x03"], False),
        ("zstd", [b"\x28\xb5\x2f\xfdopaque to the gateway"], False),
        ("identity", EVENTS, True),
        ("gzip", zipped(EVENTS), True),
        ("br", [b"\x0b\x02\x80", b"opaque", b"\x03"], False),
    ],
)
def test_any_content_coding_passes(
    line: Line, accepted: str | None, coding: str, body: list[bytes], counted: bool
) -> None:
    """A coded answer reaches the client as it is, whatever the client asked for."""
    kind = JSON if len(body) == 1 else EVENT_STREAM

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream([*kind, ("Content-Encoding", coding)])
        for piece in body:
            connection.chunk(piece)
        connection.end()

    line.upstream.handler = handler
    wanted = [("accept-encoding", accepted)] if accepted is not None else []
    answer = line.ask(request_body(), headers=request_headers(*wanted))
    assert (answer.status, answer.body) == (200, b"".join(body))
    assert answer.value("content-encoding") == coding
    record = line.record(answer)
    assert record["kongai"]["ended"] == "ok"
    assert record["kongai"].get("usage_unread", False) is not counted
    usage = record["ai"]["proxy"]["usage"]
    assert usage["total_tokens"] == (148 if counted else 0)


def test_an_upstream_is_asked_for_what_can_be_read_where_it_is_read(
    line: Line,
) -> None:
    """What is not counted may come in any coding that the client takes; a stream that
    is counted comes plain."""
    headers = request_headers(("accept-encoding", "gzip, br"))
    line.ask(request_body(), headers=headers)
    line.ask(request_body(stream=True), headers=headers)
    line.ask(request_body(), "/anything/v1/messages/count_tokens", headers=headers)
    asked = [request.values("accept-encoding") for request in line.upstream.requests]
    assert asked == [["gzip, identity"], ["identity"], ["gzip, br"]]


# How much, and in what order


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
def test_the_limit_of_bodies_is_exact(
    line: Line, size: int, status: int, framing: str
) -> None:
    body = body_of(size)
    assert len(body) == size
    with raw(line.gateway) as sock:
        if framing == "length":
            sock.sendall(head(length=size) + body)
        else:
            sock.sendall(head("POST", PATH, ("Transfer-Encoding", "chunked")))
            for start in range(0, size, 50_000):
                piece = body[start : start + 50_000]
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            sock.sendall(b"0\r\n\r\n")
        answer = read_answer(sock)
    assert answer.status == status
    record = line.record(answer)
    assert record["response"]["status"] == status
    if status == 413:
        kind, text = envelope(answer)
        assert kind == "request_too_large"
        assert str(LIMIT) in text
        assert line.upstream.requests == []
        assert record["kongai"]["ended"] == "too_large"
        assert record["tries"] == []


def test_a_refusal_is_not_the_connections_end(line: Line) -> None:
    """What came whole and is wrong leaves the next request where it is."""
    wrong = [(PATH, b'{"messages": []}', 400), ("/nowhere", b"{}", 404)]
    with closing(line.connect()) as connection:
        for path, body, status in wrong:
            answer = exchange(connection, "POST", path, body)
            assert answer.status == status
            assert exchange(connection, "POST", PATH, request_body()).status == 200
            if path == PATH:
                assert envelope(answer)[0] == "invalid_request_error"
                assert line.record(answer)["kongai"]["ended"] == "bad_request"
    assert len(line.upstream.requests) == len(wrong)


def test_an_endless_upload_is_answered_and_cut(line: Line) -> None:
    """Nobody has to send the rest of what is refused, nor can keep the gateway busy."""
    piece = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with raw(line.gateway) as sock:
        sock.sendall(head("POST", PATH, ("Transfer-Encoding", "chunked")))
        with suppress(ConnectionError):
            for _ in range(100 * MIB // len(piece)):
                sock.sendall(piece)
            pytest.fail("100 MiB were taken")
        assert envelope(read_answer(sock))[0] == "request_too_large"


def test_without_a_limit_in_the_file_the_apis_own_holds() -> None:
    """30 MB pass; 33 MB are more than 32 MiB."""
    setting = f"      max_request_body_size: {LIMIT}\n"
    config = howto_config("UPSTREAM/v1/messages")
    assert setting in config
    with own_line(config.replace(setting, "")) as line:
        body = body_of(30_000_000)
        assert line.ask(body).status == 200
        assert line.upstream.requests[0].body == body
        too_much = b" " * 33_600_000
        with raw(line.gateway) as sock:
            with suppress(ConnectionError):
                sock.sendall(head(length=len(too_much)) + too_much)
            answer = read_answer(sock)
        assert answer.status == 413
        kind, text = envelope(answer)
        assert kind == "request_too_large"
        assert str(32 * MIB) in text
        assert line.record(answer)["kongai"]["ended"] == "too_large"
        assert len(line.upstream.requests) == 1


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
def test_a_client_that_waits_is_told_to_go_on(line: Line, expect: str) -> None:
    body = request_body()
    with raw(line.gateway) as sock:
        sock.sendall(head("POST", PATH, ("Expect", expect), length=len(body)))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        answer = read_answer(sock)
        assert answer.status == 200
        sock.sendall(head(length=len(body)) + body)
        assert read_answer(sock).status == 200
    first, _ = line.upstream.requests
    assert (first.body, first.values("expect")) == (body, [])


def test_a_client_that_waits_is_refused_before_it_sends(line: Line) -> None:
    with raw(line.gateway) as sock:
        sock.sendall(head("POST", PATH, ("Expect", "100-continue"), length=LIMIT + 1))
        answer = read_answer(sock)
        assert answer.status == 413
        assert answer.value("connection") == "close"
        assert sock.recv(1) == b""
    assert line.record(answer)["kongai"]["ended"] == "too_large"


def test_pipelined_requests_are_answered_in_order(line: Line) -> None:
    def echo(request: Request, connection: Connection) -> None:
        connection.respond(200, body=request.body)

    line.upstream.handler = echo
    bodies = [request_body(number=number) for number in range(4)]
    questions = [head(length=len(body)) + body for body in bodies]
    greeting = head("HEAD", "/anything") + head("GET", "/anything")
    with raw(line.gateway) as sock:
        sock.sendall(b"".join(questions[:2]) + greeting + b"".join(questions[2:]))
        with sock.makefile("rb") as stream:
            answers = [
                next_answer(stream, method)
                for method in ("POST", "POST", "HEAD", "GET", "POST", "POST")
            ]
    assert [answer.status for answer in answers] == [200] * 6
    assert [answers[n].body for n in (0, 1, 4, 5)] == bodies
    assert len({answer.value("x-kong-request-id") for answer in answers}) == 6
    for answer in answers:
        assert line.record(answer)["kongai"]["ended"] == "ok"


def next_answer(stream: BinaryIO, method: str) -> Answer:
    """The next answer, framed by a length, of a stream that holds more of them."""
    _, status, reason = stream.readline().decode().split(" ", 2)
    headers = parse_headers(stream)
    length = int(headers["content-length"])
    body = b"" if method == "HEAD" else stream.read(length)
    return Answer(int(status), reason.strip(), headers.items(), body)


@pytest.mark.parametrize("path", ["/anything", "/anything/"])
def test_whoever_looks_in_is_greeted_at_once(line: Line, path: str) -> None:
    """Claude Code starts with a HEAD of the base path."""
    delays = []
    with closing(line.connect()) as connection:
        for method in ("HEAD", "GET", "HEAD", "GET"):
            start = time.monotonic()
            answer = exchange(connection, method, path)
            delays.append(time.monotonic() - start)
            assert answer.status == 200
            assert bool(answer.body) is (method == "GET")
            assert line.record(answer)["response"]["status"] == 200
    assert min(delays) < 0.05, delays
    assert line.upstream.requests == []


def test_a_head_of_another_path_is_relayed(line: Line) -> None:
    """Its answer announces a length and has no body; the next one must be right."""
    line.upstream.handler = answering(b"hello")
    with closing(line.connect()) as connection:
        for method, body in [("HEAD", b""), ("GET", b"hello")]:
            answer = exchange(connection, method, "/anything/api/hello")
            assert (answer.status, answer.body) == (200, body)
            assert answer.value("content-length") == "5"
            assert line.record(answer)["kongai"]["ended"] == "ok"
    assert [r.method for r in line.upstream.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/messages/count_tokens?beta=true", request_body()),
        ("GET", "/v1/models?limit=1000", b""),
        ("GET", "/v1/models/claude-haiku-4-5", b""),
        ("POST", "/v1/messages/batches", b'{"requests": []}'),
        ("POST", "/v1/messages/batches/msgbatch_1/cancel", b""),
        ("GET", "/v1/messages/batches/msgbatch_1/results", b""),
        ("GET", "/v1/files/file_1/content", b""),
        ("DELETE", "/v1/files/file_1", b""),
    ],
)
def test_the_other_paths_of_the_api_are_relayed(
    line: Line, method: str, target: str, body: bytes
) -> None:
    """Without count_tokens, for one, a client counts by paid calls."""
    line.upstream.handler = answering(b'{"input_tokens": 25003}')
    start = time.monotonic()
    with closing(line.connect()) as connection:
        answer = exchange(connection, method, f"/anything{target}", body)
    assert time.monotonic() - start < 3
    assert (answer.status, answer.body) == (200, b'{"input_tokens": 25003}')
    [request] = line.upstream.requests
    assert (request.method, request.target, request.body) == (method, target, body)
    assert request.values("x-api-key") == [KEY]
    record = line.record(answer)
    assert record["upstream_uri"] == target
    assert record["ai"]["proxy"].get("usage", {}).get("total_tokens", 0) == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_file_is_passed_on_while_it_comes(framing: str) -> None:
    """An upload is not gathered first, and no limit of prompts applies to it."""
    data = bytes(range(256)) * (5 * MIB // 256)
    first, rest = data[:MIB], data[MIB:]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = howto_config(f"http://127.0.0.1:{port}/v1/messages")
        with Gateway(config) as gateway:
            with raw(gateway) as sock:
                if framing == "length":
                    sock.sendall(head("POST", "/anything/v1/files", length=len(data)))
                    sock.sendall(first)
                else:
                    coded = ("Transfer-Encoding", "chunked")
                    sock.sendall(head("POST", "/anything/v1/files", coded))
                    sock.sendall(b"%x\r\n%b\r\n" % (len(first), first))
                listener.settimeout(5)
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(5)
                    received = b""
                    # All but what a buffer may hold back is there before the rest is.
                    while len(received) < MIB - 65536:
                        received += peer.recv(65536)
                    if framing == "length":
                        ending = rest
                    else:
                        ending = b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
                    sender = threading.Thread(target=sock.sendall, args=(ending,))
                    sender.start()
                    received += _rest_of_request(peer, received, len(data))
                    sender.join()
                    peer.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
                    answer = read_answer(sock)
            assert (answer.status, answer.body) == (200, b"{}")
            record = record_of(gateway, answer)
    received_head, _, body = received.partition(b"\r\n\r\n")
    assert received_head.startswith(b"POST /v1/files HTTP/1.1\r\n")
    if framing == "chunked":
        body = _unchunked(body)
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
    assert record["request"]["size"] > len(data)


def _rest_of_request(peer: socket.socket, begun: bytes, length: int) -> bytes:
    received = begun
    head_size = begun.index(b"\r\n\r\n") + 4
    chunked = b"transfer-encoding: chunked" in begun[:head_size].lower()
    while not (
        received.endswith(b"\r\n0\r\n\r\n")
        if chunked
        else len(received) >= head_size + length
    ):
        piece = peer.recv(MIB)
        assert piece, "the gateway left"
        received += piece
    return received[len(begun) :]


def _unchunked(coded: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        size, _, coded = coded.partition(b"\r\n")
        if not int(size, 16):
            return b"".join(pieces)
        pieces.append(coded[: int(size, 16)])
        coded = coded[int(size, 16) + 2 :]


# What goes wrong above


def test_an_upstream_that_is_down() -> None:
    """A refused connection is tried again: nothing was sent, nothing is billed."""
    with (
        closed_port() as port,
        own_line(howto_config(f"http://127.0.0.1:{port}/v1/messages")) as line,
    ):
        answer = line.ask(request_body(stream=True))
        assert answer.status == 502
        text = "An invalid response was received from the upstream server"
        assert envelope(answer) == ("api_error", text)
        record = line.record(answer)
    assert record["kongai"]["ended"] == "connect"
    assert record["source"] == "kong"
    assert [attempt["code"] for attempt in record["tries"]] == [502] * 6
    assert {attempt["state"] for attempt in record["tries"]} == {"failed"}


def test_an_upstream_without_an_address() -> None:
    # Longer than any name can be, so that no name server is asked.
    name = ".".join(["a" * 60] * 5)
    with own_line(howto_config(f"http://{name}/v1/messages")) as line:
        answer = line.ask(request_body())
        assert answer.status == 503
        assert envelope(answer)[1] == "name resolution failed"
        assert line.record(answer)["kongai"]["ended"] == "dns"


def hang(request: Request, connection: Connection) -> None:
    """A handler that says nothing."""
    assert connection.closed_by_peer(5)


def interim_storm(request: Request, connection: Connection) -> None:
    """A handler that never comes to the point."""
    connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20)
    connection.close()


@pytest.mark.parametrize(
    ("handler", "status", "kind", "ended"),
    [
        (hang, 504, "timeout_error", "first_byte_timeout"),
        (interim_storm, 502, "api_error", "upstream_protocol"),
        (lambda _, c: c.reset(), 502, "api_error", "upstream_protocol"),
        (lambda _, c: c.close(), 502, "api_error", "upstream_protocol"),
        (
            lambda _, c: c.send(b"SSH-2.0\r\n\r\n"),
            502,
            "api_error",
            "upstream_protocol",
        ),
    ],
    ids=["silence", "interim answers", "reset", "close", "not HTTP"],
)
def test_an_upstream_without_an_answer(
    impatient: Line, handler: Handler, status: int, kind: str, ended: str
) -> None:
    """A prompt that may have arrived is not sent twice: it would be billed twice."""
    line, upstream = impatient, impatient.upstream
    upstream.requests.clear()
    upstream.handler = handler
    answer = line.ask(request_body())
    assert answer.status == status
    assert envelope(answer)[0] == kind
    record = line.record(answer)
    assert record["kongai"]["ended"] == ended
    assert len(record["tries"]) == len(upstream.requests) == 1
    upstream.handler = whole
    assert line.ask(request_body()).status == 200


@pytest.mark.parametrize("break_off", [Connection.close, Connection.reset])
@pytest.mark.parametrize("sent", [1, 4, 6])
def test_a_stream_that_is_cut_within_an_event(
    line: Line, sent: int, break_off: Callable[[Connection], None]
) -> None:
    """The client gets what there was, then an error in its own format, and no end."""
    begun = b"".join(EVENTS[:sent]) + EVENTS[sent][:-12]
    received = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(begun)
        assert received.wait(5)  # what a reset overtakes is lost
        break_off(connection)

    line.upstream.handler = handler
    body = request_body(stream=True)
    with raw(line.gateway) as sock:
        sock.sendall(head("POST", f"{PATH}&cut", length=len(body)) + body)
        with closing(HTTPResponse(sock, method="POST")) as response:
            response.begin()
            assert response.read(len(begun)) == begun
            received.set()
            with pytest.raises(IncompleteRead) as cut:
                response.read()
            request_id = response.headers["x-kong-request-id"]
        assert sock.recv(1) == b""
    error = cut.value.partial
    assert events([begun[-1:] + error])[-1] == (
        "error",
        {
            "type": "error",
            "error": {"type": "api_error", "message": "upstream stream ended early"},
            "request_id": request_id,
        },
    )
    record = line.record(request_id)
    assert record["kongai"]["ended"] == "upstream_cut"
    assert record["response"]["status"] == 200
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_that_ends_well_without_its_last_event(
    line: Line, framing: str
) -> None:
    """What the upstream calls complete, the API's own format does not."""

    def until_closed(request: Request, connection: Connection) -> None:
        connection.send(OK + b"Content-Type: text/event-stream\r\n\r\n")
        connection.send(b"".join(EVENTS[:-1]))
        connection.close()

    line.upstream.handler = (
        streaming(*EVENTS[:-1]) if framing == "chunked" else until_closed
    )
    body = request_body(stream=True)
    with raw(line.gateway) as sock:
        sock.sendall(head(length=len(body)) + body)
        headers, received = read_cut_answer(sock)
    assert received.startswith(b"".join(EVENTS[:-1]))
    *said, (kind, error) = events([received])
    assert [name for name, _ in said][-1] == "message_delta"
    assert (kind, error["error"]["type"]) == ("error", "api_error")
    record = line.record(dict(headers)["X-Kong-Request-Id"])
    assert record["kongai"]["ended"] == "no_terminal_event"
    assert record["ai"]["proxy"]["usage"]["completion_tokens"] == USAGE.output


def test_a_stream_that_falls_silent(impatient: Line) -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        assert connection.closed_by_peer(5)

    line = impatient
    line.upstream.handler = handler
    body = request_body(stream=True)
    with raw(line.gateway) as sock:
        sock.sendall(head(length=len(body)) + body)
        headers, received = read_cut_answer(sock)
    assert received.startswith(EVENTS[0])
    assert events([received])[-1][0] == "error"
    record = line.record(dict(headers)["X-Kong-Request-Id"])
    assert record["kongai"]["ended"] == "stream_idle_timeout"


@pytest.mark.parametrize(
    ("pieces", "ended"),
    [
        (zipped(EVENTS)[:-1], "upstream_cut"),
        (zipped(EVENTS[:-1]), "no_terminal_event"),
    ],
)
def test_a_coded_stream_that_ends_early(
    line: Line, pieces: list[bytes], ended: str
) -> None:
    """An event in plain text would be noise in a coded stream: it is only cut."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream([*EVENT_STREAM, ("Content-Encoding", "gzip")])
        for piece in pieces:
            connection.chunk(piece)
        connection.end()

    line.upstream.handler = handler
    body = request_body(stream=True)
    with raw(line.gateway) as sock:
        sock.sendall(head(length=len(body)) + body)
        headers, received = read_cut_answer(sock)
    assert received == b"".join(pieces)
    record = line.record(dict(headers)["X-Kong-Request-Id"])
    assert record["kongai"]["ended"] == ended
    assert record["ai"]["proxy"]["usage"]["completion_tokens"] == USAGE.output


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 999", b"Transfer-Encoding: chunked"]
)
def test_a_whole_answer_that_is_cut(line: Line, framing: bytes) -> None:
    """Half a JSON object must not look like an answer."""
    begun = WHOLE[:60]
    coded = begun if b"Length" in framing else b"%x\r\n%b\r\n" % (len(begun), begun)

    def handler(request: Request, connection: Connection) -> None:
        connection.send(OK + b"Content-Type: application/json\r\n")
        connection.send(framing + b"\r\n\r\n" + coded)
        connection.close()

    line.upstream.handler = handler
    body = request_body()
    with raw(line.gateway) as sock:
        sock.sendall(head(length=len(body)) + body)
        headers, received = read_cut_answer(sock)
    assert received == begun
    record = line.record(dict(headers)["X-Kong-Request-Id"])
    assert record["kongai"]["ended"] == "upstream_cut"


@pytest.mark.parametrize("joined", [True, False])
def test_early_hints_do_not_shift_the_answers(line: Line, joined: bool) -> None:
    """Taken for the answer, a 103 would give the next user this user's answer."""

    def handler(request: Request, connection: Connection) -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        hints += b"HTTP/1.1 100 Continue\r\n\r\n"
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        reply += b"Content-Length: %d\r\n\r\n" % len(request.body) + request.body
        if joined:
            connection.send(hints + reply)
        else:
            connection.send(hints)
            connection.sleep(0.02)
            connection.send(reply)

    line.upstream.handler = handler
    for number in range(3):
        body = request_body(number=number)
        answer = line.ask(body)
        assert (answer.status, answer.body) == (200, body)


# The log


def test_a_log_that_cannot_be_written_never_hurts_traffic() -> None:
    config = howto_config("UPSTREAM/v1/messages", "/nowhere/at/all.json")
    with own_line(config) as line:
        assert line.ask(request_body()).status == 200
        line.upstream.handler = streamed
        assert line.ask(request_body()).body == b"".join(EVENTS)
        assert line.gateway.stop() == 0
        errors = line.gateway.stderr_text().splitlines()[1:]
    text = "failed to open the file: No such file or directory"
    assert [text in error for error in errors] == [True] * 2


def test_forty_requests_at_once_are_forty_lines(line: Line) -> None:
    count = 40
    meeting = threading.Barrier(count)

    def handler(request: Request, connection: Connection) -> None:
        meeting.wait(5)
        streamed(request, connection)

    line.upstream.handler = handler
    with ThreadPoolExecutor(count) as pool:
        paths = [f"{PATH}&parallel={number}." for number in range(count)]
        answers = list(pool.map(lambda p: line.ask(request_body(), p), paths))
    assert [answer.body for answer in answers] == [b"".join(EVENTS)] * count
    for path, answer in zip(paths, answers, strict=True):
        record = line.record(answer)
        assert record["request"]["uri"] == path
        assert record["ai"]["proxy"]["usage"]["total_tokens"] == 148
    uris = [record["request"]["uri"] for record in line.gateway.records(0)]
    assert len([uri for uri in uris if "&parallel=" in uri]) == count


@pytest.mark.parametrize("handler", [whole, streamed, Connection.reset])
def test_keys_are_written_nowhere(line: Line, handler: Any) -> None:
    """The upstream sees them all; no file does, whatever happens."""
    if handler is Connection.reset:
        line.upstream.handler = lambda _, connection: connection.reset()
    else:
        line.upstream.handler = handler
    query = f"?beta=true&key={PLAIN_KEY}&api%5Fkey={PLAIN_KEY}&x={KEY}"
    more = [
        ("X-Goog-Api-Key", PLAIN_KEY),
        ("Cookie", f"session={PLAIN_KEY}"),
        ("x-odd", KEY),
    ]
    body = request_body(metadata={"user_id": KEY}, stream=True)
    answer = line.ask(
        body, f"/anything/v1/messages{query}", headers=request_headers(*more)
    )
    [request] = line.upstream.requests
    assert request.target == f"/v1/messages{query}"
    assert request.values("x-api-key") == [KEY]
    assert request.values("authorization") == [f"Bearer {KEY}"]
    record = line.record(answer)
    logged = record["request"]["headers"]
    for name in ("x-api-key", "authorization", "x-goog-api-key", "cookie"):
        assert logged[name] == "REDACTED"
    assert record["request"]["querystring"] == {
        "beta": "true",
        **dict.fromkeys(("key", "api_key", "x"), "REDACTED"),
    }
    assert_no_secret(line.gateway)


@pytest.mark.parametrize("target", ["/abc", "h:443"])
def test_a_tunnel_is_refused_and_nobody_else_waits(line: Line, target: str) -> None:
    with raw(line.gateway) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 405 ")
    line.upstream.handler = whole
    assert line.ask(request_body()).status == 200


def test_a_cut_stream_does_not_look_complete_to_an_old_client(line: Line) -> None:
    """HTTP/1.0 has no chunks: closing is the end, so only a reset tells a cut."""

    def cut(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(b"event: ping\ndata: {}\n\n")
        connection.close()

    line.upstream.handler = cut
    body = request_body(stream=True)
    head = (
        f"POST {PATH} HTTP/1.0\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with raw(line.gateway) as sock:
        sock.sendall(head.encode() + body)
        assert b"event: error" in until_reset(sock)


def until_reset(sock: socket.socket) -> bytes:
    """What comes before a reset; the end of a connection in good order is none."""
    received = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            return received
        assert piece, "the connection was closed in good order"
        received += piece
