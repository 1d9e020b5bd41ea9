"""Where below its route a request to an LLM's API goes."""

from __future__ import annotations

import re

from kongai.exchange import Exchange

_BEGUN = re.compile(r"/v1(?:/messages)?/?\Z")


def below_route(exchange: Exchange) -> str:
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


def _rooted(path: str) -> str:
    return f"/{path.removeprefix('/')}" if path else ""
