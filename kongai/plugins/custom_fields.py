"""`custom_fields` of the log plugins: fields that a file adds to the record.

They stand in the place of Kong's `custom_fields_by_lua`, and work like it: what one
log plugin sets, those of a lower priority see as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from kongai import redact
from kongai.exchange import Exchange

NO_LUA = (
    "kongai runs no Lua; use custom_fields, whose values are constants, "
    "{header: NAME} or {env: NAME}"
)
_EXPECTED = (
    "expected a string, a number, a boolean, null, {header: NAME} or {env: NAME}"
)


class CustomFields:
    r"""Sets fields of each exchange's record.

    Args:
        fields: by where they go, in the spelling of `LogFields.set`: dots nest, ``\.``
            is a dot of the name itself. A value is a string, a number, a boolean, None
            to take the field away, ``{"header": name}`` for the request's header of
            that name, or ``{"env": name}`` for the environment variable, as it is now.
    """

    def __init__(self, fields: Mapping[str, Any] | None) -> None:
        self._constants: list[tuple[str, Any]] = []
        self._headers: list[tuple[str, str]] = []
        for path, value in (fields or {}).items():
            if not isinstance(value, Mapping):
                self._constants.append((path, value))
            elif "env" in value:
                self._constants.append((path, os.environ[value["env"]]))
            else:
                self._headers.append((path, value["header"]))

    def set(self, exchange: Exchange) -> None:
        """Set them; without the header, its field is taken away as in Kong."""
        for path, value in self._constants:
            exchange.log.set(path, value)
        if not self._headers:
            return
        headers = exchange.sent_headers
        if headers is None:
            headers = exchange.headers
        for path, name in self._headers:
            found = headers.get(name)
            if found is not None:
                found = redact.header_value(name, found, exchange.secret_names)
            exchange.log.set(path, found)


def problems(fields: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What is wrong with a plugin's `custom_fields`: pairs of path and text."""
    for path, value in (fields or {}).items():
        where = f"custom_fields.{path}"
        if not all(path.replace("\\.", "_").split(".")):
            yield where, "a name must not be empty"
        text = _problem(value)
        if text is not None:
            yield where, text


def _is_set(name: str) -> bool:
    try:
        return name in os.environ
    except UnicodeEncodeError:
        return False


def _problem(value: Any) -> str | None:
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if value - value == 0 else _EXPECTED
    if not (isinstance(value, Mapping) and len(value) == 1):
        return _EXPECTED
    ((kind, name),) = value.items()
    if kind not in ("header", "env") or not isinstance(name, str) or not name:
        return _EXPECTED
    if kind == "env" and not _is_set(name):
        return f"the environment variable {name} is not set; set it before the start"
    return None
