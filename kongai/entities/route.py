"""Routes: which requests go to a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kongai import criteria
from kongai.entities.types import (
    A_SET,
    KONG_PROTOCOLS,
    NOT_HERE,
    Name,
    Tags,
    Timestamp,
)

RoutePath = Annotated[
    str,
    Meta(
        pattern="^~?/",
        description=("should start with: / (fixed path) or ~/ (regex path)"),
    ),
]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests go to a service. The fields are those of Kong's Route entity.

    Args:
        paths: prefixes, or regular expressions written ``~/...``.
        hosts: host names, with at most one ``*`` as the first or last label.
        headers: header names, each with the values of which one must be there.
        snis: names of the TLS handshake; they do not count for plain HTTP.
        strip_path: whether the matched prefix is left out of the upstream's path.
        plugins: plugins for this route alone.
    """

    NOT_HERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("destinations", "sources"), NOT_HERE),
        **dict.fromkeys(
            ("expression", "priority"),
            f"{NOT_HERE}; write paths, hosts, methods, headers and regex_priority",
        ),
    }

    NOT_NULL: ClassVar[frozenset[str]] = frozenset(
        {
            *("protocols", "strip_path", "preserve_host"),
            *("https_redirect_status_code", "request_buffering", "response_buffering"),
        }
    )

    name: Name | None = None
    protocols: Annotated[
        Sequence[
            Annotated[Literal["http", "https"], Meta(extra={"kong": KONG_PROTOCOLS})]
        ],
        A_SET,
    ] = ("http", "https")
    methods: (
        Annotated[
            Sequence[
                Annotated[
                    str,
                    Meta(
                        pattern=r"^[A-Z]+\Z",
                        description="invalid value: {}; write it in upper case",
                    ),
                ]
            ],
            A_SET,
        ]
        | None
    ) = None
    hosts: Sequence[str] | None = None
    paths: Sequence[RoutePath] | None = None
    headers: dict[str, Sequence[str]] | None = None
    snis: Sequence[str] | None = None
    strip_path: bool = True
    preserve_host: bool = False
    regex_priority: int = 0
    path_handling: Literal["v0", "v1"] = "v0"
    https_redirect_status_code: Literal[426, 301, 302, 307, 308] = 426
    request_buffering: bool = True
    response_buffering: bool = True
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    plugins: Sequence[Any] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the route as a whole: a field's path and Kong's text."""
        protocol = "https" if "https" in self.protocols else "http"
        snis = self.snis if protocol == "https" else None
        if not (self.methods or self.hosts or self.headers or self.paths or snis):
            yield (
                "",
                "must set one of 'methods', 'hosts', 'headers', 'paths'"
                + (", 'snis'" if protocol == "https" else "")
                + f" when 'protocols' is '{protocol}'",
            )
        for index, path in enumerate(self.paths or ()):
            for text in criteria.check_route_path(path):
                yield f"paths.{index}", text
        for index, host in enumerate(self.hosts or ()):
            for text in criteria.check_route_host(host):
                yield f"hosts.{index}", text
        if self.snis and protocol == "http":
            yield (
                "snis",
                _SNIS_WITHOUT_TLS,
            )
        for index, sni in enumerate(self.snis or ()):
            for text in criteria.check_route_sni(sni):
                yield f"snis.{index}", text
        for name, values in (self.headers or {}).items():
            for text in criteria.check_route_header(name, values):
                yield "headers", text


_SNIS_WITHOUT_TLS = (
    "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or "
    "'tls_passthrough'"
)
