"""User code with every public name, for the type checker; it is not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Request, Response

from kongai import (
    AIProxy,
    ConfigError,
    Exchange,
    FileLog,
    FileSink,
    GatewayError,
    HttpLog,
    KongAIError,
    LogSink,
    Plugin,
    Proxy,
    RequestRejected,
    Route,
    Service,
    StreamSink,
    TcpLog,
    __version__,
    config,
)
from kongai.errors import (
    AnswerCut,
    ClientGone,
    Problem,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
)
from kongai.exchange import Attempt, UpstreamRequest, UpstreamResponse
from kongai.log import serialize
from kongai.sinks import encode
from kongai.sse import Decoder, ServerSentEvent
from kongai.testing import (
    EchoLLM,
    ListSink,
    MockTransport,
    answer,
    chop,
    events,
    serve_live,
)
from kongai.transport import RequestsTransport, Transport

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Services and routes take any sequence where a file has a list.
service = Service(
    "https://api.example/base",
    name="example",
    retries=2,
    read_timeout=120_000,
    tags=["a"],
    routes=[
        Route(name="one", paths=["/one"], methods=("GET", "POST")),
        Route(hosts=("*.example",), headers={"x-team": ["a", "b"]}, strip_path=False),
    ],
)
name: str | None = service.name
port: int = service.port


# Plugins: the phases one needs, typed as the base class has them.
class TeamConfig(msgspec.Struct, frozen=True, kw_only=True):
    header: str = "x-team"
    teams: tuple[str, ...] = ()


class Team(Plugin):
    name = "team"
    priority = 800
    Config = TeamConfig

    def __init__(self, settings: TeamConfig) -> None:
        self.settings = settings

    def rewrite(self, exchange: Exchange) -> None:
        exchange.headers["x-seen"] = "1"

    def access(self, exchange: Exchange) -> Response | None:
        team: str | None = exchange.headers.get(self.settings.header)
        if team not in self.settings.teams:
            raise RequestRejected("name a team", status=403, ended="no_team")
        if exchange.llm is not None and exchange.llm.request_model is None:
            return Response("no model", status=400)
        exchange.state[self] = team
        exchange.log.set("team", team)
        return None

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        return None if exchange.service else self._first_that_answers(exchange)

    def _first_that_answers(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None]:
        for host in ("one.example", "two.example"):
            attempt = yield UpstreamRequest(
                method=exchange.request.method,
                scheme="https",
                host=host,
                port=443,
                target=exchange.target,
                headers=list(exchange.headers),
                body=exchange.read_body(limit=1_000_000),
            )
            if attempt.response is not None and attempt.response.status < 500:
                return

    def header_filter(self, exchange: Exchange) -> None:
        if exchange.response is not None:
            exchange.response.headers["x-team"] = str(exchange.state.get(self))

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        decoder = Decoder()
        for chunk in chunks:
            for event in decoder.feed(chunk):
                seen: ServerSentEvent = event
                if seen.event == b"error":
                    exchange.log.set("failed", seen.data.decode())
            yield chunk

    def log(self, exchange: Exchange) -> None:
        record: dict[str, Any] = serialize(exchange)
        line: bytes = encode(record)
        ended: str | None = exchange.ended
        sys.stdout.write(f"{exchange.id} {ended} {len(line)}")

    def init_worker(self) -> None:
        pass

    def close(self) -> None:
        pass


# Sinks: anything with the two methods.
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def emit(self, record: dict[str, Any]) -> None:
        self.count += 1

    def close(self) -> None:
        self.count = 0


sinks: list[LogSink] = [
    FileSink("/tmp/a.json"),
    FileSink(Path("/tmp/b.json"), reopen=True),
    StreamSink(sys.stdout),
    Counter(),
    ListSink(),
]


# Transports: the real one, a mock, one's own.
class Noting:
    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.targets: list[str] = []

    def send(self, request: UpstreamRequest) -> UpstreamResponse:
        self.targets.append(request.target)
        return self.inner.send(request)

    def close(self) -> None:
        self.inner.close()


def handler(request: UpstreamRequest) -> UpstreamResponse:
    if request.method == "GET":
        raise UpstreamTimeout(sent=False)
    pieces: list[bytes | UpstreamError] = [*chop(b"abc", 1, 2), UpstreamTruncated()]
    return answer(pieces, status=200, headers=[("content-type", "text/plain")])


transport: Transport = Noting(RequestsTransport(proxies={"https": "http://p:3128"}))
mock = MockTransport(handler)
sent: list[UpstreamRequest] = mock.requests


# Gateways: from objects, from a file, from data, from what was loaded.
def application(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


plugins: list[Plugin] = [
    AIProxy(provider="anthropic", llm_format="anthropic", response_streaming="deny"),
    FileLog("/tmp/c.json", reopen=True),
    FileLog(Path("/tmp/d.json")),
    HttpLog(http_endpoint="http://127.0.0.1:9/in", queue={"max_batch_size": 10}),
    TcpLog(host="127.0.0.1", port=9, custom_fields={"site": "office"}),
    Team(TeamConfig(teams=("search",))),
]
gateways: list[Proxy] = [
    Proxy(),
    Proxy([service], [Route(paths=("/two",))], plugins, sinks),
    Proxy(services=(service,), transport=mock, fallback=application),
    Proxy.from_file("kong.yml"),
    Proxy.from_file(Path("kong.yml"), plugins=plugins, sinks=sinks),
    Proxy.from_config({"_format_version": "3.0"}, transport=transport),
    Proxy.from_config(config.load_text("{}"), sinks=[ListSink()]),
]
proxy = gateways[0]
services: tuple[Service, ...] = proxy.services
routes: tuple[Route, ...] = proxy.routes
as_application: WSGIApplication = proxy
proxy.init_worker()
proxy.close()

# Errors say what is wrong, and where.
try:
    Proxy.from_file("kong.yml")
except ConfigError as error:
    problems: list[Problem] = error.problems
    where: list[tuple[str, int | None]] = [(p.path, p.line) for p in problems]
    lines: list[str] = error.lines()
except KongAIError:
    raise


def told(error: GatewayError) -> tuple[int, str, str]:
    return error.status, error.message, error.ended


def is_over(error: BaseException) -> bool:
    return isinstance(error, (AnswerCut, ClientGone))


# Flask: a view, a mount, a wrap.
app = Flask(__name__)


@app.post("/ai/<path:rest>")
def ai(rest: str) -> Response:
    return proxy.handle(request)


mounted: WSGIApplication = DispatcherMiddleware(app.wsgi_app, {"/ai": proxy})
wrapped: WSGIApplication = Proxy(fallback=app.wsgi_app)


def from_werkzeug(request: Request) -> Response:
    return proxy.handle(request)


# The doubles serve on a port of their own.
with EchoLLM() as upstream, serve_live(proxy) as server:
    addresses: tuple[str, str] = (upstream.url, server.url)
    found: list[tuple[str, Any]] = events([json.dumps(__version__).encode()])
