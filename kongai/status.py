"""What Kong's status API says of a gateway: whether it lives, is ready, is busy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from kongai._version import __version__
from kongai.forwarding import SERVER
from kongai.scoreboard import Count, Scoreboard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def application(
    board: Scoreboard, ready: Callable[[], bool], configuration_hash: Callable[[], str]
) -> WSGIApplication:
    """A WSGI application with `/status`, `/status/ready` and `/healthz`.

    Args:
        board: the numbers of all processes.
        ready: whether this process takes connections.
        configuration_hash: names the configuration that runs.
    """

    def answer(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        request = Request(environ)
        if request.method not in ("GET", "HEAD"):
            response = _json(405, {"message": "Method not allowed"})
            response.headers["Allow"] = "GET, HEAD"
        elif request.path == "/status":
            response = _json(200, _status(board, configuration_hash()))
        elif request.path == "/status/ready":
            response = (
                _json(200, {"message": "ready"})
                if ready()
                else _json(503, {"message": "the gateway is stopping"})
            )
        elif request.path == "/healthz":
            response = _json(200, {"message": "ok"})
        else:
            response = _json(404, {"message": "Not found"})
        return response(environ, start_response)

    return answer


def _status(board: Scoreboard, configuration_hash: str) -> Mapping[str, Any]:
    open_now = board.total(Count.CONNECTIONS)
    running = board.total(Count.EXCHANGES)
    accepted = board.total(Count.ACCEPTED)
    return {
        "server": {
            "connections_accepted": accepted,
            "connections_active": open_now,
            "connections_handled": accepted - board.total(Count.TURNED_AWAY),
            "connections_waiting": max(0, open_now - running),
            "connections_writing": running,
            "total_requests": board.total(Count.REQUESTS),
        },
        "workers": [pid for pid in board.each(Count.PID) if pid],
        "configuration_hash": configuration_hash,
        "version": __version__,
    }


def _json(status: int, data: Any) -> Response:
    response = Response(
        json.dumps(data), status=status, content_type="application/json"
    )
    response.headers["Server"] = SERVER
    response.headers["Cache-Control"] = "no-store"
    return response
