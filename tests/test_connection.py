from __future__ import annotations

import gc
import http.client
import io
import logging
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from wsgiref.validate import validator

import pytest

from kongai.connection import Connection
from kongai.errors import AnswerCut, ClientGone, ClientTimeout, ServerStopping
from kongai.limits import Limits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SECRET = "c4nary-5f1d"


class Host:
    """Notes what the connection wants of the server around it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def watch(self, *, whole: bool) -> None:
        self.calls.append("watch" if whole else "look out")

    def unwatch(self) -> None:
        self.calls.append("unwatch")

    def share(self) -> None:
        pass

    def done(self) -> None:
        self.calls.append("done")


class Wire:
    """The client's end of a connection that is served on a thread."""

    def __init__(
        self, application: WSGIApplication, limits: Limits | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sock = socket.create_connection(listener.getsockname(), timeout=5)
            accepted, _ = listener.accept()
        environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "REMOTE_ADDR": "127.0.0.1",
        }
        self.host = Host()
        self.connection = Connection(accepted, environ, application, self.host, limits)
        self.error: BaseException | None = None
        self._stream = self.sock.makefile("rb")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.connection.serve()
        except BaseException as error:
            self.error = error

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def no_more(self) -> None:
        """Close the sending half, which a server sees as the end of the requests."""
        self.sock.shutdown(socket.SHUT_WR)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        return self._stream.read()

    def head(self) -> bytes:
        """The lines up to an empty one, which is left out."""
        lines = iter(self._stream.readline, b"\r\n")
        return b"".join(lines)

    def answer(self, method: str = "GET") -> Answer:
        return Answer.read(self._stream, method)

    def close(self) -> None:
        self._stream.close()
        self.sock.close()
        self._thread.join(5)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


class Answer(NamedTuple):
    """An answer as a strict client reads it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @classmethod
    def read(cls, stream: IO[bytes], method: str = "GET") -> Answer:
        version, status = stream.readline().split()[:2]
        assert version == b"HTTP/1.1"
        headers = http.client.parse_headers(stream)
        body = b""
        if method != "HEAD" and status not in (b"204", b"304"):
            body = cls._body(stream, headers)
        return cls(int(status), headers, body)

    @staticmethod
    def _body(stream: IO[bytes], headers: http.client.HTTPMessage) -> bytes:
        size = headers["content-length"]
        if size is not None:
            assert headers["transfer-encoding"] is None
            body = stream.read(int(size))
            assert len(body) == int(size)
            return body
        assert headers["transfer-encoding"] == "chunked"
        chunks = []
        while piece := stream.read(int(stream.readline(), 16)):
            chunks.append(piece)
            assert stream.readline() == b"\r\n"
        assert stream.readline() == b"\r\n"
        return b"".join(chunks)


@contextmanager
def served(application: WSGIApplication) -> Iterator[Wire]:
    wire = Wire(application)
    try:
        yield wire
    except BaseException:
        wire.sock.close()
        raise
    else:
        wire.close()


def exchange(application: WSGIApplication, data: bytes) -> bytes:
    """Everything that a server says to these bytes."""
    with served(application) as wire:
        wire.send(data)
        wire.no_more()
        return wire.rest()


def parsed(data: bytes, *methods: str) -> list[Answer]:
    """The answers to requests of these methods, and nothing after them."""
    stream = io.BytesIO(data)
    answers = [Answer.read(stream, method) for method in methods]
    assert stream.read() == b""
    return answers


class Pieces:
    """An answer's body: pieces, exceptions among them; counts its closing."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self._pieces = iter(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


def saying(
    body: Iterable[bytes] = (b"hello",),
    status: str = "200 OK",
    *headers: tuple[str, str],
) -> WSGIApplication:
    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        start_response(status, list(headers))
        return body

    return application


