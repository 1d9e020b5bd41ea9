"""Consumers: who sends requests, and the keys they are known by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from kongai.entities.types import Tags, Timestamp
from kongai.references import is_reference


class KeyAuthCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A key that `key-auth` knows a consumer by: Kong's `keyauth_credentials`.

    Args:
        key: the key itself; one is made up when it is not given, as in Kong.
    """

    key: str | None = None
    ttl: Any = None
    """No effect: in a file, Kong lets no key expire either."""
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        if is_reference(self.key):
            # Everybody could guess it if it were taken for the key itself.
            yield "key", _NO_REFERENCE

    def __repr__(self) -> str:
        return f"KeyAuthCredential(id={self.id!r})"


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends requests. The fields are those of Kong's Consumer entity.

    Args:
        username, custom_id: names; at least one of them.
        keyauth_credentials: the keys that `key-auth` knows this consumer by.
        plugins: plugins for this consumer's requests alone.
    """

    NOT_HERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            (
                "acls",
                "basicauth_credentials",
                "hmacauth_credentials",
                "jwt_secrets",
                "mtls_auth_credentials",
                "oauth2_credentials",
            ),
            "not available in this version of kongai; it has 'keyauth_credentials'",
        ),
        "groups": "consumer groups are not available in this version of kongai",
    }

    username: str | None = None
    custom_id: str | None = None
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    keyauth_credentials: Sequence[KeyAuthCredential] = ()
    plugins: Sequence[Any] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and Kong's text."""
        if not (self.username or self.custom_id):
            yield "", _NO_NAME


_NO_REFERENCE = 'keys are no references; write ${{ env "DECK_..." }}'
_NO_NAME = "at least one of these fields must be non-empty: 'custom_id', 'username'"
