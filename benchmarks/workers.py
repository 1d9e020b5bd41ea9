"""Whether two workers carry twice as much as one."""

from __future__ import annotations

import statistics

from benchmarks.figures import Figure
from benchmarks.stage import Measured, Stage
from benchmarks.workloads import Workload, small_body

_ENOUGH_PROCESSORS = 4
_LOAD = Workload(
    name="json", title="JSON answer", body=small_body(20), tokens=20, connections=64
)


def scaling(stage: Stage, *, rounds: int, seconds: float) -> list[Figure]:
    """Compare `--workers 2` with one worker.

    With four processors or more each worker has one of its own, and the requests per
    second are compared. With fewer, the second worker shares one with the upstream and
    the load, which leave it less than it could use. Then what is compared is how many
    requests they answer for a second of processor time. Twice that is what two of them
    would carry.

    Raises:
        CheckFailed: an answer or a record was wrong.
    """
    others = sorted(stage.processors.others)
    apart = len(others) >= _ENOUGH_PROCESSORS - 1
    second = frozenset(others[:1])
    one = stage.kongai()
    two = stage.kongai(workers=2, cpus=stage.gateway_cpus | second)
    factors = []
    with stage.leaving_alone(second if apart else frozenset()):
        for _ in range(rounds):
            single = stage.measure(one, _LOAD, seconds)
            double = stage.measure(two, _LOAD, seconds)
            factors.append(
                _rate(double) / _rate(single)
                if apart
                else 2 * _per_second_of_cpu(double) / _per_second_of_cpu(single)
            )
    one.stop()
    two.stop()
    note = (
        "requests per second, each worker on a processor of its own"
        if apart
        else "calculated: twice the requests per second of processor time, as there "
        "are too few processors to let both run at full speed"
    )
    factor = statistics.median(factors)
    return [
        Figure("two workers to one", factor, "x", 1.8, at_least=True, note=note),
    ]


def _rate(measured: Measured) -> float:
    return measured.sample.requests / measured.sample.elapsed


def _per_second_of_cpu(measured: Measured) -> float:
    return measured.sample.requests / measured.cpu
