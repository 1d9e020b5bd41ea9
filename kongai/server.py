"""The gevent server: accepts, notices who leaves, stops without losing anything.

The only module, beside the scripts in `bin/`, that knows gevent. It runs on a process
that was patched before anything else was imported (`bin/kongai-serve` does).
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from kongai.connection import Connection
from kongai.errors import ClientGone, ServerStopping
from kongai.forwarding import bracketed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_LOOK_SECONDS = 0.25
# Linux alone tells a side that was closed from a connection that is gone.
_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP)
_poll = monkey.get_original("select", "poll")

GRACE_SECONDS = 30.0
"""How long a server that stops waits for answers that are under way."""


class Server(WSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on a TCP address.

    Args:
        address: host and port; port 0 takes a free one.
        application: the WSGI application, for example a `Proxy`.
    """

    def __init__(self, address: tuple[str, int], application: WSGIApplication) -> None:
        super().__init__(
            address,
            application,
            handler_class=_Handler,
            log=None,
            error_log=None,
            # Otherwise gevent asks the name server who this host is.
            environ={"SERVER_NAME": address[0], "wsgi.multithread": True},
        )
        self.handlers: set[_Handler] = set()

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server."""
        host, port = self.address[:2]
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = anywhere.get(host, host)
        return f"http://{bracketed(host)}:{port}"

    def drain(self, grace: float = GRACE_SECONDS) -> None:
        """Stop: take nothing new, let running answers finish, then break them off.

        Args:
            grace: seconds to wait for running answers.
        """
        self.close()
        for handler in list(self.handlers):
            handler.finish_soon()
        with gevent.Timeout(grace, False):
            while self.handlers:
                gevent.sleep(0.01)
        for handler in list(self.handlers):
            handler.interrupt()
        with gevent.Timeout(1.0, False):
            while self.handlers:
                gevent.sleep(0.01)


def is_patched() -> bool:
    """Whether this process was patched, so that one exchange does not block all."""
    return bool(monkey.is_module_patched("socket"))


def run(server: Server, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for running answers.

    Args:
        server: the server, started.
        ready: called once signals are heeded, to tell the world that it may send them.

    Raises:
        RuntimeError: the process was not patched.
    """
    if not is_patched():
        raise RuntimeError("start the server with kongai-serve, which patches first")
    stopping = Event()
    hurrying = Event()

    def stop() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    ready()
    stopping.wait()
    draining = gevent.spawn(server.drain)
    gevent.wait([draining, hurrying], count=1)
    if hurrying.is_set():
        server.drain(0)
    draining.kill()


class _Handler:
    """What gevent's server makes for each connection it accepts."""

    def __init__(self, sock: Any, address: Any, server: Server) -> None:
        self._server = server
        self._greenlet = gevent.getcurrent()
        self._watch = _ClientWatch(sock, self._greenlet)
        environ = {
            **server.get_environ(),
            "REMOTE_ADDR": address[0] if address else "",
            "REMOTE_PORT": str(address[1]) if address else "",
        }
        self.connection = Connection(sock, environ, self._serve, self._watch)

    def handle(self) -> None:
        """Serve the connection to its end."""
        self._server.handlers.add(self)
        try:
            self.connection.serve()
        finally:
            self._watch.close()
            self._server.handlers.discard(self)

    def _serve(self, environ: Any, start_response: Any) -> Any:
        # Asked for each time: a reload gives the server another application.
        return self._server.application(environ, start_response)

    def finish_soon(self) -> None:
        """Close after the present answer; at once if there is none."""
        self.connection.closing = True
        if not self.connection.busy:
            self.interrupt()

    def interrupt(self) -> None:
        """Break off whatever the connection waits for."""
        gevent.get_hub().loop.run_callback(self._stop)

    def _stop(self) -> None:
        if not self._greenlet.dead:
            self._greenlet.throw(ServerStopping())


class _ClientWatch:
    """Notices that the client has left, while its exchange waits for the upstream.

    A client that has sent its request and then closes makes its socket readable. A
    write would notice only the second time, and a silent upstream lets nothing be
    written at all. A client that shuts down its sending side only counts as gone, as it
    does for nginx.
    """

    def __init__(self, sock: Any, greenlet: Any) -> None:
        self._sock = sock
        self._greenlet = greenlet
        loop = gevent.get_hub().loop
        self._watcher = loop.io(sock.fileno(), 1)
        self._timer = loop.timer(_LOOK_SECONDS, _LOOK_SECONDS)

    def start(self) -> None:
        self._watcher.start(self._readable)

    def stop(self) -> None:
        self._watcher.stop()
        self._timer.stop()

    def close(self) -> None:
        self.stop()
        self._watcher.close()
        self._timer.close()

    def _readable(self) -> None:
        """Runs in the event loop, so only while the connection's greenlet waits."""
        self._watcher.stop()
        try:
            data = self._sock._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._watcher.start(self._readable)
            return
        except OSError:
            data = b""
        if data:
            # The next request, sent early. It can wait, but keeps the socket readable,
            # so from now on a look at the clock has to do.
            self._timer.start(self._look)
        else:
            self._greenlet.throw(ClientGone())

    def _look(self) -> None:
        """Ask whether the client has closed its side behind the bytes not yet read."""
        poll = _poll()
        poll.register(self._sock.fileno(), _CLOSED)
        if poll.poll(0):
            self._timer.stop()
            self._greenlet.throw(ClientGone())
