"""`ai-proxy`: sends requests to an LLM provider, and accounts for the answers.

Where the client speaks the provider's own format, the body goes up byte for byte and
comes down byte for byte, event by event; what the record needs is read from a copy.
Otherwise both are translated (`kongai.llm.translate`).

Below the route, what the route is for is what its path in the client's format or
nothing at all leads to, as in Kong. Every other path of the API
(``/v1/messages/count_tokens``, ``/v1/models``, batches, files) reaches the same path of
a provider that speaks the same format, untouched and uncounted.
"""

from __future__ import annotations

import string
import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from werkzeug.wrappers import Response

from kongai import redact, registry
from kongai.content_coding import takes_gzip
from kongai.errors import RequestRejected
from kongai.exchange import Attempt, Exchange, UpstreamRequest, UpstreamResponse
from kongai.header_list import HeaderList
from kongai.llm import pricing
from kongai.llm.call import Call
from kongai.llm.chat import GaveUp, Untranslatable
from kongai.llm.translate import Translation
from kongai.plugin import Plugin
from kongai.plugins import ai_answer, ai_prompt, ai_request
from kongai.plugins.ai_endpoint import Endpoint
from kongai.plugins.ai_paths import below_route
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.plugins.ai_statistics import Statistics
from kongai.plugins.ai_templates import resolve, templated
from kongai.providers import PROVIDERS
from kongai.schema import settings
from kongai.sse import CONTENT_TYPE

# A client may name a model that a header can't; what it can't say is %-encoded.
_PRINTABLE = string.punctuation + " "
_LONGEST = 200
_JSON = "application/json"
_WITHOUT_BODY = (204, 304)
# What tells of the body as it was before it was translated.
_OF_THE_BODY = ("Content-Length", "Content-Encoding", "Content-MD5", "ETag")


