"""What records show of heads and targets, remembered for when it comes again.

Most of what a client sends with one request it sends with the next. It is taken apart
and looked at once; no credential is remembered, and nothing of which one was taken out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from kongai import redact
from kongai.incoming import argument

MAX_HEADERS = 100
"""The most headers that a record shows."""
MAX_KEPT = 1024
"""The most that is remembered of each kind; then it begins anew."""
LONGEST_KEPT = 256
"""Characters; what is longer is looked at each time."""

_NEW_EACH_TIME = frozenset(
    {"x-kong-request-id", "request-id", "x-request-id", "cf-ray", "date"}
)
"""Headers whose values don't come again, in lower case."""

K = TypeVar("K")
V = TypeVar("V")


class Shown:
    """What records show, for one set of names that are secret.

    Where it is told of secrets, these are not taken out of what is shown, but what has
    one in it is not remembered.

    Args:
        also: more names of headers and query arguments to treat as secret, in lower
            case.
    """

    def __init__(self, also: frozenset[str] = frozenset()) -> None:
        self._also = also
        self._names: dict[str, str] = {}
        """Names of headers that are no secrets, in lower case."""
        self._secret: dict[str, tuple[str, str]] = {}
        """Headers that are: by their names, what is shown of them."""
        self._headers: dict[tuple[str, str], tuple[str, str]] = {}
        self.targets: dict[str, tuple[tuple[str, Any], ...]] = {}
        """Targets that are shown as they are, with their arguments."""
        self.texts: dict[str, str] = {}
        """Texts that are shown as they are, each by itself."""

    def headers(
        self,
        headers: Iterable[tuple[str, str]],
        secrets: frozenset[str] = frozenset(),
        *,
        without: str | None = None,
    ) -> dict[str, Any]:
        """A head: names in lower case, and the values of a repeated one as a list.

        Args:
            headers: names and values.
            secrets: what is not to be remembered.
            without: the name of a field that is left out, in this very spelling.
        """
        if without is not None:
            headers = [pair for pair in headers if pair[0] != without]
        known, secret = self._headers.get, self._secret.get
        fields: dict[str, Any] = {}
        for pair in islice(headers, MAX_HEADERS):
            name, value = known(pair) or secret(pair[0]) or self._header(pair, secrets)
            if name not in fields:
                fields[name] = value
            else:
                _gather(fields, name, value)
        return fields

    def target(self, raw: str) -> str:
        """A request target, path and query."""
        return raw if raw in self.targets else redact.target(raw, self._also)

    def text(self, value: str, secrets: frozenset[str] = frozenset()) -> str:
        """A text such as a model's name, without what looks like a credential."""
        found = redact.text(value)
        short = found == value and len(value) <= LONGEST_KEPT
        if short and not _has_one_of(secrets, value):
            _remember(self.texts, value, value)
        return found

    def target_and_query(
        self, raw: str, secrets: frozenset[str] = frozenset()
    ) -> tuple[str, dict[str, Any]]:
        """A request target, and its arguments decoded; one without a value is true."""
        known = self.targets.get(raw)
        if known is not None:
            return raw, dict(known)
        uri = redact.target(raw, self._also)
        fields: dict[str, Any] = {}
        harmless = uri == raw
        for part in filter(None, raw.partition("?")[2].split("&")):
            name, value = argument(part)
            shown = value
            if isinstance(value, str):
                shown = redact.argument(name, value, self._also)
            shown_name = redact.text(name)
            harmless = harmless and shown == value and shown_name == name
            harmless = harmless and name not in fields
            _gather(fields, shown_name, shown)
        harmless = harmless and len(raw) <= LONGEST_KEPT
        if harmless and not _has_one_of(secrets, raw, unquote_plus(raw)):
            _remember(self.targets, raw, tuple(fields.items()))
        return uri, fields

    def _header(
        self, pair: tuple[str, str], secrets: frozenset[str]
    ) -> tuple[str, str]:
        """A header as it is shown: its name in lower case, and its value."""
        name, value = pair
        lower = self._names.get(name)
        if lower is None:
            lower = name.lower()
            secret = redact.looks_secret(name) or lower in self._also
            short = len(name) <= LONGEST_KEPT and redact.is_harmless(name)
            if short and not _has_one_of(secrets, name):
                if secret:
                    _remember(self._secret, name, (lower, redact.REDACTED))
                else:
                    _remember(self._names, name, lower)
            if secret:
                return lower, redact.REDACTED
        if "?" in value or not redact.is_harmless(value):
            decoded = _decoded(value)
            value = redact.unnamed_value(decoded, self._also)
            if value != decoded:
                return lower, value
        found = lower, value
        if lower in _NEW_EACH_TIME:
            return found
        short = name in self._names and len(name) + len(value) <= LONGEST_KEPT
        if short and not (secrets and _has_one_of(secrets, pair[1], value)):
            _remember(self._headers, pair, found)
        return found


shown = lru_cache(maxsize=16)(Shown)
"""The one for a set of names, which the gateways of a process share."""


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    if len(memory) >= MAX_KEPT:
        memory.clear()
    memory[key] = value


def _has_one_of(secrets: frozenset[str], *texts: str) -> bool:
    return any(secret in text for secret in secrets if secret for text in texts)


def _decoded(value: str) -> str:
    """A header's value as UTF-8 if it is that; servers read every byte as Latin-1."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _gather(fields: dict[str, Any], name: str, value: Any) -> None:
    """Add a field; a repeated one becomes a list."""
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]
