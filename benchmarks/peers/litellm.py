"""LiteLLM's proxy, of PyPI."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence

from benchmarks.peers.installed import Peer, cache, install as run_installer
from benchmarks.processes import Process, free_port
from benchmarks.stage import Stage
from benchmarks.workloads import MODEL

_PACKAGE = "litellm[proxy]"
_START_SECONDS = 120.0


def install(say: Callable[[str], None]) -> Sequence[str]:
    """Bring it into the cache, unless it is there, in an environment of its own.

    Returns:
        The command that starts it.

    Raises:
        BenchmarkError: it can't be installed.
    """
    directory = cache("litellm")
    command = directory / "bin" / "litellm"
    if not command.exists():
        say(f"installing {_PACKAGE} in {directory}; it takes a while")
        directory.mkdir(parents=True, exist_ok=True)
        run_installer("litellm", [sys.executable, "-m", "venv", "."], directory)
        python = str(directory / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", _PACKAGE]
        run_installer("litellm", pip, directory)
    return [str(command)]


def start(stage: Stage, command: Sequence[str]) -> Peer:
    """Start it in front of the stage's upstream."""
    port = free_port()
    key = f"sk-{secrets.token_hex(16)}"
    directory = stage.new_directory("litellm")
    directory.mkdir()
    upstream = {
        "model": f"anthropic/{MODEL}",
        "api_base": f"http://127.0.0.1:{stage.upstream}",
        "api_key": "sk-ant-fake",
    }
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
        "litellm_settings": {"telemetry": False},
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config), "utf-8")
    process = Process(
        "litellm",
        [*command, "--config", str(path), "--host", "127.0.0.1", "--port", str(port)],
        cpus=stage.gateway_cpus,
        output=directory / "output.txt",
        env={
            **os.environ,
            # It does not start without one.
            "LITELLM_MASTER_KEY": key,
            # Otherwise it fetches its prices.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        directory=directory,
    )
    peer = stage.add(Peer("litellm", process, port, {"x-api-key": key}))
    process.wait_until_answering(port, seconds=_START_SECONDS)
    return peer