def length(size: int) -> tuple[str, str]:
    return ("Content-Length", str(size))


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the request's path and body."""
    said = environ["PATH_INFO"].encode("latin-1") + b" " + environ["wsgi.input"].read()
    start_response("200 OK", [length(len(said))])
    return [said]


def post(body: bytes, *lines: bytes, path: bytes = b"/p") -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"Host: a", *lines]
    head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def test_a_connection_carries_one_request_after_the_other() -> None:
    with served(echo) as wire:
        for path in (b"/1", b"/2", b"/3"):
            wire.send(post(b"x" * 100_000, path=path))
            answer = wire.answer()
            assert answer.body == path + b" " + b"x" * 100_000
            assert answer.headers["connection"] is None


def test_requests_sent_at_once_are_answered_in_order() -> None:
    data = post(b"a", path=b"/1") + GET + post(b"b", path=b"/2")
    bodies = [answer.body for answer in parsed(exchange(echo, data), *["GET"] * 3)]
    assert bodies == [b"/1 a", b"/ ", b"/2 b"]


def test_a_request_may_come_byte_by_byte() -> None:
    with served(echo) as wire:
        for byte in post(b"abc"):
            wire.send(bytes([byte]))
        assert wire.answer().body == b"/p abc"


def test_a_good_request_is_answered_before_a_bad_one_is_refused() -> None:
    good, bad = parsed(exchange(echo, GET + b"nonsense\r\n\r\n"), "GET", "GET")
    assert (good.status, good.body) == (200, b"/ ")
    assert bad.status == 400


