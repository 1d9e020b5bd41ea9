"""The gateways that are measured: how each is configured, started and spoken to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.answers import answer
from benchmarks.errors import CheckFailed
from benchmarks.load import Judge, exactly
from benchmarks.machine import nginx_command
from benchmarks.processes import Process
from benchmarks.records import RecordLog
from benchmarks.workloads import MODEL, Workload

PROJECT = Path(__file__).resolve().parent.parent
_PATH = "/anything/v1/messages"
_MISTAKES = (" ERROR ", " CRITICAL ", "Traceback")


class Gateway(Protocol):
    """What is between the load and the upstream."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    @property
    def port(self) -> int:
        """Where it listens."""

    @property
    def path(self) -> str:
        """Where it takes the Messages API."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request to it needs beside the usual headers."""

    @property
    def process(self) -> Process:
        """What is measured; with its children."""

    def judge(self, workload: Workload) -> Judge:
        """What says whether an answer is right."""

    def check(self, workload: Workload, answered: int) -> None:
        """Look at what it logged of these exchanges.

        Raises:
            CheckFailed: something is wrong with it.
        """

    def stop(self) -> None:
        """End it.

        Raises:
            CheckFailed: it did not end well.
        """


def whole_answer(workload: Workload) -> bytes:
    """The body that a client has to get."""
    return answer(MODEL, workload.tokens, streamed=workload.streamed).body


@dataclass
class Direct:
    """No gateway: the load asks the upstream itself."""

    process: Process
    port: int
    name: str = "direct"
    path: str = _PATH
    headers: Mapping[str, str] = field(default_factory=dict)

    def judge(self, workload: Workload) -> Judge:
        """Answers are the model's."""
        return exactly(whole_answer(workload))

    def check(self, workload: Workload, answered: int) -> None:
        """There is no log."""

    def stop(self) -> None:
        """It is ended by whoever has started it."""


@dataclass
class Nginx:
    """nginx, one worker: a proxy with an access log, which does no AI work."""

    process: Process
    port: int
    access_log: Path
    name: str = "nginx"
    path: str = _PATH
    headers: Mapping[str, str] = field(default_factory=dict)

    def judge(self, workload: Workload) -> Judge:
        """Bytes are passed on as they are."""
        return exactly(whole_answer(workload))

    def check(self, workload: Workload, answered: int) -> None:
        """Empty the log, which would become very large."""
        if self.access_log.exists():
            os.truncate(self.access_log, 0)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


