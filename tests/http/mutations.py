"""Raw requests that are nearly those of the corpus."""

from __future__ import annotations

from random import Random

from tests.http.cases import load

SEEDS = [case.raw for case in load() if len(case.raw) < 2000]
# What parsers stumble over, wherever it stands.
PIECES = [
    *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\0", b" ", b"\t", b"\x0b", b":", b";"),
    *(b",", b"0", b"-1", b"+", b"_", b"0x", b"f" * 16, b"9" * 20, b"X" * 300),
    *(b"\x80", b"\xff", b"\xc3\xa9", b"%00", b"%", b"..", b"/", b"//", b"?", b"#"),
    *(b"*", b"GET / HTTP/1.1\r\n", b" HTTP/1.0", b"0\r\n\r\n", b"1\r\nx\r\n"),
    *(b"Host: a\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    b"Connection: upgrade\r\nUpgrade: x\r\n",
]


def mutated(random: Random) -> bytes:
    """One of the corpus' requests with up to four things done to it."""
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.randint(1, 4)):
        here = random.randint(0, len(data))
        there = min(len(data), here + random.randint(0, 20))
        what = random.randint(0, 5)
        if what == 0 and data:
            data[here % len(data)] ^= 1 << random.randint(0, 7)
        elif what == 1:
            data[here:here] = random.choice(PIECES)
        elif what == 2:
            del data[here:there]
        elif what == 3:
            data[here:here] = data[here:there]
        elif what == 4:
            other = random.choice(SEEDS)
            data[here:] = other[min(len(other), here) :]
        elif what == 5:
            data[here:here] = bytes([random.randint(0, 255)])
    return bytes(data)


def segments(random: Random, data: bytes) -> list[bytes]:
    """Data cut into up to four pieces, none of which is empty."""
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(0, 3)))
    edges = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return [data[start:end] for start, end in edges if start < end]
