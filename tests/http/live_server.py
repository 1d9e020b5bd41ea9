"""What the tests know of the process that `server.py` is."""

from __future__ import annotations

from pathlib import Path

from tests.http.client import Client


class LiveServer:
    """A process with our server, whose gateway says what it saw."""

    def __init__(self, port: int, pid: int, stderr: Path) -> None:
        self.port = port
        self.pid = pid
        self._stderr = stderr
        self._control = Client(port)

    def calls(self, client: Client) -> int:
        """How many whole requests of a client came to the application."""
        line = f"GET /calls?{client.port} HTTP/1.1\r\nHost: a\r\n\r\n"
        self._control.send(line.encode())
        self._control.answers.clear()
        assert self._control.read(1)
        return int(self._control.answers[0].body)

    def complaints(self) -> str:
        """All that it has written to standard error."""
        return self._stderr.read_text("utf-8", errors="replace")

    def close(self) -> None:
        self._control.sock.close()