class _Prepared:
    """What the settings come to, their templates filled in: for one request or all."""

    __slots__ = ("config", "endpoint", "requests")

    def __init__(self, config: AIProxyConfig) -> None:
        self.config = config
        self.endpoint = Endpoint(config, llm_format=config.llm_format)
        self.requests = ai_request.Requests(config)


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
        self.error_format = self._client = self.config.client_format
        self._prepared = _Prepared(self.config)
        self._templated = templated(self.config)
        self._own_path = own = self._client.ENDPOINTS[self.config.route_type]
        self._own_paths = frozenset(
            path for path in ("", own, f"/v1{own}") if self._api_path(path) is None
        )
        """The usual ways to write what the route is for."""
        self._drops_cookies = not self.config.provider.sets_cookies
        self._provider = registry.provider_format(self.config.provider_format)
        self._statistics = Statistics(self.config)
        names = (self.config.auth.header_name, self.config.auth.param_name)
        self.secret_names = frozenset(name.lower() for name in names if name)

    def init_worker(self) -> None:
        """Load the price table."""
        if self.config.logging.log_statistics:
            pricing.load()

    def explain(self, exchange: Exchange) -> Iterator[tuple[str, str]]:
        """The provider's address, and how long a request may be."""
        api_path = self._api_path(below_route(exchange))
        try:
            endpoint = self._prepare(exchange).endpoint
        except RequestRejected as refusal:
            yield "upstream", f"none: {refusal.status} {refusal.message}"
            return
        yield "upstream", endpoint.url(endpoint.path(api_path))
        limit = self.config.max_request_body_size
        if api_path is None and limit:
            yield "limit", f"a body of {limit} bytes (max_request_body_size)"

    def access(self, exchange: Exchange) -> Response | None:
        """Check the request and find out what it asks for."""
        path = below_route(exchange)
        if path == "" and exchange.method in ("GET", "HEAD") and _is_empty(exchange):
            return _greeting()
        api_path = None if path in self._own_paths else self._api_path(path)
        prepared = self._prepare(exchange) if self._templated else self._prepared
        exchange.state[self] = prepared
        endpoint = prepared.endpoint
        call = exchange.llm = Call(
            prepared.config.model.provider,
            endpoint.own_path if api_path is None else endpoint.path(api_path),
            api_path is None,
        )
        if api_path is None:
            prepared.requests.prepare(exchange, call)
            call.asked = time.perf_counter()
        elif prepared.config.translates:
            return self._answer_locally(exchange, api_path, prepared.config)
        return None

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        """Send the request to the provider, by the rules of the route's service."""
        call = exchange.llm
        if call is None:
            return None
        endpoint: Endpoint = exchange.state[self].endpoint
        return endpoint.send(exchange, call)

    def header_filter(self, exchange: Exchange) -> None:
        """Name the model that was asked, on an answer with status 200; translate what
        is not a stream."""
        call, response = exchange.llm, exchange.response
        if call is None or response is None:
            return
        upstream = exchange.upstream_response
        if exchange.source == "upstream" and upstream is not None and call.chat:
            if self._drops_cookies:
                response.headers.pop("Set-Cookie", None)
            if upstream.status == 200 and self.config.model_name_header:
                _name_model(call, response)
            if call.translation is not None:
                self._translate(exchange, call, call.translation)
            elif call.usage_hider is not None:
                _make_plain(call, upstream, response)
        if call.translation is not None and _may_compress(exchange, response):
            response.headers["Content-Encoding"] = "gzip"
            response.headers.pop("Content-Length", None)
            call.compressed = True

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """Pass the answer on and read it along, or translate it."""
        call = exchange.llm
        if call is None:
            return chunks
        if exchange.source == "upstream":
            chunks = self._answered(exchange, call, chunks)
        return ai_answer.compressed(chunks) if call.compressed else chunks

    def log(self, exchange: Exchange) -> None:
        """Write `ai.proxy` into the record, where statistics are on, and what could
        not be translated."""
        call = exchange.llm
        if call is None:
            return
        if call.translation is not None:
            names = [*call.translation.chat.losses.names(), *call.dropped]
            if names:
                shown = dict.fromkeys(map(redact.name, names))
                exchange.log.set("kongai.dropped", list(shown))
        if self.config.logging.log_statistics:
            prepared: _Prepared = exchange.state.get(self, self._prepared)
            self._statistics.write(exchange, call, self.id, prepared.config.model)

    def _prepare(self, exchange: Exchange) -> _Prepared:
        """What the settings come to for this request."""
        if not self._templated:
            return self._prepared
        return _Prepared(resolve(self.config, exchange))

    def _api_path(self, below: str) -> str | None:
        """The path of the API that is asked for; None for what the route is for."""
        path = self._client.api_path(below)
        return None if path == self._own_path else path

    def _answer_locally(
        self, exchange: Exchange, api_path: str, config: AIProxyConfig
    ) -> Response:
        """Answer what the provider has nothing like."""
        if api_path not in self._client.LOCAL_PATHS:
            raise RequestRejected(
                f"provider {config.model.provider} has no such path; it is asked in "
                f"another format than llm_format {config.llm_format}",
                status=404,
                ended="no_such_path",
            )
        body = ai_request.read_body(exchange, config.max_request_body_size or None)
        try:
            answer = self._client.answer_locally(api_path, body)
        except Untranslatable as error:
            raise RequestRejected(f"cannot be counted: {error}") from error
        exchange.log.set("kongai.usage_estimated", True)
        response = Response(answer, content_type=_JSON)
        response.headers["X-Kongai-Estimated"] = "input_tokens"
        return response

    def _translate(
        self, exchange: Exchange, call: Call, translation: Translation
    ) -> None:
        """Make the answer's head that of the client's format; and its body, unless it
        is a stream."""
        upstream, response = exchange.upstream_response, exchange.response
        assert upstream is not None
        assert response is not None
        response.headers.pop("Set-Cookie", None)
        streamed = ai_answer.framing_of(upstream).streamed
        if upstream.status == 200 and call.streaming and streamed:
            call.events = translation.stream(ai_answer.envelope_of(exchange, call))
            kind = CONTENT_TYPE
        elif upstream.status == 200:
            kind = CONTENT_TYPE if call.streaming else _JSON
            try:
                call.answer = ai_answer.translated_whole(exchange, call, translation)
            except GaveUp as error:
                said = translation.refusal(error, exchange.id)
                call.answer, kind = redact.raw(said, exchange.secret_values), _JSON
                response.status_code = error.status
                response.headers.pop("X-Kong-LLM-Model", None)
        elif upstream.status >= 400:
            call.answer = ai_answer.translated_error(exchange, call, translation)
            kind = _JSON
        else:
            return
        for name in _OF_THE_BODY:
            response.headers.pop(name, None)
        response.headers["Content-Type"] = kind
        if call.answer is not None and kind == _JSON:
            response.headers["Content-Length"] = str(len(call.answer))
        request_id = response.headers.get("x-request-id")
        if request_id is not None and "request-id" not in response.headers:
            # Under the name by which Anthropic's clients know it.
            response.headers["request-id"] = request_id

    def _answered(
        self, exchange: Exchange, call: Call, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        upstream = exchange.upstream_response
        assert upstream is not None
        if self.config.logging.log_payloads:
            call.payload = []
        else:
            # Nobody sends it again, now that it is answered.
            exchange.forget_body()
            counted = call.chat and upstream.status == 200 and call.translation is None
            if not (counted and self.config.logging.log_statistics):
                # Nobody needs it for the record either, should a count be missing.
                ai_prompt.let_go(exchange, call)
        if call.answer is not None:
            if call.payload is not None:
                call.payload.append(call.answer)
            return iter((call.answer,))
        if call.events is not None:
            call.reader = call.events
            return ai_answer.translated_stream(exchange, call, call.events)
        framing = ai_answer.framing_of(upstream)
        if not call.chat or upstream.status != 200:
            return ai_answer.relayed(chunks, call, framing.decoder)
        call.streaming = framing.streamed
        provider = self._provider
        reader = provider.stream_reader() if call.streaming else provider.whole_reader()
        call.reader = reader
        may_drop = None
        # Of an answer in one piece, nothing is counted before its end.
        if call.streaming and call.body is not None and call.payload is None:
            estimate = partial(self._statistics.estimated_prompt, exchange, call)
            may_drop = partial(ai_prompt.dropped, exchange, call, reader, estimate)
        return ai_answer.read_along(chunks, call, reader, framing, may_drop=may_drop)


def _name_model(call: Call, response: Response) -> None:
    """Say in a header which model was asked."""
    model = (call.request_model or "")[:_LONGEST]
    if not (model.isascii() and model.isprintable()):
        model = quote(model, safe=_PRINTABLE)
    named = ("X-Kong-LLM-Model", f"{call.provider}/{model}")
    if isinstance(response.headers, HeaderList):
        response.headers.put(named)
    else:
        response.headers.set(*named)


def _make_plain(call: Call, upstream: UpstreamResponse, response: Response) -> None:
    """Make sure that what is to be taken out of a stream can be found there.

    What is no stream goes on as it came.
    """
    framing = ai_answer.framing_of(upstream)
    readable = framing.decoder is None or not framing.decoder.broken
    if not (upstream.status == 200 and framing.streamed and readable):
        call.usage_hider = None
        return
    for name in _OF_THE_BODY:
        response.headers.pop(name, None)


def _may_compress(exchange: Exchange, response: Response) -> bool:
    """Whether a body of ours may go in gzip: no stream, and the client takes it."""
    if exchange.method == "HEAD" or response.status_code in _WITHOUT_BODY:
        return False
    streamed = response.headers.get("Content-Type", "").startswith(CONTENT_TYPE)
    coded = "Content-Encoding" in response.headers
    return not (streamed or coded) and takes_gzip(exchange.headers)


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


def _is_empty(exchange: Exchange) -> bool:
    """Whether a request has no body."""
    coded = "transfer-encoding" in exchange.headers
    return not (exchange.content_length or coded)


def _greeting() -> Response:
    """What a client gets that only looks whether somebody is there."""
    return Response('{"message":"kongai is ready"}\n', content_type="application/json")
