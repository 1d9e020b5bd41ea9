"""Clients of a gateway: each answer is compared with what it has to be.

A closed loop sends the next request when the last answer is complete; an open loop
sends at a given rate, whatever has become of the others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import httptools

HOST = "127.0.0.1"
PATIENCE = 60.0
"""Seconds after which an answer is missed."""

Judge: TypeAlias = Callable[[int, bytes], "str | None"]
"""Says what is wrong with an answer, given its status and its body."""

_HEADERS = {
    "content-type": "application/json",
    "x-api-key": "sk-ant-fake",
    "anthropic-version": "2023-06-01",
    "user-agent": "benchmark",
    "accept": "*/*",
}


@dataclass
class Sample:
    """What clients have seen.

    Args:
        totals: seconds from each request to the end of its answer.
        firsts: seconds from each request to the first byte of its answer's body.
        failures: what was wrong with answers, and how often.
        elapsed: seconds that it took.
    """

    totals: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0

    @property
    def requests(self) -> int:
        """How many answers there were, good and bad."""
        return len(self.totals)

    def totals_at(self, share: float) -> float:
        """The total that this share of the requests does not exceed, in seconds."""
        return percentile(self.totals, share)

    def firsts_at(self, share: float) -> float:
        """Likewise for the first byte."""
        return percentile(self.firsts, share)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def request_bytes(
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
) -> bytes:
    """A request as it goes over the wire."""
    fields = {"host": "benchmark.test", **_HEADERS, **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    return head.encode() + body


def exactly(expected: bytes) -> Judge:
    """Answers have to be 200 with this body, byte for byte."""

    def judge(status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}"
        if body == expected:
            return None
        if len(body) != len(expected):
            return f"{len(body)} bytes in place of {len(expected)}"
        return "other bytes than the upstream's"

    return judge


class _Client(asyncio.Protocol):
    """One connection, with one request at a time."""

    _transport: asyncio.Transport

    def __init__(
        self,
        request: bytes,
        judge: Judge,
        finished: Callable[[_Client, float, float, str | None], None],
    ) -> None:
        self._request = request
        self._judge = judge
        self._finished = finished
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._first = 0.0
        self._began = 0.0
        self.busy = False
        self.usable = True
        """Whether another request can be sent."""

    def send(self) -> None:
        """Send the request."""
        self.busy = True
        self._first = 0.0
        self._body.clear()
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def close(self) -> None:
        """End the connection."""
        self.usable = self.busy = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where requests go."""
        # uvloop's is no subclass of it.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so, if an answer was to come."""
        self.usable = False
        if self.busy:
            self._end("the connection was closed within an answer")

    def data_received(self, data: bytes) -> None:
        """Read an answer, or a part of one."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.usable = False
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._first:
            self._first = time.perf_counter()
        self._body.append(body)

    def on_message_complete(self) -> None:
        """All of an answer has come."""
        if not self._parser.should_keep_alive():
            self.usable = False
            self._transport.close()
        self._end(self._judge(self._parser.get_status_code(), b"".join(self._body)))

    def _end(self, failure: str | None) -> None:
        self.busy = False
        now = time.perf_counter()
        first = (self._first or now) - self._began
        self._finished(self, now - self._began, first, failure)


class _Clients:
    """Connections to one port that all send the same request."""

    def __init__(self, port: int, request: bytes, judge: Judge) -> None:
        self._port = port
        self._request = request
        self._judge = judge
        self._all: list[_Client] = []
        self._sample = Sample()
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End all connections."""
        for client in self._all:
            client.close()
        self._all.clear()

    async def _open(self) -> _Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: _Client(self._request, self._judge, self._finished),
            HOST,
            self._port,
        )
        self._all.append(client)
        return client

    def _finished(
        self, client: _Client, total: float, first: float, failure: str | None
    ) -> None:
        sample = self._sample
        sample.totals.append(total)
        sample.firsts.append(first)
        if failure is not None:
            sample.failures[failure] += 1
        self._go_on(client)

    def _go_on(self, client: _Client) -> None:
        """Decide what a client does that has had its answer."""
        raise NotImplementedError

    def _replace(self, client: _Client, then: Callable[[_Client], None]) -> None:
        """Put a new connection in the place of one that was closed."""
        if client in self._all:
            self._all.remove(client)

        async def reopen() -> None:
            try:
                other = await self._open()
            except OSError as error:
                self._sample.failures[f"no connection: {error.strerror}"] += 1
                await asyncio.sleep(0.05)
                self._go_on(client)
            else:
                then(other)

        task = asyncio.get_running_loop().create_task(reopen())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, idle: Callable[[], bool], seconds: float) -> None:
        """Wait until nothing is under way any more."""
        end = time.monotonic() + seconds + PATIENCE
        while not idle():
            if time.monotonic() > end:
                missing = sum(client.busy for client in self._all)
                self._sample.failures[f"no answer within {PATIENCE:.0f} s"] += missing
                self.close()
                return
            await asyncio.sleep(0.01)


