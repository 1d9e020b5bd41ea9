"""Heads of answers, as an upstream on a real socket sends them."""

from __future__ import annotations

import time

import pytest

from kongai.errors import UpstreamError, UpstreamTimeout
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.transport import RequestsTransport
from tests.conftest import TransportClass
from tests.live.upstream import Connection, FakeUpstream, Request

OK = b"HTTP/1.1 200 OK\r\n"
END = b"Content-Length: 0\r\n\r\n"
# The one that the test is about at the moment.
kind: TransportClass = RequestsTransport


@pytest.fixture(autouse=True)
def both(transport_class: TransportClass, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is an answer to one transport is one to the other."""
    monkeypatch.setitem(globals(), "kind", transport_class)


def answer(
    *steps: bytes | float, timeout: float = 5.0
) -> UpstreamResponse | UpstreamError:
    """What is made of an upstream that sends bytes, waits seconds, and closes."""

    def handler(request: Request, connection: Connection) -> None:
        for step in steps:
            if isinstance(step, bytes):
                connection.send(step)
            else:
                connection.sleep(step)
        connection.close()

    with FakeUpstream(handler) as upstream:
        port = int(upstream.url.rpartition(":")[2])
        head = [("Host", "h")]
        asked = UpstreamRequest("GET", "http", "127.0.0.1", port, "/", head)
        asked.read_timeout = timeout
        transport = kind()
        try:
            response = transport.send(asked)
        except UpstreamError as error:
            return error
        else:
            response.close()
            return response
        finally:
            transport.close()


@pytest.mark.parametrize(
    "line",
    [b"X: 1", b"X:1", b"X:", b"x_y: 1", b"X: a:b", b"X: \xc3\xa9", b'X/"(): 1'],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_field_is_a_name_a_colon_and_a_value(line: bytes, end: bytes) -> None:
    found = answer(OK + line + end + END)
    assert isinstance(found, UpstreamResponse)
    name, _, value = line.decode("latin-1").partition(":")
    assert found.headers[0] == (name, value.strip())


@pytest.mark.parametrize(
    "line",
    [
        b"X",
        b"X : 1",
        b"X y: 1",
        b": 1",
        b"\x7f: 1",
        b"X: a\0b",
        b"X: a\rb",
        b" X: 1",
        b"X: 1\r\n continued",
        b"X: 1\r\n\tcontinued",
    ],
)
def test_another_line_in_a_head_is_refused_for_good(line: bytes) -> None:
    """What is no HTTP would be none a second time, and is not asked for again."""
    error = answer(OK + line + b"\r\n" + END)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.hopeless, error.sent) == (502, True, True)


@pytest.mark.parametrize(
    "text",
    [
        b"hello world",
        b"\0\1\2\r\n\r\n",
        b"\r\n" + OK + END,
        b"http/1.1 200 OK\r\n" + END,
        b"HTTP/1.1 two\r\n" + END,
        b"HTTP/1.1 099 Low\r\n" + END,
        OK + b"Content-Length: abc\r\n\r\n",
        OK + b"Content-Length: 1\r\n" * 2 + b"\r\nx",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        OK + b"X: 1\r\n" * 200 + END,
        OK + b"X: " + b"x" * 70_000 + b"\r\n" + END,
        OK + (b"X: " + b"x" * 6_000 + b"\r\n") * 11 + END,
    ],
)
def test_what_is_no_answer_is_refused_for_good(text: bytes) -> None:
    error = answer(text)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.hopeless) == (502, True)


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Hints\r\nX: 12345678\r\n\r\n"])
def test_a_head_has_so_many_bytes_and_no_more(
    before: bytes, more: int, fits: bool
) -> None:
    """Heads of interim answers are none of it."""
    lines = (b"X: " + b"x" * 6_000 + b"\r\n") * 10
    rest = 65536 - len(OK + lines + b"Y: \r\n" + END) + more
    found = answer(before + OK + lines + b"Y: " + b"y" * rest + b"\r\n" + END)
    assert isinstance(found, UpstreamResponse) is fits
    if isinstance(found, UpstreamError):
        assert (found.status, found.hopeless) == (502, True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HT",
        b"HTTP/1.1 2",
        OK,
        OK + b"X: 1\r\n",
        OK + b"X",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nX",
    ],
)
def test_a_connection_that_ends_within_a_head_may_be_tried_again(text: bytes) -> None:
    error = answer(text)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.hopeless) == (502, False)


def test_a_head_that_comes_line_by_line_has_to_come_in_time() -> None:
    started = time.monotonic()
    error = answer(OK, 0.12, b"X: 1\r\n", 0.12, b"Y: 1\r\n", 5.0, timeout=0.2)
    assert isinstance(error, UpstreamTimeout)
    assert 0.15 < time.monotonic() - started < 0.6


def test_each_interim_answer_gives_new_time() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    found = answer(hints, 0.15, hints, 0.15, OK + END, timeout=0.25)
    assert isinstance(found, UpstreamResponse)
    assert found.status == 200
