"""The table: what kongai's requests cost beside nginx's, in turns."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.errors import CheckFailed
from benchmarks.figures import Cost, Row
from benchmarks.gateways import Gateway
from benchmarks.stage import Stage
from benchmarks.workloads import Workload


def compare(
    stage: Stage,
    gateways: Sequence[Gateway],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    seconds: float,
    tolerant: frozenset[str] = frozenset(),
) -> list[Row]:
    """Measure each gateway with each workload, round by round.

    Args:
        stage: where they run.
        gateways: nginx first.
        workloads: what is sent.
        rounds: how often.
        seconds: how long each time.
        tolerant: gateways of which a wrong answer is noted and does not stop the run.

    Raises:
        CheckFailed: an answer or a record of another gateway was wrong.
    """
    rows = [Row(load.name, load.title, load.unit, load.budget) for load in workloads]
    for number in range(1, rounds + 1):
        for row, workload in zip(rows, workloads, strict=True):
            told = []
            for gateway in gateways:
                cost = row.costs.setdefault(gateway.name, Cost())
                try:
                    _measure(stage, gateway, workload, seconds, cost)
                except CheckFailed as error:
                    if gateway.name not in tolerant:
                        raise
                    cost.problem = str(error).splitlines()[0]
                told.append(_brief(gateway, cost))
            stage.say(f"round {number} of {rounds}, {row.name}: {', '.join(told)}")
    return rows


def _measure(
    stage: Stage, gateway: Gateway, workload: Workload, seconds: float, cost: Cost
) -> None:
    if cost.problem is not None:
        return
    measured = stage.measure(gateway, workload, seconds)
    cost.requests += measured.sample.requests
    cost.rounds.append(measured.microseconds(workload.units))
    cost.busy = measured.cpu / measured.sample.elapsed


def _brief(gateway: Gateway, cost: Cost) -> str:
    if cost.problem is not None:
        return f"{gateway.name} fails"
    return f"{gateway.name} {cost.rounds[-1]:.1f} us"
