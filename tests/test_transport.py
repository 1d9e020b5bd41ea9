from __future__ import annotations

import gzip
import hashlib
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from kongai.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.names import AddressInfo, Names
from kongai.socket_transport import SocketTransport
from kongai.tls import TLS
from kongai.transport import RequestsTransport, Transport
from tests.conftest import TransportClass
from tests.live.ports import Listener, black_hole, closed_port
from tests.live.tls_front import Front, relay
from tests.live.upstream import Connection, FakeUpstream, Request
from tests.live.waiting import wait_until

SECRET = "c4nary-5f1d"
# The one that the test is about at the moment.
kind: TransportClass = RequestsTransport


@pytest.fixture(autouse=True)
def both(transport_class: TransportClass, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here is one of each transport."""
    monkeypatch.setitem(globals(), "kind", transport_class)


def only(*kinds: TransportClass) -> pytest.MarkDecorator:
    """A test of what is inside of these."""
    return pytest.mark.parametrize("transport_class", kinds, indirect=True)


def asking(
    upstream: FakeUpstream | int,
    target: str = "/",
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | Iterable[bytes] | None = None,
    **options: Any,
) -> UpstreamRequest:
    """A request to a fake upstream, or to a port."""
    port = upstream if isinstance(upstream, int) else upstream.port
    head = list(headers)
    if not any(name.lower() == "host" for name, _ in head):
        head.insert(0, ("Host", "a"))
    options = {"host": "127.0.0.1", "scheme": "http", "read_timeout": 5.0, **options}
    return UpstreamRequest(
        method=method, port=port, target=target, headers=head, body=body, **options
    )


@contextmanager
def transport(**options: Any) -> Iterator[Any]:
    made = kind(**options)
    try:
        yield made
    finally:
        made.close()


def read(response: UpstreamResponse) -> bytes:
    try:
        return b"".join(response.chunks)
    finally:
        response.close()


def opened(upstream: FakeUpstream, count: int) -> list[Connection]:
    """All connections there are, once there are so many."""
    wait_until(lambda: len(upstream.connections) >= count, f"connection {count}")
    return upstream.connections


def ok(request: Request, connection: Connection) -> None:
    connection.respond(200, body=request.target.encode("latin-1"))


def raw(*pieces: bytes, close: bool = True) -> Callable[[Request, Connection], None]:
    def handler(request: Request, connection: Connection) -> None:
        for piece in pieces:
            connection.send(piece)
        if close:
            connection.close()

    return handler


def seen(*requests: Callable[[FakeUpstream], UpstreamRequest]) -> list[Request]:
    """The requests as the upstream found them on the wire."""
    with FakeUpstream(ok) as upstream, transport() as sender:
        for make in requests:
            read(sender.send(make(upstream)))
        return upstream.requests


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b?x=%2f&y=~[1]",
        "/",
        "//a//b",
        "/./a/.",
        "/%7Euser/%2F%2e%2E",
        "/a?",
        "/a??b=c&&",
        "/a?q={}|^`\"<>\\'",
        "/a;b=c,d@e:f!$&'()*+",
        "/a#b",
        "/%zz%",
        "http://b/c",
        "/caf\xc3\xa9?q=\xff",
    ],
)
def test_the_target_goes_out_byte_for_byte(target: str) -> None:
    [request] = seen(lambda upstream: asking(upstream, target))
    assert request.target == target


def test_the_head_goes_out_as_it_stands() -> None:
    headers = [
        ("X-B", "1"),
        ("host", "b:1"),
        ("x-a", "2"),
        ("X-B", "3"),
        ("x-b", "caf\xe9"),
        ("Authorization", "Bearer x"),
        ("Connection", "keep-alive"),
    ]
    [request] = seen(lambda upstream: asking(upstream, headers=headers))
    assert list(request.headers) == headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_nothing_is_added(method: str) -> None:
    [request] = seen(lambda upstream: asking(upstream, method=method))
    assert request.method == method
    assert list(request.headers) == [("Host", "a")]


@pytest.mark.parametrize(
    ("name", "value"), [("User-Agent", "x"), ("Accept-Encoding", "gzip, br")]
)
def test_what_the_client_says_of_itself_is_kept(name: str, value: str) -> None:
    [request] = seen(lambda upstream: asking(upstream, headers=[(name, value)]))
    assert list(request.headers) == [("Host", "a"), (name, value)]


@pytest.mark.parametrize(
    "name", ["X-A", "User-Agent", "Accept-Encoding", "Authorization", "X-B"]
)
def test_a_clients_header_that_reads_like_an_instruction(name: str) -> None:
    """urllib3 leaves out, or refuses, a header that has this value."""
    odd = (name, "@@@SKIP_HEADER@@@")
    headers = [("X-B", "1"), odd, ("Via", "2")]
    [request] = seen(lambda upstream: asking(upstream, headers=headers))
    passed = [odd] if kind is SocketTransport else []
    assert list(request.headers) == [("Host", "a"), ("X-B", "1"), *passed, ("Via", "2")]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "body",
    [b"x" * 100_000, [b"x" * 40_000, b"", b"x" * 60_000]],
    ids=["bytes", "pieces"],
)
@pytest.mark.parametrize(
    "framing", [("Content-Length", "100000"), ("Transfer-Encoding", "chunked")]
)
def test_a_body_is_framed_as_its_head_says(
    method: str, body: bytes | list[bytes], framing: tuple[str, str]
) -> None:
    def make(upstream: FakeUpstream) -> UpstreamRequest:
        return asking(upstream, method=method, headers=[framing], body=body)

    [request] = seen(make)
    assert list(request.headers) == [("Host", "a"), framing]
    assert request.body == b"x" * 100_000


def test_pieces_of_a_body_go_out_as_they_come() -> None:
    arrived = threading.Event()

    def upstream(server: socket.socket) -> None:
        sock, _ = server.accept()
        with sock:
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += sock.recv(1000)
                if received.endswith(b"1\r\na\r\n"):
                    arrived.set()
            sock.sendall(whole(received[-5:]))

    def pieces() -> Iterator[bytes]:
        yield b"a"
        assert arrived.wait(5)
        yield b"b"

    framing = ("Transfer-Encoding", "chunked")
    with socket.create_server(("127.0.0.1", 0)) as server, transport() as sender:
        thread = threading.Thread(target=upstream, args=(server,), daemon=True)
        thread.start()
        port: int = server.getsockname()[1]
        request = asking(port, method="POST", headers=[framing], body=pieces())
        assert read(sender.send(request)) == b"0\r\n\r\n"
        thread.join(5)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize(
    "framing", ["Content-Length", "Transfer-Encoding"], ids=["length", "chunks"]
)
def test_a_body_of_any_size_arrives_as_it_is(size: int, framing: str) -> None:
    body = random.Random(size).randbytes(size)
    value = str(size) if framing == "Content-Length" else "chunked"

    def make(upstream: FakeUpstream) -> UpstreamRequest:
        headers = [(framing, value)]
        return asking(upstream, method="POST", headers=headers, body=body)

    [request] = seen(make)
    assert request.body == body


@contextmanager
def served(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose one connection is the script's, which holds little by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(5)
                script(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)
        assert not thread.is_alive()


LONG_BODY = random.Random(0).randbytes(12_000_000)


def long_upload(port: int, pieces: bool, **options: Any) -> UpstreamRequest:
    """A request that no buffer on the way has room for."""
    step = 1_000_000
    starts = range(0, len(LONG_BODY), step)
    body = (LONG_BODY[n : n + step] for n in starts) if pieces else LONG_BODY
    headers = [("Content-Length", str(len(LONG_BODY)))]
    return asking(port, method="POST", headers=headers, body=body, **options)


@pytest.mark.parametrize("limit", ["connect_timeout", "write_timeout"])
@pytest.mark.parametrize("pieces", [False, True], ids=["bytes", "pieces"])
def test_a_long_body_may_take_its_time(pieces: bool, limit: str) -> None:
    """What is limited is the wait for the next piece, not that for all of them."""

    def read_steadily(sock: socket.socket) -> None:
        pause, found, left = threading.Event(), hashlib.sha256(), len(LONG_BODY)
        with sock.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            while left and (piece := stream.read(min(left, 100_000))):
                found.update(piece)
                left -= len(piece)
                pause.wait(0.004)
        sock.sendall(whole(found.digest()))

    started = time.monotonic()
    with served(read_steadily) as port, transport() as sender:
        response = sender.send(long_upload(port, pieces, **{limit: 0.3}))
        assert read(response) == hashlib.sha256(LONG_BODY).digest()
    assert time.monotonic() - started > 0.4


@pytest.mark.parametrize("pieces", [False, True], ids=["bytes", "pieces"])
def test_an_upstream_that_stops_reading(pieces: bool) -> None:
    gave_up = threading.Event()

    def stop_reading(sock: socket.socket) -> None:
        sock.recv(1000)
        assert gave_up.wait(5)
        while sock.recv(1_000_000):  # and then the connection is over
            pass

    with served(stop_reading) as port, transport() as sender:
        started = time.monotonic()
        error = failure(sender, long_upload(port, pieces, write_timeout=0.3))
        took = time.monotonic() - started
        gave_up.set()
    check(error, UpstreamTimeout, 504, "upstream_write_timeout", sent=True)
    assert 0.3 <= took < 2


def test_the_time_to_write_is_none_to_answer_in() -> None:
    def think(request: Request, connection: Connection) -> None:
        connection.sleep(0.15)
        ok(request, connection)

    with FakeUpstream(think) as upstream, transport() as sender:
        for _ in range(2):
            request = asking(
                upstream,
                method="POST",
                headers=[("Content-Length", "1")],
                body=b"x",
                connect_timeout=0.1,
                write_timeout=0.1,
            )
            assert read(sender.send(request)) == b"/"
        assert len(opened(upstream, 1)) == 1


def test_the_environment_has_no_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password pass\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    [request] = seen(lambda upstream: asking(upstream))
    assert list(request.headers) == [("Host", "a")]


def test_a_proxy_is_used_where_it_is_configured() -> None:
    with FakeUpstream(ok) as proxy:
        url = proxy.url.replace("//", "//user:pass@")
        with transport(proxies={"http": url}) as sender:
            response = sender.send(asking(1234, "/a/../b?x=%2f", host="b.invalid"))
            assert read(response) == b"http://b.invalid:1234/a/../b?x=%2f"
        [request] = proxy.requests
    assert sorted(request.headers) == [
        ("Host", "a"),
        ("Proxy-Authorization", "Basic dXNlcjpwYXNz"),
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer(status: int) -> None:
    def redirect(request: Request, connection: Connection) -> None:
        connection.respond(status, [("Location", "/elsewhere")], b"moved")

    with FakeUpstream(redirect) as upstream, transport() as sender:
        response = sender.send(asking(upstream, method="POST", body=b"x"))
        assert response.status == status
        assert ("Location", "/elsewhere") in response.headers
        assert read(response) == b"moved"
        assert len(upstream.requests) == 1


def test_no_cookie_is_kept() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.respond(200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    with FakeUpstream(handler) as upstream, transport() as sender:
        for _ in range(2):
            response = sender.send(asking(upstream))
            read(response)
            cookies = [v for name, v in response.headers if name == "Set-Cookie"]
            assert cookies == ["a=1", "b=2"]
        assert [request.values("cookie") for request in upstream.requests] == [[], []]


def test_an_answer_is_given_as_it_came() -> None:
    body = gzip.compress(b"hello" * 1000)
    head = [("X-B", "1"), ("x-a", "caf\xe9"), ("Content-Encoding", "gzip")]

    def handler(request: Request, connection: Connection) -> None:
        connection.respond(529, head, body)

    with FakeUpstream(handler) as upstream, transport() as sender:
        response = sender.send(asking(upstream))
        assert (response.status, response.reason) == (529, "Overloaded")
        assert response.headers == [*head, ("Content-Length", str(len(body)))]
        assert response.peer == ("127.0.0.1", upstream.port)
        assert read(response) == body


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_what_has_no_body_is_over_at_once(method: str, answer: bytes) -> None:
    with FakeUpstream(raw(answer, close=False)) as upstream, transport() as sender:
        for _ in range(2):
            assert read(sender.send(asking(upstream, method=method))) == b""
        assert len(opened(upstream, 1)) == 1


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    "interim",
    [[HINTS], [GO_ON], [HINTS, HINTS], [GO_ON, HINTS], [HINTS] * 9],
    ids=["103", "100", "103 103", "100 103", "many"],
)
@pytest.mark.parametrize("joined", [False, True], ids=["split", "joined"])
def test_interim_answers_are_skipped(interim: list[bytes], joined: bool) -> None:
    """Else the next user of the connection would get this one's answer."""

    def handler(request: Request, connection: Connection) -> None:
        answer = whole(request.target.encode())
        if joined:
            connection.send(b"".join([*interim, answer]))
            return
        for piece in [*interim, answer]:
            connection.send(piece)
            connection.sleep(0.005)

    with FakeUpstream(handler) as upstream, transport() as sender:
        for target in ("/one", "/two", "/three"):
            response = sender.send(asking(upstream, target))
            assert response.status == 200
            assert response.headers == [("Content-Length", str(len(target)))]
            assert read(response) == target.encode()
        assert len(opened(upstream, 1)) == 1


NOT_YOURS = whole(b"not yours")


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        ("GET", whole(b"own"), b"own"),
        ("GET", whole(b""), b""),
        (
            "GET",
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nown\r\n0\r\nX: trailer\r\n\r\n"
            ),
            b"own",
        ),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    ],
    ids=["length", "nothing", "chunks", "HEAD", "HEAD of chunks", "204", "304"],
)
@pytest.mark.parametrize(
    ("at_once", "once_read", "once_asked"),
    [
        (b"Z", b"", b""),
        (NOT_YOURS, b"", b""),
        (whole(b"x" * 100_000), b"", b""),
        (b"", b"Z", b""),
        (b"", NOT_YOURS, b""),
        (b"Z", NOT_YOURS, b""),
        (b"Z", b"", NOT_YOURS),
        (NOT_YOURS, b"", NOT_YOURS),
    ],
    ids=[
        "a byte",
        "an answer",
        "much",
        "a byte later",
        "an answer later",
        "a byte, an answer later",
        "a byte, an answer to the next request",
        "two answers",
    ],
)
def test_what_comes_behind_an_answer_is_nobodys(
    method: str,
    answer: bytes,
    body: bytes,
    at_once: bytes,
    once_read: bytes,
    once_asked: bytes,
) -> None:
    was_read, sent = threading.Event(), threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        if request.target == "/next":
            connection.respond(200, body=b"the next one's")
            return
        connection.send(answer + at_once)
        assert was_read.wait(5)
        try:
            connection.send(once_read)
            connection.sleep(0.01)  # nothing here tells that it has arrived
        finally:  # the connection may be closed, and rightly so
            sent.set()
        upstream.wait_for_requests(2)
        connection.send(once_asked)

    with FakeUpstream(handler) as upstream, transport() as sender:
        assert read(sender.send(asking(upstream, method=method))) == body
        was_read.set()
        assert sent.wait(5)
        response = sender.send(asking(upstream, "/next"))
        assert (response.status, read(response)) == (200, b"the next one's")
        assert len(opened(upstream, 2)) == 2


