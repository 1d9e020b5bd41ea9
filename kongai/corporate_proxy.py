"""Corporate proxies: which one leads to an upstream, and what it is told."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kongai.entities.types import DEFAULT_PORTS

_EXPECTED = "a proxy's URL is http://HOST:PORT or https://HOST:PORT"


@dataclass(frozen=True, slots=True, repr=False)
class CorporateProxy:
    """A proxy between the gateway and an upstream."""

    scheme: str
    """`http`, or `https` for one that is spoken to over TLS."""
    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()
    """What it has to be told: the credential of its URL, if there is one."""


def parsed(url: str) -> CorporateProxy:
    """The proxy of a URL; one without a scheme is one of plain HTTP.

    Raises:
        ValueError: it is no such URL.
    """
    # Python's own words for what is wrong would quote the password.
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(_EXPECTED)
    headers: tuple[tuple[str, str], ...] = ()
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        word = base64.b64encode(pair.encode("latin-1")).decode("ascii")
        headers = (("Proxy-Authorization", f"Basic {word}"),)
    if port is None:
        port = DEFAULT_PORTS[parts.scheme]
    return CorporateProxy(parts.scheme, parts.hostname, port, headers)


def chosen(
    proxies: Mapping[str, CorporateProxy], scheme: str, host: str
) -> CorporateProxy | None:
    """The proxy that leads to a host, as requests chooses it; None for the direct way.

    Args:
        proxies: by scheme, by ``all``, or by either with ``://`` and a host.
        scheme: how the host is spoken to.
        host: the host.
    """
    host = host.strip("[]").lower()
    for key in (f"{scheme}://{host}", scheme, f"all://{host}", "all"):
        if key in proxies:
            return proxies[key]
    return None
