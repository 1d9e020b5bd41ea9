from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sseclient import SSEClient

from kongai.sse import Decoder, EventTooLarge, ServerSentEvent, encode
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PIECES = [
    *(b"data", b"event", b"id", b"retry", b"other", b":", b": ", b" ", b"x", b"[1]"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xef", b"\xff", b"\0"),
    "é🙂\u2028\x85".encode(),
]
# What is read at once, and what it may stand beside.
USUAL = [
    *(b"data: x\n\n", b"event: ping\ndata: {}\n\n", "event: é\ndata: 世\n\n".encode()),
    *(b"event: ping\n", b"data: y\n", b"data: \n\n", b": c\n\n", b"id: 1\n", b"\n"),
    *(b"event: ping\r\ndata: {}\r\n\r\n", b"data: z\n\r\n", b"\r", b"\xef\xbb\xbf"),
    *(b"data: x\rdata: y\n\n", b"event: ping\r\ndata: {}\n\n"),
]


def decode(pieces: Iterable[bytes], *, limit: int = 2**24) -> list[ServerSentEvent]:
    decoder = Decoder(max_event_size=limit)
    return [event for piece in pieces for event in decoder.feed(piece)]


def data_of(pieces: Iterable[bytes], *, limit: int = 2**24) -> list[bytes]:
    decoder = Decoder(max_event_size=limit)
    return [data for piece in pieces for data in decoder.feed_data(piece)]


def cut_up(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def said(*data: bytes, event: bytes = b"") -> list[ServerSentEvent]:
    return [ServerSentEvent(event, one) for one in data]


CASES = {
    "one event": (b"data: x\n\n", said(b"x")),
    "named": (b"event: ping\ndata: x\n\n", said(b"x", event=b"ping")),
    "name after data": (b"data: x\nevent: ping\n\n", said(b"x", event=b"ping")),
    "last name wins": (b"event: a\nevent: b\ndata: x\n\n", said(b"x", event=b"b")),
    "name lasts for one event": (
        b"event: a\ndata: x\n\ndata: y\n\n",
        [*said(b"x", event=b"a"), *said(b"y")],
    ),
    "several lines of data": (
        b"data: a\ndata: b\ndata\ndata: c\n\n",
        said(b"a\nb\n\nc"),
    ),
    "CR LF": (b"event: e\r\ndata: a\r\ndata: b\r\n\r\n", said(b"a\nb", event=b"e")),
    "CR": (b"event: e\rdata: a\rdata: b\r\r", said(b"a\nb", event=b"e")),
    "LF then CR LF": (b"data: a\n\r\ndata: b\n\r\n", said(b"a", b"b")),
    "CR LF then LF": (b"data: a\r\n\ndata: b\r\n\n", said(b"a", b"b")),
    "CR then CR LF": (b"data: a\r\r\ndata: b\r\r\n", said(b"a", b"b")),
    "CR LF then CR": (b"data: a\r\n\rdata: b\r\n\r", said(b"a", b"b")),
    "LF then CR": (b"data: a\n\rdata: b\n\r", said(b"a", b"b")),
    "byte-order mark": (b"\xef\xbb\xbfdata: x\n\n", said(b"x")),
    "two byte-order marks": (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
    "late byte-order mark": (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", said(b"x")),
    "byte-order mark, comment": (b"\xef\xbb\xbf: hi\n\ndata: x\n\n", said(b"x")),
    "comments": (b":\n: ping\n:data: n\ndata: x\n: in between\n\n", said(b"x")),
    "comments alone": (b": ping\n\n:\n\n", []),
    "no space after the colon": (b"event:e\ndata:x\n\n", said(b"x", event=b"e")),
    "one space goes, more stay": (b"data:  x \n\n", said(b" x ")),
    "a tab stays": (b"data:\tx\n\n", said(b"\tx")),
    "colons in the value": (b"data: a: b:c\n\n", said(b"a: b:c")),
    "field without a colon": (b"data\n\n", said(b"")),
    "two fields without a colon": (b"data\ndata\n\n", said(b"\n")),
    "empty value": (b"data:\n\n", said(b"")),
    "empty name": (b"event:\ndata: x\n\n", said(b"x")),
    "event without data": (b"event: e\n\ndata: x\n\n", said(b"x")),
    "other fields": (b"id: 1\nretry: 5\nfoo: bar\nfoo\ndata: x\n\n", said(b"x")),
    "names have no spaces": (b" data: x\ndata : y\nDATA: z\ndata: w\n\n", said(b"w")),
    "blank lines at the start": (b"\n\r\n\rdata: x\n\n", said(b"x")),
    "many blank lines": (b"data: x\n\n\n\n\ndata: y\n\n\n", said(b"x", b"y")),
    "no blank line at the end": (b"data: x\n\ndata: y\n", said(b"x")),
    "no line end at the end": (b"data: x\n\ndata: y", said(b"x")),
    "a name alone at the end": (b"data: x\n\nevent: e\n", said(b"x")),
    "NUL": (b"data: a\0b\n\n", said(b"a\0b")),
    "invalid UTF-8": (b"data: \xff\xc3\n\n", said(b"\xff\xc3")),
    "line ends of text only": (
        "data: a\x0bb\x0cc\x1cd\x85e\u2028f\n\n".encode(),
        said("a\x0bb\x0cc\x1cd\x85e\u2028f".encode()),
    ),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES.keys())
def test_standard(stream: bytes, expected: list[ServerSentEvent]) -> None:
    assert decode([stream]) == expected


@pytest.mark.parametrize("stream", [case[0] for case in CASES.values()], ids=CASES)
def test_every_cut(stream: bytes) -> None:
    whole = decode([stream])
    assert decode(cut_up(stream, 1)) == whole
    for cut in range(len(stream) + 1):
        assert decode(chop(stream, cut)) == whole


streams = st.one_of(
    st.lists(st.sampled_from(PIECES)), st.lists(st.sampled_from(USUAL))
).map(b"".join)


def check_cuts(stream: bytes, cuts: list[int]) -> None:
    pieces = chop(stream, *(min(cut, len(stream)) for cut in cuts))
    # A byte at a time, no event is there as a whole.
    expected = decode(cut_up(stream, 1))
    assert decode(pieces) == decode([stream]) == expected
    assert data_of(pieces) == [event.data for event in expected]


@unhurried
@given(streams, st.lists(st.integers(0, 99)))
def test_any_cuts(stream: bytes, cuts: list[int]) -> None:
    check_cuts(stream, cuts)


@unhurried
@given(st.lists(st.sampled_from(USUAL)))
def test_an_event_that_comes_by_itself(pieces: list[bytes]) -> None:
    """As most do in a stream that takes its time."""
    expected = decode(cut_up(b"".join(pieces), 1))
    assert data_of(pieces) == [event.data for event in expected]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(unhurried, max_examples=100_000)
@given(streams, st.lists(st.integers(0, 99)))
def test_any_cuts_at_length(stream: bytes, cuts: list[int]) -> None:
    check_cuts(stream, cuts)


CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*/*.sse"))


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.parent.name)
def test_a_stream_of_a_provider_in_every_cut(file: Path) -> None:
    stream = file.read_bytes()
    whole = decode([stream])
    assert whole
    assert decode(cut_up(stream, 1)) == whole
    for cut in range(len(stream) + 1):
        assert decode(chop(stream, cut)) == whole


# What has a meaning in a stream, in text, or to those who split lines as text.
lines = st.text("a: \t\0é🙂\u2028\x85\x0b\ufeff", max_size=8)
names = lines.filter(bool)


@unhurried
@given(
    st.lists(st.tuples(names, st.lists(lines, min_size=1, max_size=5)), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_an_independent_decoder_reads_the_same(
    spoken: list[tuple[str, list[str]]], end: str
) -> None:
    written = [
        [f"event: {name}", ": comment", *(f"data:{line}" for line in data), "", ""]
        for name, data in spoken
    ]
    stream = "".join(end.join(fields) for fields in written).encode()
    theirs = SSEClient(iter([stream])).events()
    assert decode([stream]) == [
        ServerSentEvent(event.event.encode(), event.data.encode()) for event in theirs
    ]


@unhurried
@given(
    st.lists(
        st.builds(
            ServerSentEvent,
            lines.map(str.encode),
            st.lists(lines, min_size=1, max_size=5).map("\n".join).map(str.encode),
        ),
        max_size=5,
    )
)
def test_what_is_encoded_is_decoded(spoken: list[ServerSentEvent]) -> None:
    assert decode(encode(event) for event in spoken) == spoken


@pytest.mark.parametrize(
    ("event", "stream"),
    [
        (ServerSentEvent(b"", b"x"), b"data: x\n\n"),
        (ServerSentEvent(b"ping", b""), b"event: ping\ndata: \n\n"),
        (ServerSentEvent(b"e", b"a\nb"), b"event: e\ndata: a\ndata: b\n\n"),
        (
            ServerSentEvent(b"", b"a\r\nb\rc\n"),
            b"data: a\ndata: b\ndata: c\ndata: \n\n",
        ),
    ],
)
def test_encode(event: ServerSentEvent, stream: bytes) -> None:
    assert encode(event) == stream


@pytest.mark.parametrize("name", [b"a\nb", b"a\rb", b"\n"])
def test_a_name_that_could_end_its_line_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="line end"):
        encode(ServerSentEvent(name, b"x"))


def test_pending_says_whether_an_event_is_unfinished() -> None:
    decoder = Decoder()
    seen = []
    for piece in chop(b"data: x\n\n: ping\n\n", 4, 8, 9):
        decoder.feed(piece)
        seen.append(decoder.pending)
    assert seen == [True, True, False, False]


# Each of these streams is one event that grows past 1,000 bytes.
TOO_LARGE = {
    "one line": b"data: " + b"x" * 2000,
    "many lines": b"data: x\n" * 200,
    "comments": b": x\n" * 600,
    "a name": b"event: " + b"x" * 2000 + b"\n",
}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("stream", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_an_event_past_the_limit_is_refused(stream: bytes, size: int) -> None:
    with pytest.raises(EventTooLarge, match="1000 bytes"):
        decode(cut_up(stream, size), limit=1000)
    with pytest.raises(EventTooLarge, match="1000 bytes"):
        data_of(cut_up(stream + b"\n\n", size), limit=1000)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_limit_is_for_one_event(size: int) -> None:
    stream = (b"data: " + b"x" * 994 + b"\n\n") * 3
    assert decode(cut_up(stream, size), limit=1000) == said(*[b"x" * 994] * 3)


def test_an_endless_line_takes_no_more_memory_than_the_limit() -> None:
    fed = 0

    def endless() -> Iterator[bytes]:
        nonlocal fed
        while fed < 16 * 1024 * 1024:
            fed += 1024
            yield bytes(bytearray(1024))

    tracemalloc.start()
    try:
        with pytest.raises(EventTooLarge):
            decode(endless(), limit=1024 * 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fed == 1024 * 1024 + 1024
    assert peak < 2 * 1024 * 1024


LARGE = {
    "one line in pieces": (b"data: ", b"x", b"\n\n", 1024, 15 * 2**20),
    "one event of many lines": (b"", b"data: xxxxxxxxx\n", b"\n", 1024, 2**20),
    "many events at once": (b"", b"data: xxxxxxxxx\n\n", b"", 2**24, 2**20),
    "line ends byte by byte": (b"data: x", b"\r\n", b"", 1, 2**16),
}


@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE.keys())
def test_time_is_linear(shape: tuple[bytes, bytes, bytes, int, int]) -> None:
    """Eight times the bytes take some eight times as long; quadratic would be 64."""
    start, repeated, end, size, most = shape

    def seconds(total: int) -> float:
        stream = start + repeated * (total // len(repeated)) + end
        pieces = cut_up(stream, size)
        taken = []
        for _ in range(3):
            started = time.process_time()
            decoded = decode(pieces)
            taken.append(time.process_time() - started)
            assert decoded
        return min(taken)

    assert seconds(most) < 24 * max(seconds(most // 8), 0.001)
