from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, abort, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from kongai import AIProxy, Proxy, Route
from kongai.errors import UpstreamError
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.testing import ListSink, MockTransport, answer, events, serve_live

PATH = "/ai/v1/messages?beta=true"
QUESTION = (
    b'{"model": "claude-haiku-4-5", "stream":true,  "max_tokens": 9,'
    b' "messages":[{"role":"user","content":"Gr\xc3\xbcezi"}]}'
)
JSON = {"Content-Type": "application/json", "X-Api-Key": "sk-client-key-1"}
EVENTS = [
    f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
    for data in (
        {
            "type": "message_start",
            "message": {"model": "claude-haiku-4-5", "usage": {"input_tokens": 119}},
        },
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 29}},
        {"type": "message_stop"},
    )
]


def stream(pieces: Iterable[bytes] = EVENTS) -> answer:
    return answer(pieces, headers=[("content-type", "text/event-stream")])


Way = Callable[[Flask, dict[str, Any]], None]


class Gateway:
    """A gateway in a Flask application, and what it recorded and sent."""

    def __init__(
        self,
        way: Way,
        handler: Callable[[UpstreamRequest], UpstreamResponse] = lambda r: stream(),
    ) -> None:
        self.records = ListSink()
        self.upstream = MockTransport(handler)
        self.app = Flask(__name__)
        self.app.testing = True
        self.app.add_url_rule("/", view_func=lambda: "home")
        options: dict[str, Any] = {
            "plugins": [AIProxy(provider="anthropic", llm_format="anthropic")],
            "sinks": [self.records],
            "transport": self.upstream,
        }
        way(self.app, options)

    @property
    def record(self) -> dict[str, Any]:
        """The one record, which a server's thread may be about to write."""
        wait_for(self.records)
        [record] = self.records
        return record

    def ask(self, path: str = PATH, **options: Any) -> Any:
        options = {"data": QUESTION, "headers": JSON, "buffered": True, **options}
        return self.app.test_client().post(path, **options)


def view(app: Flask, options: dict[str, Any]) -> None:
    proxy = Proxy(routes=[Route(paths=["/ai"])], **options)

    @app.route("/ai", methods=["GET", "POST"])
    @app.route("/ai/<path:_>", methods=["GET", "POST"])
    def ai(_: str = "") -> Response:
        return proxy.handle(request)


def mount(app: Flask, options: dict[str, Any]) -> None:
    mounted = DispatcherMiddleware(app.wsgi_app, {"/ai": Proxy(**options)})
    app.wsgi_app = mounted  # type: ignore[method-assign]


def wrap(app: Flask, options: dict[str, Any]) -> None:
    proxy = Proxy(routes=[Route(paths=["/ai"])], fallback=app.wsgi_app, **options)
    app.wsgi_app = proxy  # type: ignore[method-assign]


every_way = pytest.mark.parametrize("way", [view, mount, wrap])


@every_way
def test_a_question_goes_up_untouched_and_is_recorded_once(way: Way) -> None:
    gateway = Gateway(way)
    response = gateway.ask()
    assert response.status_code == 200
    assert response.data == b"".join(EVENTS)
    assert response.headers["X-Kong-LLM-Model"] == "anthropic/claude-haiku-4-5"
    [sent] = gateway.upstream.requests
    assert sent.body == QUESTION
    assert sent.target == "/v1/messages?beta=true"
    assert dict(sent.headers)["X-Api-Key"] == "sk-client-key-1"
    record = gateway.record
    assert record["kongai"]["ended"] == "ok"
    assert record["request"]["uri"] == PATH
    assert record["request"]["id"] == response.headers["X-Kong-Request-Id"]
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == 119
    assert record["ai"]["proxy"]["usage"]["completion_tokens"] == 29
    assert "sk-client-key-1" not in json.dumps(record)


@every_way
def test_the_applications_own_pages_stay(way: Way) -> None:
    gateway = Gateway(way)
    client = gateway.app.test_client()
    assert client.get("/").data == b"home"
    assert client.get("/nowhere").status_code == 404
    assert gateway.records == []


