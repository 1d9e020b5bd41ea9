"""A tap on the line: what a client says is kept, and passed on as it came."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection

from .upstream import Connection, Request

_HOP = ("connection", "content-length", "transfer-encoding")


class Tap:
    """The handler of a `FakeUpstream` that stands between a client and the gateway.

    What comes back is passed on as it arrives; if it is cut, so is what is passed on.
    `exchanges` are the requests in the order of their answers, with the gateway's ids.

    Args:
        url: where requests go, ``http://HOST:PORT``.
    """

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")
        self.exchanges: list[tuple[str, Request]] = []

    def __call__(self, request: Request, connection: Connection) -> None:
        """Pass one exchange on."""
        with closing(HTTPConnection(self._host, timeout=30)) as onward:
            line = request.method, request.target
            onward.putrequest(*line, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                onward.putheader(name, value)
            onward.endheaders(request.body)
            with onward.getresponse() as response:
                request_id = response.headers["x-kong-request-id"]
                self.exchanges.append((request_id, request))
                headers = [
                    (name, value)
                    for name, value in response.getheaders()
                    if name.lower() not in _HOP
                ]
                if not response.chunked:
                    connection.respond(response.status, headers, response.read())
                    return
                connection.start_stream(headers, response.status)
                while data := response.read1():
                    connection.chunk(data)
                connection.end()
