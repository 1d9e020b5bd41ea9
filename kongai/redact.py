"""What must never be written down, and how it is left out.

A credential is recognised by the name of its header or query argument, and by its
value where the name gives nothing away. The value becomes ``REDACTED``, as Kong writes
it for `authorization`; the name stays, so that a record still shows that it was there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar, cast
from urllib.parse import unquote_plus

REDACTED = "REDACTED"

T = TypeVar("T")

# `token` but not `tokens`: anthropic-ratelimit-tokens-remaining is no secret, and
# neither is the challenge of a www-authenticate.
_NAME = re.compile(
    "key|token(?!s)|secret|auth(?!enticate)|cookie|passw|passphrase|credential|signature"
    # Short words are parts of others: `sig` of an Azure URL, but not `design`.
    r"|(?<![a-z0-9])(?:jwt|pass|pwd|sig)(?![a-z0-9])",
    re.IGNORECASE,
)
# The last one is an id that `key-auth` sets.
_HARMLESS = frozenset({"idempotency-key", "x-cache-key", "x-credential-identifier"})
# In the text of a JSON value: one starts after an escape such as \n too, and ends
# before a quote or a backslash.
_VALUE = re.compile(
    r"(?:\b|(?<=\\[bfnrt]))"
    r'(?:(?:bearer|basic)(?:\s|\+|%20)+[^\s"\\]+|sk-[\w-]{8,}|AIza[\w-]{10,})',
    re.IGNORECASE,
)


SHORTEST = 8
"""Shorter secrets may be words, and are not looked for wherever they may stand."""

_LONG = 16
"""So long a part of what a client sends is no word, and is a credential by itself."""
_APART = re.compile(r"[\s;,]+|(?<=\w)=(?=\w)")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.$\[\]:-]{1,100}")
_PARTS = re.compile(r"[.\[\]]+")
_LONGEST_PART = 39
_LONG_RUN = re.compile(r"[A-Za-z0-9]{12,}")

# One slash is left of two where a path was normalised.
_USER_OF_URL = re.compile(r"""(:/{1,2})[^/?#@\s<>"'\\]+@""")
_URL_ARGUMENT = re.compile(r"""([?&])([^=&?#\s<>"']+)(=)([^&#\s<>"']+)""")


def is_secret(name: str) -> bool:
    """Whether a header or query argument of this name holds a credential."""
    known = _known_names.get(name)
    return _look_at(name) if known is None else known


def looks_secret(name: str) -> bool:
    """The same, for a name that is not to be remembered here."""
    return bool(_NAME.search(name)) and name.lower() not in _HARMLESS


def _look_at(name: str) -> bool:
    secret = looks_secret(name)
    # Clients make names up. What may be a key by mistake is not kept, however short.
    if len(name) <= _LONGEST_KEPT and is_harmless(name):
        if len(_known_names) >= _MOST_KEPT:
            _known_names.clear()
        _known_names[name] = secret
    return secret


_LONGEST_KEPT = 64
_MOST_KEPT = 1024
_known_names: dict[str, bool] = {}


def header_value(name: str, value: str, also: frozenset[str] = frozenset()) -> str:
    """A header's value for a record.

    Args:
        name: the header's name, in any case.
        value: what it holds.
        also: more names to treat as secret, in lower case.
    """
    return REDACTED if named_secret(name, also) else unnamed_value(value, also)


def unnamed_value(value: str, also: frozenset[str] = frozenset()) -> str:
    """The value of a header whose name gives nothing away."""
    return text(_in_url(value, also) if "?" in value else value)


def text(value: str) -> str:
    """A text with anything that looks like a credential taken out, and from URLs the
    user with the password."""
    return value if is_harmless(value) else _scrubbed(value)


def is_harmless(value: str) -> bool:
    """Whether it shows at a glance that `text` has nothing to take out.

    A glance takes a tenth of the time; False says that a closer look is needed.
    """
    # Outside of ASCII there are more letters that match an `s` or a `k` in any case.
    if not value.isascii():
        return False
    lower = value.lower()
    return not (
        "sk-" in lower
        or "@" in lower
        or "bearer" in lower
        or "basic" in lower
        or "aiza" in lower
    )


def _scrubbed(value: str) -> str:
    value = _VALUE.sub(REDACTED, value)
    return _USER_OF_URL.sub(rf"\1{REDACTED}@", value) if "@" in value else value


def name(value: str) -> str:
    """The name of a member that a client has made up, for a record.

    It is a path such as ``tools[].defer_loading``. What does not look like one is
    shown as ``...``: a part of it may be a key. Parts are short, and have letters and
    digits in turns only in short pieces, as in ``web_search_20250305``.
    """
    runs = _LONG_RUN.findall(value)
    plain = (
        _PLAIN_NAME.fullmatch(value)
        and all(len(part) <= _LONGEST_PART for part in _PARTS.split(value))
        and all(run.isalpha() or run.isdigit() for run in runs)
    )
    return text(value) if plain else "..."


def credentials(
    headers: Iterable[tuple[str, str]], also: frozenset[str] = frozenset()
) -> set[str]:
    """The credentials in headers, as others may quote them: without scheme or name.

    Args:
        headers: names and values.
        also: more names of headers to treat as secret, in lower case.
    """
    found: set[str] = set()
    for name, value in headers:
        if named_secret(name, also):
            found.update(part for part in _APART.split(value) if len(part) >= _LONG)
    return found


def raw(data: bytes, secrets: Iterable[str]) -> bytes:
    """A body with these very secrets taken out, but for those that may be words."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            data = data.replace(secret.encode(), REDACTED.encode())
    return data


def values(data: T, secrets: Iterable[str]) -> T:
    """Nested data with these very secrets taken out, wherever they stand."""
    # The longest first: a shorter one may be a part of it.
    return _without(data, sorted(secrets, key=len, reverse=True))


def _without(data: T, secrets: Iterable[str]) -> T:
    scrubbed: Any = data
    if isinstance(data, str):
        for secret in secrets:
            scrubbed = scrubbed.replace(secret, REDACTED) if secret else scrubbed
    elif isinstance(data, dict):
        scrubbed = {name: _without(value, secrets) for name, value in data.items()}
    elif isinstance(data, list):
        scrubbed = [_without(value, secrets) for value in data]
    return cast("T", scrubbed)


def query(raw: str, also: frozenset[str] = frozenset()) -> str:
    """A raw query string with the values of secret arguments taken out."""
    return "&".join(_argument(part, also) for part in raw.split("&"))


def target(raw: str, also: frozenset[str] = frozenset()) -> str:
    """A request target, path and query, for a record."""
    path, mark, arguments = raw.partition("?")
    return text(path) + mark + query(arguments, also)


def argument(name: str, value: str, also: frozenset[str] = frozenset()) -> str:
    """A decoded query argument's value for a record."""
    return REDACTED if value and named_secret(name, also) else text(value)


def _argument(part: str, also: frozenset[str]) -> str:
    name, equals, _ = part.partition("=")
    if equals and named_secret(unquote_plus(name), also):
        return f"{name}={REDACTED}"
    return text(part)


def _in_url(value: str, also: frozenset[str]) -> str:
    """A value with a URL in it, such as a `Location`, without its secret arguments."""

    def shown(found: re.Match[str]) -> str:
        mark, name, equals, _ = found.groups()
        if named_secret(unquote_plus(name), also):
            return f"{mark}{name}{equals}{REDACTED}"
        return found.group()

    return _URL_ARGUMENT.sub(shown, value)


def named_secret(name: str, also: frozenset[str]) -> bool:
    """Whether a name is that of a credential, or among these in lower case."""
    return is_secret(name) or name.lower() in also
