"""JSON Schemas of tools and outputs, as vendors insist on them.

The schemas are the client's; only what a vendor refuses to do without is added.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kongai.llm.chat import NO_PARAMETERS, Tool
from kongai.llm.json_fields import UNREADABLE, object_text, with_fields

_BY_NAME = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
"""Members that hold schemas by names of the client's."""
_VALUES = frozenset({"const", "default", "enum", "example", "examples"})
"""Members that hold no schemas, whatever they look like."""
_OBJECT = b'"object"'


def parameters_of(tool: Tool) -> msgspec.Raw:
    """The schema of a tool's parameters, as every vendor takes it.

    OpenAI refuses an object without `properties`, Anthropic one without `type`.
    """
    schema = object_text(tool.parameters or NO_PARAMETERS)
    if schema is None:
        return msgspec.Raw(NO_PARAMETERS.encode())
    given = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    missing: dict[str, Any] = {}
    if "type" not in given:
        missing["type"] = "object"
    of_object = bytes(given.get("type", _OBJECT)) == _OBJECT
    if of_object and "properties" not in given:
        missing["properties"] = {}
    return msgspec.Raw(with_fields(bytes(schema), missing)) if missing else schema


def takes_all(schema: msgspec.Raw) -> bool:
    """Whether a schema is strict in OpenAI's sense: its objects are closed, and all
    their properties are required."""
    return all(
        _required(part) == sorted(part.get("properties", {}))
        and part.get("additionalProperties") is False
        for part in _objects(msgspec.json.decode(schema))
    )


def _required(part: dict[str, Any]) -> list[str]:
    given = part.get("required")
    names = given if isinstance(given, list) else []
    return sorted({name for name in names if isinstance(name, str)})


def closed(schema: str) -> Any:
    """A schema whose objects say that they take nothing else, as Anthropic insists."""
    try:
        given = msgspec.json.decode(schema)
    except UNREADABLE:
        return {}
    for part in _objects(given):
        part.setdefault("additionalProperties", False)
    return given


def _objects(schema: Any) -> list[dict[str, Any]]:
    """The schemas of objects within a schema, itself included."""
    found: list[dict[str, Any]] = []
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            kind, properties = part.get("type"), part.get("properties", {})
            kinds = kind if isinstance(kind, list) else [kind]
            if "object" in kinds and isinstance(properties, dict):
                found.append(part)
            for name, value in part.items():
                if name in _BY_NAME and isinstance(value, dict):
                    waiting.extend(value.values())
                elif name not in _VALUES:
                    waiting.append(value)
    return found