BAD_ANSWERS = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "nothing": b"",
    "bytes": b"\x15\x03\x01\x00\x02\x02\x46" * 10,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a status": b"HTTP/1.1 2",
    "no number": b"HTTP/1.1 two\r\n\r\n",
    "status out of range": b"HTTP/1.1 99 X\r\n\r\n",
    **{
        f"length {text!r}": b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\nx" % text
        for text in (b"1, 2", b"+1", b"-1", b"one", b"", b"0_1", b"\xb2")
    },
    "two lengths": b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\nx",
    **{
        f"coding {text!r}": (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n1\r\nx\r\n0\r\n\r\n"
            % text
        )
        for text in (b"gzip, chunked", b"identity", b"chunked, chunked", b"")
    },
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\n"
    ),
    "other protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + whole(b"x")
    ),
    "endless hints": HINTS * 20,
    "a line too long": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "a line that is no header": (
        b"HTTP/1.1 200 OK\r\nnonsense\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_what_is_no_answer_is_the_upstreams_fault(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeUpstream(raw(BAD_ANSWERS[case])) as upstream, transport() as sender:
        with pytest.raises(UpstreamError) as caught:
            sender.send(asking(upstream, f"/?key={SECRET}"))
        assert upstream.wait_for_requests(1)[0].target.endswith(SECRET)
    check(caught.value, UpstreamError, 502, "upstream_protocol", sent=True)
    assert SECRET not in caplog.text


def test_a_head_cut_anywhere_is_no_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX: 1\r\n\r\n"

    def handler(request: Request, connection: Connection) -> None:
        connection.send(head[: int(request.values("x-cut")[0])])
        connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        for cut in range(len(head)):
            error = failure(sender, asking(upstream, headers=[("X-Cut", str(cut))]))
            check(error, UpstreamError, 502, "upstream_protocol", sent=True)


def test_more_fields_than_a_head_may_have() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n"
    with FakeUpstream(raw(head)) as upstream, transport() as sender:
        error = failure(sender, asking(upstream))
    check(error, UpstreamError, 502, "upstream_protocol", sent=True)


def check(
    error: UpstreamError, kind: type[UpstreamError], status: int, ended: str, sent: bool
) -> None:
    """An error says what Kong says, and nothing of the request."""
    assert type(error) is kind
    assert (error.status, error.ended, error.sent) == (status, ended, sent)
    assert str(error) == error.message
    assert error.message in {
        "An invalid response was received from the upstream server",
        "The upstream server is timing out",
        "name resolution failed",
    }
    assert SECRET not in repr(error)


def failure(sender: Transport, request: UpstreamRequest) -> UpstreamError:
    request.target = f"/{SECRET}?key={SECRET}"
    request.headers.append(("x-api-key", SECRET))
    with pytest.raises(UpstreamError) as caught:
        sender.send(request)
    return caught.value


def test_nobody_listens() -> None:
    with closed_port() as port, transport() as sender:
        error = failure(sender, asking(port))
    check(error, UpstreamError, 502, "connect", sent=False)
    assert not error.hopeless


def test_nobody_has_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with transport() as sender:
        error = failure(sender, asking(80, host=f"{SECRET}.invalid"))
    check(error, UpstreamError, 503, "dns", sent=False)
    assert error.hopeless


def test_a_connection_that_does_not_open() -> None:
    with black_hole() as port, transport() as sender:
        error = failure(sender, asking(port, connect_timeout=0.1))
    check(error, UpstreamTimeout, 504, "connect_timeout", sent=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["", "[::1", "a" * 64])
def test_what_could_be_no_host_anywhere(host: str, scheme: str) -> None:
    with transport() as sender:
        error = failure(sender, asking(80, host=host, scheme=scheme))
    check(error, UpstreamError, 503, "dns", sent=False)
    assert error.hopeless


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_takes_too_long(scheme: str) -> None:
    known, may_answer = closed_port(), threading.Event()

    def look_up(name: str) -> list[AddressInfo]:
        assert may_answer.wait(5)
        return []

    with known as port, transport(names=Names(look_up)) as sender:
        options = {"scheme": scheme, "connect_timeout": 0.1}
        started = time.monotonic()
        error = failure(sender, asking(port, host="slow", **options))
        assert 0.1 <= time.monotonic() - started < 2
        check(error, UpstreamError, 503, "dns", sent=False)
        assert error.hopeless
        # Who has an address does not wait for those that have none yet.
        assert failure(sender, asking(port, **options)).ended == "connect"
        may_answer.set()


def test_the_addresses_of_a_name_are_tried_in_turn() -> None:
    asked = []

    def look_up(name: str) -> list[AddressInfo]:
        asked.append(name)
        hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (h, 0)) for h in hosts]

    with FakeUpstream(ok) as upstream, transport(names=Names(look_up)) as sender:
        for _ in range(2):
            response = sender.send(asking(upstream, host="Upstream.Example"))
            assert response.peer == ("127.0.0.1", upstream.port)
            assert read(response) == b"/"
            sender.close()
    assert asked == ["upstream.example"]


