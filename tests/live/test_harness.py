"""The doubles keep their word: what the other tests build on."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from . import harness
from .harness import (
    Connection,
    FakeUpstream,
    Gateway,
    Request,
    ToolUse,
    Usage,
    howto_config,
    message_events,
)

Handler = Callable[[Request, Connection], None]
OnConnect = Callable[[Connection], None]
GET = b"GET / HTTP/1.1\r\n\r\n"

pytestmark = pytest.mark.timeout(30)


def echo(request: Request, connection: Connection) -> None:
    """Answer with the body that came."""
    connection.respond(200, body=request.body)


@contextmanager
def connected(upstream: FakeUpstream) -> Iterator[socket.socket]:
    """A raw connection to the upstream."""
    host, _, port = upstream.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        yield sock


def told(
    handler: Handler, request: bytes, on_connect: OnConnect = lambda connection: None
) -> bytes:
    """All that an upstream says to one request, up to its closing."""
    with (
        FakeUpstream(handler, on_connect=on_connect) as upstream,
        connected(upstream) as sock,
    ):
        sock.sendall(request)
        with sock.makefile("rb") as stream:
            return stream.read()


def answers(sock: socket.socket, count: int) -> list[bytes]:
    """The bodies of the next answers on a connection."""
    bodies = []
    for _ in range(count):
        with closing(http.client.HTTPResponse(sock)) as answer:
            answer.begin()
            bodies.append(answer.read())
    return bodies


def test_headers_keep_their_case_and_order() -> None:
    """A request is noted as it was on the wire."""
    with FakeUpstream(echo) as upstream, connected(upstream) as sock:
        sock.sendall(b"POST /a?b HTTP/1.1\r\nhOsT: x\r\nB: 2\r\na:1\r\nB:  3\r\n\r\n")
        assert answers(sock, 1) == [b""]
        [request] = upstream.wait_for_requests(1)
    assert (request.method, request.target) == ("POST", "/a?b")
    assert request.headers == (("hOsT", "x"), ("B", "2"), ("a", "1"), ("B", "3"))
    assert request.values("b") == ["2", "3"]


def test_bodies_of_both_framings() -> None:
    """A body is put together from a length or from chunks, on one connection."""
    with FakeUpstream(echo) as upstream, connected(upstream) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        assert answers(sock, 1) == [b"hello"]
        sock.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"2\r\nhe\r\n3;ext\r\nllo\r\n0\r\n\r\n")
        assert answers(sock, 1) == [b"hello"]
    assert [request.body for request in upstream.requests] == [b"hello"] * 2
    assert len(upstream.connections) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_doubtful_requests_fail_the_test(head: bytes) -> None:
    """A gateway that sends what can be read in two ways does not pass."""
    with pytest.raises(ValueError, match=r"not|without|ambiguous"):
        told(echo, head)


def test_a_failing_handler_fails_the_test() -> None:
    """What is asserted inside a handler counts."""

    def refuse(request: Request, connection: Connection) -> None:
        raise AssertionError("not this one")

    with pytest.raises(AssertionError, match="not this one"):
        told(refuse, GET)


def test_a_stream_arrives_chunk_by_chunk() -> None:
    """The first chunk can be read while the script still waits for the reader."""

    def stream(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(b"first")
        assert connection.closed_by_peer(5)

    with FakeUpstream(stream) as upstream, connected(upstream) as sock:
        sock.sendall(GET)
        with closing(http.client.HTTPResponse(sock)) as answer:
            answer.begin()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.read1() == b"first"


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["FIN", "RST"])
def test_a_peer_that_leaves_is_noticed(linger: bytes | None) -> None:
    """Leaving in good order and by a reset are both seen, and staying is too."""

    def wait(request: Request, connection: Connection) -> None:
        assert not connection.closed_by_peer(0.02)
        connection.respond(200)
        assert connection.closed_by_peer(5)

    with FakeUpstream(wait) as upstream:
        with connected(upstream) as sock:
            if linger:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.sendall(GET)
            assert answers(sock, 1) == [b""]
        assert upstream.connections[0].closed_by_peer(5)


def test_the_upstream_can_close_and_reset() -> None:
    """After close() comes the end, after reset() an error, whenever it is called."""

    def leave(request: Request, connection: Connection) -> None:
        connection.send(b"partial")
        connection.close()

    assert told(leave, GET) == b"partial"
    with pytest.raises(ConnectionResetError):
        told(lambda _, connection: connection.reset(), GET)
    with pytest.raises(ConnectionResetError):
        told(echo, b"", on_connect=Connection.reset)


def test_a_sleeping_script_ends_with_its_upstream() -> None:
    """Nobody waits for a script that waits for nobody."""
    with (
        FakeUpstream(lambda _, connection: connection.sleep(20)) as upstream,
        connected(upstream) as sock,
    ):
        sock.sendall(GET)
        upstream.wait_for_requests(1)


def test_a_tool_call_comes_in_pieces() -> None:
    """The pieces of a tool's input add up to its JSON, and the last usage holds."""
    tool = ToolUse("Bash", {"command": "echo 日本"})
    usage = Usage(3, 20, cache_write=7, cache_read=11)
    events = [
        json.loads(event.split(b"\ndata: ")[1])
        for event in message_events(tool, usage, model="m")
    ]
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    assert len(deltas) > 2
    assert json.loads("".join(d["partial_json"] for d in deltas)) == tool.input
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["usage"] == {**usage.of_prompt(), "output_tokens": 20}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert usage.prompt == 21


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that Gateway starts in the place of the gateway."""
    script = tmp_path / "stand-in"
    monkeypatch.setattr(harness, "SERVE", script)
    return script


def test_a_gateway_that_dies_says_why(stand_in: Path) -> None:
    """The standard error of a process that does not listen is in the message."""
    stand_in.write_text("raise SystemExit('no such plugin')")
    with pytest.raises(RuntimeError, match=r"exited with 1.*\s.*no such plugin"):
        Gateway().__enter__()


def test_a_gateway_that_never_listens_is_given_up(stand_in: Path) -> None:
    """A silent process is stopped, not waited for."""
    stand_in.write_text("import signal; signal.pause()")
    with pytest.raises(RuntimeError, match="still silent"):
        Gateway(start_timeout=0.2).__enter__()


def test_records_are_whole_lines_of_strict_json(stand_in: Path) -> None:
    """Half a line is not a record yet, and NaN is not JSON."""
    stand_in.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('info: listening on http://127.0.0.1:1', file=sys.stderr, flush=True)\n"
        "signal.pause()\n"
    )
    with Gateway(howto_config("http://127.0.0.1:2/v1/messages")) as gateway:
        assert gateway.url == "http://127.0.0.1:1"
        assert gateway.records(0) == []
        gateway.log_path.write_text('{"a": 1}\n{"b": ')
        assert gateway.records(1) == [{"a": 1}]
        with pytest.raises(TimeoutError, match="1 of 2 records"):
            gateway.records(2, timeout=0.05)
        gateway.log_path.write_text('{"a": NaN}\n')
        with pytest.raises(ValueError, match="NaN is not JSON"):
            gateway.records(1)
        assert gateway.stop() == 0
