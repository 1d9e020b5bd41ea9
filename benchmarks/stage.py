"""What every measurement needs: a directory, processors, the upstream; and the end."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from benchmarks.errors import BenchmarkError, CheckFailed
from benchmarks.gateways import (
    PROJECT,
    Direct,
    Gateway,
    Kongai,
    Nginx,
    kongai_config,
    kongai_environment,
    start_kongai,
    start_nginx,
)
from benchmarks.load import ClosedLoop, OpenLoop, Sample, request_bytes
from benchmarks.loop import run
from benchmarks.machine import Processors
from benchmarks.processes import Process, free_port, running_on
from benchmarks.workloads import Workload

G = TypeVar("G", bound=Gateway)
T = TypeVar("T")
_SETTLE = 0.1
"""Seconds after the last answer in which a gateway comes to rest."""


@dataclass(frozen=True)
class Measured:
    """What a gateway has done for a workload.

    Args:
        sample: what the clients saw, without the warm-up.
        cpu: seconds of processor time that the gateway used for that.
        resident: bytes of its memory afterwards.
    """

    sample: Sample
    cpu: float
    resident: int

    def microseconds(self, units: int = 1) -> float:
        """The processor time per request, or per one of `units` parts of it."""
        return self.cpu / max(1, self.sample.requests * units) * 1e6


class Stage:
    """Everything around the gateways, and whatever runs on it. A context manager.

    Args:
        python: the interpreter for kongai.
        processors: where the gateways run, and where all else does.
        say: told what is going on.
    """

    def __init__(
        self, python: str, processors: Processors, say: Callable[[str], None]
    ) -> None:
        self.python = python
        self.processors = processors
        self.say = say
        self.gateway_cpus = frozenset(processors.gateway)
        self._exits = ExitStack()
        self._kongais: list[Kongai] = []
        self._numbers = iter(range(1_000_000))

    def __enter__(self) -> Stage:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def _start(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="kongai-benchmark-")
        self.directory = Path(self._exits.enter_context(directory))
        self._exits.enter_context(running_on(self.processors.others))
        self.upstream = free_port()
        self.mock = Process(
            "the upstream",
            [sys.executable, "-m", "benchmarks.mock", str(self.upstream)],
            cpus=self.processors.others,
            output=self.directory / "mock.txt",
            env=kongai_environment(),
            directory=PROJECT,
        )
        self._exits.callback(self.mock.stop)
        self.mock.wait_until_answering(self.upstream)

    def new_directory(self, name: str) -> Path:
        """A path of a directory that is not there yet."""
        return self.directory / f"{name}-{next(self._numbers)}"

    def direct(self) -> Direct:
        """The upstream as if it were a gateway."""
        return Direct(self.mock, self.upstream)

    def nginx(self) -> Nginx:
        """Start nginx; it is ended with the stage at the latest."""
        directory = self.new_directory("nginx")
        return self.add(
            start_nginx(directory, free_port(), self.upstream, self.gateway_cpus)
        )

    def kongai(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        directory: Path | None = None,
        workers: int = 1,
        cpus: frozenset[int] | None = None,
        wait: float = 20.0,
    ) -> Kongai:
        """Start kongai; it is ended with the stage at the latest.

        Args:
            config: its file; by default the one of the comparison. Its log has to be
                `records.json` in `directory`.
            directory: for its files.
            workers: how many processes serve.
            cpus: the processors that it may use.
            wait: seconds until it has to answer.
        """
        directory = directory or self.new_directory("kongai")
        if config is None:
            config = kongai_config(directory / "records.json", self.upstream)
        return self.add(
            start_kongai(
                directory,
                config,
                free_port(),
                cpus or self.gateway_cpus,
                python=self.python,
                workers=workers,
                wait=wait,
            )
        )

    def add(self, gateway: G) -> G:
        """End this gateway's processes when the stage ends."""
        self._exits.callback(gateway.process.stop)
        if isinstance(gateway, Kongai):
            self._kongais.append(gateway)
        return gateway

    @property
    def records_checked(self) -> int:
        """How many of kongai's records were compared so far, and right."""
        return sum(kongai.log.checked for kongai in self._kongais)

    @property
    def complaints(self) -> list[str]:
        """What any kongai that was stopped has written to standard error."""
        return [line for kongai in self._kongais for line in kongai.complaints]

    @contextmanager
    def leaving_alone(self, cpus: AbstractSet[int]) -> Iterator[None]:
        """Within, the upstream and the load do not use these processors."""
        rest = self.processors.others - cpus
        os.sched_setaffinity(self.mock.pid, rest)
        try:
            with running_on(rest):
                yield
        finally:
            os.sched_setaffinity(self.mock.pid, self.processors.others)

    def set_pace(self, seconds: float) -> None:
        """Make the upstream wait so long between two events."""
        self.mock.wait_until_answering(self.upstream, f"/pace/{seconds!r}")

    def measure(
        self, gateway: Gateway, workload: Workload, seconds: float, warm_up: float = 1.0
    ) -> Measured:
        """Send requests in a closed loop; see what they cost and that all is right.

        Raises:
            CheckFailed: an answer or a record was wrong.
        """
        self.set_pace(workload.pace)

        async def both() -> tuple[Sample, Measured]:
            clients = ClosedLoop(
                gateway.port,
                self.request(gateway, workload),
                gateway.judge(workload),
                workload.connections,
            )
            try:
                warm = await clients.run(warm_up)
                before = await _at_rest(gateway.process)
                sample = await clients.run(seconds)
                cpu = await _at_rest(gateway.process) - before
                resident = gateway.process.resident_bytes()
            finally:
                clients.close()
            return warm, Measured(sample, cpu, resident)

        warm, measured = self._run(gateway, both)
        self.check(gateway, workload, warm, measured.sample)
        return measured

    def measure_at_rate(
        self, gateway: Gateway, workload: Workload, seconds: float, rate: float
    ) -> Sample:
        """Send requests at a rate, whatever has become of the ones before.

        Raises:
            CheckFailed: an answer or a record was wrong.
        """
        self.set_pace(workload.pace)

        async def all_of_it() -> Sample:
            clients = OpenLoop(
                gateway.port,
                self.request(gateway, workload),
                gateway.judge(workload),
                workload.connections,
                rate,
            )
            try:
                return await clients.run(seconds)
            finally:
                clients.close()

        sample = self._run(gateway, all_of_it)
        self.check(gateway, workload, sample)
        return sample

    def request(self, gateway: Gateway, workload: Workload) -> bytes:
        """What is sent to this gateway."""
        return request_bytes(gateway.path, workload.body, gateway.headers)

    def _run(self, gateway: Gateway, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return run(main())
        except OSError as error:
            raise BenchmarkError(
                f"can't connect to {gateway.name}: {error.strerror}\n"
                f"{gateway.process.output()[-2000:]}"
            ) from None

    def check(self, gateway: Gateway, workload: Workload, *samples: Sample) -> None:
        """See that all answers and records were right.

        Raises:
            CheckFailed: one was not.
        """
        failures: Counter[str] = Counter()
        for sample in samples:
            failures += sample.failures
        answered = sum(sample.requests for sample in samples)
        if failures:
            listed = ", ".join(f"{n} x {text}" for text, n in failures.most_common(5))
            raise CheckFailed(
                f"{gateway.name} gave wrong answers to '{workload.name}', of "
                f"{answered}: {listed}\n{gateway.process.output()[-2000:]}".rstrip()
            )
        if not answered:
            raise CheckFailed(f"{gateway.name} answered nothing to '{workload.name}'")
        gateway.check(workload, answered)


async def _at_rest(process: Process) -> float:
    """The processor time that a gateway has used, once it has nothing to do."""
    await asyncio.sleep(_SETTLE)
    return process.cpu_seconds()
