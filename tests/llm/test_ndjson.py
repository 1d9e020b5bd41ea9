from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai.llm import ndjson
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(st.lists(st.binary(max_size=6)))
def test_lines_in_any_cuts(pieces: list[bytes]) -> None:
    decoder = ndjson.Decoder()
    lines = [found for piece in pieces for found in decoder.feed(piece)]
    lines += decoder.end()
    expected = [found.strip() for found in b"".join(pieces).split(b"\n")]
    assert lines == [found for found in expected if found]
    assert decoder.end() == []


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_longest_line(size: int) -> None:
    def fed(data: bytes) -> list[bytes]:
        decoder = ndjson.Decoder(max_line_size=10)
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        return [found for chunk in chunks for found in decoder.feed(chunk)]

    assert fed(b"0123456789\n" * 3) == [b"0123456789"] * 3
    for data in (b"0123456789a", b"0123456789a\n", b"0\n0123456789a\n0\n"):
        with pytest.raises(ndjson.LineTooLong):
            fed(data)


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"1\n2\r\n3", [b"1", b"2", b"3"]),
        (b"\n \r\n\n1\n\n", [b"1"]),
        ("é\u2028\n".encode(), ["é\u2028".encode()]),
        (b"1\r2\n", [b"1\r2"]),
        (b"", []),
    ],
)
def test_what_a_line_is(stream: bytes, lines: list[bytes]) -> None:
    decoder = ndjson.Decoder()
    found = [line for piece in chop(stream, 1, 2, 3) for line in decoder.feed(piece)]
    assert found + decoder.end() == lines