@pytest.mark.parametrize(
    ("line", "more", "stays"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: Close, x\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_who_wants_to_go_on(line: bytes, more: bytes, stays: bool) -> None:
    with served(saying([b"hello"], "200 OK", length(5))) as wire:
        wire.send(line + b"\r\nHost: a\r\n" + more + b"\r\n")
        answer = wire.answer()
        assert answer.body == b"hello"
        if stays:
            assert (answer.headers["connection"] is None) == line.endswith(b"1.1")
            wire.send(GET)
            assert wire.answer().body == b"hello"
        else:
            assert answer.headers["connection"] == "close"
            assert wire.rest() == b""


def test_an_old_client_gets_no_chunks() -> None:
    app = saying([b"he", b"llo"])
    data = exchange(app, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"Connection: close" in head
    assert b"Transfer-Encoding" not in head


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", "200 OK", [length(5)]),
        ("HEAD", "200 OK", []),
        ("GET", "204 No Content", []),
        ("GET", "304 Not Modified", [length(5)]),
        ("GET", "304 Not Modified", []),
    ],
)
@pytest.mark.parametrize("body", [(b"hello",), ()], ids=["body", "none"])
def test_what_has_no_body_gets_none(
    method: str, status: str, headers: list[tuple[str, str]], body: tuple[bytes, ...]
) -> None:
    request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    data = exchange(saying(body, status, *headers), request + request)
    for answer in parsed(data, method, method):
        assert answer.status == int(status[:3])
        assert answer.body == b""
        given = [(k, v) for k, v in answer.headers.items() if k != "Date"]
        assert given == headers


def test_a_body_of_unknown_length_goes_in_chunks() -> None:
    data = exchange(saying([b"he", b"", b"llo" * 10]), GET)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"2\r\nhe\r\n1e\r\n" + b"llo" * 10 + b"\r\n0\r\n\r\n"


def test_an_empty_answer_has_length_zero() -> None:
    data = exchange(saying([]), GET + GET)
    for answer in parsed(data, "GET", "GET"):
        assert answer.headers["content-length"] == "0"
        assert answer.headers["transfer-encoding"] is None


def test_less_than_announced_is_not_completed() -> None:
    data = exchange(saying([b"hel"], "200 OK", length(5)), GET + GET)
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b"hel"
    assert b"Content-Length: 5" in head


def test_more_than_announced_stays_here() -> None:
    app = saying([b"hello, ", b"world", b"!"], "200 OK", length(8))
    data = exchange(app, GET + GET)
    assert [a.body for a in parsed(data, "GET", "GET")] == [b"hello, w"] * 2


def test_write_sends_the_head_before_there_is_a_body() -> None:
    head_seen = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-A", "1")])(b"")
        assert head_seen.wait(5)
        return [b"late"]

    with served(app) as wire:
        wire.send(GET)
        assert b"X-A: 1\r\n" in wire.head()
        head_seen.set()
        assert wire.read(4 + len(b"4\r\n\r\n0\r\n\r\n")) == b"4\r\nlate\r\n0\r\n\r\n"


def test_each_piece_leaves_at_once() -> None:
    seen = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        for piece in (b"1", b"2", b"3"):
            yield piece
            assert seen.wait(5)
            seen.clear()

    with served(app) as wire:
        wire.send(GET)
        wire.head()
        for piece in (b"1", b"2", b"3"):
            assert wire.read(6) == b"1\r\n%b\r\n" % piece
            seen.set()
        assert wire.read(5) == b"0\r\n\r\n"


def test_writes_come_before_what_is_returned() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    [answer] = parsed(exchange(app, GET), "GET")
    assert answer.body == b"abc"


@pytest.mark.parametrize("expect", [b"100-continue", b"100-Continue", b"100-CONTINUE"])
def test_a_client_that_asks_is_told_to_go_ahead(expect: bytes) -> None:
    head, body = post(b"hello", b"Expect: " + expect)[:-5], b"hello"
    with served(echo) as wire:
        wire.send(head)
        assert wire.head() == b"HTTP/1.1 100 Continue\r\n"
        wire.send(body)
        assert wire.answer().body == b"/p hello"
        wire.send(GET)
        assert wire.answer().body == b"/ "


def test_a_client_that_does_not_wait_needs_no_go_ahead() -> None:
    data = exchange(echo, post(b"hello", b"Expect: 100-continue"))
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_old_client_can_not_ask() -> None:
    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with served(echo) as wire:
        wire.send(head)
        wire.send(b"hello")
        assert wire.head().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("expect", [(), (b"Expect: 100-continue",)])
def test_an_early_answer_ends_the_connection(expect: tuple[bytes, ...]) -> None:
    """What comes of the body later can't be taken for a request."""
    body = GET * 3
    with served(saying([b"no"], "401 Unauthorized", length(2))) as wire:
        wire.send(post(body, *expect)[: -len(body)])
        answer = wire.answer()
        assert (answer.status, answer.body) == (401, b"no")
        assert answer.headers["connection"] == "close"
        wire.send(body)
        assert wire.rest() == b""


def test_a_client_still_sending_can_read_an_early_answer() -> None:
    body = b"x" * 33_000_000
    with served(saying([b"no"], "413 Too Large", length(2))) as wire:
        wire.send(post(body)[: -len(body)])
        assert wire.head().startswith(b"HTTP/1.1 413")
        assert wire.read(2) == b"no"
        wire.send(body)
        assert wire.rest() == b""


def test_a_body_that_nobody_asked_for_is_passed_over() -> None:
    data = exchange(saying([b"hi"], "200 OK", length(2)), post(GET) + GET)
    assert [answer.body for answer in parsed(data, "POST", "GET")] == [b"hi", b"hi"]


def no_status(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    return [b"hello"]


def raising(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise ValueError(SECRET)


BROKEN: dict[str, Callable[[], WSGIApplication]] = {
    "at once": lambda: raising,
    "before the first piece": lambda: saying(Pieces(ValueError(SECRET))),
    "in a head with a length": (
        lambda: saying(Pieces(ValueError(SECRET)), "200 OK", length(9))
    ),
    "without a status": lambda: no_status,
    "with a length that is no number": (
        lambda: saying([b"hello"], "200 OK", ("Content-Length", SECRET))
    ),
    "with a header outside latin-1": (
        lambda: saying([b"hello"], "200 OK", ("X-A", f"{SECRET}\u20ac"))
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_application_that_breaks_in_time_is_answered_for(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = exchange(BROKEN[case](), GET + GET)
    [answer] = parsed(data, "GET")
    assert answer.status == 500
    request_id = answer.headers["x-kong-request-id"]
    assert answer.body.decode() == (
        f"An unexpected error occurred\nrequest_id: {request_id}\n"
    )
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["connection"] == "close"
    assert len(caplog.records) == 1
    assert "Error at " in caplog.text
    assert SECRET not in caplog.text
    assert SECRET.encode() not in data


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), AnswerCut(), ServerStopping(), ClientGone()]
)
def test_an_answer_that_breaks_off_is_not_completed(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    data = exchange(saying(Pieces(b"hello", error)), GET + GET)
    assert data.endswith(b"\r\n\r\n5\r\nhello\r\n")
    data = exchange(saying(Pieces(b"hello", error), "200 OK", length(9)), GET + GET)
    assert data.endswith(b"\r\n\r\nhello")
    assert bool(caplog.records) == isinstance(error, ValueError)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("error", [AnswerCut(), ServerStopping(), ClientGone()])
def test_an_answer_cut_before_it_began_is_no_answer(error: BaseException) -> None:
    data = exchange(saying(Pieces(error), "200 OK", length(0)), GET)
    assert not data.startswith(b"HTTP/1.1 200")


def test_a_status_may_be_replaced_until_it_is_sent() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("X-A", "1")])
        try:
            raise KeyError(1)
        except KeyError:
            start_response("502 Bad Gateway", [length(1)], sys.exc_info())
        return [b"x"]

    [answer] = parsed(exchange(app, GET), "GET")
    assert answer.status == 502
    assert answer.headers["x-a"] is None


def test_a_status_that_was_sent_stands() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(b"x")
        try:
            raise KeyError(1)
        except KeyError:
            start_response("502 Bad Gateway", [], sys.exc_info())
        return [b"y"]

    assert exchange(app, GET).endswith(b"\r\n\r\n1\r\nx\r\n")


CLOSING: dict[str, tuple[bytes, tuple[bytes | BaseException, ...]]] = {
    "read to its end": (GET, (b"a", b"b")),
    "empty": (GET, ()),
    "broken at once": (GET, (ValueError(),)),
    "broken later": (GET, (b"a", ValueError())),
    "cut": (GET, (b"a", AnswerCut())),
    "stopped": (GET, (b"a", ServerStopping())),
    "left": (GET, (b"a", ClientGone())),
    "killed": (GET, (b"a", SystemExit())),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", (b"a", b"b")),
    "1.0": (b"GET / HTTP/1.0\r\n\r\n", (b"a", b"b")),
    "unread body": (post(b"x" * 9)[:-9], (b"a", b"b")),
}


@pytest.mark.parametrize("headers", [(), (length(1),), (length(9),)])
@pytest.mark.parametrize("case", CLOSING)
def test_a_body_is_closed_exactly_once(
    case: str, headers: tuple[tuple[str, str], ...]
) -> None:
    request, pieces = CLOSING[case]
    body = Pieces(*pieces)
    wire = Wire(saying(body, "200 OK", *headers))
    wire.send(request)
    wire.no_more()
    wire.rest()
    if case == "killed":
        with pytest.raises(SystemExit):
            wire.close()
    else:
        wire.close()
    assert body.closed == 1
    assert wire.host.calls[-1] == "done"


def test_a_client_that_left_ends_the_answer() -> None:
    left = threading.Event()

    class Endless(Pieces):
        def __next__(self) -> bytes:
            assert left.wait(5)
            return b"x" * 100_000

    body = Endless()
    with served(saying(body)) as wire:
        wire.send(GET)
        wire.sock.shutdown(socket.SHUT_RDWR)
        wire.sock.close()
        left.set()
    assert body.closed == 1


def test_a_client_that_leaves_within_its_body_ends_the_exchange() -> None:
    raised: list[BaseException] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except BaseException as error:
            raised.append(error)
            raise
        return []

    assert exchange(app, post(b"hello")[:-1]) == b""
    assert [type(error) for error in raised] == [ClientGone]


def test_a_body_that_does_not_close_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Pieces):
        def close(self) -> None:
            super().close()
            raise ValueError(SECRET)

    body = Stuck(b"hello")
    assert exchange(saying(body), GET).endswith(b"5\r\nhello\r\n0\r\n\r\n")
    assert body.closed == 1
    assert "ValueError at " in caplog.text
    assert SECRET not in caplog.text


def test_the_client_is_watched_from_its_last_byte_to_the_end_of_the_answer() -> None:
    calls: list[list[str]] = []

    class Noting(Pieces):
        def close(self) -> None:
            calls.append(list(wire.host.calls))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(list(wire.host.calls))
        environ["wsgi.input"].read()
        calls.append(list(wire.host.calls))
        start_response("200 OK", [])
        return Noting(b"x")

    with served(app) as wire:
        wire.send(post(b"abc")[:-1])
        while not calls:
            time.sleep(0.001)
        wire.send(b"c")
        wire.no_more()
        wire.rest()
    assert calls == [
        ["look out"],
        ["look out", "watch"],
        ["look out", "watch", "unwatch"],
    ]


REFUSED = {
    "not HTTP": (b"nonsense\r\n\r\n", 400, "Bad request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "Bad request"),
    "HTTP/2": (
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        505,
        "HTTP version not supported",
    ),
    "too large": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000,
        431,
        "Request header or cookie too large",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_answered_and_close(case: str) -> None:
    request, status, message = REFUSED[case]
    with served(raising) as wire:
        wire.send(request)
        answer = wire.answer()
        assert answer.status == status
        request_id = answer.headers["x-kong-request-id"]
        assert answer.body.decode() == f"{message}\nrequest_id: {request_id}\n"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


def test_a_body_that_is_not_http_is_refused() -> None:
    with served(echo) as wire:
        wire.send(GET + CHUNKED + b"2\r\nab\r\nnonsense\r\n" + GET)
        assert wire.answer().status == 200
        answer = wire.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


def test_a_body_that_turns_bad_can_not_change_a_status_that_was_sent() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])(b"")
        yield environ["wsgi.input"].read()

    with served(app) as wire:
        wire.send(CHUNKED + b"2\r\nab\r\n")
        assert wire.head().startswith(b"HTTP/1.1 200 OK\r\n")
        wire.send(b"nonsense\r\n")
        assert wire.rest() == b""


def test_answers_carry_a_date() -> None:
    [answer] = parsed(exchange(saying(), GET), "GET")
    date = parsedate_to_datetime(answer.headers["date"])
    assert abs(date.timestamp() - time.time()) < 5
    own = saying([b"x"], "200 OK", ("date", "Thu, 01 Jan 1970 00:00:00 GMT"))
    [answer] = parsed(exchange(own, GET), "GET")
    assert answer.headers.get_all("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


def test_a_server_that_stops_closes_after_the_present_answer() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert wire.connection.busy
        wire.connection.closing = True
        return saying([b"x"], "200 OK", length(1))(environ, start_response)

    with served(app) as wire:
        wire.send(GET)
        answer = wire.answer()
        assert (answer.body, answer.headers["connection"]) == (b"x", "close")
        assert wire.rest() == b""
        assert not wire.connection.busy


def environ_of(request: bytes) -> WSGIEnvironment:
    seen: list[WSGIEnvironment] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    exchange(validator(app), request)
    [environ] = seen
    return environ


@pytest.mark.parametrize(
    ("target", "raw", "path", "query"),
    [
        ("/", "/", "/", ""),
        ("/a/b?x=1&y", "/a/b?x=1&y", "/a/b", "x=1&y"),
        ("/a%2Fb%20c?x=%2f", "/a%2Fb%20c?x=%2f", "/a/b c", "x=%2f"),
        ("/a/../b//c?", "/a/../b//c?", "/a/../b//c", ""),
        ("/caf%C3%A9", "/caf%C3%A9", "/caf\xc3\xa9", ""),
        ("http://b:1/x?y=http://z/", "/x?y=http://z/", "/x", "y=http://z/"),
        ("http://b", "/", "/", ""),
        ("/x?y=http://z/", "/x?y=http://z/", "/x", "y=http://z/"),
    ],
)
def test_the_environment_has_the_target_raw_and_decoded(
    target: str, raw: str, path: str, query: str
) -> None:
    environ = environ_of(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert environ["REQUEST_URI"] == raw
    assert environ["PATH_INFO"] == path
    assert environ["QUERY_STRING"] == query
    assert environ["SCRIPT_NAME"] == ""


def test_the_environment_has_the_headers() -> None:
    environ = environ_of(
        b"POST / HTTP/1.1\r\nHost: a:8000\r\nContent-Type: text/x\r\n"
        b"Content-Length: 0\r\nX-One: 1\r\nx-one: caf\xe9\r\nX_One: 3\r\n"
        b"Cookie: a=1\r\nCookie: b=2\r\n\r\n"
    )
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["HTTP_HOST"] == "a:8000"
    assert environ["CONTENT_TYPE"] == "text/x"
    assert environ["CONTENT_LENGTH"] == "0"
    assert environ["HTTP_X_ONE"] == "1, caf\xe9"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert environ["kongai.headers"] == [
        ("Host", "a:8000"),
        ("Content-Type", "text/x"),
        ("Content-Length", "0"),
        ("X-One", "1"),
        ("x-one", "caf\xe9"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
    ]


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: stream.read(-1),
        lambda stream: b"".join(iter(lambda: stream.read(3), b"")),
        lambda stream: b"".join(stream),
        lambda stream: b"".join(stream.readlines()),
        lambda stream: b"".join(iter(stream.readline, b"")),
        lambda stream: io.BufferedReader(stream).read(),
    ],
    ids=["read", "read all", "read 3", "iterate", "readlines", "readline", "buffered"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_input_reads_like_a_file(
    read: Callable[[Any], bytes], chunked: bool
) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["wsgi.input_terminated"]
        stream = environ["wsgi.input"]
        body = read(stream)
        if not stream.closed:
            assert stream.read(1) == b""
        start_response("200 OK", [length(len(body))])
        return [body]

    body = b"one\ntwo\r\nthree"
    request = post(body)
    if chunked:
        request = CHUNKED + b"5\r\none\nt\r\n9\r\nwo\r\nthree\r\n0\r\n\r\n"
    assert parsed(exchange(app, request + GET), "POST", "GET")[0].body == body


def test_a_valid_application_is_served_validly() -> None:
    """wsgiref's checker stands between the two and objects to either."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        body = environ["wsgi.input"].read(5)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"got "
        yield body

    with served(validator(app)) as wire:
        for path in (b"/", b"/a?b"):
            wire.send(post(b"hello", path=path))
            assert wire.answer("POST").body == b"got hello"


def test_log_lines_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    exchange(raising, GET)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("size", [1, 5, 9, 10, 11, 100])
def test_a_read_with_a_size_waits_for_all_of_it(size: int) -> None:
    """Many applications read a body with one call and the length they were told."""
    read: list[bytes] = []

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        read.append(environ["wsgi.input"].read(size))
        read.append(environ["wsgi.input"].read())
        return saying([b"ok"], "200 OK", length(2))(environ, start_response)

    body = b"0123456789"
    with served(application) as wire:
        sent = post(body)
        for part in (sent[:-7], sent[-7:-3], sent[-3:]):
            wire.send(part)
        assert wire.answer().body == b"ok"
    assert read == [body[:size], body[size:]]


def test_read1_takes_what_has_come() -> None:
    parts: list[bytes] = []

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        write = start_response("200 OK", [length(1)])
        parts.append(environ["wsgi.input"].read1(100))
        write(b"x")
        while part := environ["wsgi.input"].read1(100):
            parts.append(part)
        return []

    sent = post(b"helloworld")
    with served(application) as wire:
        wire.send(sent[:-5])
        assert wire.head().startswith(b"HTTP/1.1 200")
        wire.send(sent[-5:])
        assert wire.rest() == b"x"
    assert parts == [b"hello", b"world"]


def test_lines_may_be_read_in_part() -> None:
    read: list[object] = []

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        read.append([stream.readline(2), stream.readline(5), stream.readline(0)])
        read.append(stream.readlines(4))
        read.append(stream.readline(None))
        read.append(stream.read1())
        return saying([b"ok"], "200 OK", length(2))(environ, start_response)

    sent = post(b"one\ntwo\nthree\nfour\nfive")
    with served(application) as wire:
        for part in (sent[:-22], sent[-22:-17], sent[-17:]):
            wire.send(part)
            time.sleep(0.01)
        assert wire.answer().body == b"ok"
    assert read == [
        [b"on", b"e\n", b""],
        [b"two\n"],
        b"three\n",
        b"four\nfive",
    ]


def test_an_upgrade_that_is_asked_for_is_named_as_the_connections() -> None:
    wanted = saying(
        (b"tls",), "426 Upgrade Required", ("Upgrade", "TLS/1.2"), length(3)
    )
    with served(wanted) as wire:
        for _ in range(2):  # the connection stays as it is
            wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert wire.answer().headers["connection"] == "Upgrade"


@pytest.mark.parametrize("before", [b"", b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_refusal_of_a_head_request_has_no_body(before: bytes) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "0")])
        return []

    twice = b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    refused = exchange(application, before + twice)
    assert refused.endswith(b"\r\n\r\n")
    assert b"400 Bad Request" in refused
    unknown = exchange(application, before + b"no HTTP\r\n\r\n")
    assert b"\r\n\r\nBad request" in unknown


def test_a_body_that_drips_is_not_waited_for() -> None:
    """Each byte comes in time, but all of them would take hours."""
    limits = Limits(body=1.0, body_rate=1000, body_grace=0.1)
    raised: list[type[BaseException]] = []

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except BaseException as error:
            raised.append(type(error))
            raise
        raise AssertionError("it came")

    wire = Wire(application, limits)
    wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    wire.sock.settimeout(0.01)
    answer = b""
    deadline = time.monotonic() + 5
    while not answer and time.monotonic() < deadline:
        wire.send(b" ")
        try:
            answer = wire.sock.recv(1000)
        except TimeoutError:
            continue
    wire.sock.settimeout(5)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert raised == [ClientTimeout]
    wire.no_more()
    wire.close()


def test_an_exchange_leaves_nothing_to_the_garbage_collector() -> None:
    """What stays until it comes may be megabytes of bodies."""

    class Whole:
        def __init__(self, environ: WSGIEnvironment) -> None:
            self.environ, self.left = environ, [b"a", b"b"]

        def is_whole(self) -> bool:
            return True

        def __iter__(self) -> Whole:
            return self

        def __next__(self) -> bytes:
            if not self.left:
                raise StopIteration
            return self.left.pop()

    made: list[weakref.ref[Whole]] = []

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        answer = Whole(environ)
        made.append(weakref.ref(answer))
        start("200 OK", [])
        return answer

    with served(application) as wire:
        wire.send(GET)
        wire.answer()
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                wire.send(GET)
                assert wire.answer().body == b"ba"
            # Of the last one, the connection may still be at work.
            assert [one() for one in made[:-1]] == [None] * 3
        finally:
            gc.enable()
