from __future__ import annotations

import gc
import json
import re
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, unquote
from wsgiref.validate import validator

import pytest
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized, abort
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request, Response

from kongai import Exchange, Plugin, Proxy, Route, Service
from kongai.errors import (
    AnswerCut,
    ClientGone,
    ConfigError,
    GatewayError,
    Overloaded,
    Refused,
    RequestRejected,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
)
from kongai.exchange import Attempt, UpstreamRequest, UpstreamResponse
from kongai.llm.formats import anthropic
from kongai.testing import ListSink, MockTransport, answer, chop, events

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECRET = "c4nary-5f1d"
UNEXPECTED = "An unexpected error occurred"
BAD_GATEWAY = "An invalid response was received from the upstream server"
NO_ROUTE = "no Route matched with those values"
EVENT_STREAM = [("content-type", "text/event-stream")]


def hello(request: UpstreamRequest) -> UpstreamResponse:
    return answer(b'{"hello": "world"}')


class Gateway:
    """One service with one route, `/s`, a mock behind it, and what it recorded."""

    def __init__(
        self,
        handler: Callable[[UpstreamRequest], UpstreamResponse] = hello,
        *plugins: Plugin,
        service: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.records = ListSink()
        self.upstream = MockTransport(handler)
        fields = {"host": "up.example", "path": "/base", "retries": 2}
        options.setdefault(
            "services",
            [
                Service(
                    name="up",
                    routes=[Route(name="s", paths=("/s",))],
                    **{**fields, **(service or {})},
                )
            ],
        )
        options.setdefault("sinks", [self.records])
        self.proxy = Proxy(plugins=plugins, transport=self.upstream, **options)

    @property
    def record(self) -> dict[str, Any]:
        """The one record there must be."""
        [record] = self.records
        return record

    def ask(self, path: str = "/s", method: str = "GET", **options: Any) -> Answer:
        """One exchange, read to its end, under the eyes of wsgiref's checker."""
        return Answer.of(
            Client(validator(self.proxy)).open(
                path,
                method=method,
                environ_base={"REMOTE_ADDR": "10.0.0.1", "HTTP_ACCEPT": "*/*"},
                buffered=True,
                **options,
            )
        )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, response: TestResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.headers}
        return cls(response.status_code, headers, response.data)

    @property
    def message(self) -> str:
        """What an answer in Kong's format says."""
        found = json.loads(self.body)
        assert found["request_id"] == self.headers["x-kong-request-id"]
        return str(found["message"])


def failing(error: UpstreamError) -> Callable[[UpstreamRequest], UpstreamResponse]:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        raise error

    return handler


def in_turn(
    *outcomes: UpstreamError | UpstreamResponse,
) -> Callable[[UpstreamRequest], UpstreamResponse]:
    waiting = iter(outcomes)

    def handler(request: UpstreamRequest) -> UpstreamResponse:
        outcome = next(waiting)
        if isinstance(outcome, UpstreamError):
            raise outcome
        return outcome

    return handler


def test_a_request_goes_up_and_its_answer_comes_down() -> None:
    upstream = answer(b"made", 201, [("content-type", "text/x"), ("X-Up", "1")])
    gateway = Gateway(lambda request: upstream)
    found = gateway.ask(
        "/s/a/b?x=%2f", "POST", data=b"asked", headers={"X-Client": "2"}
    )
    assert (found.status, found.body) == (201, b"made")
    assert found.headers["x-up"] == "1"
    assert found.headers["content-type"] == "text/x"
    [request] = gateway.upstream.requests
    assert (request.method, request.target) == ("POST", "/base/a/b?x=%2f")
    assert (request.scheme, request.host, request.port) == ("http", "up.example", 80)
    assert ("X-Client", "2") in request.headers
    assert ("Host", "up.example") in request.headers
    assert ("Content-Length", "5") in request.headers
    assert request.body is not None
    assert upstream.closed
    assert gateway.record["response"]["status"] == 201
    assert gateway.record["kongai"] == {"ended": "ok"}


class Noting(Plugin):
    """Notes its phases; its class is made anew, for a plugin's name is its class'."""

    notes: list[str]

    def rewrite(self, exchange: Exchange) -> None:
        self.notes.append(f"{self.name} rewrite")

    def access(self, exchange: Exchange) -> Response | None:
        self.notes.append(f"{self.name} access")
        return None

    def header_filter(self, exchange: Exchange) -> None:
        self.notes.append(f"{self.name} header_filter")

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        for chunk in chunks:
            self.notes.append(f"{self.name} body_filter")
            yield chunk + self.name.encode()

    def log(self, exchange: Exchange) -> None:
        self.notes.append(f"{self.name} log")


def noting(name: str, notes: list[str], priority: int = 0) -> Plugin:
    kind = type("Noted", (Noting,), {"name": name, "priority": priority})
    plugin: Plugin = kind()
    plugin.notes = notes  # type: ignore[attr-defined]
    return plugin


PHASES = ("rewrite", "access", "header_filter", "body_filter", "log")


def test_phases_run_in_order_and_priorities_within_them() -> None:
    notes: list[str] = []
    low, high = noting("a", notes, 1), noting("b", notes, 2)
    body = Gateway(lambda r: answer(b"x"), low, high).ask().body
    assert body == b"xba"
    assert notes == [f"{name} {phase}" for phase in PHASES for name in "ba"]


class Answering(Plugin):
    name = "answering"
    priority = 10

    def __init__(self, response: Response) -> None:
        self.response = response

    def access(self, exchange: Exchange) -> Response | None:
        return self.response


def test_an_answer_in_access_ends_the_line() -> None:
    notes: list[str] = []
    gateway = Gateway(
        hello,
        noting("a", notes, 20),
        Answering(Response("no", status=418)),
        noting("z", notes, 1),
    )
    found = gateway.ask()
    assert (found.status, found.body) == (418, b"noaz")
    assert "z access" not in notes
    assert [note for note in notes if note.endswith("log")] == ["a log", "z log"]
    assert gateway.upstream.requests == []
    assert gateway.record["source"] == "kong"
    assert gateway.record["tries"] == []
    assert gateway.record["upstream_uri"] == "/base"
    assert gateway.record["kongai"] == {"ended": "ok"}


