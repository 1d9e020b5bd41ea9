from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kongai.llm.chat import NO_PARAMETERS, Tool
from kongai.llm.schemas import closed, parameters_of, takes_all

DEEP = '{"type":"object","properties":{"a":' * 100_000


@pytest.mark.parametrize(
    ("given", "written"),
    [
        # What has both keeps its bytes.
        (
            '{ "type" : "object", "properties":{}, "x": 1.0}',
            '{ "type" : "object", "properties":{}, "x": 1.0}',
        ),
        ('{"type":"string"}', '{"type":"string"}'),
        ('{"type":["object","null"]}', '{"type":["object","null"]}'),
        ('{"type":"object"}', NO_PARAMETERS),
        ("{}", NO_PARAMETERS),
        (
            '{"properties": { "a" : {} }, "x": 1.0}',
            '{"properties":{ "a" : {} },"x":1.0,"type":"object"}',
        ),
        (
            '{"type": "object", "x": [ 1.0 ]}',
            '{"type":"object","x":[ 1.0 ],"properties":{}}',
        ),
        (None, NO_PARAMETERS),
        ("", NO_PARAMETERS),
        ("no JSON", NO_PARAMETERS),
        ("[1]", NO_PARAMETERS),
        ("null", NO_PARAMETERS),
        (DEEP, NO_PARAMETERS),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_a_vendor_insists_on_is_added(given: str | None, written: str) -> None:
    assert bytes(parameters_of(Tool("f", parameters=given))).decode() == written


def taken(**schema: Any) -> bool:
    return takes_all(msgspec.Raw(json.dumps(schema).encode()))


A: dict[str, Any] = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
SHUT: dict[str, Any] = {"type": "object", "additionalProperties": False}
STRICT = {**SHUT, **A}
OPEN = {"type": "object", **A}


@pytest.mark.parametrize(
    "schema",
    [
        STRICT,
        SHUT,
        {**SHUT, "properties": {}},
        {**STRICT, "type": ["object", "null"]},
        {"type": "string"},
        {**SHUT, "properties": {"a": STRICT}, "required": ["a"]},
        {**STRICT, "required": ["a", "a"]},
        # They only look like schemas.
        {**STRICT, "default": OPEN, "enum": [OPEN], "examples": [OPEN], "const": OPEN},
        {**SHUT, "properties": "odd"},
    ],
    ids=json.dumps,
)
def test_a_schema_that_is_strict(schema: dict[str, Any]) -> None:
    assert taken(**schema)


@pytest.mark.parametrize(
    "schema",
    [
        OPEN,
        {"type": "object"},
        {**STRICT, "additionalProperties": True},
        {**STRICT, "additionalProperties": 0},
        {**STRICT, "required": []},
        {**STRICT, "required": ["a", "b"]},
        {**SHUT, "properties": {"a": {}}},
        {**STRICT, "type": ["null", "object"], "required": []},
        {**SHUT, "properties": {"a": OPEN}, "required": ["a"]},
        {**STRICT, "$defs": {"b": OPEN}},
        {"type": "array", "items": OPEN},
        {"anyOf": [{"type": "null"}, OPEN]},
        # A property may have the name of a member.
        {**SHUT, "properties": {"default": OPEN}, "required": ["default"]},
        {**STRICT, "required": 1},
        {**STRICT, "required": [{}, ["a"], None]},
    ],
    ids=json.dumps,
)
def test_a_schema_that_is_not_strict(schema: dict[str, Any]) -> None:
    assert not taken(**schema)


@pytest.mark.parametrize(
    ("schema", "shut"),
    [
        ({"type": "object"}, SHUT),
        (OPEN, STRICT),
        (STRICT, STRICT),
        (
            {**OPEN, "additionalProperties": True},
            {**STRICT, "additionalProperties": True},
        ),
        ({"type": ["object", "null"]}, {**SHUT, "type": ["object", "null"]}),
        ({"type": "string"}, {"type": "string"}),
        ({}, {}),
        (
            {"type": "array", "items": {"anyOf": [OPEN, {"type": "null"}]}},
            {"type": "array", "items": {"anyOf": [STRICT, {"type": "null"}]}},
        ),
        (
            {**OPEN, "$defs": {"enum": OPEN}, "definitions": {"b": OPEN}},
            {**STRICT, "$defs": {"enum": STRICT}, "definitions": {"b": STRICT}},
        ),
        (
            {"type": "object", "properties": {"default": OPEN}},
            {**SHUT, "properties": {"default": STRICT}},
        ),
        (
            {"type": "object", "default": OPEN, "enum": [OPEN], "const": OPEN},
            {**SHUT, "default": OPEN, "enum": [OPEN], "const": OPEN},
        ),
        ({"properties": "odd", "type": "object"},) * 2,
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_objects_that_say_that_they_take_nothing_else(
    schema: dict[str, Any], shut: dict[str, Any]
) -> None:
    assert closed(json.dumps(schema)) == shut


@pytest.mark.parametrize("text", ["", "{", DEEP], ids=["empty", "cut off", "too deep"])
def test_what_is_no_schema(text: str) -> None:
    assert closed(text) == {}
