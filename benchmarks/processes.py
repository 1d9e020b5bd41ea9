"""Processes that are measured: where they run, what they use, and that none is left."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from benchmarks.errors import BenchmarkError

HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_SECONDS = 10.0
_DESCRIPTORS = 16384


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    return port


def allow_many_connections() -> int:
    """Raise the limit of descriptors, for this process and those it starts.

    Returns:
        The limit that there is now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


@contextmanager
def running_on(cpus: AbstractSet[int]) -> Iterator[None]:
    """Within, this process runs on these processors, and so does what it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """A child process in a session of its own, so that all of it can be ended.

    Args:
        name: what messages call it.
        argv: the command.
        cpus: the processors that it may use.
        output: a file that gets what it writes to standard output and error.
        env: its environment.
        directory: where it runs.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cpus: AbstractSet[int],
        output: Path,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self._output = output
        with running_on(cpus), output.open("wb") as writer:
            self._process = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started, the parent of all others."""
        return self._process.pid

    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text("utf-8", errors="replace")

    def wait_until_answering(
        self,
        port: int,
        path: str = "/",
        seconds: float = 20.0,
        *,
        poll: float = 0.02,
    ) -> None:
        """Wait until it answers a GET on this port, with whatever status.

        Raises:
            BenchmarkError: it does not, or has ended.
        """
        end = time.monotonic() + seconds
        while not _answers(port, path):
            code = self._process.poll()
            if code is not None or time.monotonic() > end:
                said = self.output().strip()[-2000:] or "(it said nothing)"
                state = (
                    f"did not answer on port {port} within {seconds:.0f} s"
                    if code is None
                    else f"ended with code {code}"
                )
                raise BenchmarkError(f"{self.name} {state}:\n{said}")
            time.sleep(poll)

    def wait_until_listening(self, port: int, seconds: float, poll: float) -> None:
        """Wait until a connection to this port is taken.

        Raises:
            BenchmarkError: none is, or it has ended.
        """
        end = time.monotonic() + seconds
        while True:
            with closing(socket.socket()) as client:
                if client.connect_ex((HOST, port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise BenchmarkError(f"{self.name} does not start:\n{self.output()}")
            time.sleep(poll)

    def stop(self) -> int:
        """End it with SIGTERM, and with SIGKILL whatever of it is left.

        Returns:
            Its exit code; negative if a signal ended it.
        """
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return code

    def cpu_seconds(self) -> float:
        """The processor time that it and its descendants have used."""
        used = sum(int(f[11]) + int(f[12]) for f in self._stats())
        return used / _TICKS

    def resident_bytes(self) -> int:
        """The memory of it and its descendants that is in use."""
        return sum(int(f[21]) * _PAGE for f in self._stats())

    def _stats(self) -> list[list[str]]:
        """What /proc says of each of its processes, from the third field on."""
        found = _processes()
        children: dict[int, list[int]] = {}
        for pid, fields in found.items():
            children.setdefault(int(fields[1]), []).append(pid)
        tree, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            if pid in found:
                tree.append(found[pid])
            waiting += children.get(pid, [])
        return tree


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, for a time at most; says whether it is."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _processes() -> dict[int, list[str]]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # A process may end meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError):
                text = Path("/proc", name, "stat").read_text("utf-8", "replace")
                found[int(name)] = text.rpartition(")")[2].split()
    return found


def _answers(port: int, path: str) -> bool:
    client = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        client.request("GET", path)
        client.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()
    return True
