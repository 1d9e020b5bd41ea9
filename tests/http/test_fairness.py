"""What keeps the server busy does not keep others waiting, nor fill its memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.http.client import Client
from tests.http.live_server import LiveServer

GET = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
ONE_BYTE_CHUNKS = (
    b"POST /busy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 600_000
    + b"0\r\n\r\n"
)
PIPELINED = b"GET /busy HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000


# How often others get a turn says something only where nothing else is going on.
@pytest.mark.soak
@pytest.mark.parametrize(
    ("busy", "answers"),
    [(ONE_BYTE_CHUNKS, 1), (PIPELINED, 2_000)],
    ids=["chunks", "line"],
)
def test_others_are_served_meanwhile(
    busy: bytes, answers: int, server: LiveServer
) -> None:
    """Not just before and after, as when everything is done in one go."""
    with Client(server.port, 20) as client, Client(server.port) as other:

        def keep_busy() -> None:
            client.send(busy)
            client.read(answers)

        thread = threading.Thread(target=keep_busy)
        thread.start()
        served = 0
        while thread.is_alive():
            other.send(GET)
            assert other.read(1, 5)
            other.answers.clear()
            served += 1
        thread.join()
        assert [answer.status for answer in client.answers] == [200] * answers
        # One before and one after come in any case.
        assert served > 2


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_small_chunks_take_no_more_memory_than_large_ones(server: LiveServer) -> None:
    """A chunk of two bytes was an object of 35, held until the body is whole."""
    body = (
        b"POST /busy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"2\r\nxy\r\n" * 2_000_000
    )
    with Client(server.port, 20) as client:
        before = memory(server)
        client.send(body)
        client.send(b"0\r\n\r\n")
        assert client.read(1)
        assert [answer.status for answer in client.answers] == [200]
    # Twice the body's 4 MB while it is put together, and what the allocator keeps.
    assert memory(server) - before < 40_000_000


def memory(server: LiveServer) -> int:
    """The most bytes of memory that the server has had at a time."""
    for line in Path(f"/proc/{server.pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
