"""The machine: which processors to use, and what a result has to say of it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.loop import has_uvloop

_ASK_PYTHON = """\
import json, platform, sysconfig, time
import gevent, httptools, msgspec, kongai

def work():
    found = {}
    for number in range(200_000):
        found[number & 1023] = found.get(number & 511, 0) + len(str(number))

def timed():
    began = time.process_time()
    work()
    return time.process_time() - began

print(json.dumps({
    "python": platform.python_implementation() + " " + platform.python_version(),
    "compiler": platform.python_compiler(),
    "configured": sysconfig.get_config_var("CONFIG_ARGS") or "",
    "speed": f"{min(timed() for _ in range(5)) * 1000:.0f} ms",
    "gevent": gevent.__version__,
    "httptools": httptools.__version__,
    "msgspec": msgspec.__version__,
    "kongai": kongai.__version__,
}))
"""
"""How an interpreter was built it tells only in part, distributions' do not; so it is
timed as well, with a loop of dictionaries, calls and small objects."""


@dataclass(frozen=True)
class Processors:
    """Which processors the processes may use.

    Args:
        gateway: one, for the gateway that is measured.
        others: for the upstream and the load.
    """

    gateway: AbstractSet[int]
    others: AbstractSet[int]

    @property
    def warning(self) -> str | None:
        """What is to be said of figures that are taken with these."""
        if self.gateway & self.others:
            return (
                "there is one processor only, for gateway, upstream and load alike: "
                "the ratios are rough"
            )
        return None


def processors() -> Processors:
    """Share out the processors that this process may use."""
    available = sorted(os.sched_getaffinity(0))
    gateway = available[0]
    others = set(available[1:])
    # Two threads of one core slow each other down.
    apart = others - _siblings(gateway)
    return Processors({gateway}, apart or others or {gateway})


def describe(python: str, environment: dict[str, str]) -> dict[str, str]:
    """What a reader has to know to compare two results.

    Args:
        python: the interpreter that kongai runs in.
        environment: the environment that it runs in.

    Raises:
        BenchmarkError: the interpreter can't run kongai, or nginx is missing.
    """
    asked = _ask(python, environment)
    configured = asked.pop("configured")
    asked["python"] += f", {asked.pop('compiler')}, {_optimized(configured)}"
    asked["python's speed"] = f"{asked.pop('speed')} for a loop of 200,000 steps"
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} processors",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        **asked,
        "python configured with": configured,
        "nginx": nginx_version(),
        "load and mock": (
            f"Python {platform.python_version()}, "
            f"{'uvloop' if has_uvloop() else 'asyncio (uvloop is faster)'}"
        ),
    }


def _optimized(configured: str) -> str:
    """What the options of a build say of its optimization."""
    if "--enable-optimizations" in configured:
        return "profile-guided"
    return "not configured with --enable-optimizations"


def nginx_command() -> str:
    """The path of nginx.

    Raises:
        BenchmarkError: there is none.
    """
    # It often is where only root looks.
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which("nginx", path=places)
    if found is None:
        raise BenchmarkError(
            "nginx is missing, and is what kongai is compared with; install it, for "
            "example: apt-get install nginx-light"
        )
    return found


def nginx_version() -> str:
    """The version of nginx."""
    done = subprocess.run(  # noqa: S603
        [nginx_command(), "-v"], capture_output=True, text=True, check=False
    )
    found = re.search(r"nginx/(\S+)", done.stderr + done.stdout)
    return found[1] if found else "unknown"


def _ask(python: str, environment: dict[str, str]) -> dict[str, str]:
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", _ASK_PYTHON],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BenchmarkError(f"can't run {python}: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["(no message)"])[-1]
        raise BenchmarkError(
            f"{python} can't run kongai ({last}); install what it needs, in the "
            f"project's directory: {python} -m pip install ."
        )
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _siblings(cpu: int) -> set[int]:
    """The processors that are threads of the same core."""
    place = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        text = Path(place).read_text("ascii")
    except OSError:
        return {cpu}
    return cpu_list(text)


def cpu_list(text: str) -> set[int]:
    """The numbers of a list such as ``0-1,4``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
