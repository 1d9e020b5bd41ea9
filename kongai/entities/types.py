"""The types of fields that several entities have, with Kong's bounds and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        pattern=r"^[\w.\-~\u0080-\U0010ffff]+\Z",
        description="invalid value: only letters, digits and . - _ ~ are allowed",
    ),
]
Milliseconds = Annotated[int, Meta(ge=1, le=2**31 - 2)]
Tags = Sequence[
    Annotated[
        str, Meta(pattern=r"^[^,/]+\Z", description="invalid tag: no ',' or '/' in it")
    ]
]
Timestamp = Annotated[int, Meta(gt=0, description="expected a valid timestamp")]

DEFAULT_PORTS = {"http": 80, "https": 443}
NOT_HERE = "not available in this version of kongai"
