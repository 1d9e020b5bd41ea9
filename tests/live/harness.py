"""The two ends of the gateway: a process in the middle, a scripted upstream behind it.

::

    test or client  ──>  Gateway (a child process)  ──>  FakeUpstream (threads, here)
                            │
                            └──>  one JSON line per exchange, read by Gateway.records()

Nothing here knows how the gateway is made.  It is spoken to through its command
line, its socket, its standard error and its log file, and the upstream writes raw
bytes: a test that passes has seen what a user would see.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .anthropic_api import ToolUse, Usage, message_events, sse
from .upstream import Connection, FakeUpstream, Request
from .waiting import wait_until

__all__ = [
    "LOG_PATH",
    "Connection",
    "FakeUpstream",
    "Gateway",
    "Request",
    "ToolUse",
    "Usage",
    "howto_config",
    "message_events",
    "sse",
    "wait_until",
]

SERVE = Path(__file__).resolve().parents[2] / "bin" / "kongai-serve"
TRANSPORT_VARIABLE = "KONGAI_TEST_TRANSPORT"
"""Names the transport of all gateways here; without it they have their own default."""
LOG_PATH = "$LOG_PATH"  # in a config: the log file of the Gateway that runs it
_LISTENING = re.compile(r"listening on (http://[^\s\"']+).*\n")


def howto_config(upstream_url: str, log_path: str = LOG_PATH, **ai_proxy: Any) -> str:
    """The file of Kong's how-to for Claude Code; ``ai_proxy`` replaces its keys."""
    settings = {
        "route_type": "llm/v1/chat",
        "llm_format": "anthropic",
        "max_request_body_size": 524288,
        "logging": {"log_statistics": True},
        "model": {
            "provider": "anthropic",
            "options": {
                "anthropic_version": "2023-06-01",
                "upstream_url": upstream_url,
            },
        },
        **ai_proxy,
    }
    # JSON is YAML's flow style, and quotes every value as it must be.
    lines = "\n".join(f"      {key}: {json.dumps(settings[key])}" for key in settings)
    return f"""\
_format_version: "3.0"
services:
- name: example-service
  url: http://127.0.0.1:1/anything
  routes:
  - name: example-route
    paths: [/anything]
  plugins:
  - name: ai-proxy
    config:
{lines}
  - name: file-log
    config:
      path: {json.dumps(log_path)}
"""


class Gateway:
    """`kongai-serve` as a child process with a directory of its own.

    All that it writes is in `directory`: the log, standard error, standard output.
    ``LOG_PATH`` in the config stands for `log_path`.  Entering starts the process and
    returns when it listens; leaving stops it, whatever has happened to it.
    """

    url: str
    """``http://HOST:PORT``, as the process announced it."""

    def __init__(
        self,
        config: str | None = None,
        *args: str,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="kongai-live-")
        self.directory = Path(self._directory.name)
        self.log_path = self.directory / "exchanges.json"
        self._stderr_path = self.directory / "stderr.txt"
        self._command = [sys.executable, str(SERVE), "--port", "0"]
        if transport := os.environ.get(TRANSPORT_VARIABLE):
            self._command += ["--transport", transport]
        self._command += args
        if config is not None:
            path = self.directory / "kong.yml"
            path.write_text(config.replace(LOG_PATH, str(self.log_path)), "utf-8")
            self._command.append(str(path))
        self._env = {**os.environ, **(env or {})}
        self._start_timeout = start_timeout

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def start(self) -> None:
        """Start the process; one that has ended, again in the same directory.

        It then has another `url`, and what it had written to standard error is gone.
        """
        stdout_path = self.directory / "stdout.txt"
        with self._stderr_path.open("wb") as stderr, stdout_path.open("wb") as stdout:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            self.url = self._wait_until_listening()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            self.stop()
            if error:  # pytest shows it below the failure
                sys.stderr.write(self.stderr_text())
        finally:
            self._directory.cleanup()

    @property
    def pid(self) -> int:
        """The process that was started; with several workers, their parent."""
        return self._process.pid

    def stderr_text(self) -> str:
        """All that the process has written to standard error so far."""
        return self._stderr_path.read_text("utf-8", errors="replace")

    def records(self, count: int, timeout: float = 5.0) -> list[dict[str, Any]]:
        """Every record in the log, once there are at least ``count`` whole lines."""

        def lines() -> list[bytes]:
            with suppress(FileNotFoundError):
                return self.log_path.read_bytes().split(b"\n")[:-1]
            return []

        try:
            if count:
                wait_until(lambda: len(lines()) >= count, "such line", timeout)
        except TimeoutError:
            raise TimeoutError(
                f"{len(lines())} of {count} records within {timeout} s; "
                f"standard error:\n{self.stderr_text()}"
            ) from None
        return [_strict_json(line) for line in lines()]

    def stop(self, *, by: signal.Signals = signal.SIGTERM, within: float = 10.0) -> int:
        """Send the signal and return the exit code; a process that stays is killed."""
        if self._process.poll() is None:
            self._process.send_signal(by)
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise TimeoutError(
                f"still running {within} s after {by.name}; "
                f"standard error:\n{self.stderr_text()}"
            ) from None

    def _wait_until_listening(self) -> str:
        def listening_or_dead() -> bool:
            return bool(
                _LISTENING.search(self.stderr_text())
                or self._process.poll() is not None
            )

        with suppress(TimeoutError):
            wait_until(listening_or_dead, "listening line", self._start_timeout)
        if found := _LISTENING.search(self.stderr_text()):
            return found[1]
        code = self._process.poll()
        state = "still silent" if code is None else f"exited with {code}"
        raise RuntimeError(
            f"the gateway does not listen ({state}); standard error:\n"
            f"{self.stderr_text()}"
        )


def _strict_json(line: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON: {line!r}")

    record = json.loads(line.decode("utf-8"), parse_constant=refuse)
    if not isinstance(record, dict):
        raise ValueError(f"not an object: {line!r}")
    return record
