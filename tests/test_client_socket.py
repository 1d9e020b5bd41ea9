from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event

from kongai.client_socket import ClientSocket
from kongai.errors import ClientGone


class Peers:
    """A client's socket and the server's end of it, made by the greenlet it is for."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), timeout=5)
            accepted, _ = listener.accept()
        sock = gevent.socket.socket(fileno=accepted.detach())
        hub = gevent.get_hub()
        self.server = ClientSocket(sock, hub, gevent.getcurrent, select.poll)
        self.server.settimeout(5)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def within() -> Iterator[Callable[[Callable[[Peers], Any]], Any]]:
    """Runs a function in a greenlet that has a connection."""
    made: list[Peers] = []

    def run(function: Callable[[Peers], Any]) -> Any:
        def alone() -> Any:
            made.append(Peers())
            return function(made[-1])

        return gevent.spawn(alone).get(timeout=10)

    yield run
    for peers in made:
        peers.close()


def later(seconds: float, function: Callable[..., Any], *args: Any) -> None:
    gevent.spawn_later(seconds, function, *args)


def send_on(server: ClientSocket) -> None:
    while True:
        server.send(b"x" * 100_000)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def finish(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def test_what_has_come_is_read_and_what_comes_is_waited_for(within: Any) -> None:
    def serve(peers: Peers) -> list[bytes]:
        peers.client.sendall(b"abcd")
        read = [peers.server.recv(3), peers.server.recv(3)]
        for data in (b"ef", b"gh"):
            later(0.02, peers.client.sendall, data)
            read.append(peers.server.recv(100))
        later(0.02, peers.client.close)
        return [*read, peers.server.recv(100), peers.server.recv(100)]

    assert within(serve) == [b"abc", b"d", b"ef", b"gh", b"", b""]


def test_a_connection_that_breaks_is_an_error(within: Any) -> None:
    def serve(peers: Peers) -> None:
        later(0.02, reset, peers.client)
        with pytest.raises(ConnectionResetError):
            peers.server.recv(1)

    within(serve)


def test_each_wait_has_the_time_it_was_given(within: Any) -> None:
    def serve(peers: Peers) -> list[float]:
        waited = []
        # A long one that ends early, then short ones; a short one, then a long one.
        for seconds, after in ((5, 0.02), (0.1, None), (0.3, 0.02), (0.1, 0.02)):
            began = time.monotonic()
            peers.server.settimeout(seconds)
            if after is None:
                with pytest.raises(TimeoutError):
                    peers.server.recv(1)
                waited.append(time.monotonic() - began)
            else:
                later(after, peers.client.sendall, b"x")
                assert peers.server.recv(1) == b"x"
        later(0.3, peers.client.sendall, b"y")
        peers.server.settimeout(5)
        assert peers.server.recv(1) == b"y"
        began = time.monotonic()
        peers.server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peers.server.recv(1)
        return [*waited, time.monotonic() - began]

    first, last = within(serve)
    assert 0.09 < first < 2
    assert 0.19 < last < 2


def test_a_timer_left_from_a_short_wait_ends_no_longer_one(within: Any) -> None:
    def serve(peers: Peers) -> float:
        peers.server.settimeout(0.1)
        peers.client.sendall(b"x")
        peers.server.recv(1)
        gevent.sleep(0.05)
        later(0.02, peers.client.sendall, b"x")
        peers.server.recv(1)
        began = time.monotonic()
        peers.server.settimeout(0.4)
        with pytest.raises(TimeoutError):
            peers.server.recv(1)
        return time.monotonic() - began

    assert 0.39 < within(serve) < 3


def test_a_reader_that_takes_nothing_is_waited_for_in_vain(within: Any) -> None:
    def serve(peers: Peers) -> None:
        peers.server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            send_on(peers.server)

    within(serve)


def test_room_is_waited_for(within: Any) -> None:
    data = bytes(range(256)) * 40_000

    def serve(peers: Peers) -> None:
        left = memoryview(data)
        while left:
            left = left[peers.server.send(left) :]
        peers.server.shutdown(socket.SHUT_WR)

    def read(sock: socket.socket) -> bytes:
        client = gevent.socket.socket(fileno=sock.detach())
        with client:
            return b"".join(iter(lambda: client.recv(65536), b""))

    def both(peers: Peers) -> bool:
        reading = gevent.spawn(read, peers.client)
        serve(peers)
        return bool(reading.get(timeout=5) == data)

    assert within(both)


@pytest.mark.parametrize("early", [b"", b"GET"], ids=["nothing", "the next request"])
@pytest.mark.parametrize("leave", [reset, finish, socket.socket.close])
@pytest.mark.parametrize("whole", [True, False])
def test_who_leaves_while_watched_interrupts(
    within: Any, leave: Callable[[socket.socket], None], early: bytes, whole: bool
) -> None:
    def serve(peers: Peers) -> float:
        peers.server.watch(whole=whole)
        if early:
            later(0.02, peers.client.sendall, early)
        later(0.1, leave, peers.client)
        began = time.monotonic()
        with pytest.raises(ClientGone):
            Event().wait(5)
        return time.monotonic() - began

    assert 0.09 < within(serve) < 2


def test_who_left_before_interrupts_the_first_wait(within: Any) -> None:
    def serve(peers: Peers) -> None:
        peers.client.sendall(b"x")
        assert peers.server.recv(1) == b"x"
        peers.client.close()
        peers.server.watch(whole=True)
        with pytest.raises(ClientGone):
            Event().wait(5)

    within(serve)


def test_nobody_is_interrupted_who_is_not_watched(within: Any) -> None:
    def serve(peers: Peers) -> None:
        for whole in (True, False):
            peers.server.watch(whole=whole)
            peers.server.unwatch()
        peers.client.close()
        gevent.sleep(0.15)
        assert peers.server.recv(1) == b""

    within(serve)


@pytest.mark.parametrize("watched", [True, False])
def test_what_comes_early_waits_and_keeps_nobody_busy(
    within: Any, watched: bool
) -> None:
    """It stays there to be read, which the event loop would tell all the time."""

    def serve(peers: Peers) -> float:
        later(0.01, peers.client.sendall, b"next")
        began = time.process_time()
        for _ in range(2):
            if watched:
                peers.server.watch(whole=True)
            gevent.sleep(0.15)
            peers.server.unwatch()
        busy = time.process_time() - began
        assert peers.server.recv(100) == b"next"
        later(0.01, peers.client.sendall, b"more")
        assert peers.server.recv(100) == b"more"
        return busy

    assert within(serve) < 0.1


def test_a_watch_goes_on_after_a_read(within: Any) -> None:
    """The rest of a body comes, and then nothing more is expected."""

    def serve(peers: Peers) -> None:
        peers.server.watch(whole=False)
        later(0.02, peers.client.sendall, b"rest")
        assert peers.server.recv(100) == b"rest"
        peers.server.watch(whole=True)
        later(0.02, peers.client.close)
        with pytest.raises(ClientGone):
            Event().wait(5)

    within(serve)


def test_another_greenlet_may_read_but_not_two(within: Any) -> None:
    def serve(peers: Peers) -> bytes:
        reading = gevent.spawn(peers.server.recv, 10)
        gevent.sleep(0.02)
        with pytest.raises(RuntimeError, match="reads from this socket already"):
            gevent.spawn(peers.server.recv, 10).get()
        peers.client.sendall(b"x")
        read: bytes = reading.get()
        return read

    assert within(serve) == b"x"


def test_a_wait_that_was_broken_off_is_over(within: Any) -> None:
    def serve(peers: Peers) -> bytes:
        with gevent.Timeout(0.05, False):
            peers.server.recv(1)
        later(0.05, peers.client.sendall, b"x")
        gevent.sleep(0.1)
        return peers.server.recv(1)

    assert within(serve) == b"x"


def test_it_may_be_closed_twice_and_while_watched(within: Any) -> None:
    def serve(peers: Peers) -> None:
        peers.server.settimeout(0.1)
        peers.client.sendall(b"x")
        peers.server.recv(1)
        for whole in (True, False):
            peers.server.watch(whole=whole)
        peers.server.close()
        peers.server.close()
        gevent.sleep(0.2)
        assert peers.client.recv(1) == b""

    within(serve)
