"""Two SDKs, two providers, one gateway: where an SDK is pointed, and what answers.

::

    openai.OpenAI ────────┐                        ┌──>  /v1/chat/completions
                          ├──>  Gateway, a route ──┤         one ScriptedLLM
    anthropic.Anthropic ──┘     for each pair      └──>  /v1/messages

Each test is run once more without the gateway in between, with the SDK pointed at its
own provider's API.  What a test expects there is what the SDK's users are used to, and
it is expected of every pair.
"""

from __future__ import annotations

import gzip
import json
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from .anthropic_api import ToolUse
from .conftest import KEY, PLAIN_KEY, assert_no_secret, record_of
from .harness import LOG_PATH, Gateway
from .scripted_llm import (
    KEYS,
    Provider,
    Said,
    ScriptedLLM,
    events,
    provider_of,
    whole,
)
from .upstream import EVENT_STREAM, JSON, Connection, FakeUpstream, Request

MODELS: dict[Provider, str] = {
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
}
WAYS = ("direct", "openai", "anthropic")
"""Which provider is behind the gateway, or that there is no gateway."""
TEXT = "Grüezi, 世界: «ok» — é́ 👩‍🚀 🎉\nund fertig."
"""Letters of one to four bytes, marks that combine, and a character of three."""
SYSTEM = "Antworte auf Züritüütsch — 简短。"
BERN = ToolUse("weather", {"town": "Bärn", "days": [1, 2]}, "call_KongaiLive0001")
TOKYO = ToolUse("weather", {"town": "東京", "days": []}, "call_KongaiLive0002")
CALLING = Said(("Ich luege. ", BERN, TOKYO))
"""An answer with words and two wishes."""
SCHEMA = {
    "type": "object",
    "properties": {
        "town": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["town", "days"],
    "additionalProperties": False,
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
"""A picture, in base64."""
PICTURE = "https://example.com/chatz.png"
ERRORS = (
    (400, "BadRequestError"),
    (401, "AuthenticationError"),
    (403, "PermissionDeniedError"),
    (404, "NotFoundError"),
    (429, "RateLimitError"),
    (500, "InternalServerError"),
    (503, "InternalServerError"),
)
"""What each SDK makes of an answer's status."""

_CHAT = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@dataclass
class Way:
    """From an SDK to a provider, through the gateway or without it."""

    client: Provider
    """Whose SDK it is."""
    provider: Provider
    gateway: Gateway | None
    upstream: FakeUpstream
    answers: list[Any]
    """The heads of the answers that the SDK got, as its HTTP library has them."""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = KEY if self.gateway else KEYS[self.provider]
        self.says(Said(TEXT))

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return MODELS[self.provider]

    @property
    def translated(self) -> bool:
        """Whether the provider speaks another format than the SDK."""
        return self.client != self.provider

    def url(self, route: str | None = None) -> str:
        """Where the API is; ``route`` is another one than that of the pair."""
        if self.gateway is None:
            return self.upstream.url
        return f"{self.gateway.url}/{route or f'{self.client}-{self.provider}'}"

    def says(self, said: Said, *more: Said) -> None:
        """Let the model say this, and more in the next turns."""
        script = iter((said, *more))
        self.answers_with(lambda _: next(script))

    def answers_with(self, answer: Callable[[Request], Said]) -> None:
        """Let the model answer like this; a stream comes in odd pieces."""
        self.upstream.handler = ScriptedLLM(answer, wire=61)

    def refuses(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """Let the API answer with this error."""
        head = (("Content-Type", "application/json"), *headers)
        self.upstream.handler = lambda _, connection: connection.respond(
            status, head, body
        )

    def asked(self) -> Request:
        """The one request that the provider got."""
        [request] = self.upstream.requests
        return request

    def record(self) -> dict[str, Any] | None:
        """The record of the last exchange, if there is a gateway to write one."""
        if self.gateway is None:
            return None
        return record_of(self.gateway, self.answers[-1].headers["x-kong-request-id"])

    def check_record(self, said: Said, mode: str, ended: str = "ok") -> None:
        """The record says what the provider counted."""
        if (record := self.record()) is None:
            return
        assert record["kongai"]["ended"] == ended
        meta, usage = record["ai"]["proxy"]["meta"], record["ai"]["proxy"]["usage"]
        assert meta["provider_name"] == self.provider
        assert meta["request_model"] == meta["response_model"] == self.model
        assert meta["request_mode"] == mode
        assert usage["prompt_tokens"] == said.prompt
        assert usage["completion_tokens"] == said.completion
        assert usage["total_tokens"] == said.prompt + said.completion
        assert usage["prompt_tokens_details"]["cached_tokens"] == said.cached
        assert usage["cost"] > 0


def file_of(upstream_url: str) -> str:
    """A file with a service for each pair, and one for each older API of OpenAI's."""
    pairs = [(client, provider) for client in MODELS for provider in MODELS]
    services = [
        _service(
            f"{client}-{provider}",
            llm_format=client,
            model=_model(provider, f"{upstream_url}{_CHAT[provider]}"),
            auth=_auth(provider),
        )
        for client, provider in pairs
    ]
    for name, model in (
        ("embeddings", "text-embedding-3-small"),
        ("completions", "gpt-3.5-turbo-instruct"),
    ):
        target = _model("openai", f"{upstream_url}/v1/{name}")
        services.append(
            _service(
                name,
                route_type=f"llm/v1/{name}",
                model={**target, "name": model},
                auth=_auth("openai"),
            )
        )
    log = {"name": "file-log", "config": {"path": LOG_PATH}}
    # JSON is YAML's flow style.
    return json.dumps(
        {"_format_version": "3.0", "services": services, "plugins": [log]}
    )


@contextmanager
def serving_sdks() -> Iterator[tuple[Gateway, FakeUpstream]]:
    """The gateway of all pairs, and the provider that plays both."""
    with (
        FakeUpstream(ScriptedLLM(lambda _: Said(TEXT))) as upstream,
        Gateway(file_of(upstream.url), env=_environment()) as gateway,
    ):
        yield gateway, upstream
        assert gateway.stop() == 0


@contextmanager
def a_way(
    sdk: Provider, to: str, gateway: Gateway, upstream: FakeUpstream
) -> Iterator[Way]:
    """One test's way; what is true of every test is checked last.

    Args:
        sdk: whose SDK.
        to: one of `WAYS`.
        gateway: the one for all.
        upstream: the one for all.
    """
    upstream.requests.clear()
    complaints = gateway.stderr_text()
    direct = to == "direct"
    provider: Provider = sdk if direct or to == sdk else _other(sdk)
    way = Way(sdk, provider, None if direct else gateway, upstream, [])
    yield way
    assert upstream.errors == []
    assert gateway.stderr_text() == complaints
    for request in upstream.requests:
        assert provider_of(request) == way.provider
        _check_headers(way, request)
    assert_no_secret(gateway)
    written = b"".join(p.read_bytes() for p in gateway.directory.iterdir())
    assert [key for key in KEYS.values() if key.encode() in written] == []


@contextmanager
def openai_sdk(
    way: Way, base: str = "/v1", route: str | None = None
) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK as a program uses it, but that it says what fails the first time."""
    with (
        openai.DefaultHttpxClient(**_http(way)) as http,
        openai.OpenAI(
            api_key=way.key,
            base_url=f"{way.url(route)}{base}",
            http_client=http,
            max_retries=0,
            timeout=5,
        ) as sdk,
    ):
        yield sdk


@contextmanager
def anthropic_sdk(way: Way) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, likewise."""
    with (
        anthropic.DefaultHttpxClient(**_http(way)) as http,
        anthropic.Anthropic(
            api_key=way.key,
            base_url=way.url(),
            http_client=http,
            max_retries=0,
            timeout=5,
        ) as sdk,
    ):
        yield sdk


def cut_after(count: int, stream: Callable[[Request], list[bytes]], *, how: str) -> Any:
    """A handler whose stream ends after some events: see `CUTS`."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in stream(request)[:count]:
            connection.chunk(event)
        if how == "in order":
            connection.end()
        elif how == "closed":
            connection.close()
        else:
            connection.reset()

    return handler


CUTS = {
    "closed": "upstream_cut",
    "reset": "upstream_cut",
    "in order": "no_terminal_event",
}
"""How a stream ends early, and the record's word for it.

``in order`` is as HTTP has it, but not as the API has it.
"""


def gzipped(said: Said) -> Any:
    """A handler that says it compressed, asked or not; a stream event by event."""

    def handler(request: Request, connection: Connection) -> None:
        coding = ("Content-Encoding", "gzip")
        if not request.json().get("stream"):
            connection.respond(
                200, (*JSON, coding), gzip.compress(whole(request, said))
            )
            return
        connection.start_stream((*EVENT_STREAM, coding))
        deflate = zlib.compressobj(wbits=31)
        for event in events(request, said):
            data = deflate.compress(event) + deflate.flush(zlib.Z_SYNC_FLUSH)
            connection.chunk(data)
        connection.chunk(deflate.flush())
        connection.end()

    return handler


def until_left(count: int, stream: Callable[[Request], list[bytes]]) -> Any:
    """A handler that says some events, and then waits until nobody listens."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in stream(request)[:count]:
            connection.chunk(event)
        assert connection.closed_by_peer(5)

    return handler


def ended(way: Way) -> str:
    """How the last exchange ended, once its record has been written."""
    record = way.record()
    assert record is not None
    return str(record["kongai"]["ended"])


def _other(provider: Provider) -> Provider:
    return "anthropic" if provider == "openai" else "openai"


def _http(way: Way) -> dict[str, Any]:
    return {
        "event_hooks": {"response": [way.answers.append]},
        "trust_env": False,  # the environment's proxies are for other hosts
        # Nothing here speaks TLS, and to load the world's certificates takes a while.
        "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    }


def _check_headers(way: Way, request: Request) -> None:
    """Of what was meant for one vendor nothing gets to the other."""
    if way.gateway is not None:
        auth = _auth(way.provider)
        sent = _environment()[f"{way.provider.upper()}_AUTH"]
        assert request.values(auth["header_name"]) == [sent]
    if not way.translated:
        return
    assert PLAIN_KEY not in repr(request.headers)
    assert PLAIN_KEY.encode() not in request.body
    names = {name.lower() for name, _ in request.headers}
    if way.provider == "openai":
        assert [n for n in names if n.startswith("anthropic") or n == "x-api-key"] == []
    else:
        assert [n for n in names if n.startswith("openai")] == []
        assert "authorization" not in names


def _environment() -> dict[str, str]:
    return {
        "OPENAI_AUTH": f"Bearer {KEYS['openai']}",
        "ANTHROPIC_AUTH": KEYS["anthropic"],
    }


def _service(name: str, **ai_proxy: Any) -> dict[str, Any]:
    config = {
        "route_type": "llm/v1/chat",
        "logging": {"log_statistics": True},
        **ai_proxy,
    }
    return {
        "name": name,
        "url": "http://127.0.0.1:1",
        "routes": [{"name": name, "paths": [f"/{name}"]}],
        "plugins": [{"name": "ai-proxy", "config": config}],
    }


def _model(provider: Provider, upstream_url: str) -> dict[str, Any]:
    options = {"upstream_url": upstream_url}
    if provider == "anthropic":
        options["anthropic_version"] = "2023-06-01"
    return {"provider": provider, "name": MODELS[provider], "options": options}


def _auth(provider: Provider) -> dict[str, str]:
    names = {"openai": "Authorization", "anthropic": "x-api-key"}
    return {
        "header_name": names[provider],
        "header_value": f"{{vault://env/{provider}-auth}}",
    }
