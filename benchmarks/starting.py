"""How long it takes until kongai answers, and what it needs when nothing happens."""

from __future__ import annotations

import statistics
import subprocess
import time

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figure
from benchmarks.gateways import (
    Kongai,
    kongai_config,
    kongai_environment,
    launch_kongai,
)
from benchmarks.load import ClosedLoop, Sample
from benchmarks.loop import run
from benchmarks.processes import free_port, running_on
from benchmarks.records import RecordLog
from benchmarks.stage import Stage
from benchmarks.workloads import Workload, small_body

_TIMES = 5
_POLL = 0.002
_IDLE_SECONDS = 1.0
_IMPORT = """\
import time
began = time.perf_counter()
import kongai
print(time.perf_counter() - began)
"""
_FIRST = Workload(
    name="first", title="first answer", body=small_body(20), tokens=20, connections=1
)


def start(stage: Stage) -> list[Figure]:
    """Import kongai and start it, several times each; medians.

    Raises:
        CheckFailed: an answer or a record was wrong.
    """
    imports = [_import(stage) for _ in range(_TIMES + 1)]
    starts, memory = zip(*(_start(stage) for _ in range(_TIMES)), strict=True)
    return [
        # The first one may have to compile, and to read from the disk.
        Figure("import kongai", statistics.median(imports[1:]), "s", 0.3),
        Figure("start to first answer", statistics.median(starts), "s", 1.0),
        Figure("idle resident memory", statistics.median(memory) / 2**20, "MiB", 60),
    ]


def _import(stage: Stage) -> float:
    with running_on(stage.gateway_cpus):
        done = subprocess.run(  # noqa: S603
            [stage.python, "-c", _IMPORT],
            env=kongai_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BenchmarkError(f"can't import kongai:\n{done.stderr[-2000:]}")
    return float(done.stdout)


def _start(stage: Stage) -> tuple[float, int]:
    """Seconds from starting the process to its first answer, and its memory."""
    directory = stage.new_directory("kongai")
    log = directory / "records.json"
    port = free_port()
    stage.set_pace(0)
    began = time.perf_counter()
    process = launch_kongai(
        directory,
        kongai_config(log, stage.upstream),
        port,
        stage.gateway_cpus,
        python=stage.python,
    )
    kongai = stage.add(Kongai(process, port, RecordLog(log)))
    process.wait_until_listening(port, 20.0, _POLL)

    async def first() -> Sample:
        request, judge = stage.request(kongai, _FIRST), kongai.judge(_FIRST)
        clients = ClosedLoop(port, request, judge, 1)
        try:
            return await clients.run(0)
        finally:
            clients.close()

    sample = run(first())
    seconds = time.perf_counter() - began
    stage.check(kongai, _FIRST, sample)
    time.sleep(_IDLE_SECONDS)
    memory = process.resident_bytes()
    kongai.stop()
    return seconds, memory
