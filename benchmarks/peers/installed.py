"""What the gateways of others have in common: a cache, and how they are judged."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.answers import PIECE
from benchmarks.errors import BenchmarkError
from benchmarks.load import Judge
from benchmarks.processes import Process
from benchmarks.workloads import Workload

_INSTALL_SECONDS = 1200


@dataclass
class Peer:
    """A gateway that may write an answer in other words, but has to write all of it.

    Args:
        name: what the table calls it.
        process: what is measured.
        port: where it listens.
        headers: what a request to it needs.
        path: where it takes the Messages API.
    """

    name: str
    process: Process
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/messages"

    def judge(self, workload: Workload) -> Judge:
        """All of the model's text has to be there."""
        return complete(workload)

    def check(self, workload: Workload, answered: int) -> None:
        """Nothing is known of its records."""

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def complete(workload: Workload) -> Judge:
    """Judges answers by their status, the pieces of their text, and their end."""

    def judge(status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}"
        if workload.streamed:
            if b"message_stop" not in body[-200:]:
                return "the stream has no end"
        elif not _is_json(body):
            return "no JSON"
        if (found := body.count(PIECE.encode())) != workload.tokens:
            return f"{found} pieces of {workload.tokens}"
        return None

    return judge


def cache(name: str) -> Path:
    """The directory in which a gateway is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "kongai-benchmarks", name)


def install(name: str, argv: Sequence[str], directory: Path) -> None:
    """Run an installer.

    Raises:
        BenchmarkError: it failed, or is missing.
    """
    try:
        done = subprocess.run(  # noqa: S603
            argv,
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALL_SECONDS,
        )
    except FileNotFoundError:
        raise BenchmarkError(
            f"{argv[0]} is missing, and is needed to install {name}"
        ) from None
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"installing {name} takes too long: {argv}") from None
    if done.returncode:
        raise BenchmarkError(f"can't install {name}:\n{done.stderr[-2000:]}")


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
