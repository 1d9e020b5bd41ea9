"""Werkzeug's `Headers`, for heads that were checked when they were parsed.

Werkzeug checks each field that it is given, and answers a question for a field that is
not there by way of an exception. On every exchange that costs more than routing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from werkzeug.datastructures import Headers


class HeaderList(Headers):
    """Headers made of fields that are known to be good; what is added is checked."""

    _list: list[tuple[str, str]]

    @classmethod
    def of(cls, fields: Iterable[tuple[str, str]]) -> HeaderList:
        """Headers of these fields, in their order, without another check.

        Args:
            fields: names and values out of an HTTP parser.
        """
        made = cls.__new__(cls)
        made._list = list(fields)
        return made

    def put(self, *fields: tuple[str, str], known: Set[str] | None = None) -> None:
        """Set fields, each to a value that is known to be good, as `set` does.

        Args:
            fields: what to set; no two of one name.
            known: the names that are there, in lower case, for who knows them.
        """
        if known is None:
            known = {name.lower() for name, _ in self._list}
        for field in fields:
            if field[0].lower() in known:
                self.set(*field)
            else:
                self._list.append(field)

    def get(  # type: ignore[override]
        self, key: str, default: Any = None, type: Any = None
    ) -> Any:
        """The first value under a name, in any case; as for Werkzeug's `Headers`."""
        wanted = key.lower()
        for name, value in self._list:
            if name.lower() == wanted:
                return value if type is None else super().get(key, default, type)
        return default

    def __contains__(self, key: object) -> bool:
        """Whether there is a field of a name, in any case."""
        wanted = str(key).lower()
        for name, _ in self._list:  # noqa: SIM110, a generator costs twice as much
            if name.lower() == wanted:
                return True
        return False
