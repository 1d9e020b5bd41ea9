"""Where a target of `ai-proxy` is, and how its requests look: address, key, path."""

from __future__ import annotations

from collections.abc import Generator
from urllib.parse import quote, urlsplit

from werkzeug.datastructures import Headers

from kongai import forwarding
from kongai.balancer import Address, forward
from kongai.entities.types import DEFAULT_PORTS
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.incoming import query_arguments, query_without
from kongai.llm.call import Call
from kongai.plugins.ai_proxy_config import Target


class Endpoint:
    """A provider's API, as one target of the configuration reaches it.

    The address is the provider's own, or that of `upstream_url`, which names the chat
    endpoint; the API's other paths are found beside it.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        options = target.model.options
        chat_path = target.provider.chat_path
        parts = urlsplit(options.upstream_url or target.provider.url)
        scheme, host = parts.scheme, parts.hostname or ""
        self._address = Address(
            scheme,
            host,
            parts.port or DEFAULT_PORTS[scheme],
            # As Kong sends it: without the port, whatever that is.
            forwarding.host_header(scheme, host, DEFAULT_PORTS[scheme]),
        )
        path = "/" + parts.path.lstrip("/")
        given = (options.upstream_path or "") if path == "/" else path
        self._chat_path = given or chat_path
        self._base = given.rstrip("/").removesuffix(chat_path).rstrip("/")

    def path(self, below_route: str, *, chat: bool) -> str:
        """The API's path for a request's path below the route."""
        return self._chat_path if chat else self._base + below_route

    def url(self, path: str) -> str:
        """Where a path of the API is, for people."""
        scheme, host, port, _ = self._address
        return f"{scheme}://{forwarding.bracketed(host)}:{port}{path}"

    def send(
        self, exchange: Exchange, call: Call
    ) -> Generator[UpstreamRequest, Attempt, None]:
        """A balancer for this endpoint alone, by the rules of the route's service."""
        path, query = call.path, self._query(exchange)
        return forward(
            exchange,
            self._address,
            path if query is None else f"{path}?{query}",
            headers=self._headers(exchange, call),
            body=call.body,
        )

    def _headers(self, exchange: Exchange, call: Call) -> Headers:
        """The client's headers as the provider gets them."""
        headers, auth = exchange.headers.copy(), self._target.auth
        version = self._target.model.options.anthropic_version
        if self._target.provider.version_header and version is not None:
            headers[self._target.provider.version_header] = version
        if call.chat:
            # Whoever reads along needs the plain bytes; br and zstd can't be undone.
            headers["Accept-Encoding"] = "identity"
        if auth.header_name is not None and auth.header_value is not None:
            exchange.secret_names |= {auth.header_name.lower()}
            exchange.secret_values |= {auth.header_value}
            if not (auth.allow_override and auth.header_name in headers):
                headers[auth.header_name] = auth.header_value
        return headers

    def _query(self, exchange: Exchange) -> str | None:
        """The client's query as the provider gets it."""
        auth, query = self._target.auth, exchange.query
        name, value = auth.param_name, auth.param_value
        if name is None or value is None:
            return query
        exchange.secret_names |= {name.lower()}
        exchange.secret_values |= {value, quote(value, safe="")}
        if auth.allow_override and name in query_arguments(query or ""):
            return query
        others = filter(None, query_without(query or "", name).split("&"))
        return "&".join([*others, f"{quote(name, safe='')}={quote(value, safe='')}"])
