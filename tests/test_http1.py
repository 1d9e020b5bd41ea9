from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from kongai import http1
from kongai.errors import GatewayError, Refused, RequestRejected
from kongai.http1 import (
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    MAX_LINE_SIZE,
    KnownNames,
    Message,
    RequestParser,
)
from kongai.testing import chop
from tests.http.cases import load


class Seen(NamedTuple):
    """A message as a server finds it once all bytes have come."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    version: str = "1.1"
    keep_alive: bool = True
    complete: bool = True


def parse(pieces: Iterable[bytes]) -> list[Seen]:
    parser = RequestParser()
    for piece in pieces:
        parser.feed(piece)
    return [seen(message) for message in parser.messages]


def seen(message: Message) -> Seen:
    return Seen(
        message.method,
        message.target,
        message.headers,
        b"".join(message.chunks),
        message.version,
        message.keep_alive,
        message.complete,
    )


def refusal(pieces: Iterable[bytes]) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(pieces)
    return caught.value


def fate(pieces: Iterable[bytes]) -> tuple[list[Seen], int | None]:
    """The whole requests that come of bytes, and the status of the refusal."""
    parser = RequestParser()
    status = None
    try:
        for piece in pieces:
            parser.feed(piece)
    except Refused as refused:
        status = refused.status
    return [seen(one) for one in parser.messages if one.complete], status


def request(
    *lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a"
) -> bytes:
    head = [line, *([] if host is None else [host]), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


def chunked(body: bytes, *, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return request(b"Transfer-Encoding: chunked", line=line) + body


def singly(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


HOST = ("Host", "a")
GET = Seen("GET", "/", [HOST])
CHUNKED = [HOST, ("Transfer-Encoding", "chunked")]

REQUESTS = {
    "bare": (request(), [GET]),
    "target as it stands": (
        request(line=b"GET /a/../b//%2f~[1]?x=%2f&y={}&& HTTP/1.1"),
        [GET._replace(target="/a/../b//%2f~[1]?x=%2f&y={}&&")],
    ),
    "absolute form": (
        request(line=b"GET http://b:1/x?y HTTP/1.1"),
        [GET._replace(target="http://b:1/x?y")],
    ),
    "headers in order, case kept": (
        request(b"X-B: 1", b"x-a:2", b"X-A: \t 3 \t", b"X-E:", b"x-b: 4"),
        [
            GET._replace(
                headers=[
                    HOST,
                    *[("X-B", "1"), ("x-a", "2"), ("X-A", "3"), ("X-E", "")],
                    ("x-b", "4"),
                ]
            )
        ],
    ),
    "header in latin-1": (
        request(b"X-N: caf\xe9"),
        [GET._replace(headers=[HOST, ("X-N", "caf\xe9")])],
    ),
    "length": (
        request(b"Content-Length: 5", line=b"POST /p HTTP/1.1") + b"he\0lo",
        [Seen("POST", "/p", [HOST, ("Content-Length", "5")], b"he\0lo")],
    ),
    "length of nothing": (
        request(b"Content-Length: 0", line=b"POST / HTTP/1.1"),
        [Seen("POST", "/", [HOST, ("Content-Length", "0")])],
    ),
    "body that looks like a request": (
        request(b"Content-Length: 27", line=b"POST / HTTP/1.1") + request(),
        [Seen("POST", "/", [HOST, ("Content-Length", "27")], request())],
    ),
    "chunks": (
        chunked(b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n"),
        [Seen("POST", "/", CHUNKED, b"abc0123456789")],
    ),
    "chunks with extensions": (
        chunked(b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'),
        [Seen("POST", "/", CHUNKED, b"abc")],
    ),
    "trailers are no headers": (
        chunked(b"3\r\nabc\r\n0\r\nX-Api-Key: k\r\nHost: b\r\n\r\n"),
        [Seen("POST", "/", CHUNKED, b"abc")],
    ),
    "chunked in any case": (
        request(b"Transfer-Encoding: Chunked", line=b"POST / HTTP/1.1") + b"0\r\n\r\n",
        [Seen("POST", "/", [HOST, ("Transfer-Encoding", "Chunked")])],
    ),
    "body not there yet": (
        request(b"Content-Length: 9", line=b"POST / HTTP/1.1") + b"abc",
        [Seen("POST", "/", [HOST, ("Content-Length", "9")], b"abc", complete=False)],
    ),
    "head not there yet": (request()[:-1], []),
    "pipelined": (
        request()
        + chunked(b"1\r\nx\r\n0\r\n\r\n", line=b"PUT /2 HTTP/1.1")
        + request(b"Content-Length: 2", line=b"POST /3 HTTP/1.1")
        + b"ab"
        + request(line=b"HEAD /4 HTTP/1.1"),
        [
            GET,
            Seen("PUT", "/2", CHUNKED, b"x"),
            Seen("POST", "/3", [HOST, ("Content-Length", "2")], b"ab"),
            Seen("HEAD", "/4", [HOST]),
        ],
    ),
    "empty lines before": (b"\r\n\r\n" + request(), [GET]),
    "close": (
        request(b"Connection: close"),
        [GET._replace(headers=[HOST, ("Connection", "close")], keep_alive=False)],
    ),
    "1.0": (
        request(line=b"GET / HTTP/1.0", host=None),
        [GET._replace(headers=[], version="1.0", keep_alive=False)],
    ),
    "1.0 kept alive": (
        request(b"Connection: keep-alive", line=b"GET / HTTP/1.0", host=None),
        [GET._replace(headers=[("Connection", "keep-alive")], version="1.0")],
    ),
}

# llhttp leaves HTTP after such a request; nobody here speaks anything else.
OFFER = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"]
UPGRADE = [("Connection", "Upgrade, HTTP2-Settings")]
REQUESTS["an offer to upgrade is not taken"] = (
    request(*OFFER) + request(),
    [GET._replace(headers=[HOST, *UPGRADE]), GET],
)
REQUESTS["an offer to upgrade, with a body"] = (
    request(*OFFER, b"Content-Length: 3", line=b"POST / HTTP/1.1") + b"abc" + request(),
    [Seen("POST", "/", [HOST, *UPGRADE, ("Content-Length", "3")], b"abc"), GET],
)
REQUESTS["an offer to upgrade, chunked"] = (
    request(*OFFER, b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1")
    + b"3\r\nabc\r\n0\r\n\r\n",
    [Seen("POST", "/", [HOST, *UPGRADE, CHUNKED[1]], b"abc")],
)


@pytest.mark.parametrize("case", REQUESTS)
def test_cuts_make_no_difference(case: str) -> None:
    data, expected = REQUESTS[case]
    assert parse([data]) == expected
    assert parse(singly(data)) == expected
    for cut in range(1, len(data)):
        assert parse(chop(data, cut)) == expected, f"cut at {cut}"


_KEPT_ALIVE = [
    data
    for data, seen in REQUESTS.values()
    if seen and all(one.keep_alive and one.complete for one in seen)
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_KEPT_ALIVE), min_size=1, max_size=6), st.data())
def test_many_requests_in_any_cuts(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert parse(chop(stream, *cuts)) == [
        seen for one in requests for seen in parse([one])
    ]


REFUSED: dict[str, tuple[bytes, int]] = {
    "no Host": (request(host=None), 400),
    "two Hosts": (request(b"Host: b"), 400),
    "the same Host twice": (request(b"host: a"), 400),
    "no name in Host": (request(host=b"Host:"), 400),
    "space in Host": (request(host=b"Host: a b"), 400),
    "URL in Host": (request(host=b"Host: http://a"), 400),
    "two credentials": (request(b"Authorization: a", b"authorization: b"), 400),
    "two keys": (request(b"X-Api-Key: a", b"x-api-key: a"), 400),
    "two types": (request(b"Content-Type: a/b", b"Content-Type: c/d"), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/0.9 by name": (request(line=b"GET / HTTP/0.9"), 505),
    "HTTP/2.0": (request(line=b"GET / HTTP/2.0"), 505),
    "HTTP/1.2": (request(line=b"GET / HTTP/1.2"), 400),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another protocol": (request(line=b"GET / HTTPS/1.1"), 400),
    "protocol in lower case": (request(line=b"GET / http/1.1"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "unknown method": (request(line=b"G@T / HTTP/1.1"), 400),
    "method in lower case": (request(line=b"get / HTTP/1.1"), 400),
    "tunnel": (request(line=b"CONNECT a:443 HTTP/1.1"), 405),
    "tunnel to a path": (request(line=b"CONNECT /abc HTTP/1.1"), 405),
    "target of the server as a whole": (request(line=b"OPTIONS * HTTP/1.1"), 400),
    "target without a slash": (request(line=b"GET x HTTP/1.1"), 400),
    "no target": (request(line=b"GET HTTP/1.1"), 400),
    "space in the target": (request(line=b"GET /a b HTTP/1.1"), 400),
    "NUL in the path": (request(line=b"GET /a%00 HTTP/1.1"), 400),
    "tab in the line": (request(line=b"GET\t/ HTTP/1.1"), 400),
    "VT in the line": (request(line=b"GET\x0b/ HTTP/1.1"), 400),
    "VT in the target": (request(line=b"GET /\x0b HTTP/1.1"), 400),
    "no-break space in the line": (request(line=b"GET\xa0/ HTTP/1.1"), 400),
    "space after the line": (request(line=b"GET / HTTP/1.1 "), 400),
    "LF alone": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "LF after a header": (b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
    "CR alone": (b"GET / HTTP/1.1\rHost: a\r\r", 400),
    "CR in a value": (request(b"X: a\rb"), 400),
    "NUL in a value": (request(b"X: a\0b"), 400),
    "control character in a value": (request(b"X: a\x01b"), 400),
    "folded": (request(b"X: a", b" b"), 400),
    "folded with a tab": (request(b"X: a", b"\tb"), 400),
    "space before the colon": (request(b"X : a"), 400),
    "no colon": (request(b"X"), 400),
    "no name": (request(b": a"), 400),
    "space in a name": (request(b"X Y: a"), 400),
    "bracket in a name": (request(b"X(: a"), 400),
    "length and chunks": (
        request(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        request(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n",
        400,
    ),
    "two lengths": (request(b"Content-Length: 3", b"Content-Length: 5"), 400),
    "one length twice": (request(b"Content-Length: 3", b"Content-Length: 3"), 400),
    "codings before chunked": (request(b"Transfer-Encoding: gzip, chunked"), 501),
    "codings in two headers": (
        request(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        501,
    ),
    "other coding": (request(b"Transfer-Encoding: gzip"), 501),
    "identity": (request(b"Transfer-Encoding: identity"), 501),
    "coding after chunked": (request(b"Transfer-Encoding: chunked, identity"), 400),
    "chunked twice": (
        request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        400,
    ),
    "VT before chunked": (request(b"Transfer-Encoding: \x0bchunked"), 400),
    "no coding": (request(b"Transfer-Encoding: "), 400),
    "chunks in 1.0": (
        request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
        400,
    ),
    **{
        f"length {text!r}": (request(b"Content-Length: " + text) + b"abc", 400)
        for text in (
            *(b"+3", b"-3", b"0_3", b"0x3", b"3.0", b"3 3", b"3, 3", b"", b"\xb2"),
            *(b"three", b"1e1", b"99999999999999999999"),
        )
    },
    **{
        f"chunk {text!r}": (chunked(text + b"\r\nx\r\n0\r\n\r\n"), 400)
        for text in (
            *(b"-1", b"+1", b"0x1", b"1_0", b"g", b" 1", b"1 ", b"", b"1;a\nb"),
            b"10000000000000000",
        )
    },
    "chunk's size ended by LF": (chunked(b"1\nx\r\n0\r\n\r\n"), 400),
    "chunk longer than its size": (chunked(b"1\r\nxy\r\n0\r\n\r\n"), 400),
    "length in a trailer": (chunked(b"0\r\nContent-Length: 5\r\n\r\n"), 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_http_is_refused_in_any_cuts(case: str) -> None:
    data, status = REFUSED[case]
    assert refusal([data]).status == status
    assert refusal(singly(data)).status == status
    for cut in range(1, len(data)):
        assert refusal(chop(data, cut)).status == status, f"cut at {cut}"


def test_a_refusal_is_the_clients_fault() -> None:
    found = refusal([request(host=None)])
    assert isinstance(found, RequestRejected)
    assert isinstance(found, GatewayError)
    assert (found.message, found.ended) == ("Bad request", "bad_request")


def test_requests_before_a_bad_one_stand() -> None:
    parser = RequestParser()
    with pytest.raises(Refused):
        parser.feed(request() + b"nonsense\r\n\r\n")
    assert [message.complete for message in parser.messages] == [True]


def sized(size: int) -> bytes:
    """A request with a head of this size, in fields of a few thousand bytes."""
    lines = [b"X: " + b"a" * 4000] * 16
    last = b"Y: " + b"b" * (size - len(request(*lines, b"Y: ")))
    return request(*lines, last)


@pytest.mark.parametrize("piece", [1, 1000, 65536, 2**20])
@pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_head_has_a_limit(piece: int, more: int, refused: bool) -> None:
    data = sized(MAX_HEAD_SIZE + more)
    pieces = chop(data, *range(piece, len(data), piece))
    if refused:
        assert refusal(pieces).status == 431
    else:
        assert len(parse(pieces)) == 1


@pytest.mark.parametrize("piece", [1, 1000, 2**20])
@pytest.mark.parametrize(
    ("line", "field", "status"),
    [
        (b"GET /%b HTTP/1.1", b"X: ", 414),
        (b"GET / HTTP/1.1", b"X%b: ", 431),
        (b"GET / HTTP/1.1", b"X: %b", 431),
    ],
    ids=["target", "name", "value"],
)
@pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_line_has_a_limit(
    line: bytes, field: bytes, status: int, piece: int, more: int, refused: bool
) -> None:
    filling = b"a" * (MAX_LINE_SIZE - 1 + more)
    first, second = (x % filling if b"%b" in x else x for x in (line, field))
    data = request(second, line=first)
    pieces = chop(data, *range(piece, len(data), piece))
    if refused:
        assert refusal(pieces).status == status
    else:
        assert len(parse(pieces)) == 1


@pytest.mark.parametrize(("count", "refused"), [(99, False), (100, False), (101, True)])
def test_a_head_has_a_limit_of_fields(count: int, refused: bool) -> None:
    data = request(*[b"X: 1"] * (count - 1))
    if refused:
        found = refusal([data])
        assert found.status == 431
        assert found.message == "Request header or cookie too large"
    else:
        assert len(parse([data])[0].headers) == count <= MAX_HEADERS


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX", b"a", 431),
        (b"", b"\r\n", 431),
        (request(), b"\r\n", 431),
        (chunked(b"3\r\nabc\r\n1;"), b"a", 431),
        (chunked(b"0\r\nX: "), b"a", 431),
        (chunked(b"0\r\n"), b"X: a\r\n", 431),
    ],
    ids=[
        *("target", "value", "name", "empty lines", "empty lines behind"),
        *("extension", "trailer", "trailers"),
    ],
)
def test_what_has_no_end_is_refused(start: bytes, piece: bytes, status: int) -> None:
    endless = [start, *[piece * (1000 // len(piece))] * (2 * MAX_HEAD_SIZE // 1000)]
    assert refusal(filter(None, endless)).status == status


@pytest.mark.parametrize("size", [1, 2, 16])
def test_small_chunks_are_a_body_like_any_other(size: int) -> None:
    body = b"x" * 200_000
    pieces = [
        b"%x\r\n%b\r\n" % (size, body[i : i + size]) for i in range(0, len(body), size)
    ]
    stream = chunked(b"".join(pieces) + b"0\r\n\r\n")
    [found] = parse(chop(stream, *range(65536, len(stream), 65536)))
    assert (found.body, found.complete) == (body, True)


def test_small_chunks_are_kept_together() -> None:
    """As objects of their own they would take forty times their size."""
    parser = RequestParser()
    parser.feed(chunked(b"1\r\nx\r\n" * 1000))
    [message] = parser.messages
    assert list(message.chunks) == [b"x" * 1000]


def test_a_body_that_is_nearly_all_wrapping_is_refused() -> None:
    wrapped = chunked(b"1;%b\r\nx\r\n" % (b"a" * 100))
    endless = [wrapped, *[b"1;%b\r\nx\r\n" % (b"a" * 100)] * 1000]
    assert refusal(endless).status == 400


def test_a_body_of_many_signed_chunks_is_not() -> None:
    """As AWS signs them: 85 bytes of extension for each 8 KB or more."""
    piece = b"2000;chunk-signature=%b\r\n%b\r\n" % (b"a" * 64, b"x" * 8192)
    [found] = parse([chunked(b""), *[piece] * 50])
    assert len(found.body) == 50 * 8192


def test_cuts_of_the_corpus_make_no_difference() -> None:
    """Of the files with raw requests that the server is tested with."""
    for case in load():
        data = case.raw
        whole = fate([data])
        if len(data) < 2000:
            assert fate(singly(data)) == whole, str(case)
        for cut in range(1, len(data), max(1, len(data) // 150)):
            assert fate([data[:cut], data[cut:]]) == whole, f"{case}, cut at {cut}"


def test_an_offer_to_upgrade_behind_a_body_is_none() -> None:
    """A trailer with it must not make the parser take the body for the next head."""
    body = b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    assert [one.target for one in parse([chunked(body) + request()])] == ["/", "/"]


@pytest.mark.parametrize("cut", [1, 10, 100, 40_000])
def test_a_body_does_not_count_as_head(cut: int) -> None:
    """A large body comes in the same segment as the end of its head."""
    lines = [b"X: " + b"a" * 10_000] * 4
    head = request(*lines, b"Content-Length: 200000", line=b"POST / HTTP/1.1")
    [found] = parse(chop(head + b"b" * 200_000, cut))
    assert found.complete
    assert len(found.body) == 200_000


def test_the_next_head_does_not_count_the_body_before_it() -> None:
    post = request(b"Content-Length: 100000", line=b"POST / HTTP/1.1")
    stream = post + b"b" * 100_000 + request()
    assert len(parse(chop(stream, len(post), len(stream) - 10))) == 2


def test_of_names_only_some_short_ones_are_kept() -> None:
    asked: list[str] = []

    def look_at(name: str) -> int:
        asked.append(name)
        return len(name)

    names = KnownNames(look_at)
    assert [names["abc"], names["abc"], names["ab"]] == [3, 3, 2]
    assert asked == ["abc", "ab"]
    assert [names["x" * 1000], names["x" * 1000]] == [1000, 1000]
    assert set(names) == {"abc", "ab"}
    for number in range(5000):
        assert names[f"x{number}"] == len(f"x{number}")
    assert len(names) < 2000
    assert names["abc"] == 3


def test_a_head_is_written_in_order() -> None:
    head = http1.response_head("1.1", "200 OK", [("b", "1"), ("A", "caf\xe9")])
    assert head == b"HTTP/1.1 200 OK\r\nb: 1\r\nA: caf\xe9\r\n\r\n"


def test_a_chunk_is_framed_in_hex() -> None:
    assert http1.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert http1.LAST_CHUNK == b"0\r\n\r\n"


def test_a_date_is_written_as_http_wants_it() -> None:
    assert http1.date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http1.date(784111778) == "Sun, 06 Nov 1994 08:49:38 GMT"


@pytest.mark.parametrize("line", [b"GET /zz RTSP/1.0", b"GET  /zz HTTP/1.0"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 18\r\n\r\nGET /zz HTTP/1.0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n12\r\nGET /zz HTTP/1.0\r\n\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_body_does_not_vouch_for_the_next_line(framing: bytes, line: bytes) -> None:
    first = b"POST / HTTP/1.1\r\nHost: a\r\n" + framing
    parser = RequestParser()
    with pytest.raises(Refused) as refused:
        parser.feed(first + line + b"\r\nHost: a\r\n\r\n")
    assert refused.value.status == 400
    assert [message.complete for message in parser.messages] == [True]


@pytest.mark.parametrize("line", [b"POST /zz RTSP/1.0", b"POST  /zz HTTP/1.0"])
@pytest.mark.parametrize("before", [b"", request(), chunked(b"1\r\nx\r\n0\r\n\r\n")])
@pytest.mark.parametrize("empty", [b"", b"\r\n"])
def test_a_body_does_not_vouch_for_its_own_line(
    line: bytes, before: bytes, empty: bytes
) -> None:
    body = b"POST /zz HTTP/1.0\r\n"
    data = before + empty + line + b"\r\nContent-Length: 19\r\n\r\n" + body
    assert (
        fate([data]) == fate(singly(data)) == (parse([before]) if before else [], 400)
    )


def test_lines_that_look_like_requests_hide_none() -> None:
    """In fields, trailers and bodies before it, with any cut."""
    like = b"GET  /x RTSP/1.0"
    before = [
        request(b"X: " + like, b"Y: 1"),
        chunked(b"0\r\nX: " + like + b"\r\n\r\n"),
        chunked(b"12;" + b"a=b" + b"\r\n" + like + b"\r\n\r\n0\r\n\r\n"),
        request(b"Content-Length: 18", line=b"POST / HTTP/1.1") + like + b"\r\n",
    ]
    data = b"".join(before) + request()
    assert [one.target for one in parse([data])] == ["/"] * 5
    for cut in range(1, len(data)):
        assert len(parse([data[:cut], data[cut:]])) == 5, f"cut at {cut}"
