"""`ai-proxy` in a gateway whose upstream is a function.

A test named after a fact holds one line of Kong's behaviour as Kong documents it, with
the differences that kongai has on purpose.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from werkzeug.test import Client, TestResponse, create_environ

from kongai import AIProxy, ConfigError, Exchange, Plugin, Proxy, Route, Service
from kongai.errors import AnswerCut, UpstreamError, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.sse import Decoder
from kongai.testing import ListSink, MockTransport, answer, chop, events

CORPUS = Path(__file__).parents[1] / "corpus" / "anthropic"
STREAM = (CORPUS / "text" / "response.sse").read_bytes()
UNICODE_STREAM = (CORPUS / "unicode" / "response.sse").read_bytes()
EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8")]
MODEL = "claude-sonnet-4-5"
KEY = "sk-ant-test-0123456789"

Headers = Sequence[tuple[str, str]]


def question(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "What do two and two make?"}]
    asked = {"model": MODEL, "max_tokens": 64, "messages": messages, **fields}
    return json.dumps({k: v for k, v in asked.items() if v is not ...}).encode()


JSON = [("content-type", "application/json")]


def message(model: str = MODEL, /, **usage: Any) -> bytes:
    usage = usage or {"input_tokens": 119, "output_tokens": 29}
    content = [{"type": "text", "text": "Four."}]
    said = {"id": "msg_1", "type": "message", "model": model, "content": content}
    return json.dumps({**said, "usage": usage}, indent=1).encode()


def stream(*pieces: bytes | UpstreamError, headers: Headers = EVENT_STREAM) -> answer:
    return answer(pieces or (STREAM,), headers=headers)


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    cut: bool
    """Whether the connection would be closed before the body had come to its end."""


class Gateway:
    """The gateway of Kong's how-to.

    Args:
        upstream: what answers: a function, or its answer.
        options: keys of `model.options`.
        model: more keys of `model`.
        plugins: more plugins.
        ai_proxy: more settings of the plugin, by key.
    """

    def __init__(
        self,
        upstream: Callable[[UpstreamRequest], UpstreamResponse] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        plugins: Sequence[Plugin] = (),
        **ai_proxy: Any,
    ) -> None:
        self.upstream = MockTransport(upstream or (lambda _: answer(message())))
        self.records = ListSink()
        config = howto(options or {}, model or {}, ai_proxy)
        self.proxy = Proxy.from_config(
            config,
            plugins=plugins,
            sinks=[self.records],
            transport=self.upstream,
        )

    def open(
        self,
        target: str = "/anything/v1/messages?beta=true",
        body: bytes | None = None,
        headers: Headers = (),
        *,
        method: str = "POST",
        content_type: str | None = "application/json",
        **environ: Any,
    ) -> TestResponse:
        return Client(self.proxy).open(
            target,
            method=method,
            data=question() if body is None and method == "POST" else body,
            headers=list(headers),
            content_type=content_type if method == "POST" else None,
            environ_overrides={"REMOTE_ADDR": "127.0.0.1", **environ},
        )

    def ask(self, *args: Any, **options: Any) -> Answer:
        with self.open(*args, **options) as response:
            pieces: list[bytes] = []
            cut = False
            try:
                pieces.extend(response.iter_encoded())
            except AnswerCut:
                cut = True
            lower = {name.lower(): value for name, value in response.headers}
            return Answer(response.status_code, lower, b"".join(pieces), cut)

    def begin(self, body: bytes) -> Any:
        """Ask, and leave it to the test to read the answer's body or close it."""
        environ = create_environ(
            "/anything/v1/messages",
            method="POST",
            data=body,
            content_type="application/json",
        )
        return self.proxy(environ, lambda *head: lambda data: None)

    def stream(self, *args: Any, **fields: Any) -> Answer:
        """Ask for a streamed answer."""
        return self.ask(*args, body=question(stream=True), **fields)

    @property
    def seen(self) -> UpstreamRequest:
        """The one request that the upstream got."""
        (request,) = self.upstream.requests
        return request

    @property
    def record(self) -> dict[str, Any]:
        """The one record that was written."""
        (record,) = self.records
        return record

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.record["ai"]["proxy"]["meta"]
        return meta

    @property
    def usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = self.record["ai"]["proxy"]["usage"]
        return usage


PLUGIN_ID = "0c5b1a55-9d5b-4b63-8d5c-3c8f3f6e1d11"


def howto(
    options: Mapping[str, Any], model: Mapping[str, Any], ai_proxy: Mapping[str, Any]
) -> dict[str, Any]:
    settings = {
        "route_type": "llm/v1/chat",
        "llm_format": "anthropic",
        "max_request_body_size": 524288,
        "logging": {"log_statistics": True, "log_payloads": False},
        "model": {
            "provider": "anthropic",
            "options": {"anthropic_version": "2023-06-01", **options},
            **model,
        },
        **ai_proxy,
    }
    return {
        "_format_version": "3.0",
        "services": [
            {
                "name": "example-service",
                "url": "http://httpbin.konghq.com/anything",
                "routes": [{"name": "example-route", "paths": ["/anything"]}],
                "plugins": [{"name": "ai-proxy", "id": PLUGIN_ID, "config": settings}],
            }
        ],
    }


def values(request: UpstreamRequest, name: str) -> list[str]:
    """The values of a header as the upstream sees it."""
    return [value for n, value in request.headers if n.lower() == name]


def said_error(body: bytes) -> tuple[str, str]:
    """An error in Anthropic's envelope: its type and its message."""
    envelope = json.loads(body)
    assert envelope["type"] == "error"
    assert set(envelope) == {"type", "error", "request_id"}
    assert set(envelope["error"]) == {"type", "message"}
    return envelope["error"]["type"], envelope["error"]["message"]


def refused(gateway: Gateway, got: Answer, status: int = 400) -> tuple[str, str]:
    """Check that the gateway said no by itself; the error's type and message."""
    assert got.status == status
    assert not got.cut
    assert got.headers["content-type"] == "application/json; charset=utf-8"
    assert got.headers["content-length"] == str(len(got.body))
    assert "x-kong-llm-model" not in got.headers
    assert gateway.upstream.requests == []
    record = gateway.record
    assert record["source"] == "kong"
    assert record["tries"] == []
    assert record["upstream_status"] == ""
    # Where the service is, for the plugin had not yet said another place.
    assert record["upstream_uri"].startswith("/anything")
    assert record["response"]["status"] == status
    assert json.loads(got.body)["request_id"] == got.headers["x-kong-request-id"]
    if "ai" in record:
        assert gateway.usage["total_tokens"] == gateway.usage["cost"] == 0
    return said_error(got.body)


# The facts, by their numbers.


def test_fact_01_a_whole_answer_comes_back_byte_for_byte() -> None:
    gateway = Gateway()
    got = gateway.ask(headers=[("x-api-key", KEY)])
    assert got.status == 200
    assert got.body == message()
    assert got.headers["x-kong-llm-model"] == f"anthropic/{MODEL}"
    assert got.headers["content-type"] == "application/json"
    assert not got.cut
    assert gateway.record["kongai"]["ended"] == "ok"


