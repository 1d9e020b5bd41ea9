"""Mappings to typed values, with every problem found, in Kong's words.

The types are msgspec's: a `Struct` for a record, `Annotated` with `Meta` for bounds,
`Literal` for an enumeration. msgspec itself stops at the first mistake; here the walk
goes on, so that a file is mended in one round.

A struct says more of its fields than their types do:

- `REFERENCEABLE` fields may hold a vault reference instead of a value. It is resolved
  here, and what it leads to is not checked;
- `NOT_NULL` fields have a default, but ``null`` is none of their values;
- `NOT_HERE` are keys that Kong has and kongai has not, each with the reason.

A `Meta` whose `extra_json_schema` has ``uniqueItems`` makes a set of an array. Its
`description` is what is said of a value that does not fit its pattern, ``{}`` being the
value; and `extra` may have all of Kong's values as ``kong``, where kongai has fewer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from kongai.errors import ConfigError, Problem
from kongai.references import is_reference, problem, resolve
from kongai.registry import nearest

Path = tuple[str | int, ...]
Report = Callable[[Path, str], None]
T = TypeVar("T", bound=msgspec.Struct)

_INVALID: Any = object()
_INDEX = re.compile("[0-9]{1,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPECTED: dict[type, str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
}
_ELSEWHERE = "'{}' is not available in this version of kongai; it has: {}"


def path_text(path: Path) -> str:
    """A path for people: ``services[0].plugins[1].config``, entries from 0."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part or repr('')}"
    return text.removeprefix(".")


def load(
    kind: type[T],
    data: Mapping[str, Any],
    path: Path = (),
    *,
    elsewhere: Collection[str] = (),
) -> T:
    """Turn a mapping into a struct.

    Args:
        kind: the struct.
        data: the mapping.
        path: where it stands, for the problems' paths.
        elsewhere: fields of the struct that the mapping does not give.

    Raises:
        ConfigError: with every problem of the mapping.
    """
    problems: list[Problem] = []
    found = read(
        kind,
        data,
        path,
        lambda path, text: problems.append(Problem(path_text(path), text)),
        elsewhere=elsewhere,
    )
    if problems:
        raise ConfigError(problems)
    return cast("T", found)


def settings(kind: type[T], given: T | None, fields: Mapping[str, Any]) -> T:
    """The settings of a plugin that is made by hand.

    Args:
        kind: the struct of its settings.
        given: they themselves, or None for
        fields: their keys and values, as a file has them.

    Raises:
        ConfigError: with every problem of the fields.
        TypeError: both were given.
    """
    if given is None:
        return load(kind, fields)
    if fields:
        raise TypeError("a plugin takes its settings or their fields, not both")
    return given


def read(
    kind: type[T],
    data: Any,
    path: Path,
    report: Report,
    *,
    elsewhere: Collection[str] = (),
) -> T | None:
    """Turn a mapping into a struct, reporting what is wrong with it.

    Args:
        kind: the struct.
        data: what was found in the file.
        path: where it was found.
        report: called with the path and the text of each problem.
        elsewhere: fields of the struct that the mapping does not give.

    Returns:
        None when there was any problem.
    """
    value = _struct(kind, data, path, report, elsewhere)
    return None if value is _INVALID else cast("T", value)


