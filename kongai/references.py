"""Vault references: settings whose value stands in the environment.

Kong's `env` vault: ``{vault://env/my-key}`` is the variable ``MY_KEY``,
``{vault://env/obj/key}`` is the string `key` of the JSON object in ``OBJ``, and
``?prefix=P_`` puts a prefix before the name. kongai has no other vault.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

_REFERENCE = re.compile(r"\{vault://([^/?}]*)/([^/?}]*)/?([^?}]*)\??([^}]*)\}")
_EXPECTED = "expected {vault://env/name}"
_NO_VAULT = "there is no vault '{}' in kongai; it has 'env'"
_logger = logging.getLogger("kongai")


def is_reference(value: Any) -> bool:
    """Whether a value is a reference: the whole of it, or else it is plain text."""
    return isinstance(value, str) and (value[:9], value[-1:]) == ("{vault://", "}")


def problem(reference: str) -> str | None:
    """Why a reference can't lead anywhere, whatever the environment; None if it can."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        return _EXPECTED
    return None if parts[1] == "env" else _NO_VAULT.format(parts[1])


def resolve(reference: str, environ: Mapping[str, str] | None = None) -> str:
    """The value that a reference means.

    What can't be resolved is empty and a warning in the log, as in Kong: a gateway
    starts without its secrets.

    Args:
        reference: a value for which `is_reference` holds.
        environ: the environment; the process's own when None.
    """
    try:
        return _value(reference, os.environ if environ is None else environ)
    except LookupError as error:
        why = f"unable to resolve reference {reference}: {error.args[0]}"
        # Half of a character has no place in a log.
        _logger.warning("%s", why.encode("utf-8", "backslashreplace").decode())
        return ""


def _value(reference: str, environ: Mapping[str, str]) -> str:
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise LookupError(_EXPECTED)
    vault, name, key, query = parts.groups()
    if vault != "env":
        raise LookupError(_NO_VAULT.format(vault))
    prefix = parse_qs(query).get("prefix", [""])[0]
    variable = (prefix + name).upper().replace("-", "_")
    if not variable.isascii() or variable not in environ:
        raise LookupError(f"{variable} is not set")
    return _member(environ[variable], key, variable) if key else environ[variable]


def _member(text: str, key: str, variable: str) -> str:
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        raise LookupError(f"{variable} is not JSON") from None
    found = members.get(key) if isinstance(members, dict) else None
    if isinstance(found, str):
        return found
    raise LookupError(f"{variable} has no string '{key}'")
