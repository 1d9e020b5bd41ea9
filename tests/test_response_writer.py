from __future__ import annotations

from collections.abc import Callable

import pytest

from kongai.errors import GatewayError
from kongai.http1 import LAST_CHUNK, Message, chunk
from kongai.response_writer import ResponseWriter


class Wire:
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        self.closing = False
        self.writes: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.writes.append(data)

    @property
    def bodies(self) -> list[bytes]:
        """The writes, without the head."""
        data = [*self.writes]
        data[0] = data[0].partition(b"\r\n\r\n")[2]
        return data


@pytest.fixture
def wire() -> Wire:
    return Wire()


def writer_of(
    wire: Wire,
    is_whole: Callable[[], bool] | None,
    *headers: tuple[str, str],
) -> ResponseWriter:
    message = Message("GET", "/", keep_alive=True, complete=True)
    writer = ResponseWriter(wire, message)
    writer.is_whole = is_whole
    writer.start("200 OK", list(headers))
    return writer


def test_what_is_there_whole_goes_at_once(wire: Wire) -> None:
    writer = writer_of(wire, lambda: True)
    for data in (b"ab", b"", b"c"):
        writer.write(data)
    assert wire.writes == []
    writer.finish()
    assert wire.bodies == [chunk(b"ab") + chunk(b"c") + LAST_CHUNK]


def test_the_rest_goes_at_once_when_it_is_there(wire: Wire) -> None:
    answers = iter([False, True])
    writer = writer_of(wire, lambda: next(answers))
    writer.flush(b"")
    for data in (b"first", b"second", b"third"):
        writer.write(data)
    assert wire.bodies == [b"", chunk(b"first")]
    writer.finish()
    rest = chunk(b"second") + chunk(b"third") + LAST_CHUNK
    assert wire.bodies == [b"", chunk(b"first"), rest]


@pytest.mark.parametrize("is_whole", [None, lambda: False], ids=["unknown", "no"])
def test_what_comes_goes_out_as_it_comes(
    wire: Wire, is_whole: Callable[[], bool] | None
) -> None:
    writer = writer_of(wire, is_whole)
    pieces = [b"%d" % number for number in range(20)]
    for number, data in enumerate(pieces, 1):
        writer.write(data)
        assert len(wire.writes) == number
    writer.finish()
    assert wire.bodies == [*map(chunk, pieces), LAST_CHUNK]


def test_no_more_than_so_much_is_held_back(wire: Wire) -> None:
    writer = writer_of(wire, lambda: True)
    for _ in range(10):
        writer.write(b"x" * 65_536)
        assert sum(map(len, wire.writes)) % 65_536 < 65_536
    assert 2 <= len(wire.writes) <= 3
    writer.finish()
    assert b"".join(wire.bodies) == chunk(b"x" * 65_536) * 10 + LAST_CHUNK
    assert max(map(len, wire.writes)) < 400_000


def test_an_answer_that_breaks_off_has_what_came_before(wire: Wire) -> None:
    writer = writer_of(wire, lambda: True)
    writer.write(b"before")
    writer.release()
    writer.fail(GatewayError())
    writer.release()
    assert wire.bodies == [chunk(b"before")]


def test_a_known_length_is_not_asked_for(wire: Wire) -> None:
    def is_whole() -> bool:
        raise AssertionError("it ends with its last byte")

    writer = writer_of(wire, is_whole, ("Content-Length", "4"))
    writer.write(b"ab")
    writer.write(b"cdef")
    writer.finish()
    assert wire.bodies == [b"ab", b"cd"]