def _struct(
    kind: type, data: Any, path: Path, report: Report, elsewhere: Collection[str] = ()
) -> Any:
    if not isinstance(data, Mapping):
        if not _is_empty(data):
            report(path, "expected a record")
            return _INVALID
        data = {}
    fields = {f.name: f for f in _fields(kind) if f.name not in elsewhere}
    referenceable: Collection[str] = getattr(kind, "REFERENCEABLE", ())
    not_null: Collection[str] = getattr(kind, "NOT_NULL", ())
    values: dict[str, Any] = {}
    valid = True
    for name in data:
        if name not in fields and not _is_unused(name, data[name], kind):
            valid = False
            report((*path, str(name)), _unknown(str(name), fields, kind))
    for name, field in fields.items():
        given = data.get(name)
        if given is None:
            if field.required or (name in data and name in not_null):
                valid = False
                report((*path, name), "required field missing")
            continue
        if name in referenceable and is_reference(given):
            values[name] = _resolved(given, (*path, name), report)
        else:
            values[name] = _value(field.type, given, (*path, name), report)
            if name in referenceable and isinstance(values[name], Mapping):
                values[name] = _map_resolved(values[name], (*path, name), report)
        valid = valid and values[name] is not _INVALID
    if not valid:
        return _INVALID
    try:
        made = kind(**values)
    except ValueError as error:
        report(path, str(error))
        return _INVALID
    return made if check(made, path, report) else _INVALID


def _resolved(reference: str, path: Path, report: Report) -> Any:
    text = problem(reference)
    if text is not None:
        report(path, text)
        return _INVALID
    # Secrets often come out of files, whose last line end is no part of them.
    return resolve(reference).rstrip("\r\n")


def _map_resolved(given: Mapping[str, Any], path: Path, report: Report) -> Any:
    values = {
        key: _resolved(one, (*path, key), report) if is_reference(one) else one
        for key, one in given.items()
    }
    return _INVALID if _any_invalid(values.values()) else values