def test_fact_02_the_request_goes_up_as_it_came() -> None:
    body = b'{ "z":1.0, "messages" :[{"role":"user","content":"\\u00e9\xc3\xa9"}],\n'
    body += b'"metadata":{"b":1,"a":2}, "model":"%b","model_new":null}' % MODEL.encode()
    betas = "claude-code-20250219,interleaved-thinking-2025-05-14"
    gateway = Gateway(options={"upstream_url": "http://llm.test:8080/up/v1/messages"})
    gateway.ask(
        body=body,
        headers=[
            ("X-Api-Key", KEY),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", betas),
            ("anthropic-new-header", "x"),
            ("x-stainless-lang", "js"),
        ],
    )
    sent = gateway.seen
    assert (sent.scheme, sent.host, sent.port) == ("http", "llm.test", 8080)
    assert (sent.method, sent.target) == ("POST", "/up/v1/messages?beta=true")
    assert sent.body == body
    assert values(sent, "content-length") == [str(len(body))]
    assert values(sent, "host") == ["llm.test"]
    assert values(sent, "x-api-key") == [KEY]
    assert values(sent, "anthropic-version") == ["2023-06-01"]
    assert values(sent, "anthropic-beta") == [betas]
    assert values(sent, "anthropic-new-header") == ["x"]
    assert values(sent, "x-stainless-lang") == ["js"]
    assert KEY not in json.dumps(gateway.record)


def test_fact_03_the_version_is_the_configured_one() -> None:
    gateway = Gateway()
    gateway.ask(headers=[("Anthropic-Version", "2099-01-01")])
    assert values(gateway.seen, "anthropic-version") == ["2023-06-01"]


def test_fact_04_the_record_of_a_whole_answer() -> None:
    gateway = Gateway()
    gateway.ask()
    usage = gateway.usage
    assert usage["prompt_tokens"] == 119
    assert usage["completion_tokens"] == 29
    assert usage["total_tokens"] == 148
    assert usage["prompt_tokens_details"] == {}
    assert usage["completion_tokens_details"] == {}
    # Kong has no prices of its own and says 0; Sonnet 4.5 costs 3 and 15 a million.
    assert usage["cost"] == pytest.approx((119 * 3 + 29 * 15) / 1e6)
    assert gateway.record["kongai"]["price"] == "table"
    assert gateway.meta == {
        "plugin_id": PLUGIN_ID,
        "provider_name": "anthropic",
        "request_model": MODEL,
        "response_model": MODEL,
        "request_mode": "oneshot",
        "llm_latency": gateway.meta["llm_latency"],
    }


@pytest.mark.parametrize("streamed", [False, True])
def test_fact_05_latencies(streamed: bool) -> None:
    def slowly(pieces: Iterable[bytes]) -> Iterable[bytes]:
        for piece in pieces:
            time.sleep(0.015)
            yield piece

    def upstream(_: UpstreamRequest) -> UpstreamResponse:
        if streamed:
            return answer(slowly(chop(STREAM, 700, 1000)), headers=EVENT_STREAM)
        return answer(slowly([message()]))

    gateway = Gateway(upstream)
    gateway.ask(body=question(stream=streamed))
    latency, first = gateway.meta["llm_latency"], gateway.usage["time_to_first_token"]
    assert isinstance(latency, int)
    assert isinstance(first, int)
    assert latency >= (45 if streamed else 15)
    assert 15 <= first <= latency
    assert first < latency if streamed else first == latency
    per_token = latency / gateway.usage["completion_tokens"]
    assert gateway.usage["time_per_token"] == pytest.approx(per_token, abs=0.001)
    assert gateway.record["latencies"]["request"] >= latency


def test_fact_06_a_stream_comes_back_byte_for_byte() -> None:
    gateway = Gateway(lambda _: stream(*chop(STREAM, 300, 301, 900)))
    got = gateway.stream()
    assert got.body == STREAM
    assert not got.cut
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in got.headers
    assert gateway.meta["request_mode"] == "stream"
    assert gateway.meta["request_model"] == MODEL
    assert gateway.meta["response_model"] == "claude-sonnet-4-5-20250929"
    assert gateway.usage["prompt_tokens"] == 15
    assert gateway.usage["completion_tokens"] == 9
    assert gateway.usage["total_tokens"] == 24
    assert gateway.record["kongai"]["ended"] == "ok"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
def test_fact_07_cuts_make_no_difference(size: int) -> None:
    data = UNICODE_STREAM
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    gateway = Gateway(lambda _: stream(*pieces))
    assert gateway.stream().body == data
    assert gateway.usage["prompt_tokens"] == 31
    assert gateway.usage["completion_tokens"] == 57


def test_fact_08_cached_tokens_are_counted() -> None:
    usage = {
        "input_tokens": 4,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "output_tokens": 7,
    }
    gateway = Gateway(lambda _: answer(message(**usage)))
    gateway.ask()
    assert gateway.usage["prompt_tokens"] == 1104
    assert gateway.usage["total_tokens"] == 1111
    assert gateway.usage["prompt_tokens_details"] == {
        "cached_tokens": 1000,
        "cache_creation_tokens": 100,
    }


def test_fact_09_typed_prices() -> None:
    """Kong needs both prices and says 0 with one; kongai then looks in its table."""
    counts = {"input_tokens": 25, "output_tokens": 12}
    prices = {"input_cost": 10, "output_cost": 10}
    both = Gateway(lambda _: answer(message(**counts)), options=prices)
    both.ask()
    assert both.usage["cost"] == 0.00037
    assert both.record["kongai"]["price"] == "config"
    one = Gateway(lambda _: answer(message(**counts)), options={"input_cost": 10})
    one.ask()
    assert one.usage["cost"] == pytest.approx((25 * 3 + 12 * 15) / 1e6)
    assert one.record["kongai"]["price"] == "table"


@pytest.mark.parametrize("streamed", [False, True])
def test_fact_10_without_statistics_there_is_no_ai(streamed: bool) -> None:
    gateway = Gateway(
        lambda _: stream() if streamed else answer(message()),
        logging={"log_statistics": False},
    )
    got = gateway.ask(body=question(stream=streamed))
    assert got.status == 200
    assert "ai" not in gateway.record
    assert gateway.record["kongai"] == {"ended": "ok"}


def test_fact_11_payloads() -> None:
    gateway = Gateway(logging={"log_statistics": True, "log_payloads": True})
    gateway.ask()
    assert gateway.record["ai"]["proxy"]["payload"] == {
        "request": question().decode(),
        "response": message().decode(),
    }


def test_fact_11_payloads_need_statistics() -> None:
    gateway = Gateway(logging={"log_statistics": False, "log_payloads": True})
    assert gateway.ask().body == message()
    assert "ai" not in gateway.record


