"""`ai-proxy`: sends requests to an LLM provider, and accounts for the answers.

The client speaks the provider's own format here, so the body goes up byte for byte and
comes down byte for byte, event by event. What the record needs is read from a copy.

Below the route, the provider's chat endpoint is what ``/v1/messages`` or nothing at all
leads to, as in Kong. Every other path (``/v1/messages/count_tokens``, ``/v1/models``,
batches, files) reaches the same path of the provider, untouched and uncounted.
"""

from __future__ import annotations

import string
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from kongai import forwarding, registry
from kongai.balancer import Address, forward
from kongai.content_coding import ContentDecoder
from kongai.errors import RequestRejected, UpstreamTruncated
from kongai.exchange import Attempt, BodyTooLarge, Exchange, UpstreamRequest
from kongai.llm import pricing
from kongai.llm.call import Call
from kongai.llm.formats import AnswerReader
from kongai.plugin import Plugin
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.plugins.ai_statistics import Statistics
from kongai.router import DEFAULT_PORTS
from kongai.schema import load
from kongai.sse import is_event_stream

# A client may name a model that a header can't; what it can't say is %-encoded.
_PRINTABLE = string.punctuation + " "
_NO_PROMPT = "request body doesn't contain valid prompts"
_NO_MODEL = "model parameter not found in request, nor in gateway configuration"
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
            fields = {**_defaults(provider), **fields}
        self.config = load(AIProxyConfig, fields) if config is None else config
        self._format = self.config.client_format
        self._answers = registry.format(self.config.provider.format)
        self._upstream = _Upstream(self.config)
        self._statistics = Statistics(self.config)

    def init_worker(self) -> None:
        """Load the price table."""
        if self.config.logging.log_statistics:
            pricing.load()

    def access(self, exchange: Exchange) -> Response | None:
        """Check the request and find out what it asks for."""
        exchange.error_format = self._format
        path = _below_route(exchange)
        request = exchange.request
        empty = (
            not request.content_length and "transfer-encoding" not in exchange.headers
        )
        if path == "" and request.method in ("GET", "HEAD") and empty:
            return _greeting()
        chat = path in ("", self.config.provider.chat_path)
        call = Call(self.config.model.provider, self._upstream.path(path, chat), chat)
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
        return forward(
            exchange,
            self._upstream.address,
            self._target(exchange, call),
            headers=self._headers(exchange, call),
            body=call.body,
        )

    def header_filter(self, exchange: Exchange) -> None:
        """Name the model that was asked, on an answer with status 200."""
        call, response = exchange.llm, exchange.response
        if call is None or exchange.source == "kong" or response is None:
            return
        if call.chat and response.status_code == 200 and self.config.model_name_header:
            model = quote(call.request_model or "", safe=_PRINTABLE)
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
        if not call.chat or upstream.status != 200:
            return _relayed(chunks, call)
        head = {name.lower(): value for name, value in upstream.headers}
        events = is_event_stream(head.get("content-type"))
        call.streaming = events
        call.reader = (
            self._answers.stream_reader() if events else self._answers.whole_reader()
        )
        decoder = ContentDecoder(head.get("content-encoding", ""))
        return _read_along(chunks, call, call.reader, decoder)

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
        call.body = self._apply_rules(body, facts.model, call)
        call.asked = time.perf_counter()

    def _apply_rules(self, body: bytes, model: str | None, call: Call) -> bytes:
        """Kong's rules for the model and for streams; the body as it is to go up."""
        fixed: dict[str, Any] = {}
        wanted = self.config.model.name
        if wanted is None and model is None:
            raise RequestRejected(_NO_MODEL)
        if wanted is not None and model is None:
            fixed["model"] = wanted
        elif wanted is not None and model != wanted:
            raise RequestRejected(f"cannot use own model - must be: {wanted}")
        if self.config.response_streaming == "deny" and call.streaming:
            raise RequestRejected(_NO_STREAMS)
        if self.config.response_streaming == "always" and not call.streaming:
            fixed["stream"] = call.streaming = True
        return self._format.with_fields(body, fixed) if fixed else body

    def _headers(self, exchange: Exchange, call: Call) -> Headers:
        """The client's headers as the provider gets them."""
        headers, auth = exchange.headers.copy(), self.config.auth
        version = self.config.model.options.anthropic_version
        if self.config.provider.version_header and version is not None:
            headers[self.config.provider.version_header] = version
        if call.chat:
            # Whoever reads along needs the plain bytes; br and zstd can't be undone.
            headers["Accept-Encoding"] = "identity"
        if auth.header_name is not None and auth.header_value is not None:
            exchange.secret_names |= {auth.header_name.lower()}
            if not (auth.allow_override and auth.header_name in headers):
                headers[auth.header_name] = auth.header_value
        return headers

    def _target(self, exchange: Exchange, call: Call) -> str:
        auth, query = self.config.auth, exchange.query
        name = auth.param_name
        if name is not None and auth.param_value is not None:
            exchange.secret_names |= {name.lower()}
            sent = exchange.request.args
            if not (auth.allow_override and name in sent):
                others = [p for p in (query or "").split("&") if p and not _is(p, name)]
                others.append(
                    f"{quote(name, safe='')}={quote(auth.param_value, safe='')}"
                )
                query = "&".join(others)
        return call.path if query is None else f"{call.path}?{query}"


