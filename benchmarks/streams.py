"""A thousand streams that are open at the same time: memory, and who has to wait."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.errors import CheckFailed
from benchmarks.figures import Figure
from benchmarks.gateways import Kongai, kongai_config, with_probe
from benchmarks.load import ClosedLoop, Sample, percentile, request_bytes
from benchmarks.loop import run
from benchmarks.stage import Stage
from benchmarks.workloads import Workload, small_body

STREAMS = 1000
_PACE = 1.0
_PROBE_PAUSE = 0.005
_OPENING_SECONDS = 3.0


@dataclass(frozen=True)
class _Seen:
    """What was measured: memory before and with the streams, in bytes, and how long
    the probe took, in seconds, without and with them."""

    before: int
    during: int
    idle: list[float]
    busy: list[float]
    sample: Sample


def open_streams(
    stage: Stage, *, seconds: float, streams: int = STREAMS
) -> list[Figure]:
    """Open many streams with an event a second each, and ask for something small.

    Args:
        stage: where it runs.
        seconds: how long to measure while they are open.
        streams: how many.

    Raises:
        CheckFailed: an answer or a record was wrong.
    """
    directory = stage.new_directory("kongai")
    config = kongai_config(directory / "records.json", stage.upstream)
    kongai = stage.kongai(with_probe(config), directory=directory)
    tokens = int(seconds + _OPENING_SECONDS) + 2
    workload = Workload(
        name="open-streams",
        title="open streams",
        body=small_body(tokens, streamed=True),
        tokens=tokens,
        streamed=True,
        pace=_PACE,
        connections=streams,
    )
    # What is made once is there before memory is looked at.
    stage.measure(kongai, _warm(workload), 1.0)
    stage.set_pace(_PACE)
    seen = run(_hold(stage, kongai, workload, seconds))
    if seen.sample.failures:
        raise CheckFailed(f"of {streams} streams: {dict(seen.sample.failures)}")
    kongai.check(workload, seen.sample.requests)
    kongai.stop()
    idle = percentile(seen.idle, 0.5)
    lag = [(value - idle) * 1000 for value in seen.busy]
    note = (
        f"of {len(lag)} requests for /probe, which the gateway answers itself, less "
        f"the median without streams, {idle * 1000:.2f} ms"
    )
    return [
        Figure(
            "memory per open stream",
            (seen.during - seen.before) / streams / 1024,
            "KiB",
            60,
            note=f"{streams} streams, an event a second each",
        ),
        Figure("lag among them, p50", percentile(lag, 0.5), "ms"),
        Figure("lag among them, p99", percentile(lag, 0.99), "ms", 20, note=note),
    ]


def _warm(workload: Workload) -> Workload:
    return Workload(
        name="warm-up",
        title="warm-up",
        body=small_body(20, streamed=True),
        tokens=20,
        streamed=True,
        connections=16,
    )


async def _hold(
    stage: Stage, kongai: Kongai, workload: Workload, seconds: float
) -> _Seen:
    probe = ClosedLoop(
        kongai.port,
        request_bytes("/probe", b"", method="GET"),
        lambda status, body: None if status == 200 else f"status {status}",
        1,
    )
    clients = ClosedLoop(
        kongai.port,
        stage.request(kongai, workload),
        kongai.judge(workload),
        workload.connections,
    )
    try:
        idle = await _probe(probe, seconds)
        before = kongai.process.resident_bytes()
        streaming = asyncio.ensure_future(clients.run(0))
        await asyncio.sleep(_OPENING_SECONDS)
        busy = await _probe(probe, seconds)
        during = kongai.process.resident_bytes()
        if streaming.done():
            raise CheckFailed("the streams ended before they were measured")
        sample = await streaming
    finally:
        probe.close()
        clients.close()
    return _Seen(before, during, idle, busy, sample)


async def _probe(probe: ClosedLoop, seconds: float) -> list[float]:
    """Ask again and again, with pauses; how long each answer took."""
    end = time.monotonic() + seconds
    found = []
    while time.monotonic() < end:
        sample = await probe.run(0)
        if sample.failures:
            raise CheckFailed(f"kongai's own answer: {dict(sample.failures)}")
        found += sample.totals
        await asyncio.sleep(_PROBE_PAUSE)
    return found