def test_a_plugins_answer_has_a_length_and_may_stream() -> None:
    found = Gateway(hello, Answering(Response(["a", "b"]))).ask()
    assert (found.headers["content-length"], found.body) == ("2", b"ab")
    found = Gateway(hello, Answering(Response(c for c in ("a", "b")))).ask()
    assert (found.headers.get("content-length"), found.body) == (None, b"ab")


def interrupted(ended: str, phase: str) -> dict[str, str]:
    """What a record says of an exchange that did not come to its end."""
    return {"ended": ended, "phase": phase}


@pytest.mark.parametrize(
    ("chunks", "ended"), [(0, "client_abort"), (1, "client_abort"), (3, "ok")]
)
def test_a_plugins_answer_may_be_left_too(chunks: int, ended: str) -> None:
    gateway = Gateway(hello, Answering(Response(c for c in ("a", "b"))))
    call = Call(gateway)
    for _ in range(min(chunks, 2)):
        call.next()
    if chunks > 2:
        call.read()
    call.close()
    if ended == "ok":
        assert gateway.record["kongai"] == {"ended": "ok"}
    else:
        assert gateway.record["kongai"] == interrupted(ended, "response")


def test_a_plugins_answer_that_does_not_close_costs_no_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def close() -> None:
        raise ValueError(SECRET)

    response = Response("ab")
    response.call_on_close(close)
    gateway = Gateway(hello, Answering(response))
    assert gateway.ask().body == b"ab"
    assert gateway.record["kongai"] == {"ended": "ok"}
    assert "ValueError at " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("through", ["WSGI", "handle"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_plugins_answer_is_closed_with_the_exchange(
    through: str, streamed: bool
) -> None:
    closed: list[str] = []
    response = Response((c for c in ("a", "b")) if streamed else "ab")
    response.call_on_close(lambda: closed.append("closed"))
    gateway = Gateway(hello, Answering(response))
    if through == "WSGI":
        call = Call(gateway)
        call.read()
        assert closed == []
        call.close()
    else:
        found = gateway.proxy.handle(EnvironBuilder("/s").get_request())
        assert b"".join(found.iter_encoded()) == b"ab"
        found.close()
    assert closed == ["closed"]
    assert gateway.record["kongai"] == {"ended": "ok"}


class Raising(Plugin):
    """Raises in one of its phases; `first chunk` and `later` are of a body filter."""

    name = "raising"

    def __init__(self, phase: str, error: BaseException) -> None:
        self.phase, self.error = phase, error
        self.logged = 0

    def _at(self, phase: str) -> None:
        if phase == self.phase:
            raise self.error

    def rewrite(self, exchange: Exchange) -> None:
        self._at("rewrite")

    def access(self, exchange: Exchange) -> Response | None:
        self._at("access")
        return None

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        self._at("balancer")
        return None

    def header_filter(self, exchange: Exchange) -> None:
        self._at("header_filter")

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        self._at("body_filter")
        return self._filtered(chunks)

    def _filtered(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        self._at("first chunk")
        for chunk in chunks:
            yield chunk
            self._at("later")

    def log(self, exchange: Exchange) -> None:
        self.logged += 1
        self._at("log")


BEFORE_THE_BODY = ("rewrite", "access", "balancer", "header_filter", "body_filter")


@pytest.mark.parametrize("phase", BEFORE_THE_BODY)
@pytest.mark.parametrize(
    ("error", "status", "message", "ended"),
    [
        (ValueError(SECRET), 500, UNEXPECTED, "internal"),
        (RequestRejected("Not so"), 400, "Not so", "bad_request"),
        (GatewayError('Too\n"much"\\', status=429, ended="x"), 429, None, "x"),
        (Forbidden(SECRET), 403, "Forbidden", "bad_request"),
    ],
    ids=["bug", "rejection", "quotes", "abort"],
)
def test_a_plugin_that_raises_before_the_body(
    phase: str,
    error: Exception,
    status: int,
    message: str | None,
    ended: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = Raising(phase, error)
    upstream = answer(b"x")
    gateway = Gateway(lambda request: upstream, plugin)
    found = gateway.ask()
    assert found.status == status
    assert found.message == (message or str(error))
    assert int(found.headers["content-length"]) == len(found.body)
    assert gateway.record["response"]["status"] == status
    assert gateway.record["source"] == "kong"
    assert gateway.record["kongai"] == {"ended": ended}
    assert plugin.logged == 1
    assert bool(upstream.closed) == (phase in ("header_filter", "body_filter"))
    assert SECRET not in caplog.text + found.body.decode() + json.dumps(gateway.record)
    # The filters run for the error's answer too, and fail again.
    twice = phase in ("header_filter", "body_filter")
    assert len(caplog.records) == isinstance(error, ValueError) + twice


@pytest.mark.parametrize("phase", ["first chunk", "later"])
@pytest.mark.parametrize("error", [ValueError(SECRET), RequestRejected()])
def test_a_plugin_that_raises_in_the_body(
    phase: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = answer([b"a", b"b"])
    gateway = Gateway(lambda request: upstream, Raising(phase, error))
    call = Call(gateway)
    with pytest.raises(AnswerCut):
        call.read()
    call.close()
    assert call.got == (b"a" if phase == "later" else b"")
    known = isinstance(error, GatewayError)
    assert gateway.record["kongai"] == {"ended": "bad_request" if known else "internal"}
    assert gateway.record["response"]["status"] == 200
    assert upstream.closed
    assert bool(caplog.records) != known
    assert SECRET not in caplog.text


def test_a_plugin_that_raises_in_log_takes_nobodys_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes: list[str] = []
    gateway = Gateway(hello, Raising("log", ValueError(SECRET)), noting("a", notes, -1))
    assert gateway.ask().status == 200
    assert notes[-1] == "a log"
    assert gateway.record["kongai"] == {"ended": "ok"}
    assert "ValueError at " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/plain", True),
        ("text/*", True),
        ("text/plain;q=0.5, application/json;q=0.9", False),
        ("text/plain;q=0.9, application/json;q=0.5", True),
        ("image/png", False),
        ("nonsense;;q=x,,", False),
    ],
)
def test_no_route(accept: str | None, plain: bool) -> None:
    gateway = Gateway()
    found = gateway.ask("/nope", headers={} if accept is None else {"Accept": accept})
    assert found.status == 404
    request_id = found.headers["x-kong-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    if plain:
        assert found.headers["content-type"] == "text/plain; charset=utf-8"
        assert found.body.decode() == f"{NO_ROUTE}\nrequest_id: {request_id}\n"
    else:
        assert found.headers["content-type"] == "application/json; charset=utf-8"
        assert found.body.decode() == (
            f'{{\n  "message":"{NO_ROUTE}",\n  "request_id":"{request_id}"\n}}'
        )
    assert gateway.upstream.requests == []
    record = gateway.record
    assert record["request"]["id"] == request_id
    assert record["kongai"] == {"ended": "no_route"}
    assert not {"route", "service", "tries"} & set(record)


def test_without_a_route_only_global_plugins_run() -> None:
    notes: list[str] = []
    route = Route(paths=("/s",), plugins=[noting("of-route", notes)])
    service = Service(
        "http://up.example", routes=[route], plugins=[noting("of-service", notes)]
    )
    gateway = Gateway(hello, noting("global", notes), services=[service])
    assert gateway.ask("/nope").status == 404
    assert notes == [f"global {phase}" for phase in PHASES if phase not in ("access",)]


def test_a_route_without_a_service() -> None:
    notes: list[str] = []
    gateway = Gateway(
        hello, noting("a", notes), services=(), routes=[Route(paths=("/s",))]
    )
    found = gateway.ask()
    assert found.status == 503
    assert "no Service found with those values" in found.body.decode()
    assert "a access" in notes
    assert gateway.record["tries"] == []
    assert gateway.record["kongai"] == {"ended": "no_service"}
    assert "service" not in gateway.record


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upstream_that_can_not_be_reached(retries: int, method: str) -> None:
    refused = UpstreamError(ended="connect", sent=False)
    gateway = Gateway(failing(refused), service={"retries": retries})
    found = gateway.ask(method=method, data=b"prompt")
    assert (found.status, found.message) == (502, BAD_GATEWAY)
    assert "x-kong-upstream-latency" in found.headers
    assert len(gateway.upstream.requests) == retries + 1
    record = gateway.record
    assert record["source"] == "kong"
    assert record["upstream_uri"] == "/base"
    assert record["kongai"] == {"ended": "connect"}
    assert [(t["port"], t["state"], t["code"]) for t in record["tries"]] == [
        (80, "failed", 502)
    ] * (retries + 1)


@pytest.mark.parametrize(
    ("method", "body", "tries"),
    [
        ("GET", None, 3),
        ("PUT", None, 3),
        ("DELETE", None, 3),
        ("POST", None, 1),
        ("PATCH", None, 1),
        ("PUT", b"streamed", 1),
    ],
)
def test_what_may_have_arrived_is_sent_again_only_if_that_does_no_harm(
    method: str, body: bytes | None, tries: int
) -> None:
    gateway = Gateway(failing(UpstreamTimeout()))
    assert gateway.ask(method=method, data=body).status == 504
    assert len(gateway.upstream.requests) == tries
    assert gateway.record["kongai"] == {"ended": "first_byte_timeout"}


class Reading(Plugin):
    name = "reading"

    def access(self, exchange: Exchange) -> Response | None:
        exchange.read_body()
        return None


def test_a_body_that_was_read_can_be_sent_again() -> None:
    gateway = Gateway(failing(UpstreamTimeout()), Reading())
    assert gateway.ask(method="PUT", data=b"all of it").status == 504
    assert [r.body for r in gateway.upstream.requests] == [b"all of it"] * 3


def test_a_later_try_may_succeed() -> None:
    refused = UpstreamError(ended="connect", sent=False)
    gateway = Gateway(in_turn(refused, UpstreamTimeout(sent=False), answer(b"x")))
    assert gateway.ask(method="POST").body == b"x"
    record = gateway.record
    assert record["upstream_status"] == "502, 504, 200"
    assert record["source"] == "upstream"
    assert [entry.get("code") for entry in record["tries"]] == [502, 504, None]
    assert record["kongai"] == {"ended": "ok"}


def test_a_status_is_not_tried_again() -> None:
    gateway = Gateway(lambda request: answer(b"down", 503))
    found = gateway.ask()
    assert (found.status, found.body) == (503, b"down")
    assert len(gateway.upstream.requests) == 1
    assert gateway.record["source"] == "upstream"
    assert gateway.record["upstream_status"] == "503"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UpstreamError(), 502, BAD_GATEWAY),
        (UpstreamTimeout(), 504, "The upstream server is timing out"),
        (
            UpstreamError("name resolution failed", status=503, ended="dns"),
            503,
            "name resolution failed",
        ),
    ],
)
def test_what_the_client_is_told_of_the_upstream(
    error: UpstreamError, status: int, message: str
) -> None:
    gateway = Gateway(failing(error), service={"retries": 0})
    found = gateway.ask()
    assert (found.status, found.message) == (status, message)
    assert gateway.record["kongai"] == {"ended": error.ended}


class Choosing(Plugin):
    """A balancer of its own: goes to two hosts, and may break in between."""

    name = "choosing"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.statuses: list[int] = []

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        return self._plan()

    def _plan(self) -> Generator[UpstreamRequest, Attempt, None]:
        for host in ("one", "two"):
            attempt = yield UpstreamRequest("GET", "http", host, 80, "/", [])
            self.statuses.append(attempt.response.status if attempt.response else 0)
            if self.error:
                raise self.error


def test_a_plugin_may_choose_the_upstream() -> None:
    first, second = answer(b"1", 503), answer(b"2", 200)
    plugin = Choosing()
    gateway = Gateway(in_turn(first, second), plugin)
    assert gateway.ask().body == b"2"
    assert [request.host for request in gateway.upstream.requests] == ["one", "two"]
    assert plugin.statuses == [503, 200]
    assert first.closed
    assert second.closed
    assert len(gateway.record["tries"]) == 2


def test_a_balancer_that_breaks_keeps_no_answer_open() -> None:
    upstream = answer(b"1")
    gateway = Gateway(lambda request: upstream, Choosing(ValueError(SECRET)))
    assert gateway.ask().status == 500
    assert upstream.closed
    assert gateway.record["kongai"] == {"ended": "internal"}


def test_two_plugins_can_not_both_choose() -> None:
    other = type("Other", (Choosing,), {"name": "other"})()
    with pytest.raises(ConfigError, match="choosing and other both choose"):
        Gateway(hello, Choosing(), other)


class Call:
    """One exchange step by step, as a WSGI server takes it."""

    def __init__(self, gateway: Gateway, method: str = "GET", **environ: Any) -> None:
        self.got = b""
        self.status = ""
        self.wrote: list[bytes] = []
        builder = EnvironBuilder("/s", method=method, environ_overrides=environ)
        self.body = gateway.proxy(builder.get_environ(), self._start)
        self._chunks = iter(self.body)

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self.status = status
        return self.wrote.append

    def next(self) -> bytes:
        chunk = next(self._chunks)
        self.got += chunk
        return chunk

    def read(self) -> bytes:
        for chunk in self._chunks:
            self.got += chunk
        return self.got

    def close(self) -> None:
        self.body.close()  # type: ignore[attr-defined]


def to_the_end(call: Call) -> None:
    call.read()


def not_at_all(call: Call) -> None:
    pass


def one_chunk(call: Call) -> None:
    call.next()


def to_the_cut(call: Call) -> None:
    with pytest.raises(AnswerCut):
        call.read()


def to_the_clients_end(call: Call) -> None:
    with pytest.raises(ClientGone):
        call.read()


CUT = UpstreamTruncated()
ENDINGS: dict[str, tuple[str, list[Any], Callable[[Call], None], str]] = {
    "read to its end": ("GET", [b"a", b"b"], to_the_end, "ok"),
    "empty": ("GET", [], to_the_end, "ok"),
    "closed before the first chunk": ("GET", [b"a", b"b"], not_at_all, "client_abort"),
    "closed midway": ("GET", [b"a", b"b"], one_chunk, "client_abort"),
    "closed before it was known to end": ("GET", [b"a"], one_chunk, "client_abort"),
    "cut": ("GET", [b"a", CUT], to_the_cut, "upstream_cut"),
    "cut at once": ("GET", [CUT], to_the_cut, "upstream_cut"),
    "a cut that nobody saw": ("GET", [b"a", CUT], one_chunk, "client_abort"),
    "a bug": ("GET", [b"a", KeyError(1)], to_the_cut, "internal"),
    "left": ("GET", [b"a", ClientGone()], to_the_clients_end, "client_abort"),
    "HEAD, not read": ("HEAD", [], not_at_all, "ok"),
    "HEAD, read": ("HEAD", [], to_the_end, "ok"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_an_exchange_ends_once_and_says_how(case: str) -> None:
    method, pieces, take, ended = ENDINGS[case]
    notes: list[str] = []
    upstream = answer(_raising(pieces))
    gateway = Gateway(lambda request: upstream, noting("a", notes))
    call = Call(gateway, method)
    take(call)
    assert gateway.records == []
    call.close()
    call.close()
    if ended == "client_abort":
        assert gateway.record["kongai"] == interrupted(ended, "response")
    else:
        assert gateway.record["kongai"] == {"ended": ended}
    assert gateway.record["response"]["status"] == 200
    assert notes.count("a log") == 1
    assert upstream.closed


def _raising(pieces: Iterable[Any]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


@pytest.mark.parametrize(
    ("error", "ended"), [(ClientGone(), "client_abort"), (SystemExit(), "killed")]
)
@pytest.mark.parametrize("phase", BEFORE_THE_BODY)
def test_an_exchange_that_nobody_waits_for_is_recorded(
    phase: str, error: BaseException, ended: str
) -> None:
    upstream = answer(b"x")
    gateway = Gateway(lambda request: upstream, Raising(phase, error))
    with pytest.raises(type(error)):
        Call(gateway)
    answering = phase in ("header_filter", "body_filter")
    how_far = "response" if answering else "request"
    assert gateway.record["kongai"] == interrupted(ended, how_far)
    assert bool(upstream.closed) == answering


def test_a_client_that_left_while_the_upstream_was_asked() -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        raise ClientGone

    gateway = Gateway(handler)
    with pytest.raises(ClientGone):
        Call(gateway)
    record = gateway.record
    assert record["kongai"] == interrupted("client_abort", "upstream")
    assert record["response"] == {"status": 499, "headers": {}, "size": 0}
    assert record["upstream_status"] == ""
    assert len(record["tries"]) == 1


@pytest.mark.parametrize("where", ["start_response", "write"])
@pytest.mark.parametrize("error", [ClientGone(), OSError(), AssertionError()])
def test_a_server_that_can_not_send_the_head(where: str, error: BaseException) -> None:
    upstream = answer([b"data: 1\n\n"], headers=EVENT_STREAM)
    gateway = Gateway(lambda request: upstream)

    def write(data: bytes) -> None:
        raise error

    def start_response(*args: Any) -> Callable[[bytes], None]:
        if where == "start_response":
            raise error
        return write

    environ = EnvironBuilder("/s").get_environ()
    with pytest.raises(type(error)):
        gateway.proxy(environ, start_response)
    assert gateway.record["kongai"]["ended"] != "ok"
    assert upstream.closed


def test_only_a_streams_head_is_sent_ahead() -> None:
    stream = Call(Gateway(lambda request: answer([b"x"], headers=EVENT_STREAM)))
    assert stream.wrote == [b""]
    stream.close()
    whole = Call(Gateway())
    assert whole.wrote == []
    whole.close()


class Speaking(Plugin):
    """Knows the client's format, as a plugin for LLMs does."""

    name = "speaking"

    def access(self, exchange: Exchange) -> Response | None:
        exchange.error_format = anthropic
        return None


def test_errors_are_said_in_the_clients_format() -> None:
    gateway = Gateway(failing(UpstreamError()), Speaking())
    found = gateway.ask()
    assert found.status == 502
    assert json.loads(found.body) == {
        "type": "error",
        "error": {"type": "api_error", "message": BAD_GATEWAY},
        "request_id": found.headers["x-kong-request-id"],
    }


class Strict(Plugin):
    name = "strict"
    priority = 1000

    def access(self, exchange: Exchange) -> Response | None:
        raise RequestRejected("Unauthorized", status=401)


class Formatted(Plugin):
    """Of a lower priority than the one that refuses."""

    name = "formatted"
    error_format = anthropic


def test_errors_of_other_plugins_are_said_in_the_clients_format_too() -> None:
    refused = Gateway(hello, Strict(), Formatted()).ask()
    assert json.loads(refused.body)["error"] == {
        "type": "authentication_error",
        "message": "Unauthorized",
    }
    assert json.loads(Gateway(hello, Strict()).ask().body)["message"] == "Unauthorized"


def test_no_route_is_no_matter_of_the_clients_format() -> None:
    """What is for every route says nothing of what is asked elsewhere."""
    gateway = Gateway(hello, Formatted())
    assert json.loads(gateway.ask("/elsewhere").body)["message"] == NO_ROUTE


PING = b"event: ping\ndata: {}\n\n"


@pytest.mark.parametrize("error", [UpstreamTruncated(), ValueError(SECRET)])
def test_a_stream_that_breaks_off_says_so_and_is_not_completed(
    error: Exception,
) -> None:
    upstream = answer(_raising([PING, error]), headers=EVENT_STREAM)
    gateway = Gateway(lambda request: upstream, Speaking())
    call = Call(gateway)
    assert call.next() == PING
    [(name, data)] = events([call.next()])
    assert (name, data["type"], data["error"]["type"]) == (
        "error",
        "error",
        "api_error",
    )
    assert SECRET not in str(data)
    for _ in range(2):
        with pytest.raises(AnswerCut):
            call.next()
    call.close()
    assert gateway.record["response"]["size"] > len(call.got)


@pytest.mark.parametrize(
    ("plugins", "header"),
    [
        ([], ("x-a", "1")),
        ([Speaking()], ("content-length", "500")),
        ([Speaking()], ("content-encoding", "gzip")),
    ],
    ids=["unknown format", "length announced", "compressed"],
)
def test_where_no_event_can_be_added_the_stream_is_only_cut(
    plugins: list[Plugin], header: tuple[str, str]
) -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        return answer([PING, UpstreamTruncated()], headers=[*EVENT_STREAM, header])

    gateway = Gateway(handler, *plugins)
    call = Call(gateway)
    with pytest.raises(AnswerCut):
        call.read()
    call.close()
    assert call.got == PING
    assert gateway.record["kongai"] == {"ended": "upstream_cut"}


def test_chunks_pass_as_they_come() -> None:
    pieces = chop(PING * 3, 1, 7, 30)
    gateway = Gateway(lambda request: answer(pieces, headers=EVENT_STREAM))
    call = Call(gateway)
    assert [call.next() for _ in pieces] == pieces
    call.close()


class BrokenSink:
    def emit(self, record: dict[str, Any]) -> None:
        record.clear()
        raise OSError(SECRET)

    def close(self) -> None:
        pass


def test_a_sink_that_raises_takes_nobodys_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = ListSink()
    gateway = Gateway(hello, sinks=[BrokenSink(), records, BrokenSink()])
    assert gateway.ask().status == 200
    assert [record["kongai"] for record in records] == [{"ended": "ok"}]
    assert caplog.text.count("OSError at ") == 2
    assert SECRET not in caplog.text


def test_each_sink_has_a_record_of_its_own() -> None:
    class Greedy(ListSink):
        def emit(self, record: dict[str, Any]) -> None:
            record["request"]["headers"].clear()
            record["team"]["members"].append("mallory")

    class Team(Plugin):
        name = "team"

        def log(self, exchange: Exchange) -> None:
            exchange.log.set("team", {"members": ["ada"]})

    records = ListSink()
    Gateway(hello, Team(), sinks=[Greedy(), records]).ask()
    [record] = records
    assert record["request"]["headers"]["host"] == "localhost"
    assert record["team"] == {"members": ["ada"]}


def application(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"application ", environ["PATH_INFO"].encode()]


def test_what_matches_no_route_goes_to_the_fallback() -> None:
    gateway = Gateway(fallback=application)
    assert gateway.ask("/other").body == b"application /other"
    assert gateway.records == []
    assert gateway.ask("/s").body == b'{"hello": "world"}'
    assert len(gateway.records) == 1


@pytest.mark.parametrize("target", ["/s/%zz", "/s/../..", "/%2e%2e/s"])
def test_a_broken_path_is_refused_and_recorded_without_a_route(target: str) -> None:
    gateway = Gateway()
    refused = gateway.ask(environ_overrides={"REQUEST_URI": target})
    assert refused.status == 400
    assert b'"message":"Bad request"' in refused.body
    record = gateway.record
    assert record["kongai"]["ended"] == "bad_request"
    assert (record["request"]["uri"], record["upstream_uri"]) == (target, "")
    assert "route" not in record


def test_a_broken_path_of_no_route_is_left_to_the_fallback() -> None:
    gateway = Gateway(fallback=application)
    for target, status in (("/s/%zz", 400), ("/other/%zz", 200)):
        assert gateway.ask(environ_overrides={"REQUEST_URI": target}).status == status


@pytest.mark.parametrize(
    ("trusted", "client", "status"),
    [((), "192.0.2.1", 426), (["192.0.2.0/24"], "198.51.100.1", 200)],
)
def test_a_trusted_peer_is_believed_about_its_client_and_https(
    trusted: Iterable[str], client: str, status: int
) -> None:
    rows = ListSink()
    routes = [Route(paths=["/a"], protocols=["https"])]
    proxy = Proxy(
        [Service("http://h", routes=routes)],
        sinks=[rows],
        transport=MockTransport(lambda request: answer(b"secure")),
        trusted_ips=trusted,
        real_ip_header="X-Client",
    )
    said = {"X-Client": "198.51.100.1", "X-Forwarded-Proto": "https"}
    peer = {"REMOTE_ADDR": "192.0.2.1"}
    with Client(proxy).get("/a", headers=said, environ_overrides=peer) as reply:
        assert reply.status_code == status
    assert [row["client_ip"] for row in rows] == [client]


def test_a_redirection_goes_where_a_trusted_peer_was_asked() -> None:
    route = Route(paths=["/a"], protocols=["https"], https_redirect_status_code=302)
    transport = MockTransport(lambda request: answer())
    proxy = Proxy(routes=[route], transport=transport, trusted_ips=["192.0.2.1"])
    for peer, host in (("192.0.2.1", "public.example"), ("192.0.2.2", "localhost")):
        with Client(proxy).get(
            "/a?b",
            headers={"X-Forwarded-Host": "public.example"},
            environ_overrides={"REMOTE_ADDR": peer},
        ) as reply:
            assert reply.headers["Location"] == f"https://{host}/a?b"


def test_a_route_for_plain_http_takes_https_too() -> None:
    """As Kong's traditional router does, which asks for no protocol but HTTPS."""
    route = Route(paths=["/a"], protocols=["http"])
    transport = MockTransport(lambda request: answer(b"served"))
    proxy = Proxy([Service("http://h", routes=[route])], transport=transport)
    with Client(proxy).get("/a", base_url="https://front.example") as reply:
        assert reply.get_data() == b"served"


@pytest.mark.parametrize(
    ("raw", "mount", "target"),
    [
        ("/ai/s/x%2Fy?q=%2f", "/ai", "/base/x%2Fy?q=%2f"),
        ("/ai/s", "/ai", "/base"),
        ("/ai/s?", "/ai", "/base?"),
        ("/a%20b/s/x%2Fy", "/a b", "/base/x%2Fy"),
        # The mount spelt in another way: the rest is encoded again.
        ("/a%69/s/x%2Fy?q=%2f", "/ai", "/base/x/y?q=%2f"),
    ],
)
def test_a_mount_takes_its_prefix_away(raw: str, mount: str, target: str) -> None:
    gateway = Gateway()
    mounted = DispatcherMiddleware(application, {mount: gateway.proxy})
    # As a server has it, the target raw and the path decoded.
    path, _, query = raw.partition("?")
    environ = EnvironBuilder(
        environ_overrides={
            "REQUEST_URI": raw,
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
        }
    ).get_environ()
    _, status, _ = run_wsgi_app(mounted, environ, buffered=True)
    assert status == "200 OK"
    [request] = gateway.upstream.requests
    assert request.target == target
    assert gateway.record["request"]["uri"].startswith(quote(mount) + "/s")


def test_a_mount_needs_no_raw_target() -> None:
    gateway = Gateway()
    environ = EnvironBuilder("/s/a b", query_string="q=1").get_environ()
    environ.pop("REQUEST_URI")
    environ.pop("RAW_URI")
    environ["SCRIPT_NAME"] = "/ai"
    run_wsgi_app(gateway.proxy, environ, buffered=True)
    assert gateway.upstream.requests[0].target == "/base/a%20b?q=1"
    assert gateway.record["request"]["uri"] == "/ai/s/a%20b?q=1"


def test_handle_gives_a_response_that_streams() -> None:
    upstream = answer([b"a", b"b"])
    gateway = Gateway(lambda request: upstream)
    request = EnvironBuilder("/s").get_request()
    response = gateway.proxy.handle(request)
    assert response.status_code == 200
    assert next(iter(response.response)) == b"a"
    assert not gateway.records
    response.close()
    assert gateway.record["kongai"] == interrupted("client_abort", "response")
    assert upstream.closed


def test_handle_knows_the_fallback_too() -> None:
    gateway = Gateway(fallback=application)
    response = gateway.proxy.handle(EnvironBuilder("/other").get_request())
    assert response.get_data() == b"application /other"


def test_of_plugins_with_one_name_the_most_specific_runs() -> None:
    notes: list[str] = []

    def labelled(name: str, label: str) -> Plugin:
        class Labelled(Plugin):
            def access(self, exchange: Exchange) -> Response | None:
                notes.append(label)
                return None

        Labelled.name = name
        return Labelled()

    route = Route(paths=("/s/r",), plugins=[labelled("one", "one of route")])
    service = Service(
        "http://up.example",
        routes=[route, Route(paths=("/s",))],
        plugins=[labelled("one", "one of service"), labelled("two", "two of service")],
    )
    gateway = Gateway(
        hello,
        *(labelled(name, f"{name} of all") for name in ("one", "two", "three")),
        services=[service],
        extra_plugins=[labelled("one", "one more")],
    )
    gateway.ask("/s/r")
    assert notes == ["one of route", "two of service", "three of all", "one more"]
    notes.clear()
    gateway.ask("/s")
    assert notes == ["one of service", "two of service", "three of all", "one more"]


def test_routes_need_different_names() -> None:
    routes = [Route(name="a", paths=("/1",)), Route(name="a", paths=("/2",))]
    with pytest.raises(ConfigError, match="two routes named 'a'"):
        Proxy(routes=routes, transport=MockTransport(hello))


def test_a_plugin_needs_a_name() -> None:
    class Nameless(Plugin):
        pass

    with pytest.raises(ConfigError, match="Nameless has no name"):
        Gateway(hello, Nameless())


def test_a_plugins_phases_take_what_phases_take() -> None:
    class Wrong(Plugin):
        name = "wrong"

        def access(self) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ConfigError, match=r"Wrong.access must take \(self, exchange\)"):
        Gateway(hello, Wrong())


CONFIG = """\
_format_version: "3.0"
services:
- name: up
  url: http://up.example/base
  routes:
  - name: s
    paths: [/s]
"""


def test_a_gateway_is_made_from_a_file_or_from_its_data(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_text(CONFIG)
    data = {
        "_format_version": "3.0",
        "services": [
            {
                "name": "up",
                "url": "http://up.example/base",
                "routes": [{"name": "s", "paths": ["/s"]}],
            }
        ],
    }
    for make, source in ((Proxy.from_file, path), (Proxy.from_config, data)):
        gateway = Gateway()
        gateway.proxy = make(
            source,  # type: ignore[arg-type]
            plugins=[noting("a", [])],
            sinks=[gateway.records],
            transport=gateway.upstream,
        )
        assert gateway.ask("/s/x").body == b'{"hello": "world"}a'
        assert gateway.upstream.requests[0].target == "/base/x"
        assert gateway.record["service"]["name"] == "up"


def test_a_file_without_routes_matches_nothing() -> None:
    gateway = Gateway()
    gateway.proxy = Proxy.from_config(
        {"_format_version": "3.0"}, transport=gateway.upstream
    )
    assert gateway.ask("/").status == 404


def test_a_gateway_without_services_takes_every_path() -> None:
    gateway = Gateway(hello, Choosing(), services=())
    assert gateway.ask("/any/where").status == 200


class Counting(Plugin):
    name = "counting"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def init_worker(self) -> None:
        self.calls.append("init_worker")

    def close(self) -> None:
        self.calls.append("close")


def test_plugins_start_and_stop_once_with_the_gateway() -> None:
    everywhere, of_route = Counting(), Counting()
    closed: list[str] = []

    class Sink(ListSink):
        def close(self) -> None:
            closed.append("sink")

    class Transport(MockTransport):
        def close(self) -> None:
            closed.append("transport")

    routes = [Route(paths=(f"/{n}",), plugins=[of_route]) for n in range(3)]
    proxy = Proxy(
        services=[Service("http://up.example", routes=routes)],
        extra_plugins=[everywhere],
        sinks=[Sink()],
        transport=Transport(hello),
    )
    assert set(proxy.plugins) == {everywhere, of_route}
    proxy.init_worker()
    proxy.close()
    assert everywhere.calls == of_route.calls == ["init_worker", "close"]
    assert closed == ["sink", "transport"]


def test_plugins_have_the_ids_that_kong_gives_them() -> None:
    plugin = Counting()
    Gateway(hello, plugin)
    root = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")
    kind = uuid.uuid5(root, "plugins")
    assert plugin.id == str(uuid.uuid5(kind, "plugins:*:counting:::"))


@pytest.mark.parametrize(
    "host", ["", "a b", "[::1", "%zz", "a:b:c", "\xe9", "a/b", ":80", "\x7f"]
)
def test_a_strange_host_is_answered_and_recorded(host: str) -> None:
    gateway = Gateway()
    call = Call(gateway, HTTP_HOST=host)
    call.read()
    call.close()
    assert call.status == "200 OK"
    assert gateway.record["kongai"] == {"ended": "ok"}


CREDENTIAL_HEADERS = (
    "Authorization",
    "Proxy-Authorization",
    "X-Api-Key",
    "Api-Key",
    "ApiKey",
    "X-Goog-Api-Key",
    "X-Amz-Security-Token",
    "X-Auth-Token",
    "Cookie",
    "X-Access-Token",
    "X-Client-Secret",
    "X-Password",
    "Ocp-Apim-Subscription-Key",
    "X-Amz-Signature",
)


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("path", ["/s", "/nope"])
@pytest.mark.parametrize(
    "outcome",
    [
        lambda: answer(
            b"ok", headers=[("content-type", "a/b"), ("Set-Cookie", SECRET)]
        ),
        lambda: chained(UpstreamError(), ValueError(SECRET)),
        lambda: ValueError(f"https://up.example/?key={SECRET}"),
        lambda: answer(_raising([b"x", ValueError(SECRET)])),
    ],
    ids=["answer", "upstream error", "bug", "bug in the body"],
)
def test_no_secret_is_written_down(
    path: str, outcome: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)

    def handler(request: UpstreamRequest) -> UpstreamResponse:
        found = outcome()
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, UpstreamResponse)
        return found

    records = ListSink()
    gateway = Gateway(handler, sinks=[records])
    headers = [(name, SECRET) for name in CREDENTIAL_HEADERS]
    headers += [("X-Forwarded-Authorization", f"Basic {SECRET}")]
    headers += [("X-Custom", f"Bearer {SECRET}"), ("X-Other", f"Basic {SECRET}")]
    environ = EnvironBuilder(
        f"{path}?key={SECRET}&api_key={SECRET}&access_token={SECRET}&x=1",
        headers=headers,
    ).get_environ()
    told: list[Any] = []

    def start_response(*args: Any) -> Callable[[bytes], object]:
        told.append([h for h in args[1] if h[0] != "Set-Cookie"])
        return told.append

    body = gateway.proxy(environ, start_response)
    try:
        told += list(body)
    except AnswerCut:
        told.append("cut")
    finally:
        body.close()  # type: ignore[attr-defined]
    assert len(records) == 1
    written = json.dumps(records) + repr(told) + caplog.text
    assert SECRET not in written
    assert records[0]["request"]["headers"]["x-api-key"] == "REDACTED"
    assert records[0]["request"]["querystring"]["key"] == "REDACTED"
    if gateway.upstream.requests:
        sent = dict(gateway.upstream.requests[0].headers)
        assert sent["X-Api-Key"] == SECRET
        assert SECRET in gateway.upstream.requests[0].target


@pytest.mark.parametrize(
    ("code", "header"),
    [
        (426, ("Upgrade", "TLS/1.2, HTTP/1.1")),
        (301, ("Location", "https://front.example/a?b=1")),
        (308, ("Location", "https://front.example/a?b=1")),
    ],
)
def test_a_route_with_https_alone_refuses_plain_http(
    code: Literal[426, 301, 308], header: tuple[str, str]
) -> None:
    """As Kong does: before the route's plugins, so that only global ones run."""
    route = Route(
        paths=["/a"], protocols=["https"], https_redirect_status_code=code, plugins=[]
    )
    transport = MockTransport(lambda request: answer(b"secure"))
    rows = ListSink()
    proxy = Proxy(
        [Service("http://h", routes=[route])], sinks=[rows], transport=transport
    )
    with Client(proxy).get("/a?b=1", base_url="http://front.example:81") as refused:
        assert refused.status_code == code
        assert refused.headers[header[0]] == header[1]
        assert refused.json is not None
        assert refused.json["message"] == "Please use HTTPS protocol"
    with Client(proxy).get("/a?b=1", base_url="https://front.example:81") as served:
        assert served.get_data() == b"secure"
    assert [row["kongai"]["ended"] for row in rows] == ["https_required", "ok"]
    assert "route" not in rows[0]
    assert len(transport.requests) == 1


def test_what_is_no_plugin_is_refused() -> None:
    not_a_plugin: Any = "ai-proxy"
    with pytest.raises(ConfigError, match="expected a Plugin, not str"):
        Proxy(plugins=[not_a_plugin])


class Downloading(Plugin):
    name = "downloading"

    def __init__(self) -> None:
        self.closed = 0

    def access(self, exchange: Exchange) -> Response:
        response = Response(iter([b"a", b"b"]))
        response.call_on_close(self.close_file)
        return response

    def close_file(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("read", [True, False])
def test_a_plugins_answer_is_closed(read: bool) -> None:
    plugin = Downloading()
    body, _, _ = run_wsgi_app(Proxy(plugins=[plugin]), EnvironBuilder().get_environ())
    if read:
        assert b"".join(body) == b"ab"
    close = getattr(body, "close")  # noqa: B009
    close()
    assert plugin.closed == 1


def test_head_has_no_body_to_iterate() -> None:
    """Servers that send what they are given would spoil the answer after it."""
    transport = MockTransport(lambda r: answer(b"page", headers=[("x-a", "1")]))
    environ = EnvironBuilder(method="HEAD").get_environ()
    for proxy in (
        Proxy([Service("http://h", routes=[Route(paths=["/"])])], transport=transport),
        Proxy(transport=transport),
    ):
        body, _, _ = run_wsgi_app(proxy, environ)
        assert list(body) == []


class Aborting(Plugin):
    name = "aborting"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def access(self, exchange: Exchange) -> None:
        raise self.error


def test_an_abort_may_bring_a_response_or_headers() -> None:
    with pytest.raises(HTTPException) as caught:
        abort(Response("teapot", 418))
    with Client(Proxy(plugins=[Aborting(caught.value)])).get("/") as found:
        assert (found.status_code, found.get_data()) == (418, b"teapot")
    challenge = Unauthorized(www_authenticate=WWWAuthenticate("basic", {"realm": "r"}))
    with Client(Proxy(plugins=[Aborting(challenge)])).get("/") as found:
        assert found.status_code == 401
        assert found.headers["WWW-Authenticate"] == "Basic realm=r"


class AbortingLate(Aborting):
    def access(self, exchange: Exchange) -> None:
        """Nothing: the upstream is asked first."""

    def header_filter(self, exchange: Exchange) -> None:
        raise self.error


def test_an_abort_after_the_upstreams_answer_is_recorded_once() -> None:
    with pytest.raises(HTTPException) as caught:
        abort(Response("teapot", 418))
    upstream = answer(b"secret")
    rows = ListSink()
    proxy = Proxy(
        [Service("http://h", routes=[Route(paths=["/"])])],
        plugins=[AbortingLate(caught.value)],
        sinks=[rows],
        transport=MockTransport(lambda request: upstream),
    )
    with Client(proxy).get("/") as found:
        assert b"secret" not in found.get_data()
        assert found.status_code >= 400
    (row,) = rows
    assert row["source"] == "kong"
    assert upstream.closed == 1


class Keyed(Plugin):
    name = "keyed"

    def access(self, exchange: Exchange) -> None:
        exchange.headers["X-Key"] = "ours"


def test_a_client_can_not_take_back_a_header_of_the_gateways() -> None:
    transport = MockTransport(lambda request: answer(b""))
    service = Service("http://h", routes=[Route(paths=["/"])])
    proxy = Proxy([service], plugins=[Keyed()], transport=transport)
    headers = {"Connection": "close, x-key, x-own, host", "X-Own": "1", "X-Key": "mine"}
    Client(proxy).get("/", headers=headers).close()
    sent = {name.lower(): value for name, value in transport.requests[0].headers}
    assert sent["x-key"] == "ours"
    assert sent["host"] == "h"
    assert "x-own" not in sent


def test_an_answer_that_is_dropped_unclosed_is_still_recorded() -> None:
    upstream = answer([b"a", b"b"])
    rows = ListSink()
    service = Service("http://h", routes=[Route(paths=["/"])])
    transport = MockTransport(lambda request: upstream)
    proxy = Proxy([service], sinks=[rows], transport=transport)
    response = proxy.handle(Request(EnvironBuilder().get_environ()))
    del response
    gc.collect()
    assert [row["kongai"]["ended"] for row in rows] == ["client_abort"]
    assert upstream.closed == 1


class Uploaded(Plugin):
    name = "uploaded"

    def access(self, exchange: Exchange) -> None:
        exchange.read_body()


@pytest.mark.parametrize("threaded", [True, False])
def test_a_client_that_leaves_while_it_uploads_is_an_ordinary_error_elsewhere(
    threaded: bool,
) -> None:
    """Another server's worker must not be brought down by a client."""
    rows = ListSink()
    proxy = Proxy(plugins=[Uploaded()], sinks=[rows])
    environ = EnvironBuilder(method="POST", data=b"12345").get_environ()
    environ["CONTENT_LENGTH"] = "100"
    environ["wsgi.multithread"] = threaded
    body, status, _ = run_wsgi_app(proxy, environ)
    assert status.startswith("400 ")
    getattr(body, "close")()  # noqa: B009
    assert [row["kongai"]["ended"] for row in rows] == ["client_abort"]


def refused(gateway: Gateway, error: GatewayError, path: str = "/s") -> Answer:
    """What becomes of a request that the server around the gateway does not take."""

    def application(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        return gateway.proxy.refuse(environ, start_response, error)

    with Client(application).get(path) as reply:
        return Answer.of(reply)


def test_a_server_can_refuse_a_request_and_have_it_recorded() -> None:
    gateway = Gateway()
    found = refused(gateway, Overloaded())
    assert (found.status, found.headers["retry-after"]) == (503, "1")
    assert gateway.record["kongai"] == {"ended": "overload"}
    assert gateway.record["route"]["name"] == "s"
    assert gateway.record["request"]["id"] == found.headers["x-kong-request-id"]
    assert gateway.upstream.requests == []


def test_what_is_no_http_has_no_route() -> None:
    gateway = Gateway()
    found = refused(gateway, Refused("Bad request", status=400))
    assert found.status == 400
    assert gateway.record["kongai"] == {"ended": "bad_request"}
    assert "route" not in gateway.record
    assert gateway.upstream.requests == []


def test_bodies_in_memory_have_a_limit_together() -> None:
    class Reading(Plugin):
        name = "reading"

        def access(self, exchange: Exchange) -> None:
            exchange.read_body()

    gateway = Gateway(hello, Reading(), max_body_memory=100)
    assert gateway.ask("/s", "POST", data=b"x" * 100).status == 200
    # It is given back with the exchange.
    assert gateway.ask("/s", "POST", data=b"x" * 100).status == 200
    # There is never room for this one, so it need not come again.
    found = gateway.ask("/s", "POST", data=b"x" * 101)
    assert (found.status, found.headers.get("retry-after")) == (413, None)
    assert [r["kongai"]["ended"] for r in gateway.records] == ["ok", "ok", "too_large"]
    # What is passed on as it comes takes no memory.
    assert Gateway(max_body_memory=1).ask("/s", "POST", data=b"xxx").status == 200


@pytest.mark.parametrize("value", ["5 \u20ac", "\u4e16"])
def test_a_head_that_cannot_be_sent_is_a_mistake(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Priced(Plugin):
        name = "priced"

        def header_filter(self, exchange: Exchange) -> None:
            assert exchange.response is not None
            exchange.response.headers["X-Price"] = value

    gateway = Gateway(hello, Priced())
    found = gateway.ask()
    assert found.status == 500
    assert "x-price" not in found.headers
    assert gateway.record["kongai"] == {"ended": "internal"}
    assert gateway.record["request"]["id"] == found.headers["x-kong-request-id"]
    assert "X-Price" in caplog.text