class ClosedLoop(_Clients):
    """Clients that send again as soon as they have their answer.

    Args:
        port: the gateway's.
        request: what all of them send.
        judge: says what is wrong with an answer.
        connections: how many there are.
    """

    def __init__(
        self, port: int, request: bytes, judge: Judge, connections: int
    ) -> None:
        super().__init__(port, request, judge)
        self._connections = connections
        self._end_at = 0.0
        self._running = 0

    async def run(self, seconds: float) -> Sample:
        """Send for a time, then wait for the last answers.

        Args:
            seconds: how long; with 0 each client sends once.
        """
        while len(self._all) < self._connections:
            await self._open()
        self._sample = Sample()
        began = time.monotonic()
        self._end_at = began + seconds
        self._running = len(self._all)
        for client in list(self._all):
            if client.usable:
                client.send()
            else:
                self._replace(client, _Client.send)
        await self._wait(lambda: self._running == 0, seconds)
        self._sample.elapsed = time.monotonic() - began
        return self._sample

    def _go_on(self, client: _Client) -> None:
        if time.monotonic() >= self._end_at:
            self._running -= 1
        elif client.usable:
            client.send()
        else:
            self._replace(client, _Client.send)


class OpenLoop(_Clients):
    """Clients whose requests come at random moments, at a given rate on average.

    How long an answer takes counts from the moment at which the request was due, also
    when it had to wait for a connection to become free.

    Args:
        port: the gateway's.
        request: what all of them send.
        judge: says what is wrong with an answer.
        connections: the most that are under way at a time.
        rate: requests per second.
    """

    def __init__(
        self, port: int, request: bytes, judge: Judge, connections: int, rate: float
    ) -> None:
        super().__init__(port, request, judge)
        self._connections = connections
        self._rate = rate
        self._free: list[_Client] = []
        self._due: deque[float] = deque()
        self._waited: dict[_Client, float] = {}

    async def run(self, seconds: float) -> Sample:
        """Send for a time, then wait for the last answers."""
        while len(self._all) < self._connections:
            self._free.append(await self._open())
        self._sample = Sample()
        # The same moments for every gateway.
        moments = random.Random(1)  # noqa: S311
        loop = asyncio.get_running_loop()
        began = loop.time()
        due = began
        while (due := due + moments.expovariate(self._rate)) < began + seconds:
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            self._due.append(time.perf_counter())
            self._send_what_is_due()
        await self._wait(lambda: len(self._free) == self._connections, seconds)
        self._sample.elapsed = loop.time() - began
        return self._sample

    def _send_what_is_due(self) -> None:
        while self._due and self._free:
            client = self._free.pop()
            if client.usable:
                self._waited[client] = time.perf_counter() - self._due.popleft()
                client.send()
            else:
                self._replace(client, self._make_free)

    def _finished(
        self, client: _Client, total: float, first: float, failure: str | None
    ) -> None:
        waited = self._waited.pop(client, 0.0)
        super()._finished(client, total + waited, first + waited, failure)

    def _go_on(self, client: _Client) -> None:
        if client.usable:
            self._make_free(client)
        else:
            self._replace(client, self._make_free)

    def _make_free(self, client: _Client) -> None:
        self._free.append(client)
        self._send_what_is_due()
