"""What must never be written down, and how it is left out.

A credential is recognised by the name of its header or query argument, and by its
value where the name gives nothing away. The value becomes ``REDACTED``, as Kong writes
it for `authorization`; the name stays, so that a record still shows that it was there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

REDACTED = "REDACTED"

# `token` but not `tokens`: anthropic-ratelimit-tokens-remaining is no secret.
_NAME = re.compile(
    "key|token(?!s)|secret|auth|cookie|passw|credential|signature", re.IGNORECASE
)
_HARMLESS = frozenset({"idempotency-key", "x-cache-key"})
_VALUE = re.compile(r"\b(?:bearer|basic)\s+\S+|\bsk-[\w-]{8,}|\bAIza[\w-]{10,}", re.I)


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Whether a header or query argument of this name holds a credential."""
    return bool(_NAME.search(name)) and name.lower() not in _HARMLESS


def header_value(name: str, value: str, also: frozenset[str] = frozenset()) -> str:
    """A header's value for a record.

    Args:
        name: the header's name, in any case.
        value: what it holds.
        also: more names to treat as secret, in lower case.
    """
    if is_secret(name) or name.lower() in also:
        return REDACTED
    return text(value)


def text(value: str) -> str:
    """A text with anything that looks like a credential taken out."""
    return _VALUE.sub(REDACTED, value)


def query(raw: str) -> str:
    """A raw query string with the values of secret arguments taken out."""
    return "&".join(_argument(part) for part in raw.split("&"))


def target(raw: str) -> str:
    """A request target, path and query, for a record."""
    path, mark, arguments = raw.partition("?")
    return text(path) + mark + query(arguments)


def _argument(part: str) -> str:
    name, equals, value = part.partition("=")
    if equals and is_secret(name):
        return f"{name}={REDACTED}"
    return text(part)


def arguments(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Decoded query arguments for a record."""
    return [
        (name, REDACTED if value and is_secret(name) else text(value))
        for name, value in pairs
    ]
