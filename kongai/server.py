"""The gevent server: accepts, notices who leaves, stops without losing anything.

The only module, beside the scripts in `bin/`, that imports gevent; `loop_socket` and
`client_socket` are given what they need of it. It runs on a process that was patched
before anything else was imported (`bin/kongai-serve` does).
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from kongai.client_socket import ClientSocket
from kongai.connection import Connection
from kongai.errors import GatewayError, Overloaded, ServerStopping
from kongai.forwarding import bracketed
from kongai.limits import GRACE_SECONDS, Limits
from kongai.loop_socket import LoopSocket
from kongai.scoreboard import Count, Row, Scoreboard

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_poll = monkey.get_original("select", "poll")
_BACKLOG = 1024
HEEDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
"""The signals that mean something; who blocked them until then may stop doing so."""
_LONG_TURN = 0.01
"""Seconds that one connection may have the loop while others wait."""
_LAST_WORDS = 3.0
"""Seconds that answers which were broken off have to say so, and to be recorded."""
_LOOK_UPS = 32
"""Names that can be looked up at a time."""
# As plain numbers: these two are counted for each request.
_REQUESTS, _EXCHANGES = int(Count.REQUESTS), int(Count.EXCHANGES)
_REFUSING = 256
"""Connections above the limit that are told so; more are just closed."""


def listener(address: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """A socket that is bound to an address, for a `Server` to listen on.

    Args:
        address: host and port; port 0 takes a free one.
        shared: whether other processes bind it too, each for a share of the clients
            (SO_REUSEPORT).

    Raises:
        OSError: the address can't be had.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def url_of(address: tuple[Any, ...]) -> str:
    """Where a client on this machine finds what listens on an address."""
    host, port = address[:2]
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return f"http://{bracketed(anywhere.get(host, host))}:{port}"