@dataclass
class Kongai:
    """kongai of this directory, with statistics, cost, log and journal."""

    process: Process
    port: int
    log: RecordLog
    name: str = "kongai"
    path: str = _PATH
    headers: Mapping[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    """What it has written to standard error, once it has stopped; should be nothing."""

    def judge(self, workload: Workload) -> Judge:
        """Bytes are passed on as they are."""
        return exactly(whole_answer(workload))

    def check(self, workload: Workload, answered: int) -> None:
        """Every answer has its record, and every record is right."""
        self.log.check(workload, answered)

    def stop(self) -> None:
        """End it, and see that nothing is left open and nothing has gone wrong."""
        code = self.process.stop()
        said = self.process.output()
        if code:
            raise CheckFailed(f"kongai ended with code {code}:\n{said[-2000:]}")
        if any(word in said for word in _MISTAKES):
            raise CheckFailed(f"kongai made mistakes:\n{said[:4000]}")
        self.complaints = said.splitlines()
        self.log.check_journal()


def start_nginx(
    directory: Path, port: int, upstream: int, cpus: frozenset[int]
) -> Nginx:
    """Start nginx in front of the upstream.

    Raises:
        BenchmarkError: it is missing, or does not start.
    """
    directory.mkdir()
    access_log = directory / "access.log"
    config = directory / "nginx.conf"
    config.write_text(nginx_config(directory, port, upstream), "utf-8")
    process = Process(
        "nginx",
        [nginx_command(), "-p", str(directory), "-c", str(config)],
        cpus=cpus,
        output=directory / "output.txt",
    )
    try:
        process.wait_until_answering(port)
    except BaseException:
        process.stop()
        raise
    return Nginx(process, port, access_log)


def nginx_config(directory: Path, port: int, upstream: int) -> str:
    """nginx as a reverse proxy of streams: one worker, nothing held back."""
    # Its worker would be somebody else, who may not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{user}
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
  log_format json escape=json '{{"time":"$time_iso8601","method":"$request_method",'
    '"uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"seconds":$request_time,"agent":"$http_user_agent"}}';
  access_log {directory}/access.log json;
{temporary}
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  keepalive_requests 1000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def start_kongai(
    directory: Path,
    config: Mapping[str, Any],
    port: int,
    cpus: frozenset[int],
    *,
    python: str = sys.executable,
    workers: int = 1,
    wait: float = 20.0,
) -> Kongai:
    """Start `bin/kongai-serve` of this directory.

    Args:
        directory: for its files; made here.
        config: a declarative file, as `kongai_config` makes it.
        port: where it is to listen.
        cpus: the processors that it may use.
        python: the interpreter.
        workers: how many processes serve.
        wait: seconds until it has to answer.

    Raises:
        BenchmarkError: it does not start.
    """
    process = launch_kongai(
        directory, config, port, cpus, python=python, workers=workers
    )
    try:
        # Routes nothing, so that it leaves no record.
        process.wait_until_answering(port, "/", wait)
    except BaseException:
        process.stop()
        raise
    return Kongai(process, port, RecordLog(directory / "records.json"))


def launch_kongai(
    directory: Path,
    config: Mapping[str, Any],
    port: int,
    cpus: frozenset[int],
    *,
    python: str,
    workers: int = 1,
) -> Process:
    """Start it and do not wait; see `start_kongai`."""
    directory.mkdir(exist_ok=True)
    path = directory / "kong.yml"
    # JSON is YAML, too.
    path.write_text(json.dumps(config), "utf-8")
    return Process(
        "kongai",
        [
            python,
            str(PROJECT / "bin" / "kongai-serve"),
            str(path),
            *("--port", str(port), "--workers", str(workers)),
            *("--log-level", "warning", "--grace", "5"),
        ],
        cpus=cpus,
        output=directory / "output.txt",
        env=kongai_environment([str(directory)]),
    )


def kongai_environment(places: Sequence[str] = ()) -> dict[str, str]:
    """The environment in which Python finds kongai in this directory first."""
    before = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(PROJECT), *places, *filter(None, [before])])
    return {**os.environ, "PYTHONPATH": path}


def kongai_config(
    log_path: Path,
    upstream: int,
    *,
    paths: Sequence[str] = ("/anything",),
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """A gateway to Anthropic with statistics and a log, as in Kong's how-to.

    Args:
        log_path: the file of `file-log`.
        upstream: the port of the model.
        paths: a route for each.
        plugins: names of plugins beside these, without settings.
    """
    options = {
        "anthropic_version": "2023-06-01",
        "upstream_url": f"http://127.0.0.1:{upstream}/v1/messages",
    }
    ai_proxy = {
        "route_type": "llm/v1/chat",
        "llm_format": "anthropic",
        "logging": {"log_statistics": True},
        "model": {"provider": "anthropic", "options": options},
    }
    service = {
        "name": "claude",
        "url": "http://127.0.0.1:1",
        "routes": [
            {"name": f"route-{number}", "paths": [path]}
            for number, path in enumerate(paths)
        ],
        "plugins": [
            {"name": "ai-proxy", "config": ai_proxy},
            {"name": "file-log", "config": {"path": str(log_path)}},
            *({"name": name} for name in plugins),
        ],
    }
    return {"_format_version": "3.0", "services": [service]}


def with_probe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a route `/probe` that the gateway answers itself, unlogged."""
    answer_itself = {
        "name": "request-termination",
        "config": {"status_code": 200, "message": "ok"},
    }
    probe = {"name": "probe", "paths": ["/probe"], "plugins": [answer_itself]}
    return {**config, "routes": [probe]}
