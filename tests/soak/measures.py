"""What is measured of a gateway from outside: its memory, its time, its turns."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.live.harness import Gateway
from tests.live.trailer import open_files, processes

from .load import spread

_TICKS = os.sysconf("SC_CLK_TCK")
KIB, MIB = 1024, 1024 * 1024


def cpu_seconds(gateway: Gateway) -> float:
    """The processor time that the gateway's processes have taken."""
    total = 0
    for pid in processes(gateway):
        stat = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        total += int(stat[11]) + int(stat[12])
    return total / _TICKS


def memory(gateway: Gateway, what: str = "VmRSS") -> int:
    """The bytes that its processes have in memory, or had at most (``VmHWM``)."""
    total = 0
    for pid in processes(gateway):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith(what + ":"):
                total += int(line.split()[1]) * KIB
    return total


def forget_peak(gateway: Gateway) -> None:
    """Let ``VmHWM`` start again from what is in memory now."""
    for pid in processes(gateway):
        Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")


def descriptors(gateway: Gateway) -> int:
    """How many files and sockets its processes have open."""
    return len(open_files(gateway))


def machine() -> str:
    """How fast this machine is now: what figures of CPU time are to be read by."""
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        sum(range(100_000))
        taken.append(time.perf_counter() - began)
    return f"sum(range(100_000)) takes {min(taken) * 1e3:.1f} ms here"


def slope_per_hour(samples: Sequence[tuple[float, int]]) -> float:
    """By how much a value grows in an hour: the line of least squares.

    Args:
        samples: pairs of seconds and the value.
    """
    count = len(samples)
    middle = sum(at for at, _ in samples) / count
    mean = sum(value for _, value in samples) / count
    above = sum((at - middle) * (value - mean) for at, value in samples)
    return above / sum((at - middle) ** 2 for at, _ in samples) * 3600


class Probe:
    """A client like any other, which asks for something small all the time."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        """Seconds that each request took."""
        self.failed: list[Exception] = []

    @property
    def spread(self) -> dict[str, float]:
        """In milliseconds."""
        return spread(self.taken, 1e3)

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return self.spread["p99"]

    def __str__(self) -> str:
        return " / ".join(f"{value:.1f}" for value in self.spread.values()) + " ms"


@contextmanager
def probing(
    gateway: Gateway, path: str = "/lag", each: float = 0.05
) -> Iterator[Probe]:
    """Ask again and again while the block runs, on a connection of its own.

    ``/lag`` is answered by the gateway itself: what it takes longer than usual, the
    event loop was busy with others.

    Args:
        gateway: the gateway.
        path: what to ask for.
        each: seconds between two requests.
    """
    probe, stopping = Probe(), threading.Event()

    def ask() -> None:
        host = gateway.url.removeprefix("http://")
        with closing(HTTPConnection(host, timeout=60)) as connection:
            while not stopping.wait(each):
                began = time.monotonic()
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                probe.taken.append(time.monotonic() - began)
                assert response.status == 200

    def run() -> None:
        try:
            ask()
        except Exception as error:
            probe.failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield probe
    finally:
        stopping.set()
        thread.join(60)
    assert probe.failed == []


@contextmanager
def each(seconds: float, do: Callable[[], object]) -> Iterator[None]:
    """Do something again and again while the block runs; errors come out of it."""
    stopping, failed = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            while not stopping.wait(seconds):
                do()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(60)
    if failed:
        raise failed[0]
