"""Killed at any moment, the gateway owes no record: the next start writes it."""

from __future__ import annotations

import json
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

import pytest

from .conftest import TEXT, USAGE, exchange, request_body, whole
from .harness import (
    Connection,
    FakeUpstream,
    Gateway,
    Request,
    howto_config,
    message_events,
)

_NUMBER = re.compile(r"[?&]n=(\d+)")


def answer(request: Request, connection: Connection) -> None:
    """Every third answer is a stream that takes its time."""
    if number(request.target) % 3:
        whole(request, connection)
        return
    connection.start_stream()
    for event in message_events(TEXT, USAGE, model="claude-haiku-4-5"):
        connection.chunk(event)
        connection.sleep(0.005)
    connection.end()


def number(target: str) -> int:
    found = _NUMBER.search(target)
    assert found is not None, target
    return int(found[1])


class Clients:
    """Ask without a pause, on connections that are kept, until the gateway is gone."""

    def __init__(self) -> None:
        self._last = 0
        self._counting = threading.Lock()

    @contextmanager
    def asking(self, url: str, count: int = 6) -> Iterator[None]:
        stopping = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(url, stopping))
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join(10)

    def _ask(self, url: str, stopping: threading.Event) -> None:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=5)
        with suppress(OSError, HTTPException):
            while not stopping.is_set():
                with self._counting:
                    self._last += 1
                    path = f"/anything/v1/messages?n={self._last}"
                exchange(connection, "POST", path, request_body())
        connection.close()


@dataclass
class Outcome:
    """What the log says after some crashes."""

    accepted: int = 0
    """Requests that reached the upstream."""
    recovered: int = 0
    torn: int = 0
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)


def crash(trials: int, seed: int) -> Outcome:
    """Kill a gateway again and again while it works, and look at its log then."""
    dice, clients = random.Random(seed), Clients()
    with FakeUpstream(answer) as upstream:
        gateway = Gateway(howto_config(f"{upstream.url}/v1/messages"))
        with gateway:
            for _ in range(trials):
                known = len(upstream.requests)
                with clients.asking(gateway.url):
                    upstream.wait_for_requests(known + 1)
                    time.sleep(dice.uniform(0, 0.3))
                    gateway.stop(by=signal.SIGKILL)
                gateway.start()
            assert gateway.stop() == 0
            outcome = look_at(gateway, upstream)
            assert list(gateway.directory.glob("*.wal.*")) == []
    return outcome


def look_at(gateway: Gateway, upstream: FakeUpstream) -> Outcome:
    outcome, found = Outcome(), Counter[int]()
    data = gateway.log_path.read_bytes()
    assert data.endswith(b"\n")
    for line in data.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            # Half of one line, and nothing of another.
            assert line.count(b'{"request":{"id":') <= 1
            outcome.torn += 1
            continue
        found[number(record["request"]["uri"])] += 1
        outcome.recovered += record["kongai"]["ended"] == "crash"
    accepted = {number(request.target) for request in upstream.requests}
    outcome.accepted = len(accepted)
    outcome.lost = sorted(n for n in accepted if not found[n])
    outcome.doubled = sorted(n for n, count in found.items() if count > 1)
    return outcome


def test_no_record_is_lost_or_doubled_by_a_crash() -> None:
    outcome = crash(trials=3, seed=20)
    assert outcome.accepted > 10
    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.torn <= 3


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_crashes() -> None:
    outcome = crash(trials=100, seed=21)
    print(outcome)  # noqa: T201 - the figures are the point
    assert outcome.accepted > 1000
    assert outcome.recovered > 100
    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.torn <= 100
