"""`http-log`: sends each exchange's record to an HTTP server, as Kong's plugin does."""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import msgspec
from msgspec import Meta

from kongai._version import __version__
from kongai.delivery import Delivery, DeliveryError, Queue, seconds
from kongai.entities.types import DEFAULT_PORTS, NOT_HERE
from kongai.errors import UpstreamError
from kongai.exchange import Exchange, UpstreamRequest
from kongai.log import line
from kongai.plugin import Plugin
from kongai.plugins import custom_fields as fields
from kongai.schema import settings

_OWN_HEADERS = ("Host", "Content-Length", "Content-Type")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
_WITH_HOST = r"^[^/?#]*//([^/?#]*@)?[^/?#@]"
_MAX_ANSWER_PIECES = 16
_TWO_CREDENTIALS = (
    "specifying both an 'Authorization' header and user info in 'http_endpoint' is not "
    "allowed"
)
_logger = logging.getLogger("kongai")


class HttpLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `http-log`, as Kong names them; times in milliseconds."""

    NOT_HERE: ClassVar[dict[str, str]] = {
        "client_certificate": NOT_HERE,
        "custom_fields_by_lua": fields.NO_LUA,
    }
    REFERENCEABLE: ClassVar[frozenset[str]] = frozenset({"http_endpoint", "headers"})

    http_endpoint: Annotated[
        str, Meta(pattern=_WITH_HOST, description="missing host in url")
    ]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    content_type: Literal["application/json", "application/json; charset=utf-8"] = (
        "application/json"
    )
    timeout: float = 10000
    keepalive: float = 60000
    ssl_verify: bool = True
    headers: dict[str, str] | None = None
    queue: Queue = Queue()
    custom_fields: dict[str, Any] | None = None
    flush_timeout: float | None = None
    retry_count: int | None = None
    queue_size: int | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        url = _parts(self.http_endpoint)
        # An empty one is a reference that leads nowhere; a gateway starts without.
        if self.http_endpoint and (url is None or url.scheme not in DEFAULT_PORTS):
            missing = self.http_endpoint.startswith("//")
            yield (
                "http_endpoint",
                "missing scheme in url" if missing else "expected an http or https URL",
            )
        names = {name.lower() for name in self.headers or ()}
        for name in _OWN_HEADERS:
            if name.lower() in names:
                yield "headers", f"cannot contain '{name}' header"
        if "authorization" in names and url is not None and "@" in url.netloc:
            yield "", _TWO_CREDENTIALS
        for name, value in (self.headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
                yield "headers", f"bad header '{name}'"
        yield from fields.problems(self.custom_fields)

    def limits(self) -> Queue:
        """The queue's settings, with those that the old keys have in Kong."""
        changes: dict[str, Any] = {}
        if self.queue_size not in (None, 1):
            changes["max_batch_size"] = max(1, self.queue_size or 0)
        if self.flush_timeout not in (None, 2):
            changes["max_coalescing_delay"] = self.flush_timeout
        return msgspec.structs.replace(self.queue, **changes)

    def __repr__(self) -> str:
        return f"HttpLogConfig(method={self.method!r}, queue={self.queue!r})"


class HttpLog(Plugin):
    """Sends one record per exchange to an HTTP server, or several at a time.

    Args:
        config: the settings; in their place, the fields themselves.

    Raises:
        ConfigError: Kong would not take the fields.
    """

    name = "http-log"
    priority = 12
    Config = HttpLogConfig

    def __init__(self, config: HttpLogConfig | None = None, /, **given: Any) -> None:
        self.config = settings(HttpLogConfig, config, given)
        for text in _advice(self.config):
            _logger.warning("%s: %s", self.name, text)
        self._fields = fields.CustomFields(self.config.custom_fields)
        limits = self.config.limits()
        self._delivery = Delivery(
            self.name,
            lambda: _Sender(self.config, as_array=limits.max_batch_size > 1),
            limits,
        )

    def log(self, exchange: Exchange) -> None:
        """Hand the record over to the queue."""
        self._fields.set(exchange)
        self._delivery.put(line(exchange)[:-1])

    def prepare_close(self) -> None:
        """Begin to deliver what is in the queue."""
        self._delivery.prepare_close()

    def close(self) -> None:
        """Deliver what is in the queue, for a few seconds at most."""
        self._delivery.close()


def _advice(config: HttpLogConfig) -> Iterator[str]:
    if config.retry_count not in (None, 10):
        yield (
            "the retry_count parameter no longer works, please update your "
            "configuration to use initial_retry_delay and max_retry_time instead"
        )
    if config.queue_size not in (None, 1):
        yield (
            "the queue_size parameter is deprecated, please update your configuration "
            "to use queue.max_batch_size instead"
        )
    if config.flush_timeout not in (None, 2):
        yield (
            "the flush_timeout parameter is deprecated, please update your "
            "configuration to use queue.max_coalescing_delay instead"
        )
    url = _parts(config.http_endpoint)
    if url is not None and url.query:
        yield "the query of http_endpoint is not sent, as in Kong"


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


class _Sender:
    """Sends batches over a transport of its own, on the queue's thread."""

    def __init__(self, config: HttpLogConfig, *, as_array: bool) -> None:
        # It is slow to import, and not needed before there is a record.
        from kongai.socket_transport import SocketTransport

        self._config = config
        self._as_array = as_array
        self._transport = SocketTransport(pool_size=1)
        self._used = time.monotonic()

    def send(self, entries: Sequence[bytes]) -> None:
        config = self._config
        body = b"[%b]" % b",".join(entries) if self._as_array else entries[0]
        request = _request(config, body)
        now = time.monotonic()
        if 0 < config.keepalive < (now - self._used) * 1000:
            self._transport.close()
        where = f"{request.host}:{request.port}"
        try:
            response = self._transport.send(request)
            try:
                for _ in islice(response.chunks, _MAX_ANSWER_PIECES):
                    pass
            finally:
                response.close()
        except UpstreamError as error:
            raise DeliveryError(f"failed request to {where}: {error.ended}") from error
        self._used = time.monotonic()
        if response.status >= 300:
            raise DeliveryError(f"{where} answers with status {response.status}")

    def close(self) -> None:
        self._transport.close()


def _request(config: HttpLogConfig, body: bytes) -> UpstreamRequest:
    url = _parts(config.http_endpoint)
    if url is None or not url.hostname or url.scheme not in DEFAULT_PORTS:
        raise DeliveryError("http_endpoint is not a URL")
    userinfo, _, address = url.netloc.rpartition("@")
    headers = [
        ("Host", address),
        ("User-Agent", f"kongai/{__version__}"),
        ("Content-Type", config.content_type),
        ("Content-Length", str(len(body))),
    ]
    if userinfo:
        credential = base64.b64encode(unquote_to_bytes(userinfo)).decode()
        headers.append(("Authorization", f"Basic {credential}"))
    for name, value in (config.headers or {}).items():
        headers = [pair for pair in headers if pair[0].lower() != name.lower()]
        headers.append((name, value.encode().decode("latin-1")))
    timeout = seconds(config.timeout)
    return UpstreamRequest(
        config.method,
        url.scheme,
        url.hostname,
        url.port or DEFAULT_PORTS[url.scheme],
        (url.path or "/").encode().decode("latin-1"),
        headers,
        body,
        connect_timeout=timeout,
        write_timeout=timeout,
        read_timeout=timeout,
        verify=config.ssl_verify,
    )