def test_fact_12_a_call_without_a_key() -> None:
    no_key = b'{"type":"error","error":{"type":"authentication_error"}}'
    gateway = Gateway(lambda _: answer(no_key, status=401))
    got = gateway.ask()
    assert (got.status, got.body) == (401, no_key)
    assert "x-kong-llm-model" not in got.headers
    assert values(gateway.seen, "x-api-key") == []
    assert values(gateway.seen, "authorization") == []
    assert gateway.record["upstream_status"] == "401"
    assert gateway.record["source"] == "upstream"
    assert gateway.record["kongai"]["ended"] == "ok"
    assert gateway.meta["request_model"] == gateway.meta["response_model"] == MODEL
    assert gateway.usage["total_tokens"] == gateway.usage["cost"] == 0
    assert gateway.usage["time_per_token"] == 0


def checks_key(request: UpstreamRequest) -> UpstreamResponse:
    if values(request, "x-api-key") == ["good"]:
        return answer(message())
    body = b'{"type":"error","error":{"type":"authentication_error","message":"no"}}'
    return answer(body, status=401)


def test_fact_13_the_clients_key_wins_where_it_may() -> None:
    auth = {"header_name": "x-api-key", "header_value": "good", "allow_override": True}
    gateway = Gateway(checks_key, auth=auth)
    got = gateway.ask(headers=[("x-api-key", "wrong")])
    assert got.status == 401
    assert json.loads(got.body)["error"]["type"] == "authentication_error"


def test_fact_14_the_configured_key_wins_where_the_clients_may_not() -> None:
    auth = {"header_name": "x-api-key", "header_value": "good", "allow_override": False}
    gateway = Gateway(checks_key, auth=auth)
    assert gateway.ask(headers=[("X-API-Key", "wrong")]).status == 200


def test_fact_15_half_a_credential_is_refused() -> None:
    text = (
        "all or none of these fields must be set: 'auth.header_name', "
        "'auth.header_value'"
    )
    with pytest.raises(ConfigError) as refusal:
        Gateway(auth={"header_name": "x-api-key"})
    (problem,) = refusal.value.problems
    assert problem.message == text
    assert problem.path == "services[0].plugins[0].config.auth"


def test_fact_16_another_model_than_the_configured_one() -> None:
    gateway = Gateway(model={"name": "c1"})
    got = gateway.ask(body=question(model="c2"))
    assert refused(gateway, got) == (
        "invalid_request_error",
        "cannot use own model - must be: c1",
    )
    assert gateway.meta["request_model"] == "c2"
    assert gateway.record["kongai"]["ended"] == "bad_request"


@pytest.mark.parametrize("model", [..., None, "", 7, ["m"], {}])
def test_fact_17_no_model_at_all(model: Any) -> None:
    gateway = Gateway()
    got = gateway.ask(body=question(model=model))
    assert refused(gateway, got) == (
        "invalid_request_error",
        "model parameter not found in request, nor in gateway configuration",
    )
    assert gateway.meta["request_model"] == "UNSPECIFIED"
    assert gateway.meta["provider_name"] == "UNSPECIFIED"


def test_fact_19_a_model_does_not_leak_into_the_next_request() -> None:
    gateway = Gateway()
    for model in ("claude-opus-4-5", "claude-haiku-4-5", "claude-opus-4-5"):
        got = gateway.ask(body=question(model=model))
        assert got.headers["x-kong-llm-model"] == f"anthropic/{model}"
    asked = [
        record["ai"]["proxy"]["meta"]["request_model"] for record in gateway.records
    ]
    assert asked == ["claude-opus-4-5", "claude-haiku-4-5", "claude-opus-4-5"]
    assert gateway.ask(body=question(model=...)).status == 400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"model":"m","segassem":[{"role":"user","content":"hi"}]}', None),
        (b'{"model":"m","messages":[]}', None),
        (b'{"model":"m","messages":[ \n ]}', None),
        (b'{"model":"m","messages":"hi"}', None),
        (b'{"model":"m","messages":null}', None),
        (b'{"model":"m","messages":[{"role":"user"}', None),
        (b'[{"model":"m"}]', None),
        (b"not json", None),
        (b"", None),
        (question(), "text/plain"),
        (question(), "application/jsonp"),
        (b"model=m&messages=hi", "application/x-www-form-urlencoded"),
    ],
)
def test_fact_23_a_body_without_a_prompt(body: bytes, content_type: str | None) -> None:
    gateway = Gateway()
    got = gateway.ask(body=body, content_type=content_type or "application/json")
    assert refused(gateway, got) == (
        "invalid_request_error",
        "request body doesn't contain valid prompts",
    )
    assert gateway.record["kongai"]["ended"] == "bad_request"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json ;x",
    ],
)
def test_fact_23_content_types_that_mean_json(content_type: str | None) -> None:
    gateway = Gateway()
    assert gateway.ask(content_type=content_type).status == 200


LIMIT = 2000


def padded(size: int) -> bytes:
    return question(x="").replace(b'"x": ""', b'"x": "%b"' % (b"x" * size))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("over", [-1, 0, 1, 100_000])
def test_fact_24_the_limit_holds_to_the_byte(over: int, chunked: bool) -> None:
    """Kong lets any body of up to 8 KiB pass, and answers 400 about its prompt."""
    size = LIMIT + over
    body = padded(size - len(padded(0)))
    assert len(body) == size
    gateway = Gateway(max_request_body_size=LIMIT)
    environ: dict[str, Any] = {}
    if chunked:
        environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(body)}
    got = gateway.ask(body=body, **environ)
    if over <= 0:
        assert got.status == 200
        assert gateway.seen.body == body
        assert gateway.record["request"]["size"] > size
        return
    kind, text = refused(gateway, got, 413)
    assert kind == "request_too_large"
    assert f"{LIMIT} bytes are allowed (max_request_body_size)" in text
    assert gateway.record["kongai"]["ended"] == "too_large"


@pytest.mark.parametrize("over", [0, 1])
def test_fact_24_the_limit_holds_for_a_body_that_was_read_before(over: int) -> None:
    body = padded(LIMIT + over - len(padded(0)))
    gateway = Gateway(plugins=[Reading()], max_request_body_size=LIMIT)
    assert gateway.ask(body=body).status == (413 if over else 200)
    assert len(gateway.upstream.requests) == (0 if over else 1)


class Reading(Plugin):
    """Looks at the body before `ai-proxy` does."""

    name = "reading"
    priority = 1000

    def access(self, exchange: Exchange) -> None:
        assert exchange.read_body()


def test_fact_24_the_how_tos_limit() -> None:
    gateway = Gateway()
    assert gateway.ask(body=padded(500_000)).status == 200
    assert gateway.ask(body=padded(600_000)).status == 413


def test_fact_24_zero_is_no_limit() -> None:
    gateway = Gateway(max_request_body_size=0)
    assert gateway.ask(body=padded(1_000_000)).status == 200


def test_fact_25_streams_may_be_denied() -> None:
    gateway = Gateway(response_streaming="deny")
    got = gateway.stream()
    assert refused(gateway, got) == (
        "invalid_request_error",
        "response streaming is not enabled for this LLM",
    )
    assert gateway.ask().status == 200


