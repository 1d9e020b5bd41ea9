"""`key-auth`: knows consumers by their keys, as Kong's plugin does.

A key is looked for in the request's headers, its query and, if that is wanted, its
body. It reaches no record, and by default no upstream either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from kongai import criteria
from kongai.entities import Consumer, KeyAuthCredential
from kongai.errors import GatewayError, RequestRejected
from kongai.exchange import BodyTooLarge, Exchange
from kongai.incoming import query_arguments, query_without
from kongai.plugin import Plugin
from kongai.plugins import body_fields
from kongai.schema import settings

MAX_BODY_SIZE = 32 * 1024 * 1024
"""Bytes of a body in which a key is looked for."""

_TOLD = (
    "X-Consumer-ID",
    "X-Consumer-Custom-ID",
    "X-Consumer-Username",
    "X-Credential-Identifier",
    "X-Anonymous-Consumer",
)
# Shorter ones are part of too many words for a record to be searched for them.
_SHORTEST_SECRET = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class KeyAuthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `key-auth`, as Kong names them."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset(
        {
            "key_names",
            "hide_credentials",
            "key_in_header",
            "key_in_query",
            "key_in_body",
            "run_on_preflight",
        }
    )

    NOT_HERE: ClassVar[dict[str, str]] = {
        "identity_realms": "realms are Konnect's; write the consumers into the file",
        "principals": "principals are Konnect's; write the consumers into the file",
    }

    key_names: tuple[str, ...] = ("apikey",)
    key_in_header: bool = True
    key_in_query: bool = True
    key_in_body: bool = False
    hide_credentials: bool = True
    anonymous: str | None = None
    realm: str | None = None
    run_on_preflight: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        for index, name in enumerate(self.key_names):
            for text in criteria.check_header_name(name):
                yield f"key_names.{index}", text


class KeyAuth(Plugin):
    """Lets in whoever shows the key of a consumer.

    Args:
        config: the settings as a struct; or else, by keyword, as a file has them:
        fields: the keys of `config` in a file.

    Raises:
        ConfigError: with every problem of the settings.
    """

    name = "key-auth"
    priority = 1250
    authenticates = True
    Config = KeyAuthConfig

    def __init__(self, config: KeyAuthConfig | None = None, /, **fields: Any) -> None:
        self.config = settings(KeyAuthConfig, config, fields)
        names = {name.lower() for name in self.config.key_names}
        self.secret_names = frozenset(names | {_header(name) for name in names})

    def explain(self, exchange: Exchange) -> Iterator[tuple[str, str]]:
        """Whose key the request shows, or what becomes of it without one."""
        instead = self.config.anonymous
        end = "is answered with 401" if instead is None else f"counts as {instead}"
        names = " or ".join(self.config.key_names)
        text = f"without a key in {names} the request {end} ({self.name})"
        try:
            shown = self._first_shown(exchange)
        except _Unauthorized:
            shown = None
        if shown is not None:
            found = exchange.consumers.by_key(shown[1])
            text = f"with this key in {shown[0]} the request {end} ({self.name})"
            if found is not None:
                name = found[0].username or found[0].custom_id
                text = f"the key in {shown[0]} is that of {name} ({self.name})"
        yield "consumer", text

    def access(self, exchange: Exchange) -> None:
        """Find out who sends the request, or refuse it."""
        if exchange.request.method == "OPTIONS" and not self.config.run_on_preflight:
            _say(exchange, {})
            return
        if self.config.anonymous is not None and exchange.credential is not None:
            # Another plugin has found out already: one of them is enough.
            return
        try:
            consumer, credential = self._authenticated(exchange)
        except _Unauthorized:
            if self.config.anonymous is None:
                raise
            _identify(exchange, self._nobody(exchange, self.config.anonymous), None)
        else:
            _identify(exchange, consumer, credential)

    def _authenticated(self, exchange: Exchange) -> tuple[Consumer, KeyAuthCredential]:
        key = self._key(exchange)
        if not key:
            raise self._unauthorized("No API key found in request")
        if len(key) >= _SHORTEST_SECRET:
            exchange.secret_values |= {key, quote(key, safe=""), _utf8(key)}
        find = exchange.consumers.by_key
        found = find(key) or find(_utf8(key))
        if found is None:
            raise self._unauthorized("Unauthorized")
        return found

    def _key(self, exchange: Exchange) -> str | None:
        """The first key that the request shows, taken out if it is to be hidden."""
        shown = self._first_shown(exchange)
        if shown is None:
            return None
        name, key = shown
        if self.config.hide_credentials:
            self._hide(exchange, name)
        return key

    def _first_shown(self, exchange: Exchange) -> tuple[str, str] | None:
        """The first key that the request shows, and the name that it has there."""
        for name in self.config.key_names:
            shown = self._shown(exchange, name)
            if len(shown) > 1 or any(isinstance(one, (list, dict)) for one in shown):
                raise self._unauthorized("Duplicate API key found")
            if shown and isinstance(shown[0], str):
                return name, shown[0]
        return None

    def _shown(self, exchange: Exchange, name: str) -> list[Any]:
        """What the request has under a name, where it is looked for first."""
        config = self.config
        if config.key_in_header:
            shown = exchange.headers.getlist(_header(name))
            if shown:
                return list(shown)
        if config.key_in_query and exchange.query:
            arguments = query_arguments(exchange.query).get(name)
            if arguments:
                return list(arguments)
        if config.key_in_body and _has_fields(exchange):
            return body_fields.values(_body(exchange), _content_type(exchange), name)
        return []

    def _hide(self, exchange: Exchange, name: str) -> None:
        exchange.headers.pop(_header(name), None)
        if exchange.query is not None:
            exchange.query = query_without(exchange.query, name)
        if self.config.key_in_body and _has_fields(exchange):
            body = _body(exchange)
            kept = body_fields.without(body, _content_type(exchange), name)
            exchange.body = kept
            if "content-length" in exchange.headers:
                exchange.headers["Content-Length"] = str(len(kept))

    def _unauthorized(self, message: str) -> _Unauthorized:
        refusal = _Unauthorized(message)
        realm = self.config.realm
        if realm is not None:
            quoted = _header_text(re.sub(r'(["\\])', r"\\\1", realm))
            refusal.headers = (("WWW-Authenticate", f'Key realm="{quoted}"'),)
        return refusal

    def _nobody(self, exchange: Exchange, name: str) -> Consumer:
        consumer = exchange.consumers.find(name)
        if consumer is None:
            raise _NoSuchConsumer(
                f"anonymous consumer {name} is configured but doesn't exist"
            )
        return consumer


class _NoSuchConsumer(GatewayError):
    """The configuration names a consumer that is not there."""


class _Unauthorized(RequestRejected):
    """The request shows no key that somebody has."""

    status = 401
    ended = "unauthorized"
    headers = (("WWW-Authenticate", "Key"),)


def _identify(
    exchange: Exchange, consumer: Consumer, credential: KeyAuthCredential | None
) -> None:
    """Say who it is, to the gateway and to the upstream."""
    exchange.authenticate(consumer, credential)
    said = {
        "X-Consumer-ID": consumer.id,
        "X-Consumer-Custom-ID": consumer.custom_id,
        "X-Consumer-Username": consumer.username,
    }
    if credential is None:
        said["X-Anonymous-Consumer"] = "true"
    else:
        said["X-Credential-Identifier"] = credential.id
    _say(exchange, said)


def _say(exchange: Exchange, said: Mapping[str, str | None]) -> None:
    """Tell the upstream this of the consumer; what the client told of itself goes."""
    for name in _TOLD:
        value = said.get(name)
        if value is None:
            exchange.headers.pop(name, None)
        else:
            exchange.headers[name] = _header_text(value)


def _header(name: str) -> str:
    """The header of a key's name: servers drop those with an underscore."""
    return name.replace("_", "-")


def _header_text(value: str) -> str:
    """A text as a header has it: UTF-8, and no line end or other control character."""
    safe = _CONTROL.sub(lambda found: quote(found.group()), value)
    return safe.encode().decode("latin-1")


def _utf8(text: str) -> str:
    """A text whose every character was read from one byte, as the UTF-8 it may be."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _content_type(exchange: Exchange) -> str:
    return exchange.headers.get("content-type", "")


def _has_fields(exchange: Exchange) -> bool:
    return body_fields.has_fields(_content_type(exchange))


def _body(exchange: Exchange) -> bytes:
    try:
        return exchange.read_body(MAX_BODY_SIZE)
    except BodyTooLarge as error:
        raise RequestRejected(
            "Payload too large", status=413, ended="too_large"
        ) from error
