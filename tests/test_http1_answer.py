"""Answers as bytes, in every cut; what they are over sockets is in test_transport."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, strategies as st

from kongai.http1 import LAST_CHUNK, chunk
from kongai.http1_answer import (
    Body,
    ByChunks,
    ByLength,
    Head,
    HeadReader,
    Malformed,
    UntilClosed,
    body_of,
    is_field,
    is_framing_clear,
)

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
ODD = b'X/"(): caf\xe9: \x07\r\n'
HEADS = {
    "no field": (b"HTTP/1.1 200 OK\r\n\r\n", 200, "OK", []),
    "no reason": (b"HTTP/1.1 200\r\n\r\n", 200, "", []),
    "an empty reason": (b"HTTP/1.1 200 \r\n\r\n", 200, "", []),
    "a long reason": (
        b"HTTP/1.1 429 Too  many, \xe9\r\n\r\n",
        429,
        "Too  many, \xe9",
        [],
    ),
    "an odd status": (b"HTTP/1.1 999 Odd\r\n\r\n", 999, "Odd", []),
    "fields": (
        b"HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a:2 \t\r\nX-B:\r\n%b\r\n" % ODD,
        200,
        "OK",
        [("X-B", "1"), ("x-a", "2"), ("X-B", ""), ('X/"()', "caf\xe9: \x07")],
    ),
    "bare line feeds": (
        b"HTTP/1.1 200 OK\nX: 1\nY: 2\r\n\n",
        200,
        "OK",
        [("X", "1"), ("Y", "2")],
    ),
    "what the standard library takes for ends of lines": (
        b"HTTP/1.1 200 OK\r\nX: a\x0bb\x0cc\x1cd\x85e\r\n\r\n",
        200,
        "OK",
        [("X", "a\x0bb\x0cc\x1cd\x85e")],
    ),
    "interim answers": (
        HINTS + GO_ON + b"HTTP/1.0 404 No\r\nX: 1\r\n\r\n",
        404,
        "No",
        [("X", "1")],
    ),
}
REST = b"\r\n\r\nHTTP/1.1 200 the body\n\n"


def read_head(pieces: Iterable[bytes]) -> tuple[Head, bytes]:
    """The head, and what was behind it."""
    reader, left = HeadReader(), iter(pieces)
    for piece in left:
        head = reader.feed(piece)
        if head is not None:
            return head, reader.rest + b"".join(left)
    raise AssertionError("no head")


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, and cut once at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


@pytest.mark.parametrize("case", HEADS)
def test_a_head_in_every_cut(case: str) -> None:
    data, status, reason, headers = HEADS[case]
    for pieces in cuts(data + REST):
        head, rest = read_head(pieces)
        assert (head.status, head.reason, head.headers) == (status, reason, headers)
        assert rest == REST


BAD_HEADS = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "a line before": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "a tab": b"HTTP/1.1\t200 OK\r\n\r\n",
    "no blank": b"HTTP/1.1 200OK\r\n\r\n",
    "two digits": b"HTTP/1.1 99 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a sign": b"HTTP/1.1 +20 OK\r\n\r\n",
    "a low status": b"HTTP/1.1 099 OK\r\n\r\n",
    "a carriage return": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "NUL": b"HTTP/1.1 200 O\0K\r\n\r\n",
    **{
        f"line {line!r}": b"HTTP/1.1 200 OK\r\nA: 1\r\n%b\r\nB: 2\r\n\r\n" % line
        for line in (
            *(b"X", b"X : 1", b"X y: 1", b": 1", b"\x7f: 1", b" X: 1", b"\tX: 1"),
            *(b"X: a\0b", b"X: a\rb", b"X: 1\r\n continued", b"X: 1\n\tcontinued"),
            *(b"\0", b"\r", b"X\r: 1", b"HTTP/1.1 200 OK"),
        )
    },
    **{
        f"length {text!r}": b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % text
        for text in (b"", b"1, 1", b"+1", b"-1", b"0x1", b"1_0", b"\xb2", b"1" * 19)
    },
    **{
        f"coding {text!r}": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n" % text
        for text in (b"", b"identity", b"gzip, chunked", b"chunked, chunked", b"x")
    },
    "two lengths": b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\n",
    "two codings": (
        b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n"
    ),
    "length and coding": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nTRANSFER-ENCODING: chunked\r\n\r\n"
    ),
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "too many interim answers": HINTS * 10 + b"HTTP/1.1 200 OK\r\n\r\n",
    "an interim one with two lengths": (
        b"HTTP/1.1 103 Hints\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\n"
    ),
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_what_is_no_head_is_none_in_any_cut(case: str) -> None:
    every = list(cuts(BAD_HEADS[case]))
    for pieces in every if len(every) < 200 else every[:2]:
        with pytest.raises(Malformed):
            read_head(pieces)


@pytest.mark.parametrize(
    ("begun", "lost"),
    [
        (b"", True),
        (b"HT", True),
        (b"HTTP/1.1 2", True),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\nnonsense", True),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\n y\r\nZ", False),
        (b"HTTP/1.1 two\r\nX", False),
        (GO_ON, True),
        (HINTS + b"HTTP/1.1 200 OK\r\nX", True),
    ],
)
def test_a_head_that_breaks_off_was_lost_or_never_one(begun: bytes, lost: bool) -> None:
    reader = HeadReader()
    if begun:
        assert reader.feed(begun) is None
    assert reader.begun is bool(begun)
    if lost:
        reader.end()
    else:
        with pytest.raises(Malformed):
            reader.end()


@pytest.mark.parametrize("step", [1000, 65536, 100_000])
def test_a_head_without_end_is_refused_once_it_is_too_long(step: int) -> None:
    reader, line = HeadReader(), b"X: " + b"x" * (step - 5) + b"\r\n"
    assert reader.feed(b"HTTP/1.1 200 OK\r\n") is None
    for _ in range((65536 - 17) // step):
        assert reader.feed(line) is None
    with pytest.raises(Malformed):
        reader.feed(line)


@pytest.mark.parametrize(
    ("version", "options", "kept"),
    [
        ("1.1", [], True),
        ("1.1", ["keep-alive"], True),
        ("1.1", ["Close"], False),
        ("1.1", ["x, close"], False),
        ("1.1", ["x", "close"], False),
        ("1.0", [], False),
        ("1.0", ["Keep-Alive"], True),
        ("1.0", ["close"], False),
        ("1.2", [], True),
    ],
)
def test_whether_the_connection_is_kept(
    version: str, options: list[str], kept: bool
) -> None:
    lines = "".join(f"Connection: {option}\r\n" for option in options)
    head, _ = read_head([f"HTTP/{version} 200 OK\r\n{lines}\r\n".encode()])
    assert head.keep_alive is kept


@pytest.mark.parametrize(
    ("status", "method", "fields", "kind"),
    [
        (200, "GET", b"Content-Length: 3", ByLength),
        (200, "GET", b"Transfer-Encoding: Chunked", ByChunks),
        (200, "GET", b"X: 1", UntilClosed),
        (500, "POST", b"X: 1", UntilClosed),
    ],
)
def test_how_a_body_ends(
    status: int, method: str, fields: bytes, kind: type[Body]
) -> None:
    head, _ = read_head([b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, fields)])
    body = body_of(head, method)
    assert type(body) is kind
    assert not body.complete


@pytest.mark.parametrize(
    ("status", "method"), [(204, "GET"), (304, "POST"), (200, "HEAD"), (500, "HEAD")]
)
@pytest.mark.parametrize(
    "field", [b"X: 1", b"Content-Length: 9", b"Transfer-Encoding: chunked"]
)
def test_some_answers_have_no_body(status: int, method: str, field: bytes) -> None:
    head, _ = read_head([b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, field)])
    body = body_of(head, method)
    assert body.complete
    assert not body.surplus
    assert body.feed(b"Z") == b""
    assert body.surplus


def feed_all(body: Body, pieces: Iterable[bytes]) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces)


@given(st.binary(min_size=1), st.binary(), st.lists(st.integers(0, 300)))
def test_a_body_by_its_length(data: bytes, more: bytes, at: list[int]) -> None:
    body = ByLength(len(data))
    places = sorted({0, *at, len(data + more)})
    pieces = [
        (data + more)[a:b] for a, b in zip(places, places[1:], strict=False) if a < b
    ]
    assert feed_all(body, pieces) == data
    assert (body.complete, body.surplus, body.broken) == (True, bool(more), False)


TRAILERS = (b"", b"X: 1\r\n", b"A: \r\nB: x y\r\n")


@st.composite
def cut_chunks(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """A body in chunks, as written by those who know how, and cut anywhere."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b"  "]))
    data = b"".join(
        chunk(piece).replace(b"\r\n", extension + b"\r\n", 1) for piece in pieces
    )
    data += b"0\r\n" + draw(st.sampled_from(TRAILERS)) + b"\r\n"
    places = draw(st.sets(st.integers(1, max(1, len(data) - 1))))
    bounds = [0, *sorted(places), len(data)]
    cut = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
    return cut, b"".join(pieces)


