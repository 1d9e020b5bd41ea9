"""Clients that put a gateway under load and check all that they get.

Run as a program; the last line that it prints is a JSON object with what was found.
It ends after its time, or when its standard input is closed.

``streams``   so many streams at once, each read to its end
``requests``  so many connections, each asking again as soon as it has its answer
``churn``     streams and whole answers, some asked to fail and some left half-way
``drip``      readers that take a little at a time
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import resource
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

import httptools

_PIECE = re.compile(rb'"(?:text|content)": ?"(\d+) (\d+) ')
_WHOLE_FAULTS = ("reset", "garbage", "hang", "busy", "short")
_STREAM_FAULTS = ("reset", "garbage", "hang", "busy", "cut", "reset_mid")
_RESET = struct.pack("ii", 1, 0)
_PATHS = {"claude": "/claude/v1/messages", "gpt": "/gpt"}


@dataclass
class Seen:
    """What a client has seen of one answer."""

    stream: bool = True
    status: int = 0
    asked_at: float = field(default_factory=time.monotonic)
    headed_at: float = 0.0
    pieces: int = 0
    disorder: int = 0
    """Pieces that did not follow the one before."""
    terminal: bool = False
    error_event: bool = False
    complete: bool = False
    """By its framing."""
    tail: bytes = b""

    def word(self) -> str:
        """The answer's end in a word."""
        if self.status == 0:
            return "nothing"
        if not self.complete:
            return "told" if self.error_event and not self.terminal else "cut"
        if self.status != 200:
            return str(self.status)
        if self.disorder:
            return "disorder"
        if self.stream and (self.error_event or not self.terminal):
            return "false_end"  # it looks as if it were all
        return "complete"


class Client(asyncio.Protocol):
    """A connection to the gateway."""

    delays: list[int] = []
    """Of every piece of all clients: nanoseconds from its sending to its coming."""
    transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport, self.open = transport, True
        self._seen, self._done = Seen(), asyncio.Event()
        self._head = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._head.set()
        self._done.set()

    def ask(self, request: bytes, *, stream: bool) -> Seen:
        """Send a request; what comes is noted in what is returned."""
        self._seen = seen = Seen(stream)
        self._parser = httptools.HttpResponseParser(self)
        self._done.clear()
        self._head.clear()
        self.transport.write(request)
        return seen

    async def head(self) -> None:
        """Until the answer's head is there, or the connection is gone."""
        await self._head.wait()

    async def end(self) -> None:
        """Until the answer is over, one way or the other."""
        if self.open:
            await self._done.wait()

    def leave(self, *, reset: bool) -> None:
        """Close without waiting for more."""
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self._seen.status = self._parser.get_status_code()
        self._seen.headed_at = time.monotonic()
        self._head.set()

    def on_body(self, body: bytes) -> None:
        seen = self._seen
        if not seen.stream or seen.status != 200:
            return
        now, text = time.monotonic_ns(), seen.tail + body
        cut = text.rfind(b"\n\n") + 2
        text, seen.tail = (text[:cut], text[cut:]) if cut > 1 else (b"", text)
        for found in _PIECE.finditer(text):
            seen.disorder += int(found[1]) != seen.pieces
            seen.pieces += 1
            self.delays.append(now - int(found[2]))
        seen.terminal = seen.terminal or b"message_stop" in text or b"[DONE]" in text
        if b"event: error" in text or b'data: {"error"' in text:
            seen.error_event = True

    def on_message_complete(self) -> None:
        self._seen.complete = True
        if not self._parser.should_keep_alive():
            self.transport.close()
        self._done.set()


class Target:
    """Where to ask, and how a request looks there."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self._path = path

    async def connect(self) -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, self.host, self.port)
        return client

    def request(
        self, query: dict[str, Any], *, stream: bool, path: str | None = None
    ) -> bytes:
        asked = {"model": "m", "max_tokens": 100, "stream": stream}
        text = {"role": "user", "content": "How long is a piece of string?"}
        body = json.dumps({**asked, "messages": [text]}).encode()
        arguments = "&".join(f"{name}={value}" for name, value in query.items())
        return (
            f"POST {path or self._path}?{arguments} HTTP/1.1\r\nHost: gateway\r\n"
            "Content-Type: application/json\r\nx-api-key: sk-ant-soak\r\n"
            "anthropic-version: 2023-06-01\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def spread(values: list[float] | list[int], unit: float) -> dict[str, float]:
    """The middle, the 99th percentile and the greatest of some values."""
    ordered = sorted(values) or [0]
    last = len(ordered) - 1
    at = {"p50": last // 2, "p99": int(last * 0.99), "max": last}
    return {name: round(ordered[index] * unit, 3) for name, index in at.items()}


def say(**fields: Any) -> None:
    """A line for the process that started this one."""
    print(json.dumps(fields), flush=True)  # noqa: T201


async def streams(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Open streams evenly over some seconds, and read each to its end."""
    target = Target(options.url, options.path)
    clients: list[tuple[Client, Seen]] = []
    began = time.monotonic()
    for number in range(options.count):
        due = began + options.ramp * number / options.count
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        client = await target.connect()
        query = {"n": number, "events": options.events, "pause": options.pause}
        if options.first:
            query["first"] = options.first
        request = target.request(query, stream=True)
        clients.append((client, client.ask(request, stream=True)))
    for client, _ in clients:
        await client.head()
    heads = [seen.headed_at - seen.asked_at for _, seen in clients]
    say(open=len(clients), heads_ms=spread(heads, 1e3))
    for client, _ in clients:
        await client.end()
    say(
        ends=Counter(seen.word() for _, seen in clients),
        pieces=sum(seen.pieces for _, seen in clients),
        lost=sum(options.events - seen.pieces for _, seen in clients),
        disorder=sum(seen.disorder for _, seen in clients),
        delay_ms=spread(Client.delays, 1e-6),
        heads_ms=spread(heads, 1e3),
    )


