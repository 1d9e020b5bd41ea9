"""What plugins add to an exchange's record: Kong's ``kong.log.set_serialize_value``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_LONGEST_KEPT = 100
_SCALARS = frozenset({str, int, bool, type(None)})


class LogFields:
    """What plugins add to the record: Kong's ``kong.log.set_serialize_value``."""

    __slots__ = ("_fields", "line")

    def __init__(self) -> None:
        self._fields: list[tuple[str, Any]] = []
        self.line: bytes | None = None
        """The record as one logger wrote it, for the next; see `kongai.log.line`."""

    def set(self, path: str, value: Any) -> None:
        r"""Set a field of the record.

        Args:
            path: where, dots nest; ``\.`` is a dot of the name itself.
            value: anything JSON can say; None removes the field.
        """
        self._fields.append((path, value))
        self.line = None

    def apply(self, record: dict[str, Any]) -> None:
        """Write the fields into a record, in the order in which they were set."""
        for path, value in self._fields:
            _put(record, _parts(path), copied(value))

    def apply_plain(self, record: dict[str, Any]) -> bool:
        """Write the fields into a record that is only read, then forgotten: no copies.

        Returns:
            Whether that could be done: only where each value is plain data, and its
            place is not within what the record has as text already.
        """
        for path, value in self._fields:
            parts = _parts(path)
            first = record.get(parts[0])
            if len(parts) > 1 and first is not None and type(first) is not dict:
                return False
            if not is_plain(value):
                return False
            _put(record, parts, value)
        return True


def _put(record: dict[str, Any], parts: tuple[str, ...], value: Any) -> None:
    target = record
    for parent in parts[:-1]:
        child = target.get(parent)
        # A copy: it may be what a plugin has set, and still holds.
        child = child.copy() if isinstance(child, dict) else {}
        target[parent] = child
        target = child
    if value is None:
        target.pop(parts[-1], None)
    else:
        target[parts[-1]] = value


def copied(value: Any) -> Any:
    """A copy as deep as JSON's containers go: each record is its sink's own."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def is_plain(value: Any) -> bool:
    """Whether a value is made of JSON's own types alone, not of subclasses of them.

    What is no number, such as NaN, JSON does not have.
    """
    kind = type(value)
    if kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                return False
            kind = type(item)
            if kind is float:
                if item - item != 0:
                    return False
            elif kind not in _SCALARS and not is_plain(item):
                return False
        return True
    if kind is float:
        return bool(value - value == 0)
    return all(map(is_plain, value)) if kind is list else kind in _SCALARS


def _parts(path: str) -> tuple[str, ...]:
    # Plugins have few paths, unless they make them of what a client has sent.
    return _known_split(path) if len(path) <= _LONGEST_KEPT else _split(path)


def _split(path: str) -> tuple[str, ...]:
    found = path.replace("\\.", "\0").split(".")
    return tuple(part.replace("\0", ".") for part in found)


_known_split = lru_cache(maxsize=256)(_split)
