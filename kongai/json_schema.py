"""The JSON Schema of a declarative file, for editors (draft 7).

It is made from the same structs that the loader reads, so that an editor offers and
underlines what `kongai check` takes and refuses. What spans several fields, such as a
reference that leads nowhere, only the loader sees.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from kongai import registry
from kongai.declaration import CHILDREN, FORMAT_VERSIONS, PARENTS
from kongai.entities import STRUCTS
from kongai.plugin_entries import PluginEntry

_NOT_STANDARD = "patternErrorMessage"
"""Not of JSON Schema, but what the editors' YAML language server shows."""
_VAULT = {"type": "string", "pattern": r"^\{vault://.*\}$"}
_BY: dict[str, Any] = {"name": {}, "id": {}, "username": {}}
_REFERENCE = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "object", "minProperties": 1, "properties": _BY},
        {"type": "null"},
    ],
    "description": "A name or an id.",
}
_COMMENTS: dict[str, Any] = {"_comment": {}, "_ignore": {}}
_ROOT: dict[str, Any] = {
    "_format_version": {"enum": [*FORMAT_VERSIONS]},
    "_transform": {"type": "boolean"},
    "_info": {"type": "object"},
    "_plugin_configs": {"type": "object"},
    "_konnect": {},
    "_workspace": {},
    **_COMMENTS,
}


def schema() -> dict[str, Any]:
    """The schema, with the settings of every plugin that is installed."""
    kinds: dict[str, Any] = {**STRUCTS, "plugins": PluginEntry}
    configs = {
        name: config
        for name in registry.plugin_names()
        if (config := registry.plugin(name).Config) is not None
    }
    refs, components = msgspec.json.schema_components(
        [*kinds.values(), *configs.values()], ref_template="#/definitions/{name}"
    )
    by_kind = dict(zip(kinds, refs, strict=False))
    by_plugin = dict(zip(configs, refs[len(kinds) :], strict=True))
    structs = _structs([*kinds.values(), *configs.values()])
    definitions = {
        name: _record(component, structs[name])
        for name, component in components.items()
    }
    for kind, ref in by_kind.items():
        entity = definitions[ref["$ref"].rpartition("/")[2]]
        _add_relations(entity, kind, by_kind)
        if kind == "plugins":
            _add_configs(entity, by_plugin)
    sections = {kind: _list_of(ref) for kind, ref in by_kind.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Kong's declarative file, as kongai reads it",
        "type": "object",
        "properties": {**_ROOT, **sections},
        "required": ["_format_version"],
        "additionalProperties": False,
        "definitions": definitions,
    }


def _structs(kinds: list[Any]) -> dict[str, Any]:
    """The structs, and those of their fields, by the names that msgspec gives them."""
    found: dict[str, Any] = {}
    for info in inspect.multi_type_info(kinds):
        _collect(info, found)
    return found


def _collect(info: Any, found: dict[str, Any]) -> None:
    for inner in ("type", "item_type", "value_type"):
        if hasattr(info, inner):
            _collect(getattr(info, inner), found)
    for one in getattr(info, "types", ()):
        _collect(one, found)
    if isinstance(info, inspect.StructType):
        kind = info.cls
        # Where two are alike, msgspec says where each is from.
        found[kind.__name__] = found[f"{kind.__module__}.{kind.__qualname__}"] = kind
        for field in info.fields:
            _collect(field.type, found)


def _record(component: dict[str, Any], kind: Any) -> dict[str, Any]:
    not_null = getattr(kind, "NOT_NULL", ())
    referenceable = getattr(kind, "REFERENCEABLE", ())
    properties: dict[str, Any] = {}
    for name, told in component["properties"].items():
        value = _value(told)
        if name in referenceable and "object" not in _types(told):
            value = {"anyOf": [value, _VAULT]}
        elif "default" in told and told["default"] is not None and name not in not_null:
            value = {"anyOf": [value, {"type": "null"}]}
        properties[name] = value
    for name, reason in getattr(kind, "NOT_HERE", {}).items():
        properties[name] = {"enum": [None, False, [], {}], "description": reason}
    return {
        "type": "object",
        "description": component.get("description", "").partition("\n")[0],
        "properties": properties,
        "required": component["required"],
        "additionalProperties": False,
    }


def _types(told: dict[str, Any]) -> set[str | None]:
    return {one.get("type") for one in told.get("anyOf", [told])}


def _value(told: Any) -> Any:
    """A value's schema, in the words of JavaScript's regexes and of editors."""
    if isinstance(told, (list, tuple)):
        return [_value(item) for item in told]
    if not isinstance(told, dict):
        return told
    # Twice the same in a set is once to the loader.
    said = {name: _value(one) for name, one in told.items() if name != "uniqueItems"}
    if "pattern" in said:
        said["pattern"] = said["pattern"].replace(r"\Z", "$")
        if "description" in said:
            said[_NOT_STANDARD] = said.pop("description").replace("{}", "this")
    return said


def _add_relations(entity: dict[str, Any], kind: str, by_kind: dict[str, Any]) -> None:
    properties = entity["properties"]
    properties |= _COMMENTS
    properties |= dict.fromkeys(PARENTS.get(kind, ()), _REFERENCE)
    properties |= {child: _list_of(by_kind[child]) for child in CHILDREN[kind]}
    if kind == "services":
        properties["client_certificate"] = _REFERENCE
        properties["ca_certificates"] = _list_of(_REFERENCE)


def _add_configs(entry: dict[str, Any], by_plugin: dict[str, Any]) -> None:
    entry["properties"] |= {"config": {"type": ["object", "null"]}, "_config": {}}
    entry["properties"]["name"] = {"enum": registry.plugin_names()}
    entry["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}},
            "then": {"properties": {"config": {"anyOf": [ref, {"type": "null"}]}}},
        }
        for name, ref in by_plugin.items()
    ]


def _list_of(ref: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "array", "items": ref}, {"type": "null"}]}
