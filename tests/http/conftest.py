from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.live_server import LiveServer

SCRIPT = Path(__file__).with_name("server.py")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = tmp_path_factory.mktemp("http") / "stderr.txt"
    with (
        path.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line:
            pytest.fail(path.read_text("utf-8"))
        live = LiveServer(int(line.rpartition(":")[2]), process.pid, path)
        yield live
        live.close()
        process.stdin.close()
        process.wait(10)
    assert live.complaints() == ""
