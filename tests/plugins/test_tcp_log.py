from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from kongai import Proxy, TcpLog
from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.plugins.tcp_log import TcpLogConfig
from kongai.testing import MockTransport, answer
from tests.live.ports import closed_port
from tests.live.waiting import wait_until
from tests.plugins.refusals import problems


def gateway(plugin: TcpLog) -> Proxy:
    return Proxy(
        services=[Service(host="up.test", routes=[Route(paths=["/a"])])],
        plugins=[plugin],
        transport=MockTransport(lambda _: answer(b"{}")),
    )


def ask(proxy: Proxy, target: str = "/a") -> None:
    with Client(proxy).get(target) as response:
        assert response.get_data()


class Lines:
    """A TCP server that keeps what it is sent, and closes when it is told to."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.lines: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.failed: list[str] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def asked(self) -> list[str]:
        return [json.loads(line)["request"]["uri"] for line in self.lines]

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.lines) >= count, f"line {count}", 5)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        for sock in self.connections:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(sock,), daemon=True).start()

    def _read(self, sock: socket.socket) -> None:
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
        except OSError as error:
            self.failed.append(str(error))
            sock.close()
            return
        self.connections.append(sock)
        with suppress(OSError), sock.makefile("rb") as stream:
            for line in stream:
                self.lines.append(line)


@contextmanager
def lines(context: ssl.SSLContext | None = None) -> Iterator[Lines]:
    server = Lines(context)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"host": "h"}, "port: required field missing"),
        ({"port": 1}, "host: required field missing"),
        ({"host": "h", "port": 65536}, "port: value should be between 0 and 65535"),
        ({"host": "a b", "port": 1}, "host: invalid value: a b"),
        ({"host": "h:80", "port": 1}, "host: must not have a port"),
        ({"host": "h", "port": 1, "keepalive": "x"}, "keepalive: expected a number"),
        ({"host": "h", "port": 1, "tls_sni": 5}, "tls_sni: expected a string"),
        ({"host": "h", "port": 1, "tls": "x"}, "tls: expected a boolean"),
        ({"host": "h", "port": 1, "bogus": 1}, "bogus: unknown field"),
        (
            {"host": "h", "port": 1, "custom_fields_by_lua": {"a": "return 1"}},
            "custom_fields_by_lua: kongai runs no Lua; use custom_fields",
        ),
        (
            {"host": "h", "port": 1, "custom_fields": {"": 1}},
            "custom_fields.'': a name must not be empty",
        ),
    ],
)
def test_what_is_refused(config: dict[str, Any], expected: str) -> None:
    [problem] = problems("tcp-log", config)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    "config", [{"port": 0}, {"timeout": 1.5}, {"tls": True, "tls_sni": "a"}]
)
def test_what_is_accepted(config: dict[str, Any]) -> None:
    assert problems("tcp-log", {"host": "127.0.0.1", "port": 1, **config}) == []


def test_the_ways_to_make_one() -> None:
    wanted = TcpLogConfig(host="h", port=1)
    assert TcpLog(wanted).config == TcpLog(host="h", port=1).config == wanted
    with pytest.raises(ConfigError, match="port: required field missing"):
        TcpLog(host="h")
    with pytest.raises(TypeError):
        TcpLog(wanted, port=2)


def test_every_record_is_a_line_on_one_connection() -> None:
    with lines() as sink:
        plugin = TcpLog(host="127.0.0.1", port=sink.port, custom_fields={"x": 1})
        proxy = gateway(plugin)
        for number in range(20):
            ask(proxy, f"/a?{number}")
        proxy.close()
        sink.wait_for(20)
        assert sink.asked() == [f"/a?{number}" for number in range(20)]
        assert all(json.loads(line)["x"] == 1 for line in sink.lines)
        assert len(sink.connections) == 1


def test_after_the_other_side_has_closed_there_is_a_new_connection() -> None:
    with lines() as sink:
        proxy = gateway(TcpLog(host="127.0.0.1", port=sink.port))
        for number in range(3):
            ask(proxy, f"/a?{number}")
            sink.wait_for(number + 1)
            sink.hang_up()
        proxy.close()
        assert sink.asked() == ["/a?0", "/a?1", "/a?2"]


def test_what_the_other_side_says_is_not_listened_to() -> None:
    with lines() as sink:
        proxy = gateway(TcpLog(host="127.0.0.1", port=sink.port))
        ask(proxy)
        sink.wait_for(1)
        sink.connections[0].sendall(b"thanks\n")
        ask(proxy)
        sink.wait_for(2)
        proxy.close()
        assert len(sink.connections) == 1


def test_an_idle_connection_is_not_used_for_ever() -> None:
    with lines() as sink:
        proxy = gateway(TcpLog(host="127.0.0.1", port=sink.port, keepalive=0.001))
        for count in (1, 2):
            ask(proxy)
            sink.wait_for(count)
        proxy.close()
        assert len(sink.connections) == 2


def test_nobody_there_costs_the_record_only(caplog: pytest.LogCaptureFixture) -> None:
    with closed_port() as port:
        proxy = gateway(TcpLog(host="127.0.0.1", port=port))
        ask(proxy)
        proxy.close()
    assert (
        f"tcp-log: could not send entries (failed to connect to 127.0.0.1:{port}: "
        "Connection refused); 1 were lost"
    ) in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has signed, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=logs.test", "-keyout", str(path), "-out", str(path) + ".crt"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("ab") as both:
        both.write(Path(f"{path}.crt").read_bytes())
    return path


def server_context(certificate: Path) -> tuple[ssl.SSLContext, list[str | None]]:
    """A server's context, and the names that its clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    note: Callable[..., None] = lambda sock, name, context: names.append(name)  # noqa: E731
    context.sni_callback = note
    return context, names


def test_records_go_over_tls_on_one_connection(certificate: Path) -> None:
    context, names = server_context(certificate)
    with lines(context) as sink:
        plugin = TcpLog(
            host="127.0.0.1",
            port=sink.port,
            tls=True,
            tls_sni="logs.test",
            ssl_verify=False,
        )
        proxy = gateway(plugin)
        for number in range(3):
            ask(proxy, f"/a?{number}")
            sink.wait_for(number + 1)
        proxy.close()
        assert sink.asked() == ["/a?0", "/a?1", "/a?2"]
        assert names == ["logs.test"]


def test_a_certificate_is_verified(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context, _ = server_context(certificate)
    with lines(context) as sink:
        proxy = gateway(TcpLog(host="127.0.0.1", port=sink.port, tls=True))
        ask(proxy)
        wait_until(lambda: sink.failed, "refusal", 5)
        proxy.close()
        assert sink.lines == []
    assert "failed to connect to" in caplog.text
    assert "self-signed certificate" in caplog.text.replace(
        "self signed", "self-signed"
    )
