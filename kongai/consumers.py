"""The consumers of a gateway, found by what a request shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kongai.entities import Consumer, KeyAuthCredential


class Consumers:
    """A directory of consumers, and of the keys they are known by.

    Args:
        consumers: each with its credentials, ids given.
    """

    def __init__(self, consumers: Iterable[Consumer] = ()) -> None:
        self._all = tuple(consumers)
        self._by_name: dict[str, Consumer] = {}
        # Kong looks a name up as an id, then as a username; a custom id is no name.
        for field in ("id", "username"):
            for consumer in self._all:
                name = getattr(consumer, field)
                if name is not None:
                    self._by_name.setdefault(name, consumer)
        self._by_key = {
            credential.key: (consumer, credential)
            for consumer in self._all
            for credential in consumer.keyauth_credentials
            if credential.key is not None
        }

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._all)

    def find(self, name: str) -> Consumer | None:
        """The consumer with this id or username."""
        return self._by_name.get(name)

    def by_key(self, key: str) -> tuple[Consumer, KeyAuthCredential] | None:
        """The consumer whose key this is, and the credential that has it."""
        return self._by_key.get(key)


NOBODY = Consumers()
"""The directory of a gateway that knows no consumers."""
