"""What is the same for both sides; `test_client_socket` reads and waits."""

from __future__ import annotations

import gc
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import gevent.socket
import pytest

from kongai.errors import UpstreamError, UpstreamTruncated
from kongai.loop_socket import LoopSocket
from kongai.socket_transport import SocketTransport
from tests.live.harness import FakeUpstream
from tests.live.upstream import Connection, Request
from tests.test_transport import asking, ok, opened, read, served, whole


def loop_socket(sock: socket.socket) -> LoopSocket:
    """As `kongai.server` makes them, in a process that was not patched."""
    timeout = sock.gettimeout()
    own = gevent.socket.socket(fileno=sock.detach())
    own.settimeout(timeout)
    return LoopSocket(own, gevent.get_hub(), gevent.getcurrent, select.poll)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, LoopSocket]]:
    other, own = socket.socketpair()
    own.settimeout(5)
    sock = loop_socket(own)
    yield other, sock
    other.close()
    sock.close()


@pytest.fixture
def sender() -> Iterator[SocketTransport]:
    made = SocketTransport(sockets=loop_socket)
    yield made
    made.close()


Pair = tuple[socket.socket, LoopSocket]


def test_a_killed_reader_leaves_nothing_behind(pair: Pair) -> None:
    other, sock = pair
    for _ in range(3):
        reading = gevent.spawn(sock.recv, 10)
        gevent.sleep(0.01)
        reading.kill()
        assert reading.dead
    other.sendall(b"x")
    assert gevent.spawn(sock.recv, 10).get(timeout=5) == b"x"


def test_who_reads_what_is_closed_waits_no_longer(pair: Pair) -> None:
    _, sock = pair
    reading = gevent.spawn(sock.recv, 10)
    gevent.sleep(0.01)
    sock.close()
    with pytest.raises(OSError, match="closed"):
        reading.get(timeout=5)
    with pytest.raises(OSError, match=r"closed|descriptor"):
        gevent.spawn(sock.recv, 10).get(timeout=5)


def test_it_tells_whether_something_has_come(pair: Pair) -> None:
    other, sock = pair
    arrivals = sock.arrivals()
    assert not arrivals()
    other.sendall(b"x")
    assert arrivals()
    assert sock.recv(10) == b"x"
    assert not arrivals()
    other.close()
    assert arrivals()


def test_what_comes_while_nobody_reads_keeps_nobody_busy(pair: Pair) -> None:
    other, sock = pair
    gevent.spawn_later(0.01, other.sendall, b"x")
    assert sock.recv(10) == b"x"
    other.sendall(b"y")
    began = time.process_time()
    gevent.sleep(0.2)
    assert time.process_time() - began < 0.1
    assert sock.recv(10) == b"y"


def test_a_closed_one_is_not_kept_by_the_loop() -> None:
    other, own = socket.socketpair()
    with other:
        own.settimeout(0.01)
        sock = loop_socket(own)
        with suppress(TimeoutError):
            sock.recv(10)
        sock.close()
        del sock
        gevent.sleep(0)
        gc.collect()
        assert not [o for o in gc.get_objects() if type(o) is LoopSocket and o._watcher]


# As the transport uses it


def test_a_connection_is_used_again_and_again(sender: SocketTransport) -> None:
    with FakeUpstream(ok) as upstream:
        for number in range(5):
            assert read(sender.send(asking(upstream, f"/{number}"))) == b"/%d" % number
        assert len(opened(upstream, 1)) == 1


def test_one_that_was_closed_meanwhile_is_not_used(sender: SocketTransport) -> None:
    def leave(request: Request, connection: Connection) -> None:
        ok(request, connection)
        connection.close()

    with FakeUpstream(leave) as upstream:
        for number in range(1, 4):
            assert read(sender.send(asking(upstream))) == b"/"
            assert opened(upstream, number)
            # Be it told by the event loop or not.
            gevent.sleep(0.05) if number % 2 else time.sleep(0.05)


@pytest.mark.parametrize("turn", [gevent.sleep, time.sleep], ids=["told", "untold"])
def test_what_nobody_asked_for_is_nobodys(
    sender: SocketTransport, turn: Callable[[float], Any]
) -> None:
    sent = threading.Event()

    def talk(request: Request, connection: Connection) -> None:
        ok(request, connection)
        if request.target == "/much":
            connection.sleep(0.02)
            connection.send(whole(b"somebody else's"))
            sent.set()

    with FakeUpstream(talk) as upstream:
        assert read(sender.send(asking(upstream, "/much"))) == b"/much"
        assert sent.wait(5)
        turn(0.05)
        assert read(sender.send(asking(upstream, "/own"))) == b"/own"
        assert len(opened(upstream, 2)) == 2


def test_the_head_and_the_pieces_have_their_time(sender: SocketTransport) -> None:
    may_go = threading.Event()

    def slow(request: Request, connection: Connection) -> None:
        if request.target == "/stream":
            connection.start_stream()
            connection.chunk(b"one")
        may_go.wait(5)

    try:
        with FakeUpstream(slow) as upstream:
            with pytest.raises(UpstreamError) as caught:
                sender.send(asking(upstream, read_timeout=0.1))
            assert caught.value.ended == "first_byte_timeout"
            response = sender.send(asking(upstream, "/stream", read_timeout=0.1))
            assert next(response.chunks) == b"one"
            assert response.whole is not None
            assert not response.whole()
            with pytest.raises(UpstreamTruncated) as cut:
                next(response.chunks)
            assert cut.value.ended == "stream_idle_timeout"
            may_go.set()
            assert all(c.closed_by_peer(5) for c in upstream.connections)
    finally:
        may_go.set()


def test_who_is_killed_in_a_wait_closes_the_connection(sender: SocketTransport) -> None:
    may_go = threading.Event()

    def silent(request: Request, connection: Connection) -> None:
        assert may_go.wait(5)
        ok(request, connection)

    with FakeUpstream(silent) as upstream:
        sending = gevent.spawn(sender.send, asking(upstream))
        while not upstream.requests:
            gevent.sleep(0.01)
        sending.kill()
        may_go.set()
        assert upstream.connections[0].closed_by_peer(5)
        assert read(sender.send(asking(upstream, "/next"))) == b"/next"
        assert len(opened(upstream, 2)) == 2


def test_room_for_a_large_request_is_waited_for(sender: SocketTransport) -> None:
    got: list[int] = []

    def slow(sock: socket.socket) -> None:
        received = b""
        while len(received) < 8_000_000:
            received += sock.recv(1_000_000)
        got.append(len(received))
        sock.sendall(whole(b"thanks"))

    with served(slow) as port:
        request = asking(port, method="POST", body=b"x" * 8_000_000)
        sending = gevent.spawn(sender.send, request)
        assert read(sending.get(timeout=20)) == b"thanks"
    assert got[0] >= 8_000_000
