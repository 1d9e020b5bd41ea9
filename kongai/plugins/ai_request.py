"""What `ai-proxy` makes of a request: Kong's rules, and the body that goes up.

Between equal formats the body goes up as it came, but for the fields that the
configuration sets. Otherwise it is translated.
"""

from __future__ import annotations

from typing import Any

from kongai import redact
from kongai.errors import RequestRejected
from kongai.exchange import BodyTooLarge, Exchange
from kongai.llm.call import Call, cut
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


def prepare(exchange: Exchange, call: Call, config: AIProxyConfig) -> None:
    """Read a request of the route's type, check it, and make the body that goes up.

    Args:
        exchange: the exchange.
        call: takes what is found out.
        config: the settings, their templates filled in.

    Raises:
        RequestRejected: with Kong's text, in the order of Kong's rules.
    """
    body = read_body(exchange, config.max_request_body_size or None)
    call.request_model = cut(config.model.name)
    if config.logging.log_payloads:
        # Whoever answers may quote the client's credentials.
        also = exchange.secret_names
        exchange.secret_values |= redact.credentials(exchange.headers, also)
    try:
        _prepare(body, call, config)
    except BadBody as bad:
        exchange.log.set("kongai.refused", str(bad))
        text = _NO_PROMPT if isinstance(bad, NoRequest) else str(bad)
        raise RequestRejected(text) from bad
    except RecursionError:
        # Where the stack is deeper than it was when the body was read first.
        exchange.log.set("kongai.refused", TOO_DEEP)
        raise RequestRejected(TOO_DEEP) from None


def _prepare(body: bytes, call: Call, config: AIProxyConfig) -> None:
    facts = config.client_format.read_request(body)
    call.request_model = cut(facts.model or config.model.name)
    call.streaming = facts.streaming
    other = facts.kind == _EMBEDDINGS and config.route_type != _EMBEDDINGS
    if not facts.has_prompt or other:
        raise NoRequest("JSON, but without a prompt")
    model = _model(facts, config)
    call.request_model = cut(model)
    if facts.ambiguous:
        raise RequestRejected(_AMBIGUOUS)
    if facts.kind != config.route_type:
        raise RequestRejected(
            f"[{facts.kind}] message format is not compatible with "
            f"[{config.route_type}] route type"
        )
    if config.response_streaming == "deny" and call.streaming:
        raise RequestRejected(_NO_STREAMS)
    always = config.response_streaming == "always" and config.route_type != _EMBEDDINGS
    call.streaming = call.streaming or always
    if config.translates:
        call.body = _translated(body, call, config, model)
    else:
        call.body = _native(body, facts, call, config, model)


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


def _translated(body: bytes, call: Call, config: AIProxyConfig, model: str) -> bytes:
    options = config.model.options
    try:
        chat = config.client_format.decode_request(body)
        chat.model, chat.stream = model, call.streaming
        for name in ("max_tokens", *_OPTIONS):
            value = getattr(options, name)
            if value is not None:
                setattr(chat, name, value)
        provider = provider_format(config.provider_format)
        call.translation = Translation(config.client_format, provider, chat)
        written = call.translation.request(config.dialect(model))
    except Untranslatable as error:
        target = f"{call.provider}://{config.route_type}"
        raise RequestRejected(f"error transforming to {target}: {error}") from error
    call.translation.let_go_of_prompt()
    return written


def _native(
    body: bytes, facts: RequestFacts, call: Call, config: AIProxyConfig, model: str
) -> bytes:
    fields = _configured(config, model)
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
        fields |= config.client_format.ask_for_usage(body)
        call.usage_hider = config.client_format.usage_hider()
    return with_fields(body, fields) if fields else body


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