@given(cut_chunks())
def test_a_body_in_chunks(given: tuple[list[bytes], bytes]) -> None:
    pieces, data = given
    body, arrived = ByChunks(), b""
    for piece in pieces:
        assert not body.complete
        arrived += body.feed(piece)
    assert arrived == data
    assert (body.complete, body.surplus, body.broken) == (True, False, False)


@given(
    cut_chunks(), st.sampled_from([b"\r\n", b"\n", b"\r", b"Z", b"0\r\n\r\n", HINTS])
)
def test_what_is_behind_the_last_chunk_is_seen(
    given: tuple[list[bytes], bytes], more: bytes
) -> None:
    pieces, data = given
    body = ByChunks()
    assert feed_all(body, [*pieces[:-1], pieces[-1] + more]) == data
    assert (body.complete, body.surplus, body.broken) == (True, True, False)


@pytest.mark.parametrize("bad", [b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"\r\n"])
def test_what_is_no_chunk_breaks_a_body(bad: bytes) -> None:
    good = chunk(b"hello")
    for pieces in cuts(good + bad):
        body = ByChunks()
        assert feed_all(body, pieces) == b"hello"
        assert body.broken
        assert not body.complete


@pytest.mark.parametrize(
    "bad",
    [
        b"5\r\nhelloX\r\n",
        b"5\nhello\r\n",
        b"f" * 17 + b"\r\nhello",
        b"0\r\nno trailer\r\n\r\n",
        b"5;" + b"x" * 70_000,
        b"0\r\n" + b"X: %060d\r\n" % 1 * 1200,
    ],
)
def test_chunks_that_are_wrong_inside(bad: bytes) -> None:
    body = ByChunks()
    feed_all(body, [bad[at : at + 1000] for at in range(0, len(bad), 1000)])
    assert body.broken
    assert not body.complete


