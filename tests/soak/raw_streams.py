"""Streams over plain sockets, read by threads to the very end, byte for byte."""

from __future__ import annotations

import json
import re
import socket
import threading

from tests.live.harness import Gateway

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
_TOLD = re.compile(rb'event: error\ndata: \{"type": ?"error"|data: \{"error": ?\{')


class RawStream:
    """One request and all that comes back.

    Args:
        gateway: whom to ask.
        path: with its query.
        stream: whether to ask for a stream.
    """

    def __init__(self, gateway: Gateway, path: str, *, stream: bool = True) -> None:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        self._sock = socket.create_connection((host, int(port)), timeout=60)
        self.port: int = self._sock.getsockname()[1]
        """Of our end."""
        self.received = b""
        self.reset = False
        """Whether the connection ended with a reset."""
        self._told = threading.Event()
        text = [{"role": "user", "content": "Grüezi?"}]
        asked = {"model": "m", "max_tokens": 9, "stream": stream, "messages": text}
        body = json.dumps(asked).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._sock.sendall(head.encode() + body)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := self._sock.recv(65536):
                self.received += data
                if HEAD_END in self.received[:-4] or b'"delta"' in self.received:
                    self._told.set()
        except ConnectionError:
            self.reset = True
        self._sock.close()
        self._told.set()

    def begun(self, timeout: float = 20.0) -> bool:
        """Whether the first event comes in time."""
        return self._told.wait(timeout)

    def wait(self, timeout: float = 60.0) -> None:
        """Until it is over.

        Raises:
            TimeoutError: it is not.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"still open after {timeout} s")

    @property
    def status(self) -> int:
        """Of the answer; 0 if there was none."""
        parts = self.received.split(b" ", 2)
        return int(parts[1]) if len(parts) > 2 else 0

    @property
    def whole(self) -> bool:
        """A stream that is complete, by its framing and by its last event."""
        last = b"message_stop" in self.received or b"[DONE]" in self.received
        return last and not self.told and self.received.endswith(LAST_CHUNK)

    @property
    def told(self) -> bool:
        """Whether it was told, in its format, that the answer is not complete."""
        return _TOLD.search(self.received) is not None

    @property
    def ended_as_complete(self) -> bool:
        """Whether the last chunk came."""
        return self.received.endswith(LAST_CHUNK)
