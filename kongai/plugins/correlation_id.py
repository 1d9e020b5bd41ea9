"""`correlation-id`: gives each request an id in a header, as Kong's plugin does."""

from __future__ import annotations

import itertools
import os
import uuid
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import msgspec

from kongai.exchange import Exchange
from kongai.plugin import Plugin
from kongai.schema import settings

# What a header's name may have beside letters, digits and -._~ (RFC 9110, 5.6.2).
_ALLOWED = "!#$%&'*+^`|"


class CorrelationIdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `correlation-id`, as Kong names them."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"generator", "echo_downstream"})

    header_name: str = "Kong-Request-ID"
    generator: Literal["uuid", "uuid#counter", "tracker"] = "uuid#counter"
    echo_downstream: bool = False


class CorrelationId(Plugin):
    """Gives each request an id in a header, unless the client sent one.

    Args:
        config: the settings as a struct; or else, by keyword, as a file has them:
        fields: the keys of `config` in a file.

    Raises:
        ConfigError: with every problem of the settings.
    """

    name = "correlation-id"
    priority = 100001
    Config = CorrelationIdConfig

    def __init__(
        self, config: CorrelationIdConfig | None = None, /, **fields: Any
    ) -> None:
        self.config = settings(CorrelationIdConfig, config, fields)
        # Kong escapes what the name of a header can't have.
        self._header = quote(self.config.header_name, safe=_ALLOWED)
        self.init_worker()

    def init_worker(self) -> None:
        """Count anew, under an id that no other process has."""
        self._process = uuid.uuid4()
        self._counter = itertools.count(1)

    def access(self, exchange: Exchange) -> None:
        """Put an id among the request's headers, and into the record."""
        given = exchange.headers.get(self._header)
        if not given:
            given = exchange.headers[self._header] = self._made_up(exchange)
        exchange.log.set("correlation_id", given)
        exchange.state[self] = given

    def header_filter(self, exchange: Exchange) -> None:
        """Put it among the answer's headers, if that is wanted."""
        if not self.config.echo_downstream or exchange.response is None:
            return
        # A request without a route has not been through `access`.
        known = exchange.state.get(self) or exchange.headers.get(self._header)
        exchange.response.headers[self._header] = known or self._made_up(exchange)

    def _made_up(self, exchange: Exchange) -> str:
        if self.config.generator == "uuid":
            return str(uuid.uuid4())
        if self.config.generator == "uuid#counter":
            return f"{self._process}#{next(self._counter)}"
        environ = exchange.request.environ
        parts = (
            environ.get("SERVER_NAME", ""),
            environ.get("SERVER_PORT", ""),
            os.getpid(),
            environ.get("REMOTE_PORT", 0),
            next(self._counter),
            f"{exchange.timings.started_at / 1000:.3f}",
        )
        return "-".join(map(str, parts))