async def requests(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Ask again and again on so many connections."""
    target, taken = Target(options.url, options.path), list[float]()
    ends, numbers = Counter[str](), iter(range(10**9))

    async def ask() -> None:
        client = await target.connect()
        while not stop.is_set():
            request = target.request({"n": next(numbers)}, stream=False)
            seen = client.ask(request, stream=False)
            await client.end()
            taken.append(time.monotonic() - seen.asked_at)
            ends[seen.word()] += 1
            if not client.open:
                client = await target.connect()

    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(options.count)))
    rate = round(len(taken) / (time.monotonic() - began), 1)
    say(ends=ends, per_second=rate, taken_ms=spread(taken, 1e3), asked=len(taken))


class Churn:
    """Ask for all sorts of things, and write down how each ended."""

    def __init__(self, options: argparse.Namespace, ledger: IO[str]) -> None:
        self._target = Target(options.url, "")
        self._options = options
        self._ledger = ledger
        self._dice = random.Random(options.seed)
        self._number = options.seed * 10_000_000
        self.ends = Counter[str]()

    async def ask(self, stop: asyncio.Event) -> None:
        """Ask until told to stop, on a connection that is kept as long as it lasts."""
        client: Client | None = None
        while not stop.is_set():
            if client is None or not client.open:
                client = await self._connect()
            if client is not None:
                await self._one(client)
            await asyncio.sleep(self._dice.uniform(0, self._options.rest))

    async def _connect(self) -> Client | None:
        try:
            return await self._target.connect()
        except OSError:
            self.ends["no connection"] += 1
            await asyncio.sleep(0.05)
            return None

    async def _one(self, client: Client) -> None:
        dice, options = self._dice, self._options
        self._number += 1
        number, stream = self._number, dice.random() < 0.6
        path = _PATHS[dice.choice(sorted(_PATHS))]
        query: dict[str, Any] = {"n": number, "events": dice.randint(5, 40)}
        if stream:
            query["pause"] = round(dice.uniform(0.005, 0.05), 4)
        kind, luck = "good", dice.random()
        if luck < options.faults:
            faults = _STREAM_FAULTS if stream else _WHOLE_FAULTS
            kind = query["fault"] = dice.choice(faults)
        elif luck < options.faults + options.aborts:
            kind = "abort"
        request = self._target.request(query, stream=stream, path=path)
        seen = client.ask(request, stream=stream)
        end, left = asyncio.ensure_future(client.end()), False
        if kind == "abort":
            await asyncio.wait([end], timeout=dice.uniform(0, 0.3))
            left = not end.done()
            if left:
                client.leave(reset=dice.random() < 0.5)
        await asyncio.wait([end], timeout=30)
        word = "left" if left else seen.word() if end.done() else "stuck"
        if word == "stuck":
            client.leave(reset=True)
        self.ends[f"{kind}: {word}"] += 1
        self._ledger.write(f"{number} {kind} {word}\n")


async def churn(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run so many of these askers at once."""
    with open(options.ledger, "a", encoding="ascii") as ledger:
        churning = Churn(options, ledger)
        await asyncio.gather(*(churning.ask(stop) for _ in range(options.count)))
    say(ends=churning.ends)


async def drip(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Read so many streams, each at so many bytes a second."""
    target, read = Target(options.url, options.path), [0] * options.count
    loop = asyncio.get_running_loop()

    async def sip(number: int) -> None:
        with socket.socket() as sock:
            # Small, so that the reader's slowness is felt at the other end.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, (target.host, target.port))
            query = {"n": number, "events": 1_000_000, "pad": 16000}
            request = target.request(query, stream=True)
            await loop.sock_sendall(sock, request)
            while not stop.is_set():
                data = await loop.sock_recv(sock, options.rate)
                if not data:
                    return
                read[number] += len(data)
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1.0)

    sips = asyncio.gather(*(sip(number) for number in range(options.count)))
    say(open=options.count)
    await sips
    say(read=spread(read, 1.0))


async def main(options: argparse.Namespace) -> None:
    """Do what is asked, until its time is over or nobody is there any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.call_later(options.seconds, stop.set)

    def closed() -> None:
        loop.remove_reader(0)
        stop.set()

    loop.add_reader(0, closed)
    doing = {"streams": streams, "requests": requests, "churn": churn, "drip": drip}
    await doing[options.what](options, stop)
    sys.stdout.flush()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("streams", "requests", "churn", "drip"))
    parser.add_argument("url", help="http://HOST:PORT")
    parser.add_argument("--path", default=_PATHS["claude"])
    parser.add_argument("--count", type=int, default=1, help="at once")
    parser.add_argument("--seconds", type=float, default=1e6)
    parser.add_argument("--events", type=int, default=20, help="of each stream")
    parser.add_argument("--pause", type=float, default=0.05, help="between events")
    parser.add_argument("--first", type=float, default=0.0, help="before the first")
    parser.add_argument("--ramp", type=float, default=1.0, help="seconds to open in")
    parser.add_argument("--rate", type=int, default=1024, help="bytes per second")
    parser.add_argument("--rest", type=float, default=0.2, help="at most, in between")
    parser.add_argument("--faults", type=float, default=0.05, help="share of all")
    parser.add_argument("--aborts", type=float, default=0.05, help="share of all")
    parser.add_argument("--seed", type=int, default=1, help="of numbers and of chance")
    parser.add_argument("--ledger", help="a file for a line about each answer")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parsed()))
