"""`request-size-limiting`: refuses large bodies, as Kong's plugin does.

A body whose length is announced is refused before it is read. One that comes in chunks
is counted on its way; the upstream may have been sent its beginning, but never its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from kongai.errors import RequestRejected
from kongai.exchange import Exchange
from kongai.plugin import Plugin
from kongai.schema import settings

_UNITS = {"bytes": 1, "kilobytes": 2**10, "megabytes": 2**20}


class RequestSizeLimitingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `request-size-limiting`, as Kong names them."""

    allowed_payload_size: int = 128
    size_unit: Literal["megabytes", "kilobytes", "bytes"] = "megabytes"
    require_content_length: bool = False


class RequestSizeLimiting(Plugin):
    """Refuses requests whose body is too large.

    Args:
        config: the settings as a struct; or else, by keyword, as a file has them:
        fields: the keys of `config` in a file.

    Raises:
        ConfigError: with every problem of the settings.
    """

    name = "request-size-limiting"
    priority = 951
    Config = RequestSizeLimitingConfig

    def __init__(
        self, config: RequestSizeLimitingConfig | None = None, /, **fields: Any
    ) -> None:
        self.config = settings(RequestSizeLimitingConfig, config, fields)
        self._limit = self.config.allowed_payload_size * _UNITS[self.config.size_unit]

    def explain(self, exchange: Exchange) -> Iterator[tuple[str, str]]:
        """How long a body may be."""
        yield "limit", f"a body of {self._limit} bytes ({self.name})"

    def access(self, exchange: Exchange) -> None:
        """Look at the length, or have the body counted as it comes."""
        headers = exchange.headers
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        unknown = "content-length" not in headers and not chunked
        if unknown and self.config.require_content_length:
            raise RequestRejected(
                "A valid Content-Length header is required",
                status=411,
            )
        waiting = headers.get("expect", "").strip().lower() == "100-continue"
        refusal = RequestRejected(
            "Request size limit exceeded",
            status=417 if waiting else 413,
            ended="too_large",
        )
        exchange.limit_body(self._limit, refusal)
