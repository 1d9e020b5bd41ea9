"""What is the socket transport's own; what both do is in test_transport."""

from __future__ import annotations

import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kongai.errors import UpstreamError, UpstreamTruncated
from kongai.exchange import UpstreamRequest
from kongai.socket_transport import SocketTransport
from kongai.tls import TLS
from kongai.transport import RequestsTransport
from tests.conftest import TransportClass
from tests.live.harness import FakeUpstream
from tests.live.ports import Listener, black_hole
from tests.live.tls_front import Front, reset
from tests.live.upstream import Connection, Request
from tests.test_transport import (
    AUTHORITY,
    LONG_BODY,
    SERVER,
    asking,
    ok,
    opened,
    read,
    served,
    whole,
)

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def sender() -> Iterator[SocketTransport]:
    made = SocketTransport()
    yield made
    made.close()


# What goes out


FORMS: list[dict[str, Any]] = [
    {"method": "GET"},
    {"method": "POST"},
    {"method": "PUT", "body": b""},
    {"method": "POST", "body": b"x"},
    {"method": "POST", "body": b"x" * 20_000},
    {"method": "GET", "body": b"x"},
    {"method": "POST", "body": b"x", "headers": [("content-length", "1")]},
    {"method": "POST", "body": b"", "headers": [("Transfer-Encoding", "chunked")]},
    {"method": "POST", "body": b"xy", "headers": [("transfer-encoding", "chunked")]},
    {"method": "POST", "body": [b"a", b"", b"bc"]},
    {"method": "GET", "body": [b"a", b"bc"], "headers": [("Content-Length", "3")]},
    {"method": "POST", "body": [b"a"], "headers": [("Transfer-Encoding", "chunked")]},
    {"method": "GET", "headers": [("Host", "b"), ("X", "\xe9"), ("x", ""), ("X", "2")]},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_same_bytes_go_out_as_from_the_other(form: dict[str, Any]) -> None:
    sent = []

    def script(sock: socket.socket) -> None:
        received = b""
        with suppress(TimeoutError):
            sock.settimeout(0.05)
            while data := sock.recv(65536):
                received += data
        sent.append(received)
        sock.sendall(whole(b""))

    kinds: list[TransportClass] = [RequestsTransport, SocketTransport]
    for kind in kinds:
        transport = kind()
        with served(script) as port:
            read(transport.send(asking(port, "/a?b=c", **form)))
        transport.close()
    assert sent[0] == sent[1] != b""


@pytest.mark.parametrize(
    "header", [("X", "a\r\nY: b"), ("X", "a\nb"), ("X\r\nY", "a"), ("X", "a\0b")]
)
def test_a_header_that_would_be_two_is_not_sent(
    header: tuple[str, str], sender: SocketTransport
) -> None:
    with FakeUpstream(ok) as upstream:
        with pytest.raises(ValueError, match="line of its own"):
            sender.send(asking(upstream, headers=[header]))
        with pytest.raises(UnicodeEncodeError):
            sender.send(asking(upstream, headers=[("X", "\u20ac")]))
        assert upstream.connections == []


@pytest.mark.parametrize(
    "fields",
    [{"target": "/a b"}, {"target": "/\r\nX: y"}, {"target": ""}, {"method": "GET /"}],
)
def test_what_would_not_be_a_request_line_is_not_sent(
    fields: dict[str, str], sender: SocketTransport
) -> None:
    with FakeUpstream(ok) as upstream:
        with pytest.raises(UpstreamError) as caught:
            sender.send(asking(upstream, **fields))
        assert (caught.value.sent, caught.value.hopeless) == (False, True)
        assert upstream.connections == []


# What comes back


def test_an_answer_that_has_come_need_not_be_read(sender: SocketTransport) -> None:
    """As of a balancer that asks elsewhere because of the status."""
    with FakeUpstream(ok) as upstream:
        for _ in range(3):
            sender.send(asking(upstream)).close()
        assert len(opened(upstream, 1)) == 1


def test_who_asks_for_more_of_a_closed_answer_is_told_so(
    sender: SocketTransport,
) -> None:
    def half(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    with FakeUpstream(half) as upstream:
        response = sender.send(asking(upstream))
        assert next(response.chunks) == b"half"
        response.close()
        with pytest.raises(UpstreamTruncated):
            next(response.chunks)


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_who_waits_for_more_is_told_of_the_end(
    reset: bool, sender: SocketTransport
) -> None:
    may_end = threading.Event()

    def half(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert may_end.wait(5)
        connection.send(b"4\r\nha")
        connection.sleep(0.05)
        connection.reset() if reset else connection.close()

    with FakeUpstream(half) as upstream:
        response = sender.send(asking(upstream))
        assert response.speaks_within is not None
        assert not response.speaks_within(0)
        assert not response.speaks_within(0.05)
        may_end.set()
        assert response.speaks_within(5)
        assert next(response.chunks) == b"ha"
        assert response.speaks_within(5)
        with pytest.raises(UpstreamTruncated) as caught:
            next(response.chunks)
        assert caught.value.ended == "upstream_cut"


def test_a_size_that_is_still_on_its_way_is_nothing_yet(
    sender: SocketTransport,
) -> None:
    may_go_on = threading.Event()

    def slow(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1")
        assert may_go_on.wait(5)
        connection.send(b"0\r\n")
        connection.sleep(0.02)
        connection.send(b"x" * 16 + b"\r\n0\r\n\r\n")

    with FakeUpstream(slow) as upstream:
        response = sender.send(asking(upstream))
        assert response.speaks_within is not None
        assert not response.speaks_within(0.02)
        may_go_on.set()
        assert response.speaks_within(5)
        assert b"".join(response.chunks) == b"x" * 16


# Which connection


def test_no_more_connections_wait_than_there_is_room_for() -> None:
    sender = SocketTransport(pool_size=2)
    with FakeUpstream(ok) as upstream:
        at_once = [sender.send(asking(upstream)) for _ in range(4)]
        assert [read(response) for response in at_once] == [b"/"] * 4
        assert [c.closed_by_peer(5) for c in opened(upstream, 4)[2:]] == [True, True]
        assert not any(c.closed_by_peer(0) for c in upstream.connections[:2])
        late = sender.send(asking(upstream))
        sender.close()
        assert read(late) == b"/"
        assert all(c.closed_by_peer(5) for c in upstream.connections)
        assert read(sender.send(asking(upstream))) == b"/"
        assert len(opened(upstream, 5)) == 5
        sender.close()


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_who_says_too_much_is_given_no_connection_twice(
    later: bool, sender: SocketTransport
) -> None:
    """The next time it might come when somebody else's request is on its way."""
    was_read, sent = threading.Event(), threading.Event()

    def talk(request: Request, connection: Connection) -> None:
        if request.target != "/much":
            ok(request, connection)
            return
        connection.send(whole(b"own") + whole(b"more") * (not later))
        if later:
            assert was_read.wait(5)
            connection.send(whole(b"more"))
            sent.set()

    with FakeUpstream(talk) as upstream:
        at_once = [sender.send(asking(upstream)) for _ in range(2)]
        assert [read(response) for response in at_once] == [b"/", b"/"]
        assert read(sender.send(asking(upstream, "/much"))) == b"own"
        was_read.set()
        assert not later or sent.wait(5)
        assert read(sender.send(asking(upstream))) == b"/"
        for count in (4, 5):
            assert read(sender.send(asking(upstream))) == b"/"
            assert len(opened(upstream, count)) == count
        assert all(c.closed_by_peer(5) for c in upstream.connections)


class TLSUpstream:
    """A port that answers over TLS, and knows which connections went on with an old
    session."""

    def __init__(self) -> None:
        self.resumed: list[bool | None] = []
        self.contexts: list[ssl.SSLContext] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(SERVER)
        self._listener = Listener(self._accepted)
        self._threads: list[threading.Thread] = []

    def _accepted(self, plain: socket.socket) -> None:
        thread = threading.Thread(target=self._answer, args=(plain,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _answer(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as sock:
                self.resumed.append(sock.session_reused)
                while sock.recv(65536):
                    sock.sendall(whole(b"over TLS"))
        except OSError:
            plain.close()

    def __enter__(self) -> TLSUpstream:
        self._listener.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._listener.__exit__(*error)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def asked(self, **fields: Any) -> UpstreamRequest:
        fields = {"verify": str(AUTHORITY), **fields}
        port = self._listener.port
        return asking(port, scheme="https", host="localhost", **fields)


@pytest.mark.parametrize("depth", [None, 0])
def test_a_connection_goes_on_with_the_session_of_one_before(
    depth: int | None, sender: SocketTransport
) -> None:
    request_tls = TLS(depth=depth)
    with TLSUpstream() as upstream:
        for _ in range(2):
            request = upstream.asked(tls=request_tls)
            at_once = [sender.send(request) for _ in range(2)]
            assert [read(response) for response in at_once] == [b"over TLS"] * 2
            for pool in sender._pools.values():
                while (connection := pool.idle.pop()) is not None:
                    connection.close()
        sender.close()
        assert upstream.resumed == [False, False, True, True]


def test_no_session_is_another_services() -> None:
    """What was not verified for one can't be taken for verified by the other."""
    sender = SocketTransport()
    with TLSUpstream() as upstream:
        assert read(sender.send(upstream.asked(verify=False))) == b"over TLS"
        for refused in (upstream.asked(verify=True), upstream.asked(tls=TLS(name="x"))):
            with pytest.raises(UpstreamError) as caught:
                sender.send(refused)
            assert caught.value.ended == "tls"
        assert read(sender.send(upstream.asked())) == b"over TLS"
        sender.close()
        assert upstream.resumed == [False, False]


def test_authorities_are_loaded_once_for_equal_settings(
    monkeypatch: pytest.MonkeyPatch, sender: SocketTransport
) -> None:
    loaded = []
    load = ssl.SSLContext.load_verify_locations

    def counting(context: ssl.SSLContext, *args: Any, **options: Any) -> None:
        loaded.append(context)
        load(context, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counting)
    with TLSUpstream() as one, TLSUpstream() as other:
        for upstream in (one, other, one):
            at_once = [sender.send(upstream.asked()) for _ in range(2)]
            assert [read(response) for response in at_once] == [b"over TLS"] * 2
        sender.close()
    assert len(loaded) == 1
    assert loaded[0].verify_mode is ssl.CERT_REQUIRED
    assert loaded[0].check_hostname


def test_many_threads_share_connections_and_mix_nothing() -> None:
    closed = []

    def handler(request: Request, connection: Connection) -> None:
        connection.respond(200, body=request.target.encode() * 3)
        if request.target.endswith("7"):
            closed.append(connection)
            connection.close()

    wrong: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(worker: int) -> None:
        for number in range(30):
            target = f"/{worker}/{number}"
            try:
                body = read(sender.send(asking(upstream, target)))
            except UpstreamError as error:
                if not error.stale:
                    wrong.put(error)
                continue
            if body != target.encode() * 3:
                wrong.put(body)

    sender = SocketTransport(pool_size=3, keepalive_idle=0.002)
    with FakeUpstream(handler) as upstream:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        sender.close()
        left = [c for c in upstream.connections if c not in closed]
        assert all(c.closed_by_peer(5) for c in left)
    assert wrong.empty()


# What stays behind


class Interrupted(BaseException):
    """As a greenlet is told that its client has left."""


def throw() -> None:
    """Throw it into what the main thread waits for, once it does."""
    threading.Event().wait(0.05)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def silent(sock: socket.socket) -> None:
    assert sock.recv(65536)
    throw()
    with suppress(ConnectionError):
        while sock.recv(65536):
            pass


def unwilling(sock: socket.socket) -> None:
    assert sock.recv(1)
    throw()
    over.wait(5)


def half_an_answer(sock: socket.socket) -> None:
    assert sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    throw()
    assert not sock.recv(65536)


over = threading.Event()
LONG = {"method": "POST", "body": LONG_BODY}
WAITS: dict[str, tuple[Callable[[socket.socket], None], dict[str, Any]]] = {
    "handshake": (silent, {"scheme": "https"}),
    "tunnel": (silent, {"scheme": "https"}),
    "write": (unwilling, LONG),
    "head": (silent, {}),
    "body": (half_an_answer, {}),
}


@contextmanager
def interruptible() -> Iterator[None]:
    """The main thread can be thrown something into, by `throw`."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def descriptors() -> set[tuple[str, str]]:
    found = set()
    for entry in DESCRIPTORS.iterdir():
        with suppress(OSError):
            found.add((entry.name, str(entry.readlink())))
    return found


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("wait", WAITS)
def test_no_descriptor_stays_behind(wait: str) -> None:
    over.clear()
    script, fields = WAITS[wait]
    with served(script) as port:
        proxies = {"https": f"http://127.0.0.1:{port}"} if wait == "tunnel" else None
        sender, before = SocketTransport(proxies=proxies), descriptors()
        with pytest.raises(Interrupted) as caught, interruptible():
            b"".join(sender.send(asking(port, **fields)).chunks)
        # The exception still holds all that there was on the way.
        assert caught.traceback
        assert len(descriptors() - before) <= 1  # the upstream's own
        over.set()
    assert descriptors() <= before
    sender.close()


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs Linux's /proc")
def test_no_descriptor_of_a_connection_that_does_not_open_stays_behind() -> None:
    with black_hole() as port:
        sender, before = SocketTransport(), descriptors()
        thrower = threading.Thread(target=throw)
        with interruptible():
            thrower.start()
            with pytest.raises(Interrupted) as caught:
                sender.send(asking(port))
        thrower.join()
        assert caught.traceback
        assert descriptors() <= before
    sender.close()


def test_a_body_that_fails_ends_its_connection(sender: SocketTransport) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise failure

    errors: list[BaseException] = [Interrupted(), TimeoutError("the client's")]
    with FakeUpstream(ok) as upstream:
        for count, failure in enumerate(errors, 1):
            with pytest.raises(type(failure)) as caught:
                sender.send(asking(upstream, method="POST", body=pieces()))
            assert caught.value is failure
            assert opened(upstream, count)[-1].closed_by_peer(5)


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import os, socket, sys, gevent
sys.path.insert(0, sys.argv[1])
from kongai.errors import ClientGone, UpstreamError
from kongai.exchange import UpstreamRequest
from kongai.socket_transport import SocketTransport
from kongai.transport import RequestsTransport

def descriptors():
    return sorted(os.listdir("/proc/self/fd"))

def serve(script):
    server = socket.create_server(("127.0.0.1", 0))
    def accept():
        sock, _ = server.accept()
        with sock:
            script(sock)
    return server, gevent.spawn(accept)

def silent(sock):
    while sock.recv(65536):
        pass

def unwilling(sock):
    sock.recv(1)
    gevent.sleep(60)

def half(sock):
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nhalf")
    silent(sock)

def ask(port, scheme, body):
    head = [("Host", "a")]
    request = UpstreamRequest("POST", scheme, "127.0.0.1", port, "/", head, body)
    b"".join(transport.send(request).chunks)

for transport in (SocketTransport(), RequestsTransport()):
    # Some of the resets come while TLS is being made of the connection.
    failures, before = [], None
    for _ in range(200):
        asking = gevent.spawn(ask, int(sys.argv[2]), "https", None)
        asking.join()
        failures.append(asking.exception)
        before = before or descriptors()
    assert descriptors() == before, type(transport)
    assert all(isinstance(error, UpstreamError) for error in failures), failures

transport = SocketTransport()
for name, script, scheme, body in (
    ("handshake", silent, "https", None),
    ("write", unwilling, "http", b"x" * 12_000_000),
    ("head", silent, "http", None),
    ("body", half, "http", None),
):
    server, accepting = serve(script)
    before = descriptors()
    asking = gevent.spawn(ask, server.getsockname()[1], scheme, body)
    gevent.sleep(0.1)
    assert len(descriptors()) > len(before), name
    asking.kill(ClientGone)
    assert isinstance(asking.exception, ClientGone), (name, asking.exception)
    accepting.kill()
    assert descriptors() == before, name
    server.close()
print("ok")
"""


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs Linux's /proc")
def test_no_descriptor_of_a_greenlet_stays_behind() -> None:
    root = Path(__file__).parents[1]
    with Front(0, instead=reset) as resets:
        command = [sys.executable, "-c", GREENLETS, str(root), str(resets.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "ok\n", done.stderr
