"""A client that sends bytes as they are, and takes answers apart."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def saw(self) -> dict[str, Any] | None:
        """What the application says that it saw."""
        text = self.headers.get("x-saw")
        found: dict[str, Any] | None = None if text is None else json.loads(text)
        return found


class Client:
    """One connection; answers are taken apart as they come.

    Args:
        port: of the server, on this machine.
        timeout: seconds for everything that is waited for.
        heads_only: whether the answers have no bodies, as those to HEAD.
    """

    def __init__(
        self, port: int, timeout: float = 3.0, *, heads_only: bool = False
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.sock.getsockname()[1]
        self.answers: list[Answer] = []
        self.interim: list[int] = []
        """The statuses of interim answers."""
        self.closed = self.reset = False
        self._timeout = timeout
        self._heads_only = heads_only
        self._data = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Write pieces; who has closed gets no more.

        Args:
            pieces: the bytes of one segment each.
            pause: seconds between them, so that each is read by itself.
        """
        with suppress(ConnectionError):
            for number, piece in enumerate(pieces):
                if number and pause:
                    time.sleep(pause)
                self.sock.sendall(piece)

    def no_more(self) -> None:
        """Close the sending half."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def read(self, count: int | None = None, timeout: float | None = None) -> bool:
        """Read until there are so many final answers, or until the server closes.

        Returns:
            Whether that came before the time was over.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while not self.closed and (count is None or len(self.answers) < count):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return False
            except ConnectionError:
                data, self.reset = b"", True
            self._data += data
            self.closed = not data
            self._take_answers()
        return True

    @property
    def rest(self) -> bytes:
        """What has come and was no whole answer."""
        return self._data

    def _take_answers(self) -> None:
        while found := _HEAD.match(self._data):
            status = int(found[1])
            lines = found[2].decode("latin-1").splitlines()
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in lines)
            }
            size = self._body_size(headers)
            whole = self._data[found.end() :]
            if len(whole) < size and self.closed and not whole:
                size = 0  # a refusal of HEAD, which is the last that comes
            if len(whole) < size:
                return
            self._data = whole[size:]
            if status < HTTPStatus.OK:
                self.interim.append(status)
            else:
                self.answers.append(Answer(status, headers, whole[:size]))

    def _body_size(self, headers: dict[str, str]) -> int:
        saw = Answer(0, headers).saw
        if self._heads_only or (saw is not None and saw["method"] == "HEAD"):
            return 0
        return int(headers.get("content-length", 0))
