"""What `kongai-serve` does: read a configuration, listen, serve, reload, stop."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import signal
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any

from kongai import config, workers
from kongai.document import parse
from kongai.errors import ConfigError, whereabouts
from kongai.limits import GRACE_SECONDS, Limits
from kongai.proxy import Proxy
from kongai.scoreboard import Count, Scoreboard
from kongai.server import Server, listener, loop_socket, run, url_of
from kongai.socket_transport import SocketTransport
from kongai.status import application as status_application

if TYPE_CHECKING:
    from socket import socket

    from kongai.transport import Transport

_logger = logging.getLogger("kongai")
_STDIN = 0
_OWN_DESCRIPTORS = 64
"""Logs, listeners and the like."""
_PLACE = struct.Struct("QQ")
"""Where in a file a text is, and how many bytes it has."""
Address = tuple[str, int]


def _requests_transport() -> Transport:
    # It is slow to import, and takes memory.
    from kongai.transport import RequestsTransport

    return RequestsTransport()


def _socket_transport() -> Transport:
    return SocketTransport(sockets=loop_socket)


TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "socket": _socket_transport,
    "requests": _requests_transport,
}
"""What upstreams can be reached with, by the name of the command's option."""


class Source:
    """Where the configuration comes from; can be read anew.

    Args:
        path: the declarative file; None for the gateway of Kong's how-to.
        options: more arguments of the `Proxy`.
        transport: makes what a gateway reaches upstreams with; each has its own.
        upstream_url: what the how-to's gateway asks in place of the real API.
    """

    def __init__(
        self,
        path: str | None,
        options: Mapping[str, Any],
        *,
        transport: Callable[[], Transport] = SocketTransport,
        upstream_url: str | None = None,
    ) -> None:
        self.path = path
        self._options = options
        self._transport = transport
        self._upstream_url = upstream_url

    def read(self) -> str:
        """The text of the configuration as it is now.

        Raises:
            ConfigError: it is not text.
            OSError: the file can't be read.
        """
        if self.path is None:
            return files("kongai").joinpath("howto.yml").read_text(encoding="utf-8")
        return config.text_of(self.path)

    def build(self, text: str) -> Proxy:
        """Make the gateway that a text describes.

        Raises:
            ConfigError: with every problem found.
        """
        document = parse(text, self.path)
        if self._upstream_url is not None:
            model = document.data["services"][0]["plugins"][0]["config"]["model"]
            model["options"]["upstream_url"] = self._upstream_url
        try:
            return Proxy.from_config(
                config.build(document), transport=self._transport(), **self._options
            )
        except ConfigError as error:
            # Plugins that don't fit together show only when the gateway is made.
            raise ConfigError(error.problems, self.path) from None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve."""

    address: Address
    """Host and port; port 0 takes a free one."""
    status: Address | None = None
    """Where to say how the gateway is; None for nowhere."""
    workers: int = 1
    """Processes."""
    limits: Limits = Limits()
    grace: float = GRACE_SECONDS
    """Seconds that running answers have when the gateway stops."""


def serve(
    source: Source, settings: Settings, welcome: Callable[[str, Proxy], None]
) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        source: the configuration.
        settings: how.
        welcome: called with the URL and the gateway once it is served.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration can't be used.
        OSError: its file can't be read.
        CantListen: an address can't be had.
    """
    settings = replace(settings, limits=_within_descriptors(settings.limits))
    text = source.read()
    proxy = source.build(text)
    sockets = _Sockets(settings)

    def announce() -> None:
        for line in sockets.lines():
            _logger.info("%s", line)
        welcome(sockets.url, proxy)

    board = Scoreboard(settings.workers)
    if settings.workers == 1:
        worker = _Worker(source, settings, board, 0)
        worker.start(text, proxy, sockets.own())
        worker.run(ready=announce)
        return 0
    with tempfile.TemporaryFile() as found_good:
        master = _Master(source, settings, board, sockets, found_good)
        return master.run(text, proxy, announce)