def hanging(*pieces: bytes) -> Callable[[Request, Connection], None]:
    def handler(request: Request, connection: Connection) -> None:
        for piece in pieces:
            connection.send(piece)
        assert connection.closed_by_peer(5)

    return handler


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nX",), (HINTS,)])
def test_an_answer_that_does_not_come(pieces: tuple[bytes, ...]) -> None:
    with FakeUpstream(hanging(*pieces)) as upstream, transport() as sender:
        error = failure(sender, asking(upstream, read_timeout=0.1))
    check(error, UpstreamTimeout, 504, "first_byte_timeout", sent=True)


def test_a_reset_before_the_answer() -> None:
    def reset(request: Request, connection: Connection) -> None:
        connection.reset()

    with FakeUpstream(reset) as upstream, transport() as sender:
        error = failure(sender, asking(upstream))
    check(error, UpstreamError, 502, "upstream_protocol", sent=True)


CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
BY_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
BY_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (BY_LENGTH + b"hello", b"hello"),
        (BY_LENGTH, b""),
        (BY_CHUNKS + b"5\r\nhello\r\n", b"hello"),
        (BY_CHUNKS + b"5\r\nhel", b"hel"),
        (BY_CHUNKS + b"5\r\nhello\r\nnonsense\r\n", b"hello"),
        (BY_CHUNKS, b""),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_a_body_that_breaks_off(answer: bytes, body: bytes, reset: bool) -> None:
    got = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        connection.send(answer)
        assert got.wait(5)
        connection.reset() if reset else connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        response = sender.send(asking(upstream, f"/?key={SECRET}"))
        arrived = b""
        while len(arrived) < len(body):
            arrived += next(response.chunks)
        got.set()
        with pytest.raises(UpstreamTruncated) as caught:
            arrived += b"".join(response.chunks)
        response.close()
    assert arrived == body
    assert caught.value.ended == "upstream_cut"
    assert str(caught.value) == "upstream stream ended early"