class Server(WSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on a TCP address.

    An application with a method `refuse`, as `Proxy` has it, also answers requests that
    the server does not take, and so has them in its records.

    Args:
        address: host and port, port 0 takes a free one; or a bound socket.
        application: the WSGI application, for example a `Proxy`.
        limits: how slow clients may be, and how many.
        row: where the server counts.
    """

    def __init__(
        self,
        address: tuple[str, int] | socket.socket,
        application: WSGIApplication,
        *,
        limits: Limits | None = None,
        row: Row | None = None,
    ) -> None:
        sock = address if isinstance(address, socket.socket) else listener(address)
        super().__init__(
            sock,
            application,
            handler_class=_Handler,
            log=None,
            error_log=None,
            # Otherwise gevent asks the name server who this host is.
            environ={
                "SERVER_NAME": sock.getsockname()[0],
                "wsgi.multithread": True,
            },
        )
        self.limits = limits or Limits()
        self.row = Scoreboard().row(0) if row is None else row
        self.handlers: set[_Handler] = set()
        self.stopping = False
        """Whether it takes nothing new any more."""
        self.served = _Served(application)
        """The application that new requests get."""
        self.refusing = 0
        """Connections that are being told that there are too many."""
        self._closing: set[gevent.Greenlet] = set()

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server."""
        return url_of(self.address)

    def start(self) -> None:
        """Begin to accept.

        Raises:
            OSError: somebody else listens there.
        """
        self.socket.listen(_BACKLOG)
        super().start()
        self.row[Count.PID] = os.getpid()
        self.row[Count.READY] = 1

    def replace(self, application: WSGIApplication, close: Callable[[], None]) -> None:
        """Give new requests to another application; running ones end with theirs.

        Args:
            application: the new one.
            close: closes the old one; called once its last exchange has ended.
        """
        old, self.served = self.served, _Served(application)
        self.application = application
        old.close = lambda: self._close_soon(close)
        old.retire()

    def _close_soon(self, close: Callable[[], None]) -> None:
        closing = gevent.spawn(close)
        self._closing.add(closing)
        closing.link(self._closing.discard)

    def drain(self, grace: float = GRACE_SECONDS) -> None:
        """Stop: take nothing new, let running answers finish, then break them off.

        Args:
            grace: seconds to wait for running answers.
        """
        self.stopping = True
        self.row[Count.READY] = 0
        self.close()
        for handler in list(self.handlers):
            handler.finish_soon()
        with gevent.Timeout(grace, False):
            while self.handlers:
                gevent.sleep(0.01)
        for handler in list(self.handlers):
            handler.interrupt()
        with gevent.Timeout(_LAST_WORDS, False):
            while self.handlers:
                gevent.sleep(0.01)
        gevent.joinall(list(self._closing))

    def turn_away(self, handler: _Handler) -> None:
        """Tell a client that there are too many, if there are not too many of these."""
        self.row[Count.TURNED_AWAY] += 1
        if self.refusing >= _REFUSING:
            handler.connection.close()
            return
        self.refusing += 1
        try:
            handler.connection.turn_away(Overloaded())
        finally:
            self.refusing -= 1


def loop_socket(sock: socket.socket) -> LoopSocket:
    """A connected socket that waits in the event loop at less cost than gevent's own.

    Args:
        sock: gevent's, as all are in a process that was patched.
    """
    return LoopSocket(sock, gevent.get_hub(), gevent.getcurrent, _poll)


def is_patched() -> bool:
    """Whether this process was patched, so that one exchange does not block all."""
    return bool(monkey.is_module_patched("socket"))


def fork() -> int:
    """Fork this process; the child gets an event loop of its own.

    gevent's way watches the child in the parent's event loop; a parent that only
    supervises has none.
    """
    pid: int = monkey.get_original("os", "fork")()
    if pid == 0:
        gevent.reinit()
    return pid


def wait_for_any() -> tuple[int, int]:
    """The id and the status of a child that has ended; zeros if there is none."""
    try:
        pid, status = monkey.get_original("os", "waitpid")(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0
    return pid, status


def run(
    server: Server,
    ready: Callable[[], None] = lambda: None,
    *,
    reload: Callable[[], None] = lambda: None,
    reopen: Callable[[], None] = lambda: None,
    grace: float = GRACE_SECONDS,
    orphaned: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for running answers.

    Args:
        server: the server, started.
        ready: called once signals are heeded, to tell the world that it may send them.
        reload: called on SIGHUP.
        reopen: called on SIGUSR1.
        grace: seconds that running answers have to finish.
        orphaned: a descriptor that becomes readable when there is nobody left to serve
            for, which is as good as SIGTERM.

    Raises:
        RuntimeError: the process was not patched.
    """
    if not is_patched():
        raise RuntimeError("start the server with kongai-serve, which patches first")
    # Ten, gevent's own number, are all busy once ten names are slow to resolve.
    gevent.get_hub().threadpool.maxsize = _LOOK_UPS
    stopping = Event()
    hurrying = Event()

    def stop() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    gevent.signal_handler(signal.SIGTERM, stop)
    gevent.signal_handler(signal.SIGHUP, reload)
    gevent.signal_handler(signal.SIGUSR1, reopen)
    if orphaned is None:
        gevent.signal_handler(signal.SIGINT, stop)
    else:
        # A terminal sends SIGINT to all; the parent is who passes it on.
        watcher = gevent.get_hub().loop.io(orphaned, 1)
        watcher.start(stopping.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
    ready()
    stopping.wait()
    draining = gevent.spawn(server.drain, grace)
    gevent.wait([draining, hurrying], count=1)
    if hurrying.is_set():
        server.drain(0)
    draining.kill()


class _Served:
    """An application and how many of its exchanges are under way."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.close: Callable[[], None] = lambda: None
        self.running = 0
        """How many; handlers count."""
        self.retired = False

    def retire(self) -> None:
        """Close it once nothing runs any more."""
        self.retired = True
        self.close_if_over()

    def close_if_over(self) -> None:
        """Close it, if it is retired and nothing runs any more."""
        if self.retired and not self.running:
            self.close()


class _Handler:
    """What gevent's server makes for each connection it accepts."""

    def __init__(self, sock: Any, address: Any, server: Server) -> None:
        self._server = server
        hub = gevent.get_hub()
        self._greenlet = gevent.getcurrent()
        self._loop = hub.loop
        self._client = ClientSocket(sock, hub, gevent.getcurrent, _poll)
        self.watch, self.unwatch = self._client.watch, self._client.unwatch
        self._served: _Served | None = None
        environ = {
            **server.get_environ(),
            "REMOTE_ADDR": address[0] if address else "",
            "REMOTE_PORT": str(address[1]) if address else "",
        }
        self.connection = Connection(
            self._client, environ, self._serve, self, server.limits, self._refuse
        )

    def handle(self) -> None:
        """Serve the connection to its end."""
        server, row = self._server, self._server.row
        row[Count.ACCEPTED] += 1
        row[Count.CONNECTIONS] += 1
        server.handlers.add(self)
        try:
            if row[Count.CONNECTIONS] - server.refusing > server.limits.connections:
                server.turn_away(self)
            else:
                self.connection.serve()
        finally:
            self._client.close()
            server.handlers.discard(self)
            row[Count.CONNECTIONS] -= 1

    def share(self) -> None:
        """Let others have their turn, if the loop has not had one for long."""
        if time.time() - self._loop.now() > _LONG_TURN:
            gevent.sleep(0)

    def done(self) -> None:
        """The exchange is over."""
        served, self._served = self._served, None
        if served is not None:
            self._server.row[_EXCHANGES] -= 1
            served.running -= 1
            if served.retired:
                served.close_if_over()

    def _serve(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if self._server.row[_EXCHANGES] >= self._server.limits.exchanges:
            return self._refuse(environ, start_response, Overloaded())
        return self._enter()(environ, start_response)

    def _refuse(
        self, environ: Any, start_response: Any, error: GatewayError
    ) -> Iterable[bytes]:
        refuse = getattr(self._enter(), "refuse", None)
        if refuse is None:
            raise error
        return refuse(environ, start_response, error)  # type: ignore[no-any-return]

    def _enter(self) -> WSGIApplication:
        # Asked for each time: a reload gives the server another application.
        row, served = self._server.row, self._server.served
        row[_REQUESTS] += 1
        row[_EXCHANGES] += 1
        served.running += 1
        self._served = served
        return served.application

    def finish_soon(self) -> None:
        """Close after the present answer; at once if there is none."""
        self.connection.closing = True
        if not self.connection.busy:
            self.interrupt()

    def interrupt(self) -> None:
        """Break off whatever the connection waits for."""
        gevent.get_hub().loop.run_callback(self._stop)

    def _stop(self) -> None:
        if not (self._greenlet.dead or self.connection.recording):
            self._greenlet.throw(ServerStopping())