class CantListen(Exception):
    """An address can't be had; the text says which, and why."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(
            f"can't listen on {address[0]} port {address[1]}: {error.strerror}"
        )


class _Sockets:
    """Has the addresses, so that nobody else gets them, and makes listeners of them."""

    def __init__(self, settings: Settings) -> None:
        self._shared = settings.workers > 1
        addresses = [settings.address]
        if settings.status is not None:
            addresses.append(settings.status)
        self._held = [self._bound(address) for address in addresses]
        self._addresses: list[Address] = [s.getsockname()[:2] for s in self._held]

    def _bound(self, address: Address) -> socket:
        try:
            sock = listener(address)
            if self._shared:
                # First alone: another gateway would share its clients with this one.
                address = sock.getsockname()[:2]
                sock.close()
                sock = listener(address, shared=True)
        except OSError as error:
            raise CantListen(address, error) from None
        return sock

    @property
    def url(self) -> str:
        return url_of(self._addresses[0])

    def lines(self) -> list[str]:
        texts = [f"listening on {self.url}"]
        texts += [f"status on {url_of(address)}" for address in self._addresses[1:]]
        return texts

    def own(self) -> list[socket]:
        """The sockets that one process listens on."""
        if not self._shared:
            return self._held
        return [listener(address, shared=True) for address in self._addresses]


class _Worker:
    """One process that serves."""

    def __init__(
        self, source: Source, settings: Settings, board: Scoreboard, number: int
    ) -> None:
        self._source = source
        self._settings = settings
        self._board = board
        self._row = board.row(number)
        self._terminal = _Terminal()
        self._turn = threading.Lock()
        self._hash = ""

    def start(self, text: str, proxy: Proxy, sockets: list[socket]) -> None:
        """Listen.

        Raises:
            CantListen: somebody else does.
        """
        self._hash, self._proxy = _hash(text), proxy
        self._server = Server(
            sockets[0], proxy, limits=self._settings.limits, row=self._row
        )
        self._status = [Server(s, self._status_application()) for s in sockets[1:]]
        proxy.init_worker()
        for server in (self._server, *self._status):
            try:
                server.start()
            except OSError as error:
                raise CantListen(server.address[:2], error) from None

    def run(
        self,
        *,
        ready: Callable[[], None],
        read: Callable[[], str] | None = None,
        orphaned: int | None = None,
    ) -> None:
        """Serve until it is told to stop."""
        run(
            self._server,
            ready,
            reload=lambda: self._reload(read or self._source.read),
            reopen=lambda: self._proxy.reopen(),
            grace=self._settings.grace,
            orphaned=orphaned,
        )
        self._proxy.close()
        for server in self._status:
            server.drain(0)

    def _status_application(self) -> Any:
        return status_application(
            self._board, lambda: bool(self._row[Count.READY]), lambda: self._hash
        )

    def _reload(self, read: Callable[[], str]) -> None:
        """Serve by the configuration as it is now; exchanges end by the one they had.

        One that can't be used changes nothing.
        """
        if self._terminal.is_gone():
            _end_with_the_terminal()
            return
        # One after the other, or an older file might come out on top.
        with self._turn:
            if not self._server.stopping:
                self._read_anew(read)

    def _read_anew(self, read: Callable[[], str]) -> None:
        self._proxy.reopen()
        new = _loaded(self._source, read)
        if new is None:
            return
        text, proxy = new
        try:
            proxy.init_worker()
        except Exception as error:
            _logger.error("%s; the configuration stays as it was", whereabouts(error))
            proxy.close()
            return
        old, self._proxy, self._hash = self._proxy, proxy, _hash(text)
        self._server.replace(proxy, old.close)
        _logger.info("reloaded the configuration")


class _Master:
    """The parent of several workers; it has the configuration that they start with."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        board: Scoreboard,
        sockets: _Sockets,
        found_good: IO[bytes],
    ) -> None:
        self._source = source
        self._settings = settings
        self._board = board
        self._sockets = sockets
        # The workers read what was found good, and not what the file has become since.
        self._found_good = found_good
        self._terminal = _Terminal()
        self._pid = os.getpid()

    def run(self, text: str, proxy: Proxy, announce: Callable[[], None]) -> int:
        """Have the workers serve."""
        self._keep(text, proxy)
        supervisor = workers.Supervisor(
            self._work,
            self._board,
            reload=self._reload,
            started=announce,
            grace=self._settings.grace,
        )
        return supervisor.run()

    def _work(self, number: int, orphaned: int) -> None:
        worker = _Worker(self._source, self._settings, self._board, number)
        worker.start(self._text, self._proxy, self._sockets.own())
        worker.run(
            ready=lambda: workers.tell_ready(self._pid),
            read=self._good,
            orphaned=orphaned,
        )

    def _good(self) -> str:
        descriptor = self._found_good.fileno()
        start, size = _PLACE.unpack(os.pread(descriptor, _PLACE.size, 0))
        return os.pread(descriptor, size, start).decode()

    def _reload(self) -> signal.Signals:
        if self._terminal.is_gone():
            _end_with_the_terminal()
            return signal.SIGUSR1
        new = _loaded(self._source, self._source.read)
        if new is None:
            # They still have to open their logs anew.
            return signal.SIGUSR1
        self._keep(*new)
        return signal.SIGHUP

    def _keep(self, text: str, proxy: Proxy) -> None:
        self._text, self._proxy = text, proxy
        # Behind what workers may be reading; then they are told where.
        data, descriptor = text.encode(), self._found_good.fileno()
        start = max(_PLACE.size, os.fstat(descriptor).st_size)
        os.pwrite(descriptor, data, start)
        os.pwrite(descriptor, _PLACE.pack(start, len(data)), 0)


class _Terminal:
    """The terminal that the gateway was started at, if any.

    Its end is told by SIGHUP too, and means that nobody wants the gateway any more.
    """

    def __init__(self) -> None:
        self._was_there = os.isatty(_STDIN)

    def is_gone(self) -> bool:
        """Whether there was one, and is none any more."""
        return self._was_there and not os.isatty(_STDIN)


def _end_with_the_terminal() -> None:
    _logger.info("the terminal is gone, and the gateway with it")
    os.kill(os.getpid(), signal.SIGTERM)


def _loaded(source: Source, read: Callable[[], str]) -> tuple[str, Proxy] | None:
    """The configuration as it is now; None, and a word in the log, if it is no good."""
    try:
        text = read()
        return text, source.build(text)
    except ConfigError as error:
        for line in error.lines():
            _logger.error("%s", line)
    except OSError as error:
        _logger.error("can't read %s: %s", source.path, error.strerror)
    _logger.error("the configuration stays as it was")
    return None


def _within_descriptors(limits: Limits) -> Limits:
    """Have as many descriptors as the administrator allows, and take no more clients.

    A stream takes two of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return limits
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = max(1, (hard - _OWN_DESCRIPTORS) // 2)
    return replace(limits, connections=min(limits.connections, most))


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