@pytest.mark.parametrize("head", [CLOSE_DELIMITED, BY_LENGTH, BY_CHUNKS])
def test_a_body_that_stops_coming(head: bytes) -> None:
    piece = b"5\r\nhello\r\n" if head == BY_CHUNKS else b"hello"
    with FakeUpstream(hanging(head + piece)) as upstream, transport() as sender:
        response = sender.send(asking(upstream, read_timeout=0.1))
        assert next(response.chunks) == b"hello"
        with pytest.raises(UpstreamTruncated) as caught:
            next(response.chunks)
        response.close()
    assert caught.value.ended == "stream_idle_timeout"


@pytest.mark.parametrize("head", [CLOSE_DELIMITED, BY_LENGTH, BY_CHUNKS])
def test_an_event_is_there_as_soon_as_it_came(head: bytes) -> None:
    """The upstream sends the next event only when this one has been read."""
    was_read = threading.Semaphore(0)
    events = [b"data: %02d\n\n" % number for number in range(10)]

    def handler(request: Request, connection: Connection) -> None:
        connection.send(head)
        for event in events:
            if head == BY_CHUNKS:
                connection.chunk(event)
            else:
                connection.send(event)
            assert was_read.acquire(timeout=5)
        connection.send(b"0\r\n\r\n" if head == BY_CHUNKS else b"")
        connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        response = sender.send(asking(upstream))
        arrived = []
        for chunk in response.chunks:
            arrived.append(chunk)
            was_read.release()
        response.close()
    assert arrived == events


