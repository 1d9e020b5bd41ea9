from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from werkzeug.datastructures import Headers

from kongai import content_coding
from kongai.content_coding import ContentDecoder, takes_gzip
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = "wer fragt, 🙂 kriegt Antwort. ".encode() * 50


def decode(coding: str, *pieces: bytes) -> tuple[bytes, ContentDecoder]:
    decoder = ContentDecoder(coding)
    return b"".join(decoder.feed(piece) for piece in pieces), decoder


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", PLAIN),
        ("identity", PLAIN),
        ("Identity ", PLAIN),
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        (" GZip", gzip.compress(PLAIN, mtime=0)),
        ("x-gzip", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_coded_body_in_any_two_pieces(coding: str, body: bytes) -> None:
    for cut in range(len(body) + 1):
        decoded, decoder = decode(coding, *chop(body, cut))
        assert decoded == PLAIN
        assert decoder.complete
        assert not decoder.broken


@unhurried
@given(st.binary(), st.lists(st.integers(0, 50)))
def test_gzip_in_any_pieces(plain: bytes, cuts: list[int]) -> None:
    coded = gzip.compress(plain)
    pieces = chop(coded, *(min(cut, len(coded)) for cut in cuts))
    assert decode("gzip", *pieces)[0] == plain


def test_what_has_come_is_decoded_at_once() -> None:
    """A stream's events are flushed one by one; none may wait for the next."""
    press = zlib.compressobj(wbits=31)
    decoder = ContentDecoder("gzip")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        coded = press.compress(event) + press.flush(zlib.Z_SYNC_FLUSH)
        assert decoder.feed(coded) == event
        assert not decoder.complete


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress", "x"])
def test_an_unknown_coding_gives_nothing(coding: str) -> None:
    decoded, decoder = decode(coding, b"data: 1\n\n")
    assert decoded == b""
    assert decoder.broken


@pytest.mark.parametrize("cut", [0, 1, 10, 25, -9, -1])
def test_a_body_that_was_cut_is_not_complete(cut: int) -> None:
    decoded, decoder = decode("gzip", gzip.compress(PLAIN)[:cut])
    assert PLAIN.startswith(decoded)
    assert not decoder.complete
    assert not decoder.broken


@pytest.mark.parametrize(
    "body",
    [b"this is no gzip at all", gzip.compress(PLAIN, mtime=0)[:-8] + b"\0" * 8],
    ids=["no gzip", "wrong checksum"],
)
def test_a_damaged_body_is_broken_and_raises_nothing(body: bytes) -> None:
    _, decoder = decode("gzip", body, b"more")
    assert decoder.broken
    assert not decoder.complete
    assert decoder.feed(gzip.compress(PLAIN)) == b""


def test_bytes_after_the_end_are_no_part_of_it() -> None:
    decoded, decoder = decode("gzip", gzip.compress(PLAIN) + b"x", b"y")
    assert decoded == PLAIN
    assert decoder.complete


def test_a_bomb_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_coding, "MAX_DECODED", 100_000)
    bomb = gzip.compress(b"\0" * 50_000_000)
    decoded, decoder = decode("gzip", *chop(bomb, 1000, 20_000))
    assert len(decoded) == 100_000
    assert decoder.broken


@pytest.mark.parametrize(
    ("accept", "takes"),
    [
        ("gzip", True),
        ("br, GZip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("x-gzip", False),
        ("identity", False),
        ("*", False),
        ("", False),
    ],
)
def test_who_takes_gzip_says_so(accept: str, *, takes: bool) -> None:
    assert takes_gzip(Headers([("Accept-Encoding", accept)])) is takes
    assert not takes_gzip(Headers())