@cache
def _fields(kind: type) -> tuple[inspect.Field, ...]:
    """A struct's fields; slow to find out, and a file has many of one kind."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info.fields


def check(made: Any, path: Path, report: Report) -> bool:
    """Report what a struct says is wrong with the whole of it.

    Args:
        made: the struct; its `problems()` yields pairs of a field's path and a text.
        path: where it was found.
        report: called with the path and the text of each problem.

    Returns:
        Whether there was no problem.
    """
    problems = list(getattr(made, "problems", tuple)())
    for where, text in problems:
        report((*path, *_parts(where)), text)
    return not problems


def _is_empty(data: Any) -> bool:
    """Whether data is an empty table, which Kong takes for any kind of one."""
    return isinstance(data, (Mapping, list, tuple)) and not data


def _parts(where: str) -> Iterator[str | int]:
    for part in where.split(".") if where else ():
        yield int(part) if _INDEX.fullmatch(part) else part


def _is_unused(name: str, given: Any, kind: type) -> bool:
    """Whether a field that only Kong has is given but not set, as dumps have it."""
    unset = given is None or given is False or _is_empty(given)
    return unset and name in getattr(kind, "NOT_HERE", ())


def _unknown(name: str, fields: Iterable[str], kind: type) -> str:
    reasons: Mapping[str, str] = getattr(kind, "NOT_HERE", {})
    if name in reasons:
        return reasons[name]
    suggestion = nearest(name, fields)
    hint = f"; did you mean '{suggestion}'?" if suggestion else ""
    return f"unknown field{hint}"


def _value(kind: inspect.Type, given: Any, path: Path, report: Report) -> Any:
    if isinstance(kind, inspect.UnionType):
        # Our unions are all `X | None`; null was dealt with as "not given".
        (kind,) = (t for t in kind.types if not isinstance(t, inspect.NoneType))
    facets: Mapping[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        facets = {**(kind.extra_json_schema or {}), **(kind.extra or {}), **facets}
        kind = kind.type
    if isinstance(kind, inspect.StructType):
        return _struct(kind.cls, given, path, report)
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
        if facets.get("uniqueItems"):
            return _set(kind.item_type, given, path, report)
        return _array(kind.item_type, given, path, report)
    if isinstance(kind, inspect.DictType):
        return _map(kind, given, path, report)
    text = _leaf_problem(kind, given, facets)
    if text is not None:
        report(path, text)
        return _INVALID
    if isinstance(kind, inspect.IntType):
        return int(given)
    return float(given) if isinstance(kind, inspect.FloatType) else given


def _array(item: inspect.Type, given: Any, path: Path, report: Report) -> Any:
    if not isinstance(given, (list, tuple)) and not _is_empty(given):
        report(path, "expected an array")
        return _INVALID
    return _items(item, given, path, report)


def _set(item: inspect.Type, given: Any, path: Path, report: Report) -> Any:
    if not isinstance(given, (list, tuple)) and not _is_empty(given):
        report(path, "expected a set")
        return _INVALID
    values = _items(item, given, path, report)
    return values if values is _INVALID else tuple(dict.fromkeys(values))


def _items(item: inspect.Type, given: Any, path: Path, report: Report) -> Any:
    values = [_item(item, one, (*path, i), report) for i, one in enumerate(given)]
    return _INVALID if _any_invalid(values) else tuple(values)


def _item(kind: inspect.Type, given: Any, path: Path, report: Report) -> Any:
    if given is None and not isinstance(kind, inspect.AnyType):
        report(path, "required field missing")
        return _INVALID
    return _value(kind, given, path, report)


def _map(kind: inspect.DictType, given: Any, path: Path, report: Report) -> Any:
    if not isinstance(given, Mapping):
        if not _is_empty(given):
            report(path, "expected a map")
            return _INVALID
        given = {}
    values = {
        str(key): _item(kind.value_type, value, (*path, str(key)), report)
        for key, value in given.items()
    }
    return _INVALID if _any_invalid(values.values()) else values


def _any_invalid(values: Iterable[Any]) -> bool:
    return any(value is _INVALID for value in values)


def _leaf_problem(
    kind: inspect.Type, given: Any, facets: Mapping[str, Any]
) -> str | None:
    """What is wrong with a single value; the facets are those of its `Meta`."""
    if isinstance(kind, inspect.AnyType):
        return None
    if isinstance(kind, inspect.LiteralType):
        return _choice_problem(kind.values, given, facets.get("kong"))
    if not _is(kind, given):
        return f"expected {_article(_EXPECTED[type(kind)])}"
    if isinstance(kind, inspect.StrType):
        if not given:
            return "length must be at least 1"
        if _SURROGATE.search(given):
            return "expected valid UTF-8 text"
        if kind.pattern is not None and not re.search(kind.pattern, given):
            mismatch: str = facets.get("description", "invalid value")
            return mismatch.replace("{}", given)
    if isinstance(kind, (inspect.IntType, inspect.FloatType)):
        return _number_problem(kind, given)
    return None


def _choice_problem(
    values: Collection[Any], given: Any, kong: Sequence[Any] | None
) -> str | None:
    if given in values and not isinstance(given, bool):
        return None
    known = type(next(iter(values)))
    if not isinstance(given, known) or isinstance(given, bool):
        return "expected a string" if known is str else "expected an integer"
    if kong is not None and given in kong:
        return _ELSEWHERE.format(given, ", ".join(map(str, values)))
    return f"expected one of: {', '.join(map(str, kong or sorted(values)))}"


def _is(kind: inspect.Type, given: Any) -> bool:
    if isinstance(kind, inspect.BoolType):
        return isinstance(given, bool)
    if isinstance(given, bool):
        return False
    if isinstance(kind, inspect.IntType):
        return isinstance(given, int) or (
            isinstance(given, float) and given.is_integer()
        )
    if isinstance(kind, inspect.FloatType):
        return isinstance(given, (int, float)) and _is_finite(given)
    return isinstance(given, str)


def _is_finite(given: float) -> bool:
    try:
        return math.isfinite(given)
    except OverflowError:
        # An integer that is too large for a float.
        return False


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _number_problem(
    kind: inspect.IntType | inspect.FloatType, given: float
) -> str | None:
    low, high, above = kind.ge, kind.le, kind.gt
    if above is not None and given <= above:
        return f"value must be greater than {above:g}"
    if low is not None and high is not None and not low <= given <= high:
        return f"value should be between {low} and {high}"
    if low is not None and given < low:
        return f"value must be at least {low}"
    return None