def test_what_came_together_is_one_piece() -> None:
    body = ByChunks()
    events = [b"data: %d\n\n" % number for number in range(200)]
    data = b"".join(map(chunk, events)) + LAST_CHUNK
    assert body.feed(data) == b"".join(events)
    assert body.complete


@pytest.mark.parametrize(
    ("body", "complete"),
    [(ByLength(3), False), (ByChunks(), False), (UntilClosed(), True)],
)
def test_which_body_ends_with_its_connection(body: Body, complete: bool) -> None:
    body.feed(b"1")
    assert body.end() is complete
    assert body.complete is complete
    assert not body.surplus


@pytest.mark.parametrize(
    ("lengths", "codings", "clear"),
    [
        ([], [], True),
        (["0"], [], True),
        ([], ["CHUNKED"], True),
        (["1", "1"], [], False),
        (["1"], ["chunked"], False),
        (["\u0661"], [], False),
        ([], ["gzip"], False),
    ],
)
def test_a_body_has_one_end(
    lengths: list[str], codings: list[str], clear: bool
) -> None:
    assert is_framing_clear(lengths, codings) is clear


def test_a_field_is_one_line() -> None:
    assert is_field(b"X: 1\r\n")
    assert is_field(b"X:\n")
    for line in (b"X: 1", b"X\r\n", b"X: 1\r\nY: 2\r\n", b"\r\n"):
        assert not is_field(line)
