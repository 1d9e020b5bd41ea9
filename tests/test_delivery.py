from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from kongai.delivery import Delivery, DeliveryError, Queue, seconds
from tests.live.waiting import wait_until


class Sink:
    """Takes batches, or raises what it is told to."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.tried: list[list[bytes]] = []
        self.batches: list[list[bytes]] = []
        self.times: list[float] = []
        self.closed = 0
        self.made = 0
        self.open = threading.Event()
        self.open.set()
        self._outcomes = list(outcomes)

    def __call__(self) -> Sink:
        self.made += 1
        return self

    def send(self, entries: Sequence[bytes]) -> None:
        self.tried.append(list(entries))
        self.times.append(time.monotonic())
        assert self.open.wait(10)
        outcome = self._outcomes[0] if self._outcomes else None
        if len(self._outcomes) > 1:
            self._outcomes.pop(0)
        if outcome is not None:
            raise outcome
        self.batches.append(list(entries))

    def close(self) -> None:
        self.closed += 1


def entries(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def test_entries_arrive_one_by_one_and_in_order() -> None:
    sink = Sink()
    delivery = Delivery("test", sink)
    for entry in entries(1, 2, 3):
        delivery.put(entry)
    delivery.close()
    assert sink.batches == [[b"1"], [b"2"], [b"3"]]
    assert (sink.made, sink.closed) == (1, 1)


def test_nothing_starts_before_there_is_an_entry() -> None:
    sink = Sink()
    before = threading.active_count()
    Delivery("test", sink).close()
    assert (sink.made, threading.active_count()) == (0, before)


def test_a_batch_is_sent_when_it_is_full_or_has_waited() -> None:
    sink = Sink()
    delivery = Delivery("test", sink, Queue(max_batch_size=2, max_coalescing_delay=0.1))
    for entry in entries(1, 2, 3):
        delivery.put(entry)
    wait_until(lambda: len(sink.batches) == 2, "second batch", 5)
    assert sink.batches == [entries(1, 2), entries(3)]
    assert sink.times[1] - sink.times[0] >= 0.09
    delivery.close()


def test_an_entry_never_waits_for_a_delivery() -> None:
    sink = Sink()
    sink.open.clear()
    delivery = Delivery("test", sink)
    began = time.monotonic()
    for _ in range(1000):
        delivery.put(b"x")
    assert time.monotonic() - began < 1
    sink.open.set()
    delivery.close()
    assert len(sink.batches) == 1000


def test_what_fails_is_tried_again_at_longer_and_longer_intervals() -> None:
    no = DeliveryError("no")
    sink = Sink(no, no, no, None)
    delivery = Delivery("test", sink, Queue(initial_retry_delay=0.05))
    delivery.put(b"1")
    wait_until(lambda: sink.batches, "delivery", 5)
    first, *_, last = sink.times
    assert len(sink.tried) == 4
    assert last - first >= 0.05 + 0.1 + 0.2
    delivery.close()


def test_what_fails_for_too_long_is_lost_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Sink(DeliveryError("no luck"), DeliveryError("no luck"))
    queue = Queue(initial_retry_delay=0.01, max_retry_time=0.1, max_retry_delay=0.02)
    delivery = Delivery("test", sink, queue)
    delivery.put(b"1")
    wait_until(lambda: "lost" in caplog.text, "loss", 5)
    delivery.close()
    assert 3 <= len(sink.tried) <= 12
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert errors == ["test: could not send entries (no luck); 1 were lost"]


def test_an_unexpected_error_costs_no_later_entry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its text may hold a secret and is not logged."""
    sink = Sink(ValueError("c4nary"), None)
    delivery = Delivery("test", sink, Queue(max_retry_time=-1))
    delivery.put(b"1")
    delivery.put(b"2")
    delivery.close()
    assert sink.batches == [[b"2"]]
    assert "ValueError at" in caplog.text
    assert "c4nary" not in caplog.text


def full(queue: Queue, *sizes: int) -> tuple[Sink, Delivery]:
    """A queue whose first entry is being sent, with more of these sizes behind it."""
    sink = Sink()
    sink.open.clear()
    delivery = Delivery("test", sink, queue)
    delivery.put(b"first")
    wait_until(lambda: sink.tried, "try", 5)
    for number, size in enumerate(sizes):
        delivery.put(b"%d" % number * size)
    return sink, delivery


def test_in_a_full_queue_the_oldest_entries_give_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, delivery = full(Queue(max_entries=2), 1, 1, 1, 1)
    sink.open.set()
    delivery.close()
    assert sink.batches == [[b"first"], [b"2"], [b"3"]]
    assert caplog.messages == [
        "test: queue full, dropping old entries until processing is successful again"
    ]


