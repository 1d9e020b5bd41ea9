"""The model behind the gateways: a process that answers at once, or at a given pace.

``python -m benchmarks.mock PORT``. It answers ``POST .../messages`` with what `answers`
says; ``POST /pace/SECONDS`` sets the time between two events from then on.
"""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from typing import cast

import httptools
import msgspec

from benchmarks.answers import answer
from benchmarks.loop import run

_READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_WRONG = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: %s\r\nrequest-id: req_mock\r\n%s\r\n\r\n"


class Asked(msgspec.Struct):
    """The few fields of a request that decide what is answered."""

    model: str
    max_tokens: int
    stream: bool = False


class Pace:
    """Seconds between two events, for every answer that begins now."""

    seconds = 0.0


@lru_cache(maxsize=64)
def parts(model: str, tokens: int, *, streamed: bool) -> tuple[bytes, ...]:
    """The answer as HTTP has it: its head with the first piece, then the others."""
    found = answer(model, tokens, streamed=streamed)
    if not streamed:
        length = f"content-length: {len(found.body)}"
        head = _HEAD % (found.content_type, length)
        return (head.encode() + found.body,)
    # Each event is a chunk of its own, as from a model that writes them one by one.
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in found.pieces]
    first, others = b"".join(chunks[: found.lead]), chunks[found.lead :]
    head = _HEAD % (found.content_type, "transfer-encoding: chunked")
    others[-1] += b"0\r\n\r\n"
    return (head.encode() + first, *others)


class Client(asyncio.Protocol):
    """A connection of a gateway, or of the load when there is none."""

    _transport: asyncio.Transport

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        # uvloop's is no subclass of it.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Write no more."""
        if self._later is not None:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        """Read a request, or a part of one."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_WRONG)
            self._transport.close()

    def on_message_begin(self) -> None:
        """Another request."""
        self._url = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        path, _, _ = self._url.partition(b"?")
        if path.endswith(b"/messages"):
            self._answer(b"".join(self._body))
        elif path.startswith(b"/pace/"):
            self._pace.seconds = float(path[len(b"/pace/") :])
            self._transport.write(_READY)
        else:
            self._transport.write(_READY if path == b"/" else _MISSING)

    def _answer(self, body: bytes) -> None:
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except msgspec.MsgspecError:
            self._transport.write(_WRONG)
            self._transport.close()
            return
        pieces = parts(asked.model, asked.max_tokens, streamed=asked.stream)
        if not self._pace.seconds or not asked.stream:
            # One by one: a model's server passes on each event when it has it.
            for piece in pieces:
                self._transport.write(piece)
            return
        self._transport.write(pieces[0])
        loop = asyncio.get_running_loop()
        self._step(loop, loop.time(), self._pace.seconds, pieces, 1)

    def _step(
        self,
        loop: asyncio.AbstractEventLoop,
        due: float,
        pace: float,
        pieces: tuple[bytes, ...],
        number: int,
    ) -> None:
        """Write the next event when it is due; the end follows the last at once."""
        if number > 1:
            self._transport.write(pieces[number - 1])
        if number == len(pieces) - 1:
            self._transport.write(pieces[number])
            return
        due += pace
        self._later = loop.call_at(due, self._step, loop, due, pace, pieces, number + 1)


async def serve(port: int) -> None:
    """Serve until the process is told to end."""
    loop, pace = asyncio.get_running_loop(), Pace()
    server = await loop.create_server(
        lambda: Client(pace), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    run(serve(int(sys.argv[1])))