@pytest.mark.parametrize("given", [..., False, None])
def test_fact_25_streams_may_be_forced(given: Any) -> None:
    gateway = Gateway(lambda _: stream(), response_streaming="always")
    got = gateway.ask(body=question(stream=given))
    assert got.body == STREAM
    assert got.headers["content-type"].startswith("text/event-stream")
    sent = gateway.seen.body
    assert isinstance(sent, bytes)
    assert json.loads(sent) == {**json.loads(question()), "stream": True}
    assert values(gateway.seen, "content-length") == [str(len(sent))]
    assert gateway.meta["request_mode"] == "stream"


def test_fact_25_a_stream_that_is_asked_for_need_not_be_forced() -> None:
    gateway = Gateway(lambda _: stream(), response_streaming="always")
    gateway.stream()
    assert gateway.seen.body == question(stream=True)


@pytest.mark.parametrize(("prompt", "status"), [("hi", 400), ("", 400), (["hi"], 200)])
def test_fact_26_a_chat_and_a_completion_in_one(prompt: Any, status: int) -> None:
    """As in Kong, only a text is a completion's prompt."""
    gateway = Gateway()
    got = gateway.ask(body=question(prompt=prompt))
    assert got.status == status
    if status == 400:
        text = "request matches multiple LLM request formats"
        assert refused(gateway, got) == ("invalid_request_error", text)


def test_fact_33_an_error_instead_of_a_stream() -> None:
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"x"}}'
    head = [("content-type", "application/json"), ("request-id", "req_1")]
    gateway = Gateway(lambda _: answer(body, status=400, headers=head))
    got = gateway.stream()
    assert (got.status, got.body) == (400, body)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["request-id"] == "req_1"
    assert not got.cut
    assert gateway.usage["total_tokens"] == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_fact_39_the_upstreams_status_is_a_string(streamed: bool) -> None:
    """Kong writes a number for whole answers."""
    gateway = Gateway(lambda _: stream() if streamed else answer(message()))
    gateway.ask(body=question(stream=streamed))
    assert gateway.record["upstream_status"] == "200"


# Where a request goes.


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/anything/v1/messages", "/v1/messages"),
        ("POST", "/anything/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("POST", "/anything/v1/messages?", "/v1/messages?"),
        ("POST", "/anything", "/v1/messages"),
        ("POST", "/anything/", "/v1/messages"),
        ("POST", "/anything?x=1&x=2", "/v1/messages?x=1&x=2"),
        ("POST", "/anythingelse/v1/messages", "/v1/messages"),
        ("POST", "/anything/team/a/v1/messages", "/v1/messages"),
        ("POST", "/anything/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        (
            "POST",
            "/anything/v1/messages/count_tokens?beta=true",
            "/v1/messages/count_tokens?beta=true",
        ),
        (
            "POST",
            "/anythingelse/v1/messages/count_tokens",
            "/v1/messages/count_tokens",
        ),
        ("GET", "/anything/v1/models?limit=1000", "/v1/models?limit=1000"),
        ("GET", "/anything/v1/models/claude-opus-4-5", "/v1/models/claude-opus-4-5"),
        ("POST", "/anything/v1/messages/batches", "/v1/messages/batches"),
        (
            "GET",
            "/anything/v1/messages/batches/b1/results",
            "/v1/messages/batches/b1/results",
        ),
        ("DELETE", "/anything/v1/files/file_1", "/v1/files/file_1"),
        ("HEAD", "/anything/api/hello", "/api/hello"),
    ],
)
def test_paths(method: str, target: str, expected: str) -> None:
    gateway = Gateway()
    gateway.ask(target, method=method)
    assert (gateway.seen.method, gateway.seen.target) == (method, expected)
    assert gateway.record["upstream_uri"] == expected
    counted = "usage" in gateway.record["ai"]["proxy"]
    assert counted == (expected.partition("?")[0] == "/v1/messages")


def test_a_call_that_is_no_chat_passes_untouched() -> None:
    asked, said = b"anything \xff at all", b'{"input_tokens":7}'
    gateway = Gateway(
        lambda _: answer(said), model={"name": "c1"}, max_request_body_size=5
    )
    got = gateway.ask(
        "/anything/v1/messages/count_tokens",
        body=asked,
        content_type="text/plain",
        headers=[("accept-encoding", "br, gzip"), ("anthropic-version", "2099-01-01")],
    )
    assert got.body == said
    assert "x-kong-llm-model" not in got.headers
    assert b"".join(gateway.seen.body or ()) == asked  # type: ignore[arg-type]
    assert values(gateway.seen, "content-length") == [str(len(asked))]
    assert values(gateway.seen, "content-type") == ["text/plain"]
    assert values(gateway.seen, "accept-encoding") == ["br, gzip"]
    assert values(gateway.seen, "anthropic-version") == ["2023-06-01"]
    assert gateway.record["ai"]["proxy"] == {"meta": gateway.meta}
    assert gateway.meta["request_model"] == "UNSPECIFIED"
    assert gateway.meta["llm_latency"] == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/anything", "/anything/"])
def test_a_client_that_looks_whether_somebody_is_there(
    method: str, target: str
) -> None:
    gateway = Gateway()
    got = gateway.ask(target, method=method)
    assert got.status == 200
    assert gateway.upstream.requests == []
    assert gateway.record["source"] == "kong"
    assert gateway.record["kongai"]["ended"] == "ok"
    assert "ai" not in gateway.record


def test_a_get_with_a_chunked_body_is_more_than_a_look() -> None:
    gateway = Gateway()
    environ: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked"}
    environ |= {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(question())}
    assert gateway.ask("/anything", method="GET", **environ).body == message()
    assert gateway.seen.body == question()


def test_a_get_with_a_body_stays_a_get() -> None:
    gateway = Gateway()
    assert gateway.ask(method="GET", body=question()).status == 200
    assert (gateway.seen.method, gateway.seen.body) == ("GET", question())


