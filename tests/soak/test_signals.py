"""What an operator does, again and again, while clients are being served."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.live.harness import Gateway
from tests.live.trailer import processes

from .bookkeeping import books, log_files
from .children import Load, MockLLM
from .conftest import StartGateway, report, times
from .gateways import config
from .raw_streams import RawStream
from .upheaval import ask_lag, hang_up, kill_worker, owners, rewrite, rotate

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
GRACE = 1.0
CLAUDE, GPT = "/claude/v1/messages", "/gpt"


class Asking:
    """Asks a gateway, and numbers what it asks."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.streams: dict[int, RawStream] = {}

    def ask(self, path: str, query: str, *, stream: bool = True) -> RawStream:
        """One more; it goes on by itself."""
        number = len(self.streams)
        target = f"{path}?n={number}&{query}"
        self.streams[number] = RawStream(self.gateway, target, stream=stream)
        return self.streams[number]


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping(model: MockLLM, start: StartGateway, workers: int) -> None:
    """Short answers are finished, long ones told, and all are on record."""
    dice, trials, slowest = random.Random(workers), times(25), 0.0
    total: Counter[str] = Counter()
    for trial in range(trials):
        model.ledger.write_bytes(b"")
        gateway = start("--grace", str(GRACE), "--workers", str(workers))
        asking = Asking(gateway)
        short = [asking.ask(p, "events=9&pause=0.05") for p in (CLAUDE, GPT) * 4]
        long = [asking.ask(p, "events=400&pause=0.05") for p in (CLAUDE, GPT) * 4]
        soon = [asking.ask(p, "first=0.5", stream=False) for p in (CLAUDE, GPT)]
        late = [asking.ask(p, "first=20", stream=False) for p in (CLAUDE, GPT)]
        assert all(stream.begun() for stream in (*short, *long))
        time.sleep(dice.uniform(0, 0.1))
        began = time.monotonic()
        assert gateway.stop() == 0
        slowest = max(slowest, time.monotonic() - began)
        for stream in asking.streams.values():
            stream.wait()
        assert all(stream.whole for stream in short)
        assert all(stream.told for stream in long)
        assert not any(stream.ended_as_complete for stream in long)
        assert [stream.status for stream in (*soon, *late)] == [200, 200, 503, 503]
        book = books([], model.ledger, log_files(gateway.log_path))
        assert (book.lost, book.doubled, book.torn) == ([], [], 0)
        ended = [book.records[n][0]["kongai"]["ended"] for n in asking.streams]
        expected = ["ok"] * 8 + ["shutdown"] * 8 + ["ok"] * 2 + ["shutdown"] * 2
        assert ended == expected, trial
        assert list(gateway.directory.glob("*.wal.*")) == []
        total.update(ended)
    report(
        f"SIGTERM, {workers} workers",
        f"{trials} trials, {dict(total)} by the record; exit 0 after at most "
        f"{slowest:.2f} s with a grace of {GRACE} s",
    )
    # A second, and as much again for a machine that does other things as well.
    assert slowest < GRACE + 2


@pytest.mark.parametrize("workers", [1, 2])
def test_reloading(
    model: MockLLM, start: StartGateway, workers: int, tmp_path: Path
) -> None:
    """A good file is taken, a bad one refused, a rotated log let go; all under load."""
    dice, trials, done = random.Random(workers), times(50), Counter[str]()
    gateway = start("--workers", str(workers), read_timeout=5)
    ledger, version, slowest = tmp_path / "clients.txt", "1", 0.0
    options = {"count": 30, "ledger": ledger, "faults": 0, "aborts": 0}
    with Load("churn", gateway.url, **options) as load:
        for trial in range(trials):
            what = dice.choice(["good", "bad", "rotated"])
            if what == "good":
                version = f"version {trial}"
                rewrite(gateway, config(model.url, version=version, read_timeout=5))
            elif what == "bad":
                rewrite(gateway, config(model.url).replace("ai-proxy", "ai-poxy"))
            else:
                rotate(gateway)
            began = time.monotonic()
            hang_up(gateway, workers, refused=_is_bad(gateway))
            slowest = max(slowest, time.monotonic() - began)
            done[what] += 1
            assert {ask_lag(gateway) for _ in range(4 * workers)} == {version}
            time.sleep(dice.uniform(0, 0.2))
        found = load.stop()
    assert gateway.stop() == 0
    book = books([ledger], model.ledger, log_files(gateway.log_path))
    report(
        f"SIGHUP, {workers} workers",
        f"{trials} trials {dict(done)}, heeded within {slowest:.2f} s; "
        f"{len(book.asked)} exchanges, {len(book.lost)} lost, "
        f"{len(book.doubled)} doubled, {sum(book.ends().values())} records",
    )
    assert found["ends"] == {"good: complete": len(book.asked)}
    assert (book.lost, book.doubled, book.unasked, book.torn) == ([], [], [], 0)
    assert set(book.ends()) == {("good", "complete", "ok")}


def _is_bad(gateway: Gateway) -> bool:
    return "ai-poxy" in (gateway.directory / "kong.yml").read_text("utf-8")


def test_killing_single_workers(model: MockLLM, start: StartGateway) -> None:
    """The dead one's exchanges are cut and put on record; nobody else notices."""
    trials, replaced, cut_in_all, whole_in_all = times(20), 0.0, 0, 0
    gateway = start("--workers", "3")
    asking = Asking(gateway)
    dead: set[int] = set()
    for _ in range(trials):
        pids = sorted(set(processes(gateway)) - {gateway.pid})
        assert len(pids) == 3
        time.sleep(1.0)  # one that has hardly lived is not replaced at once
        known = len(asking.streams)
        for path in (CLAUDE, GPT) * 12:
            asking.ask(path, "events=60&pause=0.05")
        streams = {n: s for n, s in asking.streams.items() if n >= known}
        assert all(stream.begun() for stream in streams.values())
        pid_of = owners(gateway, [stream.port for stream in streams.values()])
        owner = {n: pid_of[stream.port] for n, stream in streams.items()}
        victim = max(pids, key=list(owner.values()).count)
        began = time.monotonic()
        kill_worker(gateway, victim)
        replaced = max(replaced, time.monotonic() - began)
        for stream in streams.values():
            stream.wait()
        whole = {number for number, stream in streams.items() if stream.whole}
        cut = set(streams) - whole
        assert cut == {number for number, pid in owner.items() if pid == victim}
        assert not any(streams[number].ended_as_complete for number in cut)
        dead |= cut
        cut_in_all, whole_in_all = cut_in_all + len(cut), whole_in_all + len(whole)
    assert gateway.stop() == 0
    book = books([], model.ledger, log_files(gateway.log_path))
    report(
        "kill -9 of one of 3 workers",
        f"{trials} trials; {cut_in_all} streams cut, {whole_in_all} of the others "
        f"whole; replaced within {replaced:.2f} s; {len(book.lost)} records lost, "
        f"{len(book.doubled)} doubled, {book.torn} torn lines",
    )
    assert (book.lost, book.doubled) == ([], [])
    assert book.torn <= trials
    ends = {n: found[0]["kongai"]["ended"] for n, found in book.records.items()}
    assert {number for number, word in ends.items() if word == "crash"} == dead
    assert {word for n, word in ends.items() if n not in dead} == {"ok"}