@pytest.mark.parametrize(
    "head", [CLOSE_DELIMITED, BY_LENGTH.replace(b"100", b"18"), BY_CHUNKS]
)
def test_who_reads_can_ask_whether_something_came(head: bytes) -> None:
    """Events that came together are all there, whatever the socket says."""
    may_speak, events = threading.Semaphore(0), [b"data: 1\n\n", b"data: 2\n\n"]

    def handler(request: Request, connection: Connection) -> None:
        connection.send(head)
        assert may_speak.acquire(timeout=5)
        for event in events:
            connection.chunk(event) if head == BY_CHUNKS else connection.send(event)
        assert may_speak.acquire(timeout=5)
        connection.send(b"0\r\n\r\n" if head == BY_CHUNKS else b"")
        connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        response = sender.send(asking(upstream))
        speaks = response.speaks_within
        assert speaks is not None
        started = time.monotonic()
        assert not speaks(0.1)
        assert time.monotonic() - started >= 0.1
        may_speak.release()
        arrived = b""
        while arrived != b"".join(events):
            assert speaks(5)
            arrived += next(response.chunks)
        assert speaks(0.05) is (b"18" in head)
        may_speak.release()
        assert speaks(5)
        assert list(response.chunks) == []
        response.close()
        assert speaks(5)


def test_who_reads_over_tls_can_ask_too() -> None:
    """All of a record is there once it is decrypted, and the socket is silent then."""
    body = b"x" * 12_000
    with tls_upstream(body) as (port, bundle), transport() as sender:
        request = asking(port, scheme="https", host="localhost", verify=bundle)
        response = sender.send(request)
        assert response.speaks_within is not None
        arrived = b""
        while len(arrived) < len(body):
            assert response.speaks_within(0.5)
            arrived += next(response.chunks)
        assert arrived == body
        response.close()


