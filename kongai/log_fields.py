"""What plugins add to an exchange's record: Kong's ``kong.log.set_serialize_value``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from msgspec import Raw

_LONGEST_KEPT = 100
_MOST_CONTAINERS = 10_000
_SCALARS = frozenset({str, int, bool, type(None)})


class LogFields:
    """What plugins add to the record: Kong's ``kong.log.set_serialize_value``."""

    __slots__ = ("_fields", "line")

    def __init__(self) -> None:
        self._fields: list[tuple[tuple[str, ...], Any]] = []
        self.line: bytes | None = None
        """The record as one logger wrote it, for the next; see `kongai.log.line`."""

    def set(self, path: str, value: Any) -> None:
        r"""Set a field of the record.

        Args:
            path: where, dots nest; ``\.`` is a dot of the name itself.
            value: anything JSON can say; None removes the field.
        """
        # Plugins have few paths, unless they make them of what a client has sent.
        names = _split(path) if len(path) > _LONGEST_KEPT else _known_split(path)
        self._fields.append((names, value))
        self.line = None

    def apply(self, record: dict[str, Any]) -> None:
        """Write the fields into a record, in the order in which they were set."""
        _put(record, [(names, copied(value)) for names, value in self._fields])

    def apply_plain(self, record: dict[str, Any]) -> bool:
        """Write the fields into a record that is only read, then forgotten: no copies.

        Returns:
            Whether that could be done: only where each value is plain data, and its
            place is not within what the record has as text already.
        """
        for names, value in self._fields:
            if type(value) not in _SCALARS and not is_plain(value):
                return False
            if len(names) > 1 and type(record.get(names[0])) is Raw:
                return False
        _put(record, self._fields)
        return True


def _put(record: dict[str, Any], fields: Iterable[tuple[tuple[str, ...], Any]]) -> None:
    for names, value in fields:
        target = record
        for parent in names[:-1]:
            child = target.get(parent)
            # A copy: it may be what a plugin has set, and still holds.
            child = child.copy() if isinstance(child, dict) else {}
            target[parent] = child
            target = child
        if value is None:
            target.pop(names[-1], None)
        else:
            target[names[-1]] = value


def copied(value: Any) -> Any:
    """A copy as deep as JSON's containers go: each record is its sink's own."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def is_plain(value: Any) -> bool:
    """Whether a value is made of JSON's own types alone, not of subclasses of them.

    What is no number, such as NaN, JSON does not have.
    """
    # The list grows while it is gone through; a call for each level takes longer.
    containers: list[Iterable[Any]] = [(value,)]
    for items in containers:
        for item in items:
            kind = type(item)
            if kind in _SCALARS:
                continue
            if kind is dict:
                for name in item:
                    if type(name) is not str:
                        return False
                containers.append(item.values())
            elif kind is list:
                containers.append(item)
            elif kind is not float or item - item != 0:
                return False
        if len(containers) > _MOST_CONTAINERS:
            # One that holds itself would have no end.
            return False
    return True


def _split(path: str) -> tuple[str, ...]:
    found = path.replace("\\.", "\0").split(".")
    return tuple(part.replace("\0", ".") for part in found)


_known_split = lru_cache(maxsize=256)(_split)
