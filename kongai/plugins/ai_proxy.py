"""`ai-proxy`: sends requests to an LLM provider, and accounts for the answers.

The client speaks the provider's own format here, so the body goes up byte for byte and
comes down byte for byte, event by event. What the record needs is read from a copy.

Below the route, the provider's chat endpoint is what ``/v1/messages`` or nothing at all
leads to, as in Kong. Every other path (``/v1/messages/count_tokens``, ``/v1/models``,
batches, files) reaches the same path of the provider, untouched and uncounted.
"""

from __future__ import annotations

import re
import string
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import quote

from werkzeug.wrappers import Response

from kongai import registry
from kongai.content_coding import ContentDecoder
from kongai.errors import RequestRejected, UpstreamTruncated
from kongai.exchange import Attempt, BodyTooLarge, Exchange, UpstreamRequest
from kongai.llm import pricing
from kongai.llm.call import Call
from kongai.llm.formats import AnswerReader, RequestFacts
from kongai.plugin import Plugin
from kongai.plugins.ai_endpoint import Endpoint
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.plugins.ai_statistics import Statistics
from kongai.providers import PROVIDERS
from kongai.schema import settings
from kongai.sse import is_event_stream

# A client may name a model that a header can't; what it can't say is %-encoded.
_PRINTABLE = string.punctuation + " "
_LONGEST = 200
_NO_PROMPT = "request body doesn't contain valid prompts"
_NO_MODEL = "model parameter not found in request, nor in gateway configuration"
_AMBIGUOUS = "request matches multiple LLM request formats"
_NO_STREAMS = "response streaming is not enabled for this LLM"


class AIProxy(Plugin):
    """Routes requests to an LLM provider.

    Args:
        config: the settings as a struct; or else, by keyword, as a file has them:
        provider: short for ``model={"provider": ...}`` with what that provider needs.
        fields: the keys of `config` in a file. With `provider`, `route_type` is
            ``llm/v1/chat`` and statistics are on unless told otherwise.

    Raises:
        ConfigError: with every problem of the settings.
        TypeError: both `config` and fields were given.
    """

    name = "ai-proxy"
    priority = 770
    Config = AIProxyConfig

    def __init__(
        self,
        config: AIProxyConfig | None = None,
        /,
        *,
        provider: str | None = None,
        **fields: Any,
    ) -> None:
        if provider is not None:
            fields = _with_defaults(provider, fields)
        self.config = settings(AIProxyConfig, config, fields)
        self._format = self.config.client_format
        self.error_format = self._format
        self._answers = registry.format(self.config.provider.format)
        self._endpoint = Endpoint(self.config)
        self._statistics = Statistics(self.config)
        names = (self.config.auth.header_name, self.config.auth.param_name)
        self.secret_names = frozenset(name.lower() for name in names if name)

    def init_worker(self) -> None:
        """Load the price table."""
        if self.config.logging.log_statistics:
            pricing.load()

    def explain(self, exchange: Exchange) -> Iterator[tuple[str, str]]:
        """The provider's address, and how long a chat request may be."""
        path = _below_route(exchange)
        chat = self._is_chat(path)
        yield "upstream", self._endpoint.url(self._endpoint.path(path, chat=chat))
        limit = self.config.max_request_body_size
        if chat and limit:
            yield "limit", f"a body of {limit} bytes (max_request_body_size)"

    def _is_chat(self, path: str) -> bool:
        return path.rstrip("/") in ("", self.config.provider.chat_path)

    def access(self, exchange: Exchange) -> Response | None:
        """Check the request and find out what it asks for."""
        path = _below_route(exchange)
        request = exchange.request
        empty = (
            not request.content_length and "transfer-encoding" not in exchange.headers
        )
        if path == "" and request.method in ("GET", "HEAD") and empty:
            return _greeting()
        chat = self._is_chat(path)
        api_path = self._endpoint.path(path, chat=chat)
        call = Call(self.config.model.provider, api_path, chat)
        exchange.llm = call
        if chat:
            self._read_request(exchange, call)
        return None

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        """Send the request to the provider, by the rules of the route's service."""
        call = exchange.llm
        if call is None:
            return None
        return self._endpoint.send(exchange, call)

    def header_filter(self, exchange: Exchange) -> None:
        """Name the model that was asked, on an answer with status 200."""
        call, response = exchange.llm, exchange.response
        if call is None or exchange.source == "kong" or response is None:
            return
        if call.chat and response.status_code == 200 and self.config.model_name_header:
            model = quote((call.request_model or "")[:_LONGEST], safe=_PRINTABLE)
            response.headers["X-Kong-LLM-Model"] = f"{call.provider}/{model}"

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """Pass the answer on and read it along."""
        call, upstream = exchange.llm, exchange.upstream_response
        if call is None or exchange.source == "kong" or upstream is None:
            return chunks
        if self.config.logging.log_payloads:
            call.payload = []
        head = {name.lower(): value for name, value in upstream.headers}
        decoder = ContentDecoder(head.get("content-encoding", ""))
        if not call.chat or upstream.status != 200:
            return _relayed(chunks, call, decoder)
        events = is_event_stream(head.get("content-type"))
        call.streaming = events
        call.reader = (
            self._answers.stream_reader() if events else self._answers.whole_reader()
        )
        measured = "content-length" in head or "transfer-encoding" in head
        return _read_along(chunks, call, call.reader, decoder, measured=measured)

    def log(self, exchange: Exchange) -> None:
        """Write `ai.proxy` into the record, where statistics are on."""
        if exchange.llm is not None and self.config.logging.log_statistics:
            self._statistics.write(exchange, exchange.llm, self.id)

    def _read_request(self, exchange: Exchange, call: Call) -> None:
        limit = self.config.max_request_body_size or None
        try:
            body = exchange.read_body(limit)
        except BodyTooLarge as error:
            raise RequestRejected(
                f"Request exceeds the maximum size: {error.limit} bytes are allowed "
                "(max_request_body_size)",
                status=413,
                ended="too_large",
            ) from error
        kind = exchange.headers.get("content-type", "application/json")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise RequestRejected(_NO_PROMPT)
        facts = self._format.read_request(body)
        call.request_model = facts.model or self.config.model.name
        call.streaming = facts.streaming
        if not facts.has_prompt:
            raise RequestRejected(_NO_PROMPT)
        call.body = self._apply_rules(body, facts, call)
        call.asked = time.perf_counter()

    def _apply_rules(self, body: bytes, facts: RequestFacts, call: Call) -> bytes:
        """Kong's rules, in Kong's order; the body as it is to go up."""
        fixed: dict[str, Any] = {}
        wanted, model = self.config.model.name, facts.model
        if wanted is None and model is None:
            raise RequestRejected(_NO_MODEL)
        if wanted is not None and model is None:
            fixed["model"] = wanted
        elif wanted is not None and model != wanted:
            raise RequestRejected(f"cannot use own model - must be: {wanted}")
        if facts.ambiguous:
            raise RequestRejected(_AMBIGUOUS)
        if self.config.response_streaming == "deny" and call.streaming:
            raise RequestRejected(_NO_STREAMS)
        if self.config.response_streaming == "always" and not call.streaming:
            fixed["stream"] = call.streaming = True
        return self._format.with_fields(body, fixed) if fixed else body


