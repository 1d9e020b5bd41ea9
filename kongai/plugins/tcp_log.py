"""`tcp-log`: sends each exchange's record as a line over TCP, as Kong's plugin does."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from kongai.criteria import check_service_host
from kongai.delivery import Delivery, DeliveryError, seconds
from kongai.exchange import Exchange
from kongai.log import line
from kongai.plugin import Plugin
from kongai.plugins import custom_fields as fields
from kongai.schema import settings


class TcpLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `tcp-log`, as Kong names them; times in milliseconds."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"timeout", "tls"})

    NOT_HERE: ClassVar[dict[str, str]] = {"custom_fields_by_lua": fields.NO_LUA}

    host: str
    port: Annotated[int, Meta(ge=0, le=65535)]
    timeout: float = 10000
    keepalive: float = 60000
    tls: bool = False
    tls_sni: str | None = None
    ssl_verify: bool = True
    custom_fields: dict[str, Any] | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        for text in check_service_host(self.host):
            yield "host", text
        yield from fields.problems(self.custom_fields)


class TcpLog(Plugin):
    """Sends one line of JSON per exchange to a TCP server.

    Args:
        config: the settings; in their place, the fields themselves.

    Raises:
        ConfigError: Kong would not take the fields.
    """

    name = "tcp-log"
    priority = 7
    Config = TcpLogConfig

    def __init__(self, config: TcpLogConfig | None = None, /, **given: Any) -> None:
        self.config = settings(TcpLogConfig, config, given)
        self._fields = fields.CustomFields(self.config.custom_fields)
        self._delivery = Delivery(self.name, lambda: _Sender(self.config))

    def log(self, exchange: Exchange) -> None:
        """Hand the record over to the queue."""
        self._fields.set(exchange)
        self._delivery.put(line(exchange))

    def prepare_close(self) -> None:
        """Begin to deliver what is in the queue."""
        self._delivery.prepare_close()

    def close(self) -> None:
        """Deliver what is in the queue, for a few seconds at most."""
        self._delivery.close()


class _Sender:
    """Writes to one connection, which it keeps, on the queue's thread."""

    def __init__(self, config: TcpLogConfig) -> None:
        self._config = config
        self._socket: socket.socket | None = None
        self._used = 0.0
        self._context: ssl.SSLContext | None = None

    def send(self, entries: Sequence[bytes]) -> None:
        config = self._config
        if self._socket is not None and not self._usable(self._socket):
            self.close()
        doing = "connect to"
        try:
            if self._socket is None:
                self._socket = self._connect()
            doing = "send data to"
            self._socket.settimeout(seconds(config.timeout))
            self._socket.sendall(b"".join(entries))
        except OSError as error:
            self.close()
            raise DeliveryError(
                f"failed to {doing} {config.host}:{config.port}: {_reason(error)}"
            ) from error
        self._used = time.monotonic()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        config = self._config
        timeout = seconds(config.timeout)
        sock = socket.create_connection((config.host, config.port), timeout)
        if not config.tls:
            return sock
        try:
            if self._context is None:
                # requests, which brings the authorities, is slow to import.
                from kongai.tls import tls_context

                self._context = tls_context(config.ssl_verify)
            return self._context.wrap_socket(
                sock, server_hostname=config.tls_sni or config.host
            )
        except BaseException:
            sock.close()
            raise

    def _usable(self, sock: socket.socket) -> bool:
        """Whether the other side still listens: a write would not tell."""
        config = self._config
        if 0 < config.keepalive < (time.monotonic() - self._used) * 1000:
            return False
        sock.settimeout(0)
        try:
            return bool(sock.recv(4096))
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False


def _reason(error: OSError) -> str:
    """A constant that says what is wrong: the system's word for it."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS error"
    if isinstance(error, socket.gaierror):
        return "name resolution failed"
    return os.strerror(error.errno) if error.errno else type(error).__name__
