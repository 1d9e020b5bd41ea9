"""The upstream and the clients of the long tests, as child processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_HERE = Path(__file__).resolve().parent


class _Child:
    """A program of this directory; leaving kills it, if it still runs."""

    def __init__(self, program: str, *args: object) -> None:
        command = [sys.executable, str(_HERE / program), *map(str, args)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the child ended with {self._process.wait()}")
        return line


class MockLLM(_Child):
    """The upstream: `mock_llm`.

    Args:
        folder: for its ledger.
    """

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "upstream.txt"
        super().__init__("mock_llm.py", self.ledger)
        self.url = f"http://127.0.0.1:{int(self.line())}"


class Load(_Child):
    """Clients: `load`.

    Args:
        what: what they do.
        url: where.
        options: its options, by name.
    """

    def __init__(self, what: str, url: str, **options: object) -> None:
        args = [text for name, v in options.items() for text in (f"--{name}", str(v))]
        super().__init__("load.py", what, url, *args)

    def said(self) -> dict[str, Any]:
        """What it says next."""
        found = json.loads(self.line())
        assert isinstance(found, dict)
        return found

    def stop(self) -> dict[str, Any]:
        """Tell it to come to an end; what it has found."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None
        return self.said()
