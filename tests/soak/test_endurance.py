"""Hours in minutes: traffic of all sorts, faults and aborts, and nothing grows."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.live.harness import Gateway

from .bookkeeping import Books, books, log_files
from .children import Load, MockLLM
from .conftest import StartGateway, report, seconds
from .gateways import config
from .measures import KIB, MIB, descriptors, memory, slope_per_hour
from .raw_streams import RawStream
from .upheaval import hang_up, kill_worker, rewrite, rotate, workers_of

MINUTES = float(os.environ.get("KONGAI_SOAK_MINUTES", "30"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(MINUTES * 60 + 300)]
READ_TIMEOUT = 5.0
ALLOWED = {
    "good": {("complete", "ok")},
    "abort": {("left", "client_abort"), ("left", "ok"), ("complete", "ok")},
    "reset": {("502", "upstream_protocol"), ("502", "upstream_cut")},
    "garbage": {("502", "upstream_protocol")},
    "hang": {("504", "first_byte_timeout")},
    "busy": {("529", "ok")},
    "cut": {("told", "upstream_cut")},
    "reset_mid": {("told", "upstream_cut")},
    "short": {("cut", "upstream_cut")},
}
"""What was asked for: how it may end for the client, and by the record."""


def settle(gateway: Gateway, base: int, timeout: float = 60.0) -> int:
    """How many descriptors stay open, once idle connections have been let go.

    They go with the next request, so there has to be one now and then.
    """

    until = time.monotonic() + timeout
    while True:
        RawStream(gateway, "/plain", stream=False).wait()
        if descriptors(gateway) <= base or time.monotonic() > until:
            break
        time.sleep(0.5)
    return descriptors(gateway)


def misfits(
    book: Books, also: Collection[tuple[str, str]] = ()
) -> Counter[tuple[str, str, str]]:
    """The ends that should not be: what was asked, the client's and the record's."""
    return Counter(
        {
            (kind, word, ended): count
            for (kind, word, ended), count in book.ends().items()
            if (word, ended) not in {*ALLOWED[kind], *also}
        }
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_endurance(
    model: MockLLM, start: StartGateway, workers: int, tmp_path: Path
) -> None:
    """Memory and descriptors are at the end what they were, and all is on record."""
    gateway = start("--workers", str(workers), read_timeout=READ_TIMEOUT)
    ledger, dice = tmp_path / "clients.txt", random.Random(workers)
    settle(gateway, 10**6)
    base, began, done = descriptors(gateway), time.monotonic(), Counter[str]()
    length = MINUTES * 60 / (1 if workers == 1 else 3)
    samples: list[tuple[float, int]] = []
    next_event = 10.0
    with Load("churn", gateway.url, count=50, ledger=ledger) as load:
        while (now := time.monotonic() - began) < length:
            samples.append((now, memory(gateway)))
            if now > next_event:
                next_event = now + 20
                what = dice.choice(["reload", "rotate", "rotate quietly"])
                if what != "reload":
                    rotate(gateway)
                if what != "rotate quietly":
                    hang_up(gateway, workers, refused=False)
                done[what] += 1
            time.sleep(1)
        found = load.stop()
    peak = max(size for _, size in samples)
    # A process grows until it has had all sorts of traffic at once: 10 minutes, or a
    # third of a run that is shorter than half an hour.
    warm = min(600.0, length / 3)
    steady = [(at, size) for at, size in samples if at > warm]
    slope = slope_per_hour(steady) / MIB
    left = settle(gateway, base)
    assert gateway.stop() == 0
    book = books([ledger], model.ledger, log_files(gateway.log_path))
    records = sum(book.ends().values())
    report(
        f"endurance, {workers} workers",
        f"{length / 60:.0f} min, {len(book.asked)} exchanges, {records} records, "
        f"{len(book.lost)} lost, {len(book.doubled)} doubled; memory "
        f"{steady[0][1] / MIB:.1f} MiB after {warm / 60:.0f} min, "
        f"{steady[-1][1] / MIB:.1f} at the end, at most {peak / MIB:.1f}, slope "
        f"{slope:+.1f} MiB/h; descriptors {base} before, {left} after; {dict(done)}",
    )
    assert (book.lost, book.doubled, book.unasked, book.torn) == ([], [], [], 0)
    assert misfits(book) == Counter(), found
    assert left <= base + 5
    # What a page or two more say of an hour depends on how long was measured.
    noise = 512 * KIB * workers * 3600 / (length - warm) / MIB
    assert slope < 1.0 * workers + noise


def test_everything_at_once(
    model: MockLLM, start: StartGateway, tmp_path: Path
) -> None:
    """Whatever was accepted is on record, once, whatever else goes on."""
    gateway = start("--workers", "3", read_timeout=READ_TIMEOUT)
    ledger, dice, done = tmp_path / "clients.txt", random.Random(3), Counter[str]()
    until = time.monotonic() + seconds(120)
    good = config(model.url, read_timeout=READ_TIMEOUT)
    options = {"count": 40, "ledger": ledger, "faults": 0.1, "aborts": 0.1}
    with Load("churn", gateway.url, **options, rest=0.05) as load:
        while time.monotonic() < until:
            time.sleep(dice.uniform(0.5, 1.5))
            what = dice.choice(["kill", "kill", "reload", "bad file", "rotate"])
            if what == "kill":
                kill_worker(gateway, dice.choice(workers_of(gateway)))
            elif what == "rotate":
                rotate(gateway)
            else:
                bad = what == "bad file"
                rewrite(gateway, "nothing: good" if bad else good)
                hang_up(gateway, 3, refused=bad)
            done[what] += 1
        found = load.stop()
    settle(gateway, 10**6)
    assert gateway.stop() == 0
    book = books([ledger], model.ledger, log_files(gateway.log_path))
    ends = book.ends()
    crashed = sum(count for (*_, word), count in ends.items() if word == "crash")
    report(
        "everything at once",
        f"{seconds(120):.0f} s, 3 workers, {dict(done)}: {len(book.asked)} asked, "
        f"{len(book.accepted)} accepted, {len(book.lost)} lost, "
        f"{len(book.doubled)} doubled, {crashed} ended by a crash, {book.torn} torn",
    )
    assert (book.lost, book.doubled, book.unasked) == ([], [], [])
    assert book.torn <= done["kill"]
    by_kill = {(word, "crash") for _, word, _ in ends}
    assert misfits(book, by_kill) == Counter(), found
    assert list(gateway.directory.glob("*.wal.*")) == []