def test_bytes_can_fill_a_queue_too(caplog: pytest.LogCaptureFixture) -> None:
    sink, delivery = full(Queue(max_bytes=10), 4, 4, 11, 4)
    sink.open.set()
    delivery.close()
    assert sink.batches == [[b"first"], [b"1111"], [b"3333"]]
    assert "an entry of 11 bytes is over max_bytes; it is lost" in caplog.text


def test_a_stop_does_not_wait_for_better_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Sink(DeliveryError("no"))
    delivery = Delivery("test", sink, Queue(initial_retry_delay=60))
    delivery.put(b"1")
    delivery.put(b"2")
    wait_until(lambda: sink.tried, "try", 5)
    began = time.monotonic()
    delivery.close()
    assert time.monotonic() - began < 2
    assert sink.tried == [[b"1"], [b"1"], [b"2"]]
    assert caplog.text.count("1 were lost") == 2


def test_a_stop_does_not_wait_for_a_sink_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, delivery = full(Queue(), 1, 1)
    delivery.close(grace=0.1)
    assert "could not send entries before the end; 3 were lost" in caplog.text
    sink.open.set()
    wait_until(lambda: sink.closed, "end of the thread", 5)
    assert sink.batches == [[b"first"]]


def test_a_stop_ends_the_wait_for_more_entries() -> None:
    sink = Sink()
    queue = Queue(max_batch_size=10, max_coalescing_delay=60)
    delivery = Delivery("test", sink, queue)
    delivery.put(b"1")
    delivery.close()
    assert sink.batches == [[b"1"]]


def test_an_entry_after_a_stop_is_delivered_too() -> None:
    sink = Sink()
    delivery = Delivery("test", sink)
    for entry in entries(1, 2):
        delivery.put(entry)
        delivery.close()
    assert sink.batches == [[b"1"], [b"2"]]
    assert sink.closed == 2


_SCRIPT = """
import os, sys
from kongai.delivery import Delivery
class Sink:
    def send(self, entries):
        os.write(1, b"%d %b\\n" % (os.getpid() == parent, entries[0]))
    def close(self): pass
parent = os.getpid()
delivery = Delivery("test", Sink)
delivery.put(b"before")
"""


def output(code: str) -> list[str]:
    """What a script that delivers to its standard output has delivered."""
    command = [sys.executable, "-c", _SCRIPT + code]
    return subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=20
    ).stdout.splitlines()


def test_what_is_waiting_at_the_end_of_the_program_is_delivered() -> None:
    assert output("delivery.put(b'last')") == ["1 before", "1 last"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_delivers_what_is_its_own() -> None:
    code = """
import time, warnings
warnings.simplefilter("ignore")
if os.fork() == 0:
    delivery.put(b"child")
    sys.exit()
os.wait()
"""
    assert sorted(output(code)) == ["0 child", "1 before"]


@pytest.mark.parametrize(("given", "expected"), [(1500, 1.5), (0, 60.0), (-1, 60.0)])
def test_time_outs(given: float, expected: float) -> None:
    assert seconds(given) == expected


def test_a_sender_that_can_not_be_made_is_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Sink()
    failures = [ValueError("c4nary")]

    def make() -> Sink:
        if failures:
            raise failures.pop()
        return sink()

    delivery = Delivery("test", make)
    delivery.put(b"1")
    delivery.put(b"2")
    delivery.close()
    assert sink.batches == [[b"2"]]
    assert "ValueError at" in caplog.text
    assert "1 were lost" in caplog.text
    assert "c4nary" not in caplog.text


def test_queues_that_end_together_share_their_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sinks = [Sink(), Sink(), Sink()]
    deliveries = [Delivery("test", sink) for sink in sinks]
    for sink, delivery in zip(sinks, deliveries, strict=True):
        sink.open.clear()
        delivery.put(b"1")
    began = time.monotonic()
    for delivery in deliveries:
        delivery.prepare_close()
    deliveries[0].put(b"late")
    for delivery in deliveries:
        delivery.close(0.3)
    assert time.monotonic() - began < 0.8
    assert caplog.text.count("1 were lost") == 4
    for sink in sinks:
        sink.open.set()


def test_an_entry_between_the_two_steps_of_a_stop_is_delivered() -> None:
    sink = Sink()
    delivery = Delivery("test", sink)
    delivery.put(b"1")
    delivery.prepare_close()
    delivery.put(b"2")
    delivery.close()
    assert sorted(sink.batches) == [[b"1"], [b"2"]]
