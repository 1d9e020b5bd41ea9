"""How much later an answer comes through the gateway than without it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.figures import Figure
from benchmarks.gateways import Gateway, Kongai
from benchmarks.load import Sample
from benchmarks.stage import Stage
from benchmarks.workloads import Workload, small_body

_CONNECTIONS_AT_RATE = 128

_JSON = Workload(
    name="json", title="JSON answer", body=small_body(20), tokens=20, connections=1
)
_STREAM = Workload(
    name="stream-20",
    title="stream of 20 events",
    body=small_body(20, streamed=True),
    tokens=20,
    streamed=True,
    connections=1,
)


def added_latency(
    stage: Stage, kongai: Kongai, *, rounds: int, seconds: float
) -> list[Figure]:
    """Compare answers through kongai with those of the upstream itself, in turns.

    Args:
        stage: where it runs.
        kongai: the gateway, running.
        rounds: how often.
        seconds: how long each time.

    Raises:
        CheckFailed: an answer or a record was wrong.
    """
    figures = []
    for workload, what, at, budget in (
        (_JSON, "JSON answer, one client", Sample.totals_at, 0.5),
        (_STREAM, "first event of a stream, one client", Sample.firsts_at, 1.0),
    ):
        alone = _in_turns(stage, kongai, workload, rounds, seconds)
        figures += [
            _added(f"{what}, p50", alone, at, 0.5, budget),
            _added(f"{what}, p99", alone, at, 0.99, None),
        ]
    most = stage.measure(kongai, _JSON.with_connections(16), seconds)
    rate = most.sample.requests / most.sample.elapsed / 2
    busy = _JSON.with_connections(_CONNECTIONS_AT_RATE)
    pairs = []
    for _ in range(rounds):
        direct = stage.measure_at_rate(stage.direct(), busy, seconds, rate)
        pairs.append((direct, stage.measure_at_rate(kongai, busy, seconds, rate)))
    note = f"{rate:.0f} requests a second at random moments, half of the most"
    at = Sample.totals_at
    return [
        *figures,
        _added("JSON answer at half of the maximal load, p50", pairs, at, 0.5, None),
        _added(
            "JSON answer at half of the maximal load, p99", pairs, at, 0.99, 5.0, note
        ),
    ]


def _in_turns(
    stage: Stage, kongai: Kongai, workload: Workload, rounds: int, seconds: float
) -> list[tuple[Sample, Sample]]:
    gateways: tuple[Gateway, Gateway] = (stage.direct(), kongai)
    found = []
    for _ in range(rounds):
        direct, through = (
            stage.measure(gateway, workload, seconds).sample for gateway in gateways
        )
        found.append((direct, through))
    return found


def _added(
    name: str,
    pairs: list[tuple[Sample, Sample]],
    at: Callable[[Sample, float], float],
    share: float,
    budget: float | None,
    note: str = "",
) -> Figure:
    """The median over all rounds of what the gateway adds, in milliseconds."""
    added = [(at(via, share) - at(direct, share)) * 1000 for direct, via in pairs]
    return Figure(name, statistics.median(added), "ms", budget, note=note)
