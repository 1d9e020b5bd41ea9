from __future__ import annotations

import copy
import enum
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from kongai.log_fields import LogFields, is_plain

NAMES = st.sampled_from(["a", "b", "there", r"a\.b", "ai", "x" * 101])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def before() -> dict[str, Any]:
    return {"there": {"x": 1, "a": {"b": 2}}, "a": "text", "b": [1]}


def made(steps: list[tuple[str, Any]]) -> LogFields:
    fields = LogFields()
    for path, value in steps:
        fields.set(path, value)
    return fields


@given(st.lists(st.tuples(PATHS, PLAIN), max_size=5))
def test_without_copies_it_is_the_same(steps: list[tuple[str, Any]]) -> None:
    steps_before = copy.deepcopy(steps)
    fields, slow, quick = made(steps), before(), before()
    fields.apply(slow)
    if fields.apply_plain(quick):
        assert quick == slow
    else:
        # Only where a field is put into what was no object.
        assert any("." in path for path, _ in steps)
    assert steps == steps_before


def test_what_stands_as_text_is_not_written_into() -> None:
    text = msgspec.Raw(b'{"id":"1"}')
    for path, value, done in (
        ("route.more", 1, False),
        ("route.id", None, False),
        ("route", {"id": 2}, True),
        ("route", None, True),
    ):
        assert made([(path, value)]).apply_plain({"route": text}) is done


class Word(str):
    """A text that its plugin knows more about."""


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "odd",
    [
        *(float("nan"), float("inf"), float("-inf"), b"x", (1,), {1}, object()),
        *({1: 2}, {None: 1}, {Word("a"): 1}, Word("a"), Number.ONE),
        *(datetime(2026, 1, 2), msgspec.Raw(b"{}")),
    ],
)
def test_what_is_no_plain_data_is_told_apart(odd: Any) -> None:
    for value in (odd, [1, odd], {"a": {"b": [odd]}}):
        assert not is_plain(value)
        assert not made([("x", value)]).apply_plain({})
    assert is_plain({"a": [1, 2.5, None, True, "x", {"b": []}], "b": {}})


def test_what_holds_itself_is_no_plain_data() -> None:
    endless: dict[str, Any] = {"a": 1}
    endless["b"] = [endless]
    assert not is_plain(endless)
    assert is_plain({"a": list(range(100_000))})