def test_a_connection_is_used_again_once_its_answer_was_read() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(request.target.encode())
        connection.end()

    with FakeUpstream(handler) as upstream, transport() as sender:
        for number in range(5):
            response = sender.send(asking(upstream, f"/{number}"))
            assert read(response) == b"/%d" % number
        assert len(opened(upstream, 1)) == 1


def test_a_connection_is_closed_when_its_answer_was_not_read() -> None:
    with FakeUpstream(hanging(BY_CHUNKS + b"5\r\nhello\r\n")) as upstream:
        with transport() as sender:
            for _ in range(3):
                response = sender.send(asking(upstream))
                assert next(response.chunks) == b"hello"
                response.close()
            assert all(c.closed_by_peer(5) for c in opened(upstream, 3))
        assert len(upstream.connections) == 3


@pytest.mark.parametrize("others", [False, True], ids=["itself", "another upstream"])
def test_a_connection_is_not_kept_idle_for_long(others: bool) -> None:
    with (
        FakeUpstream(ok) as upstream,
        FakeUpstream(ok) as other,
        transport(keepalive_idle=0.4) as sender,
    ):
        for _ in range(3):
            at_once = [sender.send(asking(upstream)) for _ in range(2)]
            assert [read(response) for response in at_once] == [b"/", b"/"]
        assert len(opened(upstream, 2)) == 2
        threading.Event().wait(0.41)
        # None of them is used again, and all are closed, whoever is asked.
        assert read(sender.send(asking(other if others else upstream))) == b"/"
        assert all(c.closed_by_peer(5) for c in opened(upstream, 2)[:2])
        assert len(upstream.connections) == 2 + (not others)


def test_closing_an_answer_twice_does_no_harm() -> None:
    with FakeUpstream(ok) as upstream, transport() as sender:
        response = sender.send(asking(upstream))
        assert read(response) == b"/"
        response.close()
        assert read(sender.send(asking(upstream, "/2"))) == b"/2"
        assert len(opened(upstream, 1)) == 1


def test_a_connection_that_closed_while_idle_is_replaced() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.respond(200, body=b"x")
        connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        for count in range(1, 4):
            response = sender.send(asking(upstream, method="POST", body=b"p"))
            assert read(response) == b"x"
            opened(upstream, count)[-1].stop()
            assert len(upstream.requests) == count
        assert len(opened(upstream, 3)) == 3


def test_a_connection_that_closes_under_the_request() -> None:
    """The upstream may have acted on it: nothing is sent again here."""

    def handler(request: Request, connection: Connection) -> None:
        if len(upstream.requests) == 1:
            connection.respond(200, body=b"x")
        else:
            connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        assert read(sender.send(asking(upstream))) == b"x"
        error = failure(sender, asking(upstream, method="POST", body=b"prompt"))
        assert len(upstream.requests) == 2
    check(error, UpstreamError, 502, "upstream_protocol", sent=True)
    assert error.stale


@pytest.mark.parametrize("script", ["close", "reset", "half"])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_only_a_connection_that_was_used_before_goes_stale(
    script: str, used: bool
) -> None:
    def handler(request: Request, connection: Connection) -> None:
        if request.target == "/before":
            connection.respond(200, body=b"x")
        elif script == "reset":
            connection.reset()
        else:
            connection.send(b"HTTP/1.1 200 OK\r\n" if script == "half" else b"")
            connection.close()

    with FakeUpstream(handler) as upstream, transport() as sender:
        if used:
            assert read(sender.send(asking(upstream, "/before"))) == b"x"
        error = failure(sender, asking(upstream))
        assert len(opened(upstream, 1)) == 1
        # The next connection is a new one.
        assert not failure(sender, asking(upstream)).stale
    check(error, UpstreamError, 502, "upstream_protocol", sent=True)
    assert error.stale == (used and script != "half")


def test_an_answer_before_the_body_was_taken() -> None:
    def early(connection: Connection) -> None:
        connection.send(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close"
            b"\r\n\r\nbig"
        )

    with FakeUpstream(ok, on_connect=early) as upstream, transport() as sender:
        body = b"x" * 5_000_000
        request = asking(
            upstream,
            method="POST",
            headers=[("Content-Length", str(len(body)))],
            body=body,
        )
        response = sender.send(request)
        assert response.status == 413
        assert read(response) == b"big"


# Good for nothing but these tests: `server.pem` is for `localhost` and signed by the
# authority.
SERVER = Path(__file__).parent / "certificates" / "server.pem"
AUTHORITY = SERVER.with_name("authority.pem")
# The name under which OpenSSL looks for it in a directory: `openssl x509 -hash`.
AUTHORITY_HASH = "5b545f4c"


