"""One gateway and one upstream for all the tests of a file that need no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from .anthropic_api import Usage, message, message_events
from .harness import Gateway, howto_config, wait_until
from .upstream import Connection, FakeUpstream, Request

PLAIN_KEY = "canary-7f3a90c1d2e4"
"""A credential that only the name of its field gives away."""
KEY = f"sk-ant-{PLAIN_KEY}"
MODEL = "claude-haiku-4-5"
USAGE = Usage(119, 29)
TEXT = "Grüezi, 世界: «ok»"
PATH = "/anything/v1/messages?beta=true"


class Answer(NamedTuple):
    """An answer that came whole."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def value(self, name: str) -> str:
        """The one value of a header that must be there once."""
        [value] = [v for n, v in self.headers if n.lower() == name]
        return value

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Line:
    """The way from a client through the gateway to the upstream."""

    gateway: Gateway
    upstream: FakeUpstream

    def connect(self, timeout: float = 5.0) -> HTTPConnection:
        """A client's connection, not opened yet."""
        return HTTPConnection(self.gateway.url.removeprefix("http://"), timeout=timeout)

    def ask(self, body: bytes, path: str = PATH, **options: Any) -> Answer:
        """One exchange on a connection of its own; for `options`, see `exchange`."""
        connection = self.connect()
        try:
            return exchange(connection, "POST", path, body, **options)
        finally:
            connection.close()

    def record(self, of: Answer | str) -> dict[str, Any]:
        """The one record of an answer, or of the request with this id."""
        return record_of(self.gateway, of)


def record_of(gateway: Gateway, of: Answer | str) -> dict[str, Any]:
    """The one record of an answer, or of the request with this id."""
    request_id = of if isinstance(of, str) else of.value("x-kong-request-id")
    return record_where(gateway, lambda request: bool(request["id"] == request_id))


def record_where(
    gateway: Gateway, is_it: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The one record whose `request` is the one meant, once it has been written."""

    def found() -> list[dict[str, Any]]:
        return [record for record in gateway.records(0) if is_it(record["request"])]

    wait_until(found, "such record", 5)
    [record] = found()
    return record


def request_body(**fields: Any) -> bytes:
    """A small question, as JSON."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Grüezi?"}],
        **fields,
    }
    return json.dumps(asked).encode()


def request_headers(*more: tuple[str, str]) -> list[tuple[str, str]]:
    """What every client of the API sends, and the key that no file may hold."""
    return [
        ("x-api-key", KEY),
        ("authorization", f"Bearer {KEY}"),
        ("anthropic-version", "2023-06-01"),
        ("content-type", "application/json"),
        *more,
    ]


def exchange(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: list[tuple[str, str]] | None = None,
) -> Answer:
    """Send a request with exactly these headers and read the whole answer."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in request_headers() if headers is None else headers:
        connection.putheader(name, value)
    if body or method == "POST":
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    with connection.getresponse() as response:
        return Answer(
            response.status, response.reason, response.getheaders(), response.read()
        )


def whole(request: Request, connection: Connection) -> None:
    """A handler: the answer in one piece."""
    body = message(TEXT, USAGE, model=MODEL)
    connection.respond(200, body=json.dumps(body).encode())


def streamed(request: Request, connection: Connection) -> None:
    """A handler: the answer as a stream."""
    connection.start_stream()
    for event in message_events(TEXT, USAGE, model=MODEL):
        connection.chunk(event)
    connection.end()


@pytest.fixture(scope="module")
def module_line() -> Iterator[Line]:
    """The processes, started once a file."""
    with FakeUpstream(whole) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        with Gateway(config) as gateway:
            yield Line(gateway, upstream)
            assert gateway.stop() == 0


@pytest.fixture
def line(module_line: Line) -> Iterator[Line]:
    """The shared line, its upstream new; what is true of every test is checked last."""
    upstream, gateway = module_line.upstream, module_line.gateway
    upstream.handler = whole
    upstream.requests.clear()
    for connection in upstream.connections:
        connection.stop()
    upstream.connections.clear()
    complaints = gateway.stderr_text().splitlines()[1:]
    yield module_line
    assert upstream.errors == []
    assert gateway.stderr_text().splitlines()[1:] == complaints
    assert_no_secret(gateway)


def assert_no_secret(gateway: Gateway) -> None:
    """Nothing that the gateway wrote holds a client's key."""
    files = [path for path in gateway.directory.rglob("*") if path.is_file()]
    assert [path for path in files if PLAIN_KEY.encode() in path.read_bytes()] == []
