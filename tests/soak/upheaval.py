"""What is done to a running gateway: reloads, rotations, kills."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

from tests.live.harness import LOG_PATH, Gateway, wait_until
from tests.live.trailer import processes

_RELOADED, _REFUSED = "reloaded the configuration", "the configuration stays as it was"


def rewrite(gateway: Gateway, config: str) -> None:
    """Give the gateway another file, which it reads when it is told to."""
    path = gateway.directory / "kong.yml"
    path.write_text(config.replace(LOG_PATH, str(gateway.log_path)), "utf-8")


def rotate(gateway: Gateway) -> None:
    """Take the log away, as logrotate does; a new one has to be begun."""
    if not gateway.log_path.exists():
        return
    for number in count(1):
        path = gateway.log_path.with_name(f"{gateway.log_path.name}.{number}")
        if not path.exists():
            gateway.log_path.rename(path)
            return


def hang_up(gateway: Gateway, workers: int, *, refused: bool) -> None:
    """Send SIGHUP, and wait until each worker has heeded it.

    Args:
        gateway: the gateway.
        workers: how many it has.
        refused: whether the file is one that it must not take.
    """
    word, times = (_REFUSED, 1) if refused else (_RELOADED, workers)
    before = gateway.stderr_text().count(word)
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(
        lambda: gateway.stderr_text().count(word) >= before + times, f"'{word}'", 20
    )


def ask_lag(gateway: Gateway) -> str:
    """What `/lag` says to a new client: the version of the configuration."""
    host = gateway.url.removeprefix("http://")
    with closing(HTTPConnection(host, timeout=20)) as connection:
        connection.request("GET", "/lag")
        return connection.getresponse().read().decode()


def workers_of(gateway: Gateway) -> list[int]:
    """The processes that serve, of several."""
    return sorted(set(processes(gateway)) - {gateway.pid})


def kill_worker(gateway: Gateway, pid: int) -> None:
    """Kill one of several workers, and wait until another has taken its place."""
    before, said = workers_of(gateway), gateway.stderr_text().count("died (signal 9)")
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = workers_of(gateway)
        told = gateway.stderr_text().count("died (signal 9)") > said
        return told and len(now) == len(before) and pid not in now

    wait_until(replaced, "new worker", 20)


def owners(gateway: Gateway, ports: Iterable[int]) -> dict[int, int]:
    """Which worker has the connection from each of these ports of this machine."""
    served = int(gateway.url.rpartition(":")[2])
    rows = [row.split() for row in Path("/proc/net/tcp").read_text("ascii").split("\n")]
    ends = {(row[1][-4:], row[2][-4:]): row[9] for row in rows[1:] if row}
    having = {inode: pid for pid in workers_of(gateway) for inode in _sockets_of(pid)}
    return {port: having[ends[f"{served:04X}", f"{port:04X}"]] for port in ports}


def _sockets_of(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
            if found:
                yield found[1]
