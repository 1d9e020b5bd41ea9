"""Services: the upstreams that routes lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from kongai import criteria
from kongai.entities.certificate import CACertificate, Certificate
from kongai.entities.route import Route
from kongai.entities.types import (
    DEFAULT_PORTS,
    KONG_PROTOCOLS,
    NOT_HERE,
    Milliseconds,
    Name,
    Tags,
    Timestamp,
)


class _URL(msgspec.Struct, frozen=True):
    """The one field of a service that may be given by position."""

    url: str | None = None


class Service(_URL, frozen=True, kw_only=True):
    """An upstream that routes lead to. The fields are those of Kong's Service entity.

    Args:
        url: shorthand for `protocol`, `host`, `port` and `path`.
        routes: the routes that lead here.
        plugins: plugins for all of these routes.
        retries: how many more tries after a first one that failed.
        connect_timeout, write_timeout, read_timeout: milliseconds; the last two are
            the gap between two successive operations, not a total.
        tls_verify: false accepts any certificate; null (the default) verifies.
        tls_verify_depth: how many certificates may stand between the service's and the
            authority's.
        ca_certificates: the authorities that may vouch for the service; null (the
            default) for those that are generally trusted.
        client_certificate: what is shown to a service that asks who is there.

    Raises:
        ValueError: the `url` is not one.
    """

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"protocol", "port", "enabled"})

    name: Name | None = None
    protocol: Annotated[
        Literal["http", "https"], Meta(extra={"kong": KONG_PROTOCOLS})
    ] = "http"
    host: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 80
    path: (
        Annotated[str, Meta(pattern=r"^/", description="should start with: /")] | None
    ) = None
    retries: Annotated[int, Meta(ge=0, le=32767)] = 5
    connect_timeout: Milliseconds = 60000
    write_timeout: Milliseconds = 60000
    read_timeout: Milliseconds = 60000
    enabled: bool = True
    tags: Tags | None = None
    tls_verify: bool | None = None
    tls_verify_depth: Annotated[int, Meta(ge=0, le=64)] | None = None
    ca_certificates: Sequence[CACertificate] | None = None
    client_certificate: Certificate | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    routes: Sequence[Route] = ()
    plugins: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.url is not None:
            for field, value in url_parts(self.url).items():
                msgspec.structs.force_setattr(self, field, value)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the service: a field's path and Kong's text."""
        for text in criteria.check_service_host(self.host) if self.host else ():
            yield "host", text
        for text in criteria.check_service_path(self.path) if self.path else ():
            yield "path", text
        if self.protocol == "https":
            return
        given = [name for name in _FOR_TLS if getattr(self, name) is not None]
        if given:
            yield "", "failed conditional validation given value of field 'protocol'"
        for name in given:
            yield name, "value must be null"


_FOR_TLS = (
    *("tls_verify", "tls_verify_depth"),
    *("ca_certificates", "client_certificate"),
)


def url_parts(url: str) -> dict[str, Any]:
    """Expand Kong's `url` shorthand.

    Raises:
        ValueError: there is no host, or the scheme is not http(s).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The reason would quote the URL.
        parts, port = urlsplit(""), None
    scheme = parts.scheme
    if not scheme and url.startswith("//"):
        scheme = "https" if port == DEFAULT_PORTS["https"] else "http"
    if scheme in KONG_PROTOCOLS and scheme not in DEFAULT_PORTS:
        raise ValueError(
            f"'{scheme}' is {NOT_HERE}; it has: {', '.join(DEFAULT_PORTS)}"
        )
    if scheme not in DEFAULT_PORTS or not parts.hostname or url != url.strip():
        raise ValueError("expected an http or https URL with a host")
    return {
        "protocol": scheme,
        "host": parts.hostname,
        "port": DEFAULT_PORTS[scheme] if port is None else port,
        "path": parts.path or None,
    }
