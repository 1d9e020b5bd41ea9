"""The types of fields that several entities have, with Kong's bounds and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        pattern=r"^[\w.\-~\u0080-\U0010ffff]+\Z",
        description=(
            "invalid value '{}': the only accepted ascii characters are "
            "alphanumerics or ., -, _, and ~"
        ),
    ),
]
Milliseconds = Annotated[int, Meta(ge=1, le=2**31 - 2)]
A_SET = Meta(extra_json_schema={"uniqueItems": True})
"""For an array in which nothing stands twice; Kong's `set`."""
Tags = Annotated[
    Sequence[
        Annotated[
            str,
            Meta(
                pattern=r"^[^,/\x00-\x1f\x7f]+\Z",
                description=(
                    "invalid tag '{}': expected printable ascii (except `,` and `/`) "
                    "or valid utf-8 sequences"
                ),
            ),
        ]
    ],
    A_SET,
]
Timestamp = Annotated[int, Meta(gt=0)]
"""Seconds since 1970."""
KONG_PROTOCOLS = (
    *("grpc", "grpcs", "http", "https"),
    *("tcp", "tls", "tls_passthrough", "udp"),
)

DEFAULT_PORTS = {"http": 80, "https": 443}
NOT_HERE = "not available in this version of kongai"
