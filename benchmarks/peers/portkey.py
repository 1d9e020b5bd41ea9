"""Portkey's gateway, of npm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.peers.installed import Peer, cache, install as run_installer
from benchmarks.processes import Process, free_port
from benchmarks.stage import Stage

_PACKAGE = "@portkey-ai/gateway"
_START_SECONDS = 30.0


def install(say: Callable[[str], None]) -> Sequence[str]:
    """Bring it into the cache, unless it is there.

    Returns:
        The command that starts it.

    Raises:
        BenchmarkError: there is no node, or it can't be installed.
    """
    node = shutil.which("node")
    if node is None:
        raise BenchmarkError(
            "portkey needs node and npm; install them, for example: "
            "apt-get install nodejs npm"
        )
    directory = cache("portkey")
    script = directory / "node_modules" / _PACKAGE / "build" / "start-server.js"
    if not script.exists():
        say(f"installing {_PACKAGE} in {directory}")
        directory.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", ".", _PACKAGE]
        run_installer("portkey", npm, directory)
    return [node, str(script)]


def start(stage: Stage, command: Sequence[str]) -> Peer:
    """Start it in front of the stage's upstream."""
    port = free_port()
    directory = stage.new_directory("portkey")
    directory.mkdir()
    process = Process(
        "portkey",
        [*command, f"--port={port}", "--headless"],
        cpus=stage.gateway_cpus,
        output=directory / "output.txt",
        env={**os.environ, "NODE_ENV": "production"},
        directory=directory,
    )
    headers = {
        "x-portkey-provider": "anthropic",
        "x-portkey-custom-host": f"http://127.0.0.1:{stage.upstream}/v1",
    }
    peer = stage.add(Peer("portkey", process, port, headers))
    process.wait_until_answering(port, seconds=_START_SECONDS)
    return peer