@contextmanager
def tls_upstream(
    body: bytes = b"over TLS", behind: bytes = b""
) -> Iterator[tuple[int, str]]:
    """A port that answers over TLS, and the file of who vouches for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVER)

    def answer(plain: socket.socket) -> None:
        try:
            with context.wrap_socket(plain, server_side=True) as sock:
                while sock.recv(65536):
                    sock.sendall(whole(body) + behind)
        except OSError:
            plain.close()  # a client that does not trust us, or has left

    def accepted(plain: socket.socket) -> None:
        threads.append(threading.Thread(target=answer, args=(plain,), daemon=True))
        threads[-1].start()

    threads: list[threading.Thread] = []
    with Listener(accepted) as listener:
        yield listener.port, str(AUTHORITY)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def refuse(sender: Transport, port: int, host: str, verify: bool | str) -> None:
    """The upstream's certificate is not good enough, and will not get any better."""
    error = failure(sender, asking(port, scheme="https", host=host, verify=verify))
    check(error, UpstreamError, 502, "tls", sent=False)
    assert error.hopeless


def test_a_certificate_is_verified() -> None:
    with tls_upstream() as (port, bundle), transport() as sender:
        request = asking(port, scheme="https", host="localhost", verify=bundle)
        assert read(sender.send(request)) == b"over TLS"
        refuse(sender, port, "localhost", verify=True)
        refuse(sender, port, "127.0.0.1", verify=bundle)


@pytest.mark.parametrize("host", ["upstream.example", "a.localhost", "localhos"])
def test_a_certificate_is_for_one_name(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def everybody_is_here(host: str, *args: Any, **options: Any) -> Any:
        return look_up("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", everybody_is_here)
    with tls_upstream() as (port, bundle), transport() as sender:
        refuse(sender, port, host, verify=bundle)


@pytest.mark.parametrize(
    "name",
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"],
)
def test_the_environment_vouches_for_nobody(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"{AUTHORITY_HASH}.0").write_bytes(AUTHORITY.read_bytes())
    with tls_upstream() as (port, bundle), transport() as sender:
        monkeypatch.setenv(name, str(tmp_path) if name == "SSL_CERT_DIR" else bundle)
        if name.startswith("SSL_"):  # what Python trusts unless told otherwise
            default = ssl.create_default_context()
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                default.wrap_socket(plain, server_hostname="localhost"),
            ):
                pass
        refuse(sender, port, "localhost", verify=True)


@only(RequestsTransport)
def test_the_authorities_are_those_that_requests_brings_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    expected = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    expected.load_verify_locations(requests.certs.where())
    with transport() as sender:
        pool = sender._pool(asking(443, scheme="https", host="localhost"))
        context = pool.conn_kw["ssl_context"]
    found, there = (c.get_ca_certs(binary_form=True) for c in (context, expected))
    assert sorted(found) == sorted(there)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@only(RequestsTransport)
def test_a_pool_is_complete_before_another_thread_can_find_it() -> None:
    found: list[tuple[bool, Any]] = []

    class Watched(dict[Any, Any]):
        def __setitem__(self, key: Any, pool: Any) -> None:
            found.append((hasattr(pool, "names"), pool.depth))
            super().__setitem__(key, pool)

    with transport() as sender:
        sender._pools = Watched()
        tls = TLS(depth=3)
        request = asking(443, scheme="https", host="localhost", tls=tls)
        assert sender._pool(request) is sender._pool(request)
    assert found == [(True, 3)]


@only(RequestsTransport)
def test_authorities_are_loaded_once() -> None:
    with tls_upstream() as (port, bundle), transport() as sender:
        request = asking(port, scheme="https", host="localhost", verify=bundle)
        at_the_same_time = [sender.send(request) for _ in range(3)]
        while at_the_same_time:
            assert read(at_the_same_time.pop()) == b"over TLS"
        waiting: Any = sender._pool(request).pool
        idle = [waiting.get() for _ in range(waiting.qsize())]
        for connection in idle:
            waiting.put(connection)
        assert len(idle) == 3
        assert len({c.sock.context for c in idle}) == 1


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_any_certificate_will_do_where_it_is_said() -> None:
    with tls_upstream() as (port, _), transport() as sender:
        for host in ("127.0.0.1", "localhost"):
            request = asking(port, scheme="https", host=host, verify=False)
            assert read(sender.send(request)) == b"over TLS"
            refuse(sender, port, host, verify=True)  # elsewhere it will not


@pytest.mark.parametrize("size", [1, 8_100, 8_192, 12_000])
@pytest.mark.parametrize("behind", [b"Z", NOT_YOURS * 500], ids=["a byte", "much"])
def test_what_comes_behind_an_answer_over_tls(size: int, behind: bytes) -> None:
    """A record that is decrypted already does not make a socket readable."""
    body = b"x" * (size - len(whole(b"")))
    with (
        tls_upstream(body, behind) as (port, bundle),
        transport() as sender,
    ):
        request = asking(port, scheme="https", host="localhost", verify=bundle)
        for _ in range(3):
            response = sender.send(request)
            assert (response.status, read(response)) == (200, body)


def test_no_tls_where_tls_is_expected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(whole(b"plain"))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with transport() as sender:
            error = failure(sender, asking(server.getsockname()[1], scheme="https"))
        thread.join(5)
    assert (error.status, error.ended) == (502, "tls")