@pytest.mark.parametrize(
    ("url", "address", "chat", "models"),
    [
        (None, ("https", "api.anthropic.com", 443), "/v1/messages", "/v1/models"),
        ("http://llm.test", ("http", "llm.test", 80), "/v1/messages", "/v1/models"),
        ("https://llm.test", ("https", "llm.test", 443), "/v1/messages", "/v1/models"),
        ("http://llm.test/", ("http", "llm.test", 80), "/v1/messages", "/v1/models"),
        (
            "http://llm.test:8080",
            ("http", "llm.test", 8080),
            "/v1/messages",
            "/v1/models",
        ),
        (
            "http://LLM.test:443",
            ("http", "llm.test", 443),
            "/v1/messages",
            "/v1/models",
        ),
        (
            "https://llm.test/v1/messages",
            ("https", "llm.test", 443),
            "/v1/messages",
            "/v1/models",
        ),
        (
            "https://llm.test:8443/base/v1/messages",
            ("https", "llm.test", 8443),
            "/base/v1/messages",
            "/base/v1/models",
        ),
        ("http://llm.test/base", ("http", "llm.test", 80), "/base", "/base/v1/models"),
        (
            "http://llm.test/base/",
            ("http", "llm.test", 80),
            "/base/",
            "/base/v1/models",
        ),
        (
            "http://llm.test/v1/messages/",
            ("http", "llm.test", 80),
            "/v1/messages/",
            "/v1/models",
        ),
        (
            "http://llm.test//base//v1/messages",
            ("http", "llm.test", 80),
            "/base//v1/messages",
            "/base/v1/models",
        ),
        (
            "http://llm.test/base?key=1#x",
            ("http", "llm.test", 80),
            "/base",
            "/base/v1/models",
        ),
        ("http://[::1]:8080", ("http", "::1", 8080), "/v1/messages", "/v1/models"),
    ],
)
def test_upstream_urls(
    url: str | None, address: tuple[str, str, int], chat: str, models: str
) -> None:
    gateway = Gateway(options={"upstream_url": url})
    gateway.ask("/anything/v1/messages?beta=true")
    gateway.ask("/anything/v1/models?limit=9", method="GET")
    for sent in gateway.upstream.requests:
        assert (sent.scheme, sent.host, sent.port) == address
    targets = [sent.target for sent in gateway.upstream.requests]
    assert targets == [f"{chat}?beta=true", f"{models}?limit=9"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, "api.anthropic.com"),
        ("http://llm.test:8080", "llm.test"),
        ("http://[::1]:8080", "[::1]"),
    ],
)
def test_the_host_is_the_providers(url: str | None, host: str) -> None:
    gateway = Gateway(options={"upstream_url": url})
    gateway.ask(headers=[("host", "gateway.test:8000")])
    assert values(gateway.seen, "host") == [host]


def test_an_upstream_path() -> None:
    gateway = Gateway(options={"upstream_path": "/other/messages"})
    gateway.ask()
    assert gateway.seen.target == "/other/messages?beta=true"
    assert gateway.seen.host == "api.anthropic.com"


def test_time_outs_are_the_services() -> None:
    gateway = Gateway()
    gateway.ask()
    assert (gateway.seen.connect_timeout, gateway.seen.read_timeout) == (60.0, 60.0)


def test_as_a_plugin_of_a_gateway_made_in_python() -> None:
    upstream, records = MockTransport(lambda _: answer(message())), ListSink()
    plugin = AIProxy(provider="anthropic", llm_format="anthropic")
    proxy = Proxy(plugins=[plugin], sinks=[records], transport=upstream)
    for target in ("/v1/messages", "/", "/v1/models", "/mine/v1/messages/batches"):
        with Client(proxy).post(target, data=question()) as got:
            assert got.get_data() == message()
    assert [sent.target for sent in upstream.requests] == [
        "/v1/messages",
        "/v1/messages",
        "/v1/models",
        "/v1/messages/batches",
    ]
    assert records[0]["ai"]["proxy"]["usage"]["total_tokens"] == 148


# Which model is asked.


@pytest.mark.parametrize(
    ("configured", "given", "sent"),
    [
        (None, "c1", "c1"),
        ("c1", "c1", "c1"),
        ("c1", ..., "c1"),
        ("c1", None, "c1"),
        ("c1", "", "c1"),
    ],
)
def test_models(configured: str | None, given: Any, sent: str) -> None:
    gateway = Gateway(model={"name": configured})
    got = gateway.ask(body=question(model=given))
    assert got.status == 200
    assert got.headers["x-kong-llm-model"] == f"anthropic/{sent}"
    assert gateway.meta["request_model"] == sent
    body = gateway.seen.body
    assert isinstance(body, bytes)
    assert json.loads(body) == {**json.loads(question()), "model": sent}
    if given == sent:
        assert body == question(model=given)


@pytest.mark.parametrize("model", ["a\r\nx: y", "a\nb", "é", "模型🙂", "a\x00b", "a b"])
def test_a_strange_model_is_the_upstreams_business(model: str) -> None:
    """A header can't say every name; the answer must not suffer for it."""
    gateway = Gateway(lambda _: answer(message(model)))
    got = gateway.ask(body=question(model=model))
    assert (got.status, got.body) == (200, message(model))
    assert "x" not in got.headers
    "".join(got.headers.values()).encode("ascii")
    assert gateway.meta["request_model"] == model


def test_the_header_with_the_model_may_be_left_out() -> None:
    gateway = Gateway(model_name_header=False)
    assert "x-kong-llm-model" not in gateway.ask().headers


# Credentials.

AUTH_TABLE = [
    # configured, client's, allow_override, upstream gets
    (None, "mine", False, "mine"),
    (None, None, False, None),
    ("ours", None, False, "ours"),
    ("ours", None, True, "ours"),
    ("ours", "mine", False, "ours"),
    ("ours", "mine", True, "mine"),
    ("ours", "", True, ""),
]


@pytest.mark.parametrize(("ours", "mine", "override", "expected"), AUTH_TABLE)
@pytest.mark.parametrize("target", ["/anything/v1/messages", "/anything/v1/models"])
def test_the_header_with_the_key(
    target: str,
    ours: str | None,
    mine: str | None,
    override: bool,
    expected: str | None,
) -> None:
    auth: dict[str, Any] = {}
    if ours is not None:
        auth = {"header_name": "X-Key-Of-Ours", "header_value": ours}
        auth["allow_override"] = override
    gateway = Gateway(auth=auth)
    sent = [] if mine is None else [("x-key-of-ours", mine)]
    gateway.ask(target, headers=[*sent, ("authorization", "Bearer other")])
    assert values(gateway.seen, "x-key-of-ours") == (
        [expected] if expected is not None else []
    )
    # Only the named header is touched.
    assert values(gateway.seen, "authorization") == ["Bearer other"]
    logged = gateway.record["request"]["headers"]
    assert logged["authorization"] == "REDACTED"
    assert logged.get("x-key-of-ours") == (None if expected is None else "REDACTED")


@pytest.mark.parametrize(("ours", "mine", "override", "expected"), AUTH_TABLE)
@pytest.mark.parametrize("target", ["/anything/v1/messages", "/anything/v1/models"])
def test_the_argument_with_the_key(
    target: str,
    ours: str | None,
    mine: str | None,
    override: bool,
    expected: str | None,
) -> None:
    auth: dict[str, Any] = {}
    if ours is not None:
        auth = {"param_name": "pass", "param_value": ours, "param_location": "query"}
        auth["allow_override"] = override
    gateway = Gateway(auth=auth)
    given = "?a=1" if mine is None else f"?a=1&pass={mine}&b=2"
    gateway.ask(target + given)
    arguments = gateway.seen.target.partition("?")[2].split("&")
    assert "a=1" in arguments
    assert ("b=2" in arguments) == (mine is not None)
    found = [argument for argument in arguments if argument.startswith("pass")]
    assert found == ([] if expected is None else [f"pass={expected}"])


def test_an_argument_with_a_key_joins_an_empty_query() -> None:
    auth = {"param_name": "k&", "param_value": "a b/ü&=", "param_location": "query"}
    gateway = Gateway(auth=auth)
    gateway.ask("/anything/v1/messages")
    assert gateway.seen.target == "/v1/messages?k%26=a%20b%2F%C3%BC%26%3D"


