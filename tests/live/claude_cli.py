"""Claude Code itself: got from npm once, set up the way Kong's how-to sets it up."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "@anthropic-ai/claude-code"
VERSION = os.environ.get("KONGAI_TEST_CLAUDE_CODE", "2.1.197")
CACHE = Path(
    os.environ.get("KONGAI_TEST_CACHE", Path.home() / ".cache/kongai/claude-code")
)
_UNREACHABLE = re.compile(
    r"npm (?:error|ERR!) code "
    r"(EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTCACHED|ENOTFOUND"
    r"|ERR_SOCKET_TIMEOUT|ETIMEDOUT)\b"
)


def installed_claude() -> Path:
    """The ``claude`` command, installed unless the cache has it.

    Skips the test where npm or its registry is out of reach, and only there.
    """
    claude = CACHE / VERSION / "node_modules" / ".bin" / "claude"
    if claude.exists():
        return claude
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        _install(npm, Path(scratch, VERSION))
        try:
            Path(scratch, VERSION).rename(CACHE / VERSION)
        except OSError:  # another run was faster, and its copy is as good
            if not claude.exists():
                raise
    return claude


def _install(npm: str, place: Path) -> None:
    """Install into ``place``, and see the command run there before anyone uses it."""
    place.mkdir()
    download = _run(
        npm,
        "install",
        "--ignore-scripts",  # not every npm runs them: it is run by name below
        "--fetch-retries=1",
        "--no-audit",
        "--no-fund",
        f"--prefix={place}",
        f"{PACKAGE}@{VERSION}",
    )
    if download.returncode:
        if cause := _UNREACHABLE.search(download.stderr):
            pytest.skip(f"the npm registry cannot be reached ({cause[1]})")
        pytest.fail(f"npm install failed:\n{download.stderr}")
    package = place / "node_modules" / PACKAGE
    if (package / "install.cjs").exists():
        _must_run("node", str(package / "install.cjs"))
    _must_run(str(place / "node_modules" / ".bin" / "claude"), "--version")


def _must_run(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        pytest.fail(f"{command} failed:\n{done.stdout}{done.stderr}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False
    )


@dataclass(frozen=True)
class ClaudeCode:
    """A person's Claude Code: a home of its own and a key behind an apiKeyHelper.

    Without a `model` it asks for those of its own choice, and nothing that it does in
    the background is configured away.
    """

    command: Path
    home: Path
    base_url: str
    key: str
    model: str | None

    def ask(self, prompt: str, *, allowed_tools: str) -> dict[str, Any]:
        """Run one conversation to its end and return what the client reports."""
        self._set_up()
        work = self.home / "work"
        work.mkdir()
        done = subprocess.run(
            [
                str(self.command),
                f"--allowedTools={allowed_tools}",
                "--output-format=json",
                "--print",
                prompt,
            ],
            cwd=work,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == 0, f"exit {done.returncode}:\n{stdout}\n{stderr}"
        report = json.loads(stdout)
        assert isinstance(report, dict), stdout
        return report

    def _set_up(self) -> None:
        settings = self.home / ".claude"
        settings.mkdir(parents=True)
        helper = settings / "anthropic_key.sh"
        helper.write_text(f"#!/bin/sh\necho {self.key}\n", "utf-8")
        helper.chmod(0o755)
        (settings / "settings.json").write_text(
            json.dumps({"apiKeyHelper": "~/.claude/anthropic_key.sh"}), "utf-8"
        )

    def _environment(self) -> dict[str, str]:
        # Not inherited: a developer's own key or settings would change the test.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            "ANTHROPIC_BASE_URL": self.base_url,
            "DISABLE_AUTOUPDATER": "1",
        }
        if self.model is None:
            # What is not for the gateway leads to a port where nobody listens.
            nowhere = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
            return environment | nowhere
        # No telemetry, updates or conversation titles: what is sent is what was asked
        # for.
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        return environment | quiet | {"ANTHROPIC_MODEL": self.model}