def slam(sock: socket.socket) -> None:
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize(
    ("ending", "status", "ended"),
    [
        ("close", 502, "tls"),
        ("reset", 502, "tls"),
        ("nonsense", 502, "tls"),
        ("silence", 504, "connect_timeout"),
    ],
)
def test_a_handshake_that_does_not_come_about(
    ending: str, status: int, ended: str
) -> None:
    """Nothing of the request has been sent yet, so it may be tried again."""
    over = threading.Event()

    def script(sock: socket.socket) -> None:
        assert sock.recv(65536)  # the client's greeting
        if ending == "reset":
            slam(sock)
        elif ending == "nonsense":
            sock.sendall(b"SSH-2.0-OpenSSH\r\n")
        elif ending == "silence":
            assert over.wait(5)

    with served(script) as port, transport() as sender:
        asked = {"scheme": "https", "host": "localhost", "connect_timeout": 0.2}
        error = failure(sender, asking(port, method="POST", body=b"x", **asked))
        over.set()
    kind = UpstreamTimeout if ended == "connect_timeout" else UpstreamError
    check(error, kind, status, ended, sent=False)
    assert not error.hopeless


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_connection_over_tls_that_ends_under_the_request(
    used: bool, reset: bool
) -> None:
    """This is no failure of TLS, and may be one of a connection that was kept."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVER)

    def script(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as sock:
            if used:
                assert sock.recv(65536)
                sock.sendall(whole(b"x"))
            assert sock.recv(65536)
            if reset:
                slam(sock)

    with served(script) as port, transport() as sender:
        asked = {"scheme": "https", "host": "localhost", "verify": str(AUTHORITY)}
        if used:
            assert read(sender.send(asking(port, **asked))) == b"x"
        error = failure(sender, asking(port, **asked))
    check(error, UpstreamError, 502, "upstream_protocol", sent=True)
    assert error.stale is used


@contextmanager
def tunnels(over_tls: bool) -> Iterator[tuple[str, list[bytes]]]:
    """A corporate proxy for `localhost`, and the heads that it is sent."""
    heads: list[bytes] = []

    def lead(sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream:
            lines = []
            while (line := stream.readline()) not in (b"\r\n", b""):
                lines.append(line)
            heads.append(b"".join(lines))
            port = int(lines[0].split()[1].rpartition(b":")[2])
            sock.sendall(b"HTTP/1.1 200 Connection established\r\nVia: p\r\n\r\n")
            there = socket.create_connection(("127.0.0.1", port))
            with there, suppress(ConnectionError):  # who does not trust us leaves
                relay(sock, there)

    def accepted(sock: socket.socket) -> None:
        threads.append(threading.Thread(target=lead, args=(sock,), daemon=True))
        threads[-1].start()

    threads: list[threading.Thread] = []
    with Listener(accepted) as listener, Front(listener.port) as front:
        scheme, port = ("https", front.port) if over_tls else ("http", listener.port)
        yield f"{scheme}://user:pass@localhost:{port}", heads
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_a_proxy_leads_to_an_upstream_over_tls(
    over_tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else nobody vouches for the proxy.
    monkeypatch.setattr("certifi.where", lambda: str(AUTHORITY))
    body = b"x" * 50_000
    with (
        tls_upstream(body) as (port, _),
        tunnels(over_tls) as (url, heads),
        transport(proxies={"https": url}) as sender,
    ):
        for _ in range(2):
            response = sender.send(asking(port, scheme="https", host="localhost"))
            assert response.peer is not None
            assert read(response) == body
        refuse(sender, port, "127.0.0.1", verify=True)
    assert len(heads) == 2
    first, *fields = heads[0].decode().splitlines()
    assert first in (f"CONNECT localhost:{port} HTTP/1.{minor}" for minor in (0, 1))
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in fields
    assert not any(field.lower().startswith(("user-agent", "x-")) for field in fields)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 403 No\r\n\r\n", b"SSH-2\r\n"])
def test_a_proxy_that_lets_nothing_through(answer: bytes) -> None:
    def script(sock: socket.socket) -> None:
        assert sock.recv(65536).startswith(b"CONNECT a.invalid:443 ")
        sock.sendall(answer)

    with served(script) as port:
        proxies = {"https": f"http://127.0.0.1:{port}"}
        with transport(proxies=proxies) as sender:
            error = failure(sender, asking(443, host="a.invalid", scheme="https"))
    check(error, UpstreamError, 502, "connect", sent=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(scheme: str) -> None:
    with (
        closed_port() as port,
        transport(proxies={scheme: f"http://127.0.0.1:{port}"}) as sender,
    ):
        error = failure(sender, asking(443, host="a.invalid", scheme=scheme))
    check(error, UpstreamError, 502, "connect", sent=False)


def test_nobody_is_told_the_keys_of_a_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with tls_upstream() as (port, bundle), transport() as sender:
        request = asking(port, scheme="https", host="localhost", verify=bundle)
        assert read(sender.send(request)) == b"over TLS"
    assert [*tmp_path.iterdir()] == []


def test_requests_at_the_same_time_do_not_mix() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for _ in range(3):
            connection.chunk(request.target.encode())
        connection.end()

    wrong: list[bytes] = []

    def ask(worker: int) -> None:
        for number in range(10):
            target = f"/{worker}/{number}"
            body = read(sender.send(asking(upstream, target)))
            if body != target.encode() * 3:
                wrong.append(body)

    with FakeUpstream(handler) as upstream, transport() as sender:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(upstream.requests) == 80
    assert wrong == []
