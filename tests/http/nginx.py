"""A local nginx in front of an upstream that tells what it saw, as our server does."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.live.ports import Listener
from tests.live.waiting import wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    large_client_header_buffers 8 32k;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header X-Client-Port $remote_port;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


class Upstream:
    """Takes what nginx sends, whatever it is, and answers as `server.Echo` does."""

    def __init__(self) -> None:
        self.seen: dict[int, list[dict[str, Any]]] = {}
        """What came of each client's port."""
        self.listener = Listener(self._accepted)

    def _accepted(self, sock: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        # nginx speaks HTTP/1.0 with upstreams: a request and its answer, then the end.
        with sock, sock.makefile("rb") as stream, suppress(OSError):
            method, target = stream.readline().decode("latin-1").split(" ", 1)
            headers: dict[str, str] = {}
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = stream.read(int(headers.get("content-length", 0)))
            target = target.rpartition(" ")[0]
            saw = {
                "method": method,
                "target": target[:100],
                "target_size": len(target),
                "size": len(body),
                "crc": zlib.crc32(body),
            }
            self.seen.setdefault(int(headers["x-client-port"]), []).append(saw)
            head = f"HTTP/1.0 200 OK\r\nX-Saw: {json.dumps(saw)}\r\n"
            sock.sendall(f"{head}Content-Length: 5\r\n\r\nhello".encode())


@contextmanager
def nginx(folder: Path) -> Iterator[tuple[int, Upstream]]:
    """Runs nginx; gives its port and what is behind it."""
    assert NGINX is not None
    upstream = Upstream()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    path = folder / "nginx.conf"
    text = CONFIG.format(folder=folder, port=port, upstream=upstream.listener.port)
    path.write_text(text, "utf-8")
    command = [
        NGINX,
        "-p",
        str(folder),
        "-c",
        str(path),
        "-e",
        str(folder / "error.log"),
    ]
    with upstream.listener, subprocess.Popen(command) as process:
        try:
            wait_until(lambda: _answers(port), "answer of nginx")
            yield port, upstream
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
