"""What `ai-proxy` makes of a request: Kong's rules, and the body that goes up.

Between equal formats the body goes up as it came, but for the fields that the
configuration sets. Otherwise it is translated.
"""

from __future__ import annotations

from typing import Any

from kongai import redact
from kongai.errors import RequestRejected
from kongai.exchange import BodyTooLarge, Exchange
from kongai.llm.call import LONGEST_NAME, Call
from kongai.llm.chat import Untranslatable
from kongai.llm.formats import RequestFacts
from kongai.llm.json_fields import with_fields
from kongai.llm.request_body import HALF_PAIR, TOO_DEEP, BadBody, NoRequest
from kongai.llm.translate import Translation
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.registry import provider_format

_JSON = "application/json"
_EMBEDDINGS = "llm/v1/embeddings"
_NO_PROMPT = "request body doesn't contain valid prompts"
_NO_MODEL = "model parameter not found in request, nor in gateway configuration"
_AMBIGUOUS = "request matches multiple LLM request formats"
_NO_STREAMS = "response streaming is not enabled for this LLM"
_ANY_MODEL = "*"
"""The alias of a model that answers to every name."""
_OPTIONS = ("temperature", "top_p", "top_k")
_OTHER_OPTIONS = ("max_tokens", "embeddings_dimensions")


def read_body(exchange: Exchange, limit: int | None) -> bytes:
    """The request's body.

    Args:
        exchange: the exchange.
        limit: the most bytes; None for no limit.

    Raises:
        RequestRejected: there is more of it, or it is no JSON by its type.
    """
    try:
        body = exchange.read_body(limit)
    except BodyTooLarge as error:
        raise RequestRejected(
            f"Request exceeds the maximum size: {error.limit} bytes are allowed "
            "(max_request_body_size)",
            status=413,
            ended="too_large",
        ) from error
    kind = exchange.headers.get("content-type", _JSON)
    if kind != _JSON and kind.partition(";")[0].strip().lower() != _JSON:
        raise RequestRejected(_NO_PROMPT)
    return body


class Requests:
    """Makes of clients' requests those that go up, by one set of settings.

    Args:
        config: the settings, their templates filled in before a request is made.
    """

    def __init__(self, config: AIProxyConfig) -> None:
        self._config = config
        self._format = config.client_format
        self._limit = config.max_request_body_size or None
        self._translates = config.translates
        self._takes_any_model = config.model.name is config.model.model_alias is None
        options, names = config.model.options, (*_OPTIONS, *_OTHER_OPTIONS)
        self._sets_options = any(getattr(options, name) is not None for name in names)

    def prepare(self, exchange: Exchange, call: Call) -> None:
        """Read a request of the route's type, check it, and make the body that goes up.

        Args:
            exchange: the exchange.
            call: takes what is found out.

        Raises:
            RequestRejected: with Kong's text, in the order of Kong's rules.
        """
        body = read_body(exchange, self._limit)
        if self._config.logging.log_payloads:
            # Whoever answers may quote the client's credentials.
            also = exchange.secret_names
            exchange.secret_values |= redact.credentials(exchange.headers, also)
        try:
            call.body = self._made(body, call)
        except BadBody as bad:
            exchange.log.set("kongai.refused", str(bad))
            text = _NO_PROMPT if isinstance(bad, NoRequest) else str(bad)
            raise RequestRejected(text) from bad
        except RecursionError:
            # Where the stack is deeper than it was when the body was read first.
            exchange.log.set("kongai.refused", TOO_DEEP)
            raise RequestRejected(TOO_DEEP) from None

    def _made(self, body: bytes, call: Call) -> bytes:
        config = self._config
        if config.model.name is not None:
            call.request_model = config.model.name[:LONGEST_NAME]
        facts = self._format.read_request(body)
        if facts.model is not None:
            call.request_model = facts.model[:LONGEST_NAME]
        call.streaming = facts.streaming
        other = facts.kind == _EMBEDDINGS and config.route_type != _EMBEDDINGS
        if not facts.has_prompt or other:
            raise NoRequest("JSON, but without a prompt")
        model = facts.model
        if model is None or not self._takes_any_model:
            model = _model(facts, config)
            call.request_model = model[:LONGEST_NAME]
        if facts.ambiguous:
            raise RequestRejected(_AMBIGUOUS)
        if facts.kind != config.route_type:
            raise RequestRejected(
                f"[{facts.kind}] message format is not compatible with "
                f"[{config.route_type}] route type"
            )
        if config.response_streaming != "allow":
            if config.response_streaming == "deny" and call.streaming:
                raise RequestRejected(_NO_STREAMS)
            always = config.response_streaming == "always"
            if always and config.route_type != _EMBEDDINGS:
                call.streaming = True
        if self._translates:
            return self._translated(body, call, model)
        return self._native(body, facts, call, model)

    def _translated(self, body: bytes, call: Call, model: str) -> bytes:
        config = self._config
        options = config.model.options
        try:
            chat = self._format.decode_request(body)
            chat.model, chat.stream = model, call.streaming
            for name in ("max_tokens", *_OPTIONS):
                value = getattr(options, name)
                if value is not None:
                    setattr(chat, name, value)
            provider = provider_format(config.provider_format)
            call.translation = Translation(self._format, provider, chat)
            written = call.translation.request(config.dialect(model))
        except Untranslatable as error:
            target = f"{call.provider}://{config.route_type}"
            raise RequestRejected(f"error transforming to {target}: {error}") from error
        call.translation.let_go_of_prompt()
        return written

    def _native(
        self, body: bytes, facts: RequestFacts, call: Call, model: str
    ) -> bytes:
        config = self._config
        fields = _configured(config, model) if self._sets_options else {}
        if facts.model != model:
            fields["model"] = model
        if call.streaming and not facts.streaming:
            fields["stream"] = True
        asks = (
            call.streaming
            and not facts.usage_in_stream
            and config.logging.log_statistics
            and config.dialect(model).stream_usage
        )
        if not facts.exact and (fields or asks or config.auth.param_location == "body"):
            raise BadBody(HALF_PAIR)
        if asks:
            fields |= self._format.ask_for_usage(body)
            call.usage_hider = self._format.usage_hider()
        return with_fields(body, fields) if fields else body


def _model(facts: RequestFacts, config: AIProxyConfig) -> str:
    """The model to ask, by Kong's rules on whose word counts."""
    name, alias, asked = config.model.name, config.model.model_alias, facts.model
    if asked is None:
        if name is None:
            raise RequestRejected(_NO_MODEL)
        return name
    if alias is not None:
        if asked not in (alias, name) and alias != _ANY_MODEL:
            raise RequestRejected("model not configured")
        return name or asked
    if name is not None and asked != name:
        raise RequestRejected(f"cannot use own model - must be: {name}")
    return asked


def _configured(config: AIProxyConfig, model: str) -> dict[str, Any]:
    """The fields that the configuration sets; None takes one out."""
    options = config.model.options
    if config.route_type == _EMBEDDINGS:
        dimensions = options.embeddings_dimensions
        return {} if dimensions is None else {"dimensions": dimensions}
    fields: dict[str, Any] = {}
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is not None:
            fields[name] = value
    if options.max_tokens is not None:
        # A client may have said it under the other name.
        fields |= {"max_tokens": None, "max_completion_tokens": None}
        fields[config.dialect(model).max_tokens] = options.max_tokens
    return fields