_BEGUN = re.compile(r"/v1(?:/messages)?/?\Z")


def _rooted(path: str) -> str:
    return f"/{path.removeprefix('/')}" if path else ""


def _below_route(exchange: Exchange) -> str:
    """The path below the route, from its API version on; empty for the route itself."""
    match = exchange.match
    prefix, rest = (match.prefix, match.rest) if match else ("", exchange.path)
    version = rest.find("/v1/")
    if version >= 0:
        return rest[version:]
    begun = _BEGUN.search(prefix)
    if begun is not None:
        # The route's own path leads into the API.
        return begun.group().rstrip("/") + _rooted(rest)
    return "" if rest in ("", "/") else "/" + rest.removeprefix("/")


def _with_defaults(provider: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A file's settings for a provider, where the caller says nothing else."""
    model = {"provider": provider, **fields.get("model", {})}
    known = PROVIDERS.get(provider)
    if known is not None and known.version is not None:
        options = model.get("options", {})
        model["options"] = {"anthropic_version": known.version, **options}
    return {
        "route_type": "llm/v1/chat",
        **fields,
        "logging": {"log_statistics": True, **fields.get("logging", {})},
        "model": model,
    }


def _greeting() -> Response:
    """What a client gets that only looks whether somebody is there."""
    return Response('{"message":"kongai is ready"}\n', content_type="application/json")


def _relayed(
    chunks: Iterator[bytes], call: Call, decoder: ContentDecoder
) -> Iterator[bytes]:
    for chunk in chunks:
        if call.payload is not None:
            call.payload.append(decoder.feed(chunk))
        yield chunk
    call.received = time.perf_counter()


def _read_along(
    chunks: Iterator[bytes],
    call: Call,
    reader: AnswerReader,
    decoder: ContentDecoder,
    *,
    measured: bool,
) -> Iterator[bytes]:
    """Pass the chunks on, each before anything else is asked of the upstream.

    Args:
        chunks: the body.
        call: the call it answers.
        reader: reads along.
        decoder: undoes the content-coding for it.
        measured: whether HTTP says where the body ends; otherwise closing ends it.

    Raises:
        UpstreamTruncated: the upstream ended well, but the stream did not say that it
            was complete: what looks like a success is none.
    """
    try:
        for chunk in chunks:
            plain = decoder.feed(chunk)
            reader.feed(plain)
            reader.broken = reader.broken or decoder.broken
            if call.payload is not None:
                call.payload.append(plain)
            if call.first_token is None and reader.started:
                call.first_token = time.perf_counter()
            yield chunk
    finally:
        call.received = time.perf_counter()
        reader.end()
        call.response_model = reader.model
    if decoder.broken or reader.lost:
        return
    if not decoder.complete:
        raise UpstreamTruncated
    if call.streaming and not reader.finished:
        raise UpstreamTruncated(ended="no_terminal_event")
    if not (call.streaming or measured or reader.finished):
        raise UpstreamTruncated