@pytest.mark.parametrize("spelt", ["pass", "p%61ss", "%70%61%73%73"])
def test_no_spelling_of_the_argument_escapes_the_rule(spelt: str) -> None:
    auth = {"param_name": "pass", "param_value": "ours", "param_location": "query"}
    gateway = Gateway(auth=auth)
    gateway.ask(f"/anything/v1/messages?{spelt}=mine&x=y&{spelt}=mine")
    assert gateway.seen.target == "/v1/messages?x=y&pass=ours"


def test_a_key_is_in_no_record() -> None:
    """Wherever it stands: the headers, the arguments, the payloads."""
    secret = "c4nary-0123456789"
    auth = {"header_name": "x-team", "header_value": secret}
    auth |= {"param_name": "team", "param_value": secret, "param_location": "query"}
    gateway = Gateway(auth=auth, logging={"log_statistics": True, "log_payloads": True})
    gateway.ask(
        f"/anything/v1/messages?team={secret}1&api_key={secret}2",
        headers=[
            ("x-team", f"{secret}3"),
            ("authorization", f"Bearer {secret}4"),
            ("x-api-key", f"{secret}5"),
            ("cookie", f"{secret}6"),
        ],
    )
    assert secret in gateway.seen.target
    assert values(gateway.seen, "x-team") == [secret]
    assert secret not in json.dumps(gateway.record)


# Answers in a content-coding.


@pytest.mark.parametrize(
    ("streamed", "asked"), [(False, "gzip, identity"), (True, "identity")]
)
def test_streams_are_asked_for_in_plain_bytes(streamed: bool, asked: str) -> None:
    gateway = Gateway()
    gateway.ask(
        body=question(stream=streamed),
        headers=[("Accept-Encoding", "gzip, deflate, br, zstd")],
    )
    assert values(gateway.seen, "accept-encoding") == [asked]


def coded(*pieces: bytes, kind: str, coding: str = "gzip") -> answer:
    return answer(
        pieces, headers=[("content-type", kind), ("content-encoding", coding)]
    )


@pytest.mark.parametrize("size", [1, 10, 10_000])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_gzip_answer_is_relayed_as_it_is_and_read(streamed: bool, size: int) -> None:
    plain = STREAM if streamed else message()
    kind = "text/event-stream" if streamed else "application/json"
    data = gzip.compress(plain)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    gateway = Gateway(
        lambda _: coded(*pieces, kind=kind),
        logging={"log_statistics": True, "log_payloads": True},
    )
    got = gateway.ask(body=question(stream=streamed))
    assert got.body == data
    assert got.headers["content-encoding"] == "gzip"
    assert not got.cut
    assert gateway.usage["total_tokens"] == (24 if streamed else 148)
    assert gateway.record["ai"]["proxy"]["payload"]["response"] == plain.decode()
    assert gateway.record["kongai"] == {"ended": "ok", "price": "table"}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_gzip_answer_that_is_cut(streamed: bool) -> None:
    """Its last bytes are missing, though the upstream's HTTP ended well."""
    plain = STREAM if streamed else message()
    kind = "text/event-stream" if streamed else "application/json"
    data = gzip.compress(plain)[:-20]
    gateway = Gateway(lambda _: coded(data, kind=kind))
    got = gateway.ask(body=question(stream=streamed))
    # Plain text can't be added to what is compressed.
    assert got.body == data
    assert got.cut
    assert gateway.record["kongai"]["ended"] == "upstream_cut"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_an_answer_that_cannot_be_decoded_is_relayed(
    coding: str, streamed: bool
) -> None:
    kind = "text/event-stream" if streamed else "application/json"
    gateway = Gateway(lambda _: coded(b"\x0b\x02\x80x\x03", kind=kind, coding=coding))
    got = gateway.ask(body=question(stream=streamed))
    assert got.body == b"\x0b\x02\x80x\x03"
    assert not got.cut
    assert gateway.usage["total_tokens"] == 0
    assert gateway.record["kongai"] == {"ended": "ok", "usage_unread": True}


# Answers that can't be read.


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"usage":7}', b"[1]", b'{"model":"m","usage":{}'],
)
def test_a_whole_answer_that_is_none(body: bytes) -> None:
    length = ("content-length", str(len(body)))
    gateway = Gateway(lambda _: answer(body, headers=[*JSON, length]))
    got = gateway.ask()
    assert (got.status, got.body, got.cut) == (200, body, False)
    assert gateway.usage["total_tokens"] == 0
    assert gateway.record["kongai"] == {"ended": "ok", "usage_unread": True}
    assert gateway.meta["response_model"] == MODEL


@pytest.mark.parametrize("cut", [1, len(message()) - 1])
def test_a_whole_answer_that_only_closing_ends_is_cut_where_its_json_is(
    cut: int,
) -> None:
    """Nothing else tells it from an answer that broke off."""
    gateway = Gateway(lambda _: answer(message()[:cut], headers=JSON))
    got = gateway.ask()
    assert (got.body, got.cut) == (message()[:cut], True)
    assert gateway.record["kongai"]["ended"] == "upstream_cut"


def test_an_event_that_is_none_is_relayed_and_the_rest_is_counted() -> None:
    odd = b"event: odd\ndata: \xff{nothing\n\n"
    gateway = Gateway(lambda _: stream(STREAM[:700], odd + STREAM[700:]))
    got = gateway.stream()
    assert got.body == STREAM[:700] + odd + STREAM[700:]
    assert gateway.record["kongai"]["ended"] == "ok"
    assert gateway.record["kongai"]["usage_unread"] is True


def test_an_event_that_is_none_does_not_hide_that_the_end_is_missing() -> None:
    end = STREAM.index(b"event: message_stop")
    gateway = Gateway(lambda _: stream(b"data: {nothing\n\n" + STREAM[:end]))
    assert gateway.stream().cut
    assert gateway.record["kongai"]["ended"] == "no_terminal_event"


def test_a_stream_that_breaks_after_its_end_is_complete() -> None:
    """An error would make the client pay for a second message."""
    gateway = Gateway(lambda _: stream(STREAM, UpstreamTruncated()))
    got = gateway.stream()
    assert (got.body, got.cut) == (STREAM, False)
    assert gateway.record["kongai"]["ended"] == "ok"
    assert gateway.usage["total_tokens"] == 24


def test_a_whole_answer_to_a_request_for_a_stream() -> None:
    gateway = Gateway()
    assert gateway.stream().body == message()
    assert gateway.meta["request_mode"] == "oneshot"
    assert gateway.usage["total_tokens"] == 148


def test_a_stream_that_nobody_asked_for() -> None:
    gateway = Gateway(lambda _: stream())
    assert gateway.ask().body == STREAM
    assert gateway.meta["request_mode"] == "stream"
    assert gateway.usage["total_tokens"] == 24


# Answers that end too early.

FIVE_DELTAS = STREAM.index(b"event: content_block_stop")
BEFORE_STOP = STREAM.index(b"event: message_stop")


