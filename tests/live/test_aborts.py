"""Clients that leave: the upstream is let go at once, and what was used is counted."""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from .anthropic_api import message_events, sse
from .conftest import MODEL, PATH, USAGE, Line, record_where, request_body
from .harness import LOG_PATH, Gateway, howto_config, wait_until
from .ports import black_hole
from .upstream import Connection, Request

_logger = logging.getLogger(__name__)
NOTICED_WITHIN = 0.5
"""Seconds; a machine that is not busy needs a few milliseconds."""
EVENTS = list(message_events("one two three four", USAGE, model=MODEL))
BODY = request_body(stream=True)

Handler = Callable[[Request, Connection], None]
Leave = Callable[[socket.socket], None]


def fin(sock: socket.socket) -> None:
    """Leave in good order."""
    sock.close()


def rst(sock: socket.socket) -> None:
    """Leave with a reset, as a process that is killed with bytes unread."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half(sock: socket.socket) -> None:
    """Stop sending only, which counts as gone, as it does for nginx."""
    sock.shutdown(socket.SHUT_WR)


leaving = pytest.mark.parametrize("leave", [fin, rst, half])


@contextmanager
def client(gateway: Gateway) -> Iterator[socket.socket]:
    """A client's connection for bytes as they are."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        yield sock