class _Upstream:
    """Where the provider is: its own address, or what `upstream_url` says."""

    def __init__(self, config: AIProxyConfig) -> None:
        options = config.model.options
        chat_path = config.provider.chat_path
        parts = urlsplit(options.upstream_url or config.provider.url)
        scheme, host = parts.scheme, parts.hostname or ""
        self.address = Address(
            scheme,
            host,
            parts.port or DEFAULT_PORTS[scheme],
            # As Kong sends it: without the port, whatever that is.
            forwarding.host_header(scheme, host, DEFAULT_PORTS[scheme]),
        )
        path = "/" + parts.path.lstrip("/")
        given = "" if path == "/" else path
        self._chat_path = given or options.upstream_path or chat_path
        # An `upstream_url` names the chat endpoint; the other paths are its siblings.
        self._base = given.rstrip("/").removesuffix(chat_path).rstrip("/")

    def path(self, below_route: str, chat: bool) -> str:
        """The provider's path for a request's path below the route."""
        return self._chat_path if chat else self._base + below_route


def _below_route(exchange: Exchange) -> str:
    """The path below the route, from its API version on; empty for the route itself."""
    rest = exchange.match.rest if exchange.match else exchange.path
    version = rest.rfind("/v1/")
    if version >= 0:
        return rest[version:]
    return "" if rest in ("", "/") else "/" + rest.removeprefix("/")


def _is(argument: str, name: str) -> bool:
    return unquote_plus(argument.partition("=")[0]) == name


def _defaults(provider: str) -> dict[str, Any]:
    options = {"anthropic_version": "2023-06-01"} if provider == "anthropic" else {}
    return {
        "route_type": "llm/v1/chat",
        "logging": {"log_statistics": True},
        "model": {"provider": provider, "options": options},
    }


def _greeting() -> Response:
    """What a client gets that only looks whether somebody is there."""
    return Response('{"message":"kongai is ready"}\n', content_type="application/json")


def _relayed(chunks: Iterator[bytes], call: Call) -> Iterator[bytes]:
    for chunk in chunks:
        if call.payload is not None:
            call.payload.append(chunk)
        yield chunk
    call.received = time.perf_counter()


def _read_along(
    chunks: Iterator[bytes], call: Call, reader: AnswerReader, decoder: ContentDecoder
) -> Iterator[bytes]:
    """Pass the chunks on, each before anything else is asked of the upstream.

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
    if decoder.broken:
        return
    if not decoder.complete:
        raise UpstreamTruncated
    if call.streaming and not (reader.finished or reader.broken):
        raise UpstreamTruncated(ended="no_terminal_event")