@pytest.mark.parametrize(
    ("pieces", "ended", "completion", "estimated"),
    [
        ((STREAM[:FIVE_DELTAS], UpstreamTruncated()), "upstream_cut", 6, True),
        (
            (
                STREAM[: FIVE_DELTAS - 30],
                UpstreamTruncated(ended="stream_idle_timeout"),
            ),
            "stream_idle_timeout",
            4,
            True,
        ),
        ((STREAM[:FIVE_DELTAS],), "no_terminal_event", 6, True),
        ((STREAM[:BEFORE_STOP],), "no_terminal_event", 9, False),
        ((STREAM[:-1],), "no_terminal_event", 9, False),
        ((STREAM[:BEFORE_STOP], UpstreamTruncated()), "upstream_cut", 9, False),
        ((STREAM[:310],), "no_terminal_event", 0, False),
        ((b": hello\n\n",), "no_terminal_event", 0, False),
        ((b"",), "no_terminal_event", 0, False),
        ((UpstreamTruncated(),), "upstream_cut", 0, False),
    ],
)
def test_a_stream_that_ends_early(
    pieces: tuple[bytes | UpstreamError, ...],
    ended: str,
    completion: int,
    estimated: bool,
) -> None:
    upstream = stream(*pieces)
    gateway = Gateway(lambda _: upstream)
    got = gateway.stream()
    before = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert got.cut
    assert got.body.startswith(before)
    name, said = events([got.body[len(before) :]])[0]
    assert name == "error"
    assert said == {
        "type": "error",
        "error": {"type": "api_error", "message": "upstream stream ended early"},
        "request_id": gateway.record["request"]["id"],
    }
    # After an event that was cut in the middle, too, it is an event of its own.
    last = Decoder().feed(got.body)[-1]
    assert (last.event, json.loads(last.data)) == (b"error", said)
    assert upstream.closed
    assert gateway.record["kongai"]["ended"] == ended
    assert gateway.record["kongai"].get("usage_estimated", False) is estimated
    assert gateway.record["response"]["status"] == 200
    assert gateway.usage["completion_tokens"] == completion


def test_a_stream_that_ends_with_an_error_of_its_own() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n'
    gateway = Gateway(lambda _: stream(STREAM[:FIVE_DELTAS], error))
    got = gateway.stream()
    assert got.body == STREAM[:FIVE_DELTAS] + error
    assert not got.cut
    assert gateway.record["kongai"]["ended"] == "ok"


def test_a_whole_answer_that_ends_early() -> None:
    upstream = answer([message()[:50], UpstreamTruncated()])
    gateway = Gateway(lambda _: upstream)
    got = gateway.ask()
    assert (got.body, got.cut) == (message()[:50], True)
    assert upstream.closed
    assert gateway.record["kongai"]["ended"] == "upstream_cut"
    assert gateway.usage["total_tokens"] == 0


def test_an_upstream_that_does_not_answer() -> None:
    def upstream(_: UpstreamRequest) -> UpstreamResponse:
        raise UpstreamError(ended="connect")

    gateway = Gateway(upstream)
    got = gateway.stream()
    assert got.status == 502
    assert said_error(got.body) == (
        "api_error",
        "An invalid response was received from the upstream server",
    )
    assert gateway.record["source"] == "kong"
    assert gateway.record["kongai"]["ended"] == "connect"
    assert gateway.meta["request_model"] == MODEL
    assert gateway.usage["total_tokens"] == 0


# Clients that leave.


@pytest.mark.parametrize(
    ("read", "prompt", "completion"),
    [(0, 0, 0), (1, 15, 0), (3, 15, 0), (4, 15, 1), (5, 15, 2), (8, 15, 6)],
)
def test_a_client_that_leaves_in_the_middle(
    read: int, prompt: int, completion: int
) -> None:
    """What came so far is counted, its output by its length."""
    pieces = [piece + b"\n\n" for piece in STREAM.split(b"\n\n")[:-1]]
    upstream = stream(*pieces)
    gateway = Gateway(lambda _: upstream)
    body = gateway.begin(question(stream=True))
    assert [next(body) for _ in range(read)] == pieces[:read]
    assert upstream.closed == 0
    assert gateway.records == []
    body.close()
    assert upstream.closed
    assert gateway.record["kongai"]["ended"] == "client_abort"
    assert gateway.record["response"]["status"] == 200
    assert gateway.usage["prompt_tokens"] == prompt
    assert gateway.usage["completion_tokens"] == completion
    assert gateway.record["kongai"].get("usage_estimated", False) is (completion > 0)
    assert gateway.usage["cost"] == pytest.approx((prompt * 3 + completion * 15) / 1e6)
    body.close()
    assert len(gateway.records) == 1


def test_a_client_that_leaves_after_the_last_count() -> None:
    gateway = Gateway(lambda _: stream(STREAM[:BEFORE_STOP], STREAM[BEFORE_STOP:]))
    body = gateway.begin(question(stream=True))
    next(body)
    body.close()
    assert gateway.record["kongai"] == {
        "ended": "client_abort",
        "phase": "response",
        "price": "table",
    }
    assert gateway.usage["completion_tokens"] == 9


def test_a_client_that_leaves_before_a_whole_answer_has_come() -> None:
    upstream = answer(chop(message(), 40))
    gateway = Gateway(lambda _: upstream)
    body = gateway.begin(question())
    next(body)
    body.close()
    assert upstream.closed
    assert gateway.record["kongai"]["ended"] == "client_abort"
    assert gateway.usage["total_tokens"] == 0


def test_each_piece_is_passed_on_before_the_next_is_asked_for() -> None:
    pieces, asked = chop(STREAM, 400, 800), 0

    def upstream() -> Iterable[bytes]:
        nonlocal asked
        for piece in pieces:
            asked += 1
            yield piece

    gateway = Gateway(lambda _: answer(upstream(), headers=EVENT_STREAM))
    body = gateway.begin(question(stream=True))
    assert asked == 0
    for number, piece in enumerate(pieces, 1):
        assert next(body) == piece
        assert asked == number
    body.close()


# What is written down.


def test_payloads_of_a_stream() -> None:
    gateway = Gateway(
        lambda _: stream(*chop(STREAM, 500)),
        logging={"log_statistics": True, "log_payloads": True},
    )
    gateway.stream()
    payload = gateway.record["ai"]["proxy"]["payload"]
    assert payload["request"] == question(stream=True).decode()
    assert payload["response"] == STREAM.decode()


def test_payloads_are_those_that_passed_upstream() -> None:
    gateway = Gateway(
        lambda _: answer(b'{"type":"error"}', status=400),
        model={"name": "c1"},
        logging={"log_statistics": True, "log_payloads": True},
    )
    gateway.ask(body=question(model=None))
    payload = gateway.record["ai"]["proxy"]["payload"]
    assert payload["request"].encode() == gateway.seen.body
    assert payload["response"] == '{"type":"error"}'


def test_payloads_hide_credentials_and_stay_json() -> None:
    gateway = Gateway(logging={"log_statistics": True, "log_payloads": True})
    said = [{"role": "user", "content": f"my key:\n{KEY} or Bearer abcdef"}]
    gateway.ask(body=question(messages=said))
    request = gateway.record["ai"]["proxy"]["payload"]["request"]
    assert json.loads(request)["messages"][0]["content"] == (
        "my key:\nREDACTED or REDACTED"
    )