@every_way
def test_each_event_passes_as_it_comes(way: Way) -> None:
    was_read = threading.Semaphore(0)

    def pieces() -> Iterator[bytes]:
        for event in EVENTS:
            yield event
            assert was_read.acquire(timeout=5)

    gateway = Gateway(way, lambda request: stream(pieces()))
    with serve_live(gateway.app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("POST", PATH, QUESTION, JSON)
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        seen = []
        while chunk := response.read1():
            seen.append(chunk)
            was_read.release()
        connection.close()
    assert seen == EVENTS
    assert gateway.record["kongai"]["ended"] == "ok"


@pytest.mark.parametrize("way", [mount, wrap])
def test_the_head_of_a_stream_does_not_wait_for_its_first_event(way: Way) -> None:
    head_seen = threading.Event()

    def pieces() -> Iterator[bytes]:
        assert head_seen.wait(5)
        yield from EVENTS

    gateway = Gateway(way, lambda request: stream(pieces()))
    with serve_live(gateway.app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("POST", PATH, QUESTION, JSON)
        assert connection.getresponse().status == 200
        head_seen.set()
        connection.close()
        wait_for(gateway.records)


def wait_for(records: ListSink) -> None:
    deadline = time.monotonic() + 5
    while not records:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@every_way
def test_a_client_that_leaves_is_recorded_once(way: Way) -> None:
    left = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield EVENTS[0]
        yield EVENTS[1]
        assert left.wait(5)
        while True:
            yield b": ping\n\n" * 10_000

    upstream = stream(pieces())
    gateway = Gateway(way, lambda request: upstream)
    with serve_live(gateway.app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("POST", PATH, QUESTION, JSON)
        response = connection.getresponse()
        assert response.read1() == EVENTS[0]
        response.close()
        connection.close()
        left.set()
        wait_for(gateway.records)
    assert upstream.closed
    assert gateway.record["kongai"]["ended"] == "client_abort"
    assert gateway.record["ai"]["proxy"]["usage"]["prompt_tokens"] == 119


@every_way
def test_an_answer_that_nobody_reads_is_recorded_once(way: Way) -> None:
    gateway = Gateway(way)
    response = gateway.ask(buffered=False)
    assert gateway.records == []
    response.close()
    assert gateway.record["kongai"]["ended"] == "client_abort"


@every_way
def test_the_applications_rules_hold_for_its_views(way: Way) -> None:
    """What is beside the application, a mount or a wrap, is not its business."""
    gateway = Gateway(way)

    @gateway.app.after_request
    def mark(response: Any) -> Any:
        response.headers["X-Mark"] = "1"
        return response

    @gateway.app.before_request
    def guard() -> None:
        if request.headers.get("X-Api-Key") == "wrong":
            abort(401)

    assert ("X-Mark" in gateway.ask().headers) == (way is view)
    refused = gateway.ask(headers={**JSON, "X-Api-Key": "wrong"})
    assert refused.status_code == (401 if way is view else 200)
    assert len(gateway.records) == len(gateway.upstream.requests)
    assert len(gateway.records) == (1 if way is view else 2)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "read",
    [
        lambda: request.get_json(),
        lambda: request.json,
        lambda: json.loads(request.get_data()),
        lambda: json.loads(request.data),
    ],
    ids=["get_json", "json", "get_data", "data"],
)
def test_an_application_may_have_read_the_body(
    read: Callable[[], Any], chunked: bool
) -> None:
    gateway = Gateway(view)
    models: list[str] = []

    @gateway.app.before_request
    def look() -> None:
        models.append(read()["model"])

    with serve_live(gateway.app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        body = iter([QUESTION[:40], QUESTION[40:]]) if chunked else QUESTION
        connection.request("POST", PATH, body, JSON, encode_chunked=chunked)
        assert connection.getresponse().read() == b"".join(EVENTS)
        connection.close()
    assert models == ["claude-haiku-4-5"]
    assert gateway.upstream.requests[0].body == QUESTION
    assert gateway.record["request"]["size"] > len(QUESTION)


@every_way
def test_an_error_is_an_answer_of_the_gateway(way: Way) -> None:
    def handler(request: UpstreamRequest) -> UpstreamResponse:
        raise UpstreamError

    gateway = Gateway(way, handler)
    response = gateway.ask()
    assert response.status_code == 502
    assert response.get_json()["error"]["type"] == "api_error"
    assert gateway.record["kongai"]["ended"] == "upstream_protocol"


@every_way
def test_a_stream_cut_short_says_so(way: Way) -> None:
    gateway = Gateway(way, lambda request: stream(EVENTS[:2]))
    with serve_live(gateway.app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("POST", PATH, QUESTION, JSON)
        response = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        connection.close()
        wait_for(gateway.records)
    names = [name for name, _ in events([caught.value.partial])]
    assert names == ["message_start", "content_block_delta", "error"]
    assert gateway.record["kongai"]["ended"] == "no_terminal_event"


@every_way
def test_a_look_at_the_gateway_is_answered(way: Way) -> None:
    gateway = Gateway(way)
    response = gateway.app.test_client().head("/ai", buffered=True)
    assert response.status_code == 200
    assert gateway.upstream.requests == []
    assert gateway.record["kongai"]["ended"] == "ok"


def test_a_view_may_be_no_route_of_the_gateway() -> None:
    records = ListSink()
    proxy = Proxy(
        routes=[Route(paths=["/other"])],
        sinks=[records],
        transport=MockTransport(lambda request: answer()),
    )
    app = Flask(__name__)
    app.add_url_rule("/x", view_func=lambda: proxy.handle(request))
    response = app.test_client().get("/x", buffered=True)
    assert response.status_code == 404
    assert response.get_json()["message"] == "no Route matched with those values"
    assert len(records) == 1


# Kong's other plugins


GUARDED = {
    "_format_version": "3.0",
    "services": [
        {
            "name": "s",
            "url": "http://up.test/base",
            "routes": [{"name": "a", "paths": ["/a"]}, {"paths": ["/view/a"]}],
            "plugins": [
                {"name": "key-auth"},
                {"name": "correlation-id", "config": {"echo_downstream": True}},
            ],
        }
    ],
    "consumers": [{"username": "ada", "keyauth_credentials": [{"key": "adas-key"}]}],
}


@pytest.mark.parametrize("base", ["/ai", "/view"], ids=["mounted", "in-a-view"])
def test_a_guarded_gateway_in_an_application_lets_in_whom_it_knows(base: str) -> None:
    records = ListSink()
    upstream = MockTransport(lambda _: answer(b"{}"))
    proxy = Proxy.from_config(GUARDED, sinks=[records], transport=upstream)
    app = Flask(__name__)
    app.add_url_rule("/view/<path:_>", view_func=lambda _: proxy.handle(request))
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/ai": proxy})
    client = app.test_client()
    for accept, kind in (
        ("text/html", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("application/xml", "application/xml; charset=utf-8"),
        ("*/*", "application/json; charset=utf-8"),
    ):
        with client.get(f"{base}/a/x", headers={"Accept": accept}) as refused:
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Key"
            assert refused.headers["Content-Type"] == kind
            assert "No API key found in request" in refused.get_data(as_text=True)
    forged = {"X-Forwarded-For": "9.9.9.9", "X-Consumer-Username": "root"}
    with client.get(f"{base}/a/x?apikey=adas-key&y=1", headers=forged) as reply:
        assert reply.status_code == 200
        assert reply.headers["Kong-Request-ID"]
        assert reply.get_data() == b"{}"
    (sent,) = upstream.requests
    assert sent.target == "/base/x?y=1"
    told = {name.lower(): value for name, value in sent.headers}
    assert told["x-consumer-username"] == "ada"
    assert told["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert told["x-forwarded-path"] == f"{base}/a/x"
    assert told["x-forwarded-prefix"] == f"{base}/a"
    assert records[-1]["consumer"]["username"] == "ada"
    assert records[-1]["request"]["uri"] == f"{base}/a/x?apikey=REDACTED&y=1"
    assert "adas-key" not in json.dumps([*records])