def head(mark: str, framing: str, path: str = PATH) -> bytes:
    """A request's head; its mark is how the record is found."""
    return (
        f"POST {path}&mark={mark}. HTTP/1.1\r\nHost: gateway\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    ).encode()


def question(mark: str) -> bytes:
    """A whole request."""
    return head(mark, f"Content-Length: {len(BODY)}") + BODY


def receive(sock: socket.socket, what: bytes) -> None:
    """Read until this has come."""
    received = b""
    while what not in received:
        piece = sock.recv(65536)
        assert piece, received
        received += piece


def saying(*events: bytes) -> Handler:
    """A handler that starts a stream, says this much, and then nothing more."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in events:
            connection.chunk(event)
        assert connection.closed_by_peer(5)

    return handler


def assert_let_go(line: Line, left_at: float) -> None:
    """The upstream saw its connection close, and how soon."""
    connection = wait_until(lambda: line.upstream.connections, "connection")[0]
    assert connection.closed_by_peer(5)
    taken = time.monotonic() - left_at
    _logger.info("the upstream saw the close after %.1f ms", taken * 1000)
    assert taken < NOTICED_WITHIN


def the_record(line: Line, mark: str) -> dict[str, Any]:
    """The only record of the marked request, also after the next one has its own."""

    def marked(request: dict[str, Any]) -> bool:
        return f"mark={mark}." in request["uri"]

    record_where(line.gateway, marked)
    line.upstream.handler = saying_all
    answer = line.ask(BODY)
    assert answer.body == b"".join(EVENTS)
    assert line.record(answer)["kongai"]["ended"] == "ok"
    return record_where(line.gateway, marked)


def saying_all(request: Request, connection: Connection) -> None:
    """A handler that answers."""
    connection.start_stream()
    for event in EVENTS:
        connection.chunk(event)
    connection.end()


@leaving
@pytest.mark.parametrize(
    ("framing", "begun"),
    [
        ("Content-Length: 5000", b""),
        ("Content-Length: 5000", BODY),
        ("Transfer-Encoding: chunked", b"1388\r\n" + BODY),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(BODY), BODY)),
        ("Content-Length: 5000\r\nExpect: 100-continue", b""),
    ],
)
def test_during_the_upload_of_a_prompt(
    line: Line, leave: Leave, framing: str, begun: bytes
) -> None:
    """Half a prompt is nobody's business."""
    mark = f"upload{abs(hash((framing, begun, leave.__name__)))}"
    with client(line.gateway) as sock:
        sock.sendall(head(mark, framing) + begun)
        if "Expect" in framing:
            receive(sock, b"100 Continue")
        leave(sock)
        record = the_record(line, mark)
    assert len(line.upstream.requests) == 1  # the next one's
    assert record["kongai"] == {"ended": "client_abort", "phase": "request"}
    assert record["response"]["status"] == 499
    assert record["tries"] == []
    assert record["ai"]["proxy"]["usage"]["total_tokens"] == 0


@leaving
@pytest.mark.parametrize(
    ("framing", "begun"),
    [
        ("Content-Length: 5000000", b"x" * 100_000),
        ("Transfer-Encoding: chunked", b"186a0\r\n" + b"x" * 100_000 + b"\r\n"),
    ],
)
def test_during_the_upload_of_a_file(
    line: Line, leave: Leave, framing: str, begun: bytes
) -> None:
    """The upstream, which has part of the file, must not take it for the whole."""
    mark = f"file{len(framing)}{leave.__name__}"
    with client(line.gateway) as sock:
        sock.sendall(head(mark, framing, "/anything/v1/files?") + begun)
        wait_until(lambda: line.upstream.connections, "connection")
        left_at = time.monotonic()
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert len(line.upstream.requests) == 1  # the next one's
    assert record["kongai"] == {"ended": "client_abort", "phase": "request"}
    assert record["response"]["status"] == 499


@leaving
def test_before_the_upstream_answers(line: Line, leave: Leave) -> None:
    mark = f"silent-{leave.__name__}"
    line.upstream.handler = lambda _, c: None if c.closed_by_peer(5) else c.close()
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        line.upstream.wait_for_requests(1)
        left_at = time.monotonic()
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert record["kongai"] == {"ended": "client_abort", "phase": "upstream"}
    assert record["response"]["status"] == 499
    assert record["upstream_status"] == ""
    assert len(record["tries"]) == 1
    meta = record["ai"]["proxy"]["meta"]
    assert (meta["request_model"], meta["request_mode"]) == (MODEL, "stream")


@leaving
@pytest.mark.parametrize(
    ("said", "prompt", "completion", "estimated"),
    [
        # "one two t" and "hree four" are the deltas: 9 characters each.
        pytest.param(0, 0, 0, None, id="before the first event"),
        pytest.param(1, USAGE.input, 0, None, id="after message_start"),
        pytest.param(4, USAGE.input, 3, True, id="after one delta"),
        pytest.param(6, USAGE.input, 5, True, id="after all deltas"),
        pytest.param(7, USAGE.input, USAGE.output, None, id="after message_delta"),
        pytest.param(8, USAGE.input, USAGE.output, None, id="after the last event"),
    ],
)
def test_while_a_stream_is_silent(
    line: Line,
    leave: Leave,
    said: int,
    prompt: int,
    completion: int,
    estimated: bool | None,
) -> None:
    """The prompt is known from the first event on; the answer so far is estimated."""
    mark = f"stream{said}-{leave.__name__}"
    line.upstream.handler = saying(*EVENTS[:said])
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        receive(sock, EVENTS[said - 1] if said else b"\r\n\r\n")
        left_at = time.monotonic()
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert record["kongai"]["ended"] == "client_abort"
    assert record["kongai"]["phase"] == "response"
    assert record["kongai"].get("usage_estimated") is estimated
    assert record["response"]["status"] == 200
    assert record["upstream_status"] == "200"
    usage = record["ai"]["proxy"]["usage"]
    assert usage["prompt_tokens"] == prompt
    assert usage["completion_tokens"] == completion
    assert (usage["cost"] > 0) is (prompt > 0)


@leaving
def test_behind_a_request_sent_early(line: Line, leave: Leave) -> None:
    """A second request, sent while the first is answered, does not hide the leaving."""
    mark = f"early-{leave.__name__}"
    line.upstream.handler = saying(*EVENTS[:4])
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        receive(sock, EVENTS[3])
        left_at = time.monotonic()
        sock.sendall(question("never answered"))
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert record["kongai"]["ended"] == "client_abort"
    assert record["kongai"]["phase"] == "response"


@leaving
def test_within_a_whole_answer(line: Line, leave: Leave) -> None:
    mark = f"whole-{leave.__name__}"

    def handler(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
        assert connection.closed_by_peer(5)

    line.upstream.handler = handler
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        receive(sock, b"\r\n\r\n{")
        left_at = time.monotonic()
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert record["kongai"]["ended"] == "client_abort"
    assert record["kongai"]["phase"] == "response"
    assert record["response"]["status"] == 200


@pytest.mark.parametrize("leave", [fin, rst])
def test_without_reading(line: Line, leave: Leave) -> None:
    """An answer that nobody reads holds up nobody else."""
    mark = f"unread-{leave.__name__}"
    delta = {"type": "text_delta", "text": "x" * 65536}
    event = sse("content_block_delta", {"type": "content_block_delta", "delta": delta})

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        while True:  # until the gateway, and then the socket, refuses more
            connection.chunk(event)

    line.upstream.handler = handler
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        receive(sock, EVENTS[0])
        line.upstream.handler = saying_all
        assert line.ask(BODY).body == b"".join(EVENTS)
        left_at = time.monotonic()
        leave(sock)
        assert_let_go(line, left_at)
        record = the_record(line, mark)
    assert record["kongai"] == {
        "ended": "client_abort",
        "phase": "response",
        "usage_estimated": True,
        "price": "table",
    }
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input


@pytest.mark.parametrize("leave", [fin, rst])
def test_after_the_end(line: Line, leave: Leave) -> None:
    """Whoever has had everything may go."""
    mark = f"end-{leave.__name__}"
    line.upstream.handler = saying_all
    with client(line.gateway) as sock:
        sock.sendall(question(mark))
        receive(sock, b"\r\n0\r\n\r\n")
        leave(sock)
        record = the_record(line, mark)
    assert record["kongai"]["ended"] == "ok"
    assert record["ai"]["proxy"]["usage"]["completion_tokens"] == USAGE.output


def test_a_connection_without_a_request_leaves_nothing(line: Line) -> None:
    """Only what was asked is recorded."""
    before = len(line.gateway.records(0))
    for sent in (b"", b"POST / HT", head("half-a-head", "")[:-4]):
        for leave in (fin, rst, half):
            with client(line.gateway) as sock:
                sock.sendall(sent)
                leave(sock)
    record = line.record(line.ask(BODY))
    assert record["kongai"]["ended"] == "ok"
    assert len(line.gateway.records(0)) == before + 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_stays_open(line: Line) -> None:
    """However many leave, no socket of theirs is kept."""

    def open_files() -> int:
        return len(os.listdir(f"/proc/{line.gateway.pid}/fd"))

    line.upstream.handler = saying_all
    line.ask(BODY)
    before = open_files()
    line.upstream.handler = saying(*EVENTS[:4])
    for number in range(20):
        with client(line.gateway) as sock:
            sock.sendall(question(f"many-{number}"))
            receive(sock, EVENTS[3])
            rst(sock)
    wait_until(lambda: open_files() <= before, "return to the files open before")


HALF_EVENT = EVENTS[3][: len(EVENTS[3]) // 2]
PHASES = {
    "connect": ([], "upstream"),
    "before headers": ([], "upstream"),
    "first event": (EVENTS[:1], "response"),
    "mid-event": ([*EVENTS[:3], HALF_EVENT], "response"),
    "after the last event": (EVENTS, "response"),
    "upload": ([], "request"),
}
"""What the upstream has said, and what the record says of the phase."""


@pytest.mark.soak
@pytest.mark.timeout(300)
@leaving
@pytest.mark.parametrize("phase", PHASES)
def test_twenty_times(line: Line, leave: Leave, phase: str) -> None:
    """However often: the upstream is let go at once, and there is one record."""
    said, word = PHASES[phase]
    known, taken = len(line.gateway.records(0)), []
    with ExitStack() as stack:
        gateway = line.gateway
        if phase == "connect":
            port = stack.enter_context(black_hole())
            config = howto_config(f"http://127.0.0.1:{port}/v1/messages")
            gateway, known = stack.enter_context(Gateway(config)), 0
        for number in range(20):
            taken.append(left_after(line, gateway, leave, phase, number))
            records = gateway.records(known + number + 1)
            assert len(records) == known + number + 1
            assert f"mark={marked(phase, number)}." in records[-1]["request"]["uri"]
            assert records[-1]["kongai"]["ended"] == "client_abort"
            assert records[-1]["kongai"]["phase"] == word
            usage = records[-1]["ai"]["proxy"].get("usage", {})
            assert bool(usage.get("prompt_tokens")) is bool(said)
    taken.sort()
    figures = f"p50 {taken[9] * 1000:.1f} ms, max {taken[-1] * 1000:.1f} ms"
    print(f"abort, {phase}, {leave.__name__}: 20 of 20, {figures}")  # noqa: T201
    assert taken[9] < 0.1
    assert taken[-1] < NOTICED_WITHIN


def marked(phase: str, number: int) -> str:
    """The mark of one of these requests."""
    return f"{phase.partition(' ')[0]}-{number}"


def left_after(
    line: Line, gateway: Gateway, leave: Leave, phase: str, number: int
) -> float:
    """Leave in this phase; the seconds until the upstream saw its connection close.

    Until the record is there, where there is no connection yet.
    """
    said, _ = PHASES[phase]
    line.upstream.connections.clear()
    before, heard = len(gateway.records(0)), len(line.upstream.requests)
    line.upstream.handler = (
        saying(*said) if said else lambda _, c: None if c.closed_by_peer(5) else None
    )
    mark = marked(phase, number)
    with client(gateway) as sock:
        if phase == "upload":
            path = "/anything/v1/files?"
            sock.sendall(head(mark, "Content-Length: 5000000", path) + b"x" * 100_000)
        elif phase == "connect":
            sock.sendall(question(mark))
            time.sleep(0.05)  # nothing can be seen from outside
        else:
            sock.sendall(question(mark))
            line.upstream.wait_for_requests(heard + 1)
        if said:
            receive(sock, said[-1])
        if phase != "connect":
            connections = line.upstream.connections
            wait_until(lambda: connections, "connection")
        left_at = time.monotonic()
        leave(sock)
        if phase == "connect":
            gateway.records(before + 1)
        else:
            assert connections[0].closed_by_peer(5)
        return time.monotonic() - left_at


@pytest.mark.parametrize("leave", [fin, rst])
def test_while_the_body_comes_and_nobody_takes_it(leave: Leave) -> None:
    """What is passed on as it comes waits for the upstream; the client need not."""
    with black_hole() as port:
        config = f"""
_format_version: "3.0"
services:
- name: files
  url: http://127.0.0.1:{port}
  routes: [{{name: files, paths: [/files]}}]
plugins:
- name: file-log
  config: {{path: {LOG_PATH}}}
"""
        with Gateway(config) as gateway:
            host, _, at = gateway.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(at)), timeout=5) as sock:
                head = (
                    b"POST /files HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
                )
                sock.sendall(head + b"x" * 100)
                time.sleep(0.2)
                left_at = time.monotonic()
                leave(sock)
                [record] = gateway.records(1)
            assert time.monotonic() - left_at < 1
            assert record["kongai"] == {"ended": "client_abort", "phase": "upstream"}