def test_payloads_of_a_refused_request() -> None:
    gateway = Gateway(
        model={"name": "c1"}, logging={"log_statistics": True, "log_payloads": True}
    )
    gateway.ask()
    payload = gateway.record["ai"]["proxy"]["payload"]
    assert payload == {"request": question().decode(), "response": ""}


def test_a_model_without_a_price() -> None:
    gateway = Gateway(lambda _: answer(message("no-such-model")))
    gateway.ask(body=question(model="no-such-model"))
    assert gateway.usage["cost"] == 0
    assert gateway.record["kongai"] == {"ended": "ok", "price": "unknown"}


@pytest.mark.parametrize(
    ("target", "status"), [("/anything/v1/messages", 529), ("/anything/v1/files", 200)]
)
@pytest.mark.parametrize("kind", ["text/event-stream", "text/html"])
def test_only_answers_to_chats_are_read(target: str, status: int, kind: str) -> None:
    """What is no answer of a model is neither counted nor found wanting."""
    said = b"<html>data: this ends as it likes\n\n"
    gateway = Gateway(
        lambda _: answer(said, status=status, headers=[("content-type", kind)])
    )
    got = gateway.ask(target)
    assert (got.status, got.body, got.cut) == (status, said, False)
    assert gateway.record["kongai"] == {"ended": "ok"}


@pytest.mark.parametrize("statistics", [True, False])
def test_the_price_table_is_loaded_when_a_server_starts(statistics: bool) -> None:
    """Loading it takes long: neither an import nor the first answer should wait."""
    script = f"""
import sys
from kongai import AIProxy
plugin = AIProxy(
    provider="anthropic",
    llm_format="anthropic",
    logging={{"log_statistics": {statistics}}},
)
before = "genai_prices" in sys.modules
plugin.init_worker()
print(before, "genai_prices" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", str(statistics)]


@pytest.mark.parametrize("status", [204, 301, 400, 404, 429, 500, 529])
def test_other_statuses_are_relayed(status: int) -> None:
    body = b"" if status == 204 else b'{"type":"error","x":[1]}'
    head = [
        ("content-type", "application/json"),
        ("retry-after", "7"),
        ("x-should-retry", "true"),
        ("request-id", "req_1"),
        ("anthropic-ratelimit-tokens-remaining", "0"),
    ]
    gateway = Gateway(lambda _: answer(body, status=status, headers=head))
    got = gateway.stream()
    assert (got.status, got.body, got.cut) == (status, body, False)
    assert all(got.headers[name] == value for name, value in head)
    assert len(gateway.upstream.requests) == 1
    assert gateway.record["upstream_status"] == str(status)
    assert gateway.usage["total_tokens"] == 0


@pytest.mark.parametrize(
    ("route", "asked", "sent", "counted"),
    [
        ("/v1", "/v1/messages", "/v1/messages", True),
        ("/v1/", "/v1/messages", "/v1/messages", True),
        ("/v1", "/v1/models", "/v1/models", False),
        ("/v1/messages", "/v1/messages", "/v1/messages", True),
        (
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/messages/count_tokens",
            False,
        ),
        ("/v1/ai", "/v1/ai/v1/messages", "/v1/messages", True),
        ("/v1/ai", "/v1/ai", "/v1/messages", True),
        ("/ai", "/ai/v1/messages/", "/v1/messages", True),
        ("/ai", "/ai/v1/files/v1/x", "/v1/files/v1/x", False),
    ],
)
def test_a_route_may_lead_into_the_api(
    route: str, asked: str, sent: str, counted: bool
) -> None:
    transport = MockTransport(lambda request: answer(message()))
    rows = ListSink()
    service = Service("http://h", routes=[Route(paths=[route])])
    plugin = AIProxy(provider="anthropic", llm_format="anthropic")
    proxy = Proxy([service], plugins=[plugin], sinks=[rows], transport=transport)
    with Client(proxy).post(
        asked, data=question(), content_type="application/json"
    ) as got:
        assert got.get_data() == message()
    assert transport.requests[0].target == sent
    assert ("usage" in rows[0]["ai"]["proxy"]) is counted


def test_what_the_caller_says_is_added_to_what_a_provider_needs() -> None:
    plugin = AIProxy(
        provider="anthropic",
        llm_format="anthropic",
        logging={"log_payloads": True},
        model={"name": "m", "options": {"upstream_url": "http://h"}},
    )
    assert plugin.config.logging.log_statistics
    assert plugin.config.logging.log_payloads
    assert plugin.config.model.name == "m"
    assert plugin.config.model.options.anthropic_version == "2023-06-01"
    with pytest.raises(TypeError, match="not both"):
        AIProxy(plugin.config, provider="anthropic")


@pytest.mark.parametrize("place", ["location", "body"])
def test_a_configured_key_that_an_upstream_repeats_is_not_recorded(place: str) -> None:
    key = "s3cret/key"
    told = (
        f"http://h/v1/messages?k={quote(key, safe='')}" if place == "location" else ""
    )
    body = json.dumps({"error": f"bad key {key}"}).encode()
    transport = MockTransport(
        lambda request: answer(body, status=401, headers=[("location", told)])
    )
    rows = ListSink()
    plugin = AIProxy(
        provider="anthropic",
        llm_format="anthropic",
        logging={"log_payloads": True},
        auth={
            "header_name": "x-own",
            "header_value": key,
            "param_name": "k",
            "param_value": key,
            "param_location": "query",
        },
    )
    proxy = Proxy(plugins=[plugin], sinks=[rows], transport=transport)
    with Client(proxy).post(
        "/", data=question(), content_type="application/json"
    ) as got:
        assert key.encode() in got.get_data()
    text = json.dumps(rows)
    assert "s3cret" not in text
    assert "REDACTED" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("header_name", "a b"), ("header_name", "a\n"), ("header_value", "k\nx: y")],
)
def test_what_no_header_can_hold_is_refused(field: str, value: str) -> None:
    auth = {"header_name": "x-api-key", "header_value": "k", field: value}
    with pytest.raises(ConfigError, match=f"^auth.{field}: "):
        AIProxy(provider="anthropic", llm_format="anthropic", auth=auth)


def test_a_prompt_that_is_not_utf_8_is_none() -> None:
    gateway = Gateway()
    got = gateway.ask(body=b'{"model": "m", "messages": ["\xff"]}')
    assert got.status == 400


def test_a_key_that_another_plugin_has_hidden_is_no_key_for_the_provider() -> None:
    auth = {
        "param_name": "key",
        "param_value": "ours",
        "param_location": "query",
        "allow_override": True,
    }
    gateway = Gateway(plugins=[HidesKey()], auth=auth)
    gateway.ask("/anything/v1/models?key=of-the-gateway")
    assert gateway.seen.target.endswith("/v1/models?key=ours")


class HidesKey(Plugin):
    name = "hides-key"
    priority = 1000

    def access(self, exchange: Exchange) -> None:
        exchange.query = ""
