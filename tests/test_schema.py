from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from msgspec import Meta

from kongai.errors import ConfigError
from kongai.schema import Path, load, path_text

LATER = "is not available in this version of kongai"


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    label: str | None = None


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    low: int = 0
    items: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.low > 5:
            yield "", "too much in all"
            yield "low", "too high"
        for index, item in enumerate(self.items):
            if item == "bad":
                yield f"items.{index}", "is bad"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    REFERENCEABLE: ClassVar[frozenset[str]] = frozenset({"secret"})
    NOT_HERE: ClassVar[dict[str, str]] = {"lua": "kongai runs no Lua"}
    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"firm"})

    name: str = "n"
    secret: Annotated[str, Meta(pattern="^s")] | None = None
    flag: bool = False
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    least: Annotated[int, Meta(ge=0)] = 0
    price: Annotated[float, Meta(gt=0)] | None = None
    kind: Literal["a", "b"] = "a"
    code: Literal[301, 426] = 426
    word: Annotated[
        str, Meta(pattern=r"^[a-z]+\Z", description="only small letters")
    ] = "w"
    bare: Annotated[str, Meta(pattern=r"^[a-z]+\Z")] = "w"
    inner: Inner | None = None
    items: Sequence[str] = ()
    pair: tuple[Inner, ...] = ()
    table: dict[str, Sequence[str]] | None = None
    anything: Any = None
    whole: Whole | None = None
    names: Annotated[Sequence[str], Meta(extra_json_schema={"uniqueItems": True})] = ()
    fewer: Annotated[Literal["a", "b"], Meta(extra={"kong": ("b", "c", "a")})] = "a"
    quoted: Annotated[
        str, Meta(pattern=r"^[a-z]+\Z", description="'{}' is not small")
    ] = "w"
    firm: bool = True


class Raising(msgspec.Struct, frozen=True, kw_only=True):
    low: int = 0

    def __post_init__(self) -> None:
        if self.low:
            raise ValueError("low must be zero")


def refused(kind: type[msgspec.Struct], data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(kind, data)
    return [(problem.path, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("services",), "services"),
        (("services", 0, "plugins", 12, "config"), "services[0].plugins[12].config"),
        ((0, 1), "[0][1]"),
        (("a.b", ""), "a.b.''"),
    ],
)
def test_a_path_for_people(path: Path, text: str) -> None:
    assert path_text(path) == text


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("name", "x", "x"),
        ("name", None, "n"),
        ("flag", True, True),
        ("count", 9, 9),
        ("count", 9.0, 9),
        ("price", 2, 2.0),
        ("price", 0.5, 0.5),
        ("kind", "b", "b"),
        ("code", 301, 301),
        ("word", "abc", "abc"),
        ("inner", {"size": 1}, Inner(size=1)),
        ("items", ["a", "b"], ("a", "b")),
        ("items", [], ()),
        ("items", ("a",), ("a",)),
        ("pair", [{"size": 1}, {"size": 2}], (Inner(size=1), Inner(size=2))),
        ("table", {"a": ["x"], "b": []}, {"a": ("x",), "b": ()}),
        # Kong's tables do not tell an empty array from an empty record.
        ("table", [], {}),
        ("items", {}, ()),
        ("whole", [], Whole()),
        ("names", ["b", "a", "b"], ("b", "a")),
        ("fewer", "b", "b"),
        ("anything", {"a": [None]}, {"a": [None]}),
    ],
)
def test_what_a_field_takes(field: str, given: Any, value: Any) -> None:
    found = getattr(load(Record, {field: given}), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "given", "path", "message"),
    [
        ("name", 5, "name", "expected a string"),
        ("name", ["a"], "name", "expected a string"),
        ("name", "", "name", "length must be at least 1"),
        ("name", "\ud800", "name", "expected valid UTF-8 text"),
        ("flag", "yes", "flag", "expected a boolean"),
        ("flag", 1, "flag", "expected a boolean"),
        ("count", "1", "count", "expected an integer"),
        ("count", 1.5, "count", "expected an integer"),
        ("count", True, "count", "expected an integer"),
        ("count", float("inf"), "count", "expected an integer"),
        ("count", 0, "count", "value should be between 1 and 9"),
        ("count", 10, "count", "value should be between 1 and 9"),
        ("least", -1, "least", "value must be at least 0"),
        ("price", "1", "price", "expected a number"),
        ("price", True, "price", "expected a number"),
        ("price", 0, "price", "value must be greater than 0"),
        ("price", float("nan"), "price", "expected a number"),
        ("price", float("inf"), "price", "expected a number"),
        ("kind", "c", "kind", "expected one of: a, b"),
        ("kind", ["a"], "kind", "expected a string"),
        ("kind", 1, "kind", "expected a string"),
        ("kind", True, "kind", "expected a string"),
        ("code", "301", "code", "expected an integer"),
        ("fewer", "d", "fewer", "expected one of: b, c, a"),
        ("fewer", "c", "fewer", f"'c' {LATER}; it has: a, b"),
        ("code", 200, "code", "expected one of: 301, 426"),
        ("word", "A", "word", "only small letters"),
        ("word", "a\n", "word", "only small letters"),
        ("bare", "A", "bare", "invalid value"),
        ("inner", [1], "inner", "expected a record"),
        ("inner", "x", "inner", "expected a record"),
        ("inner", {}, "inner.size", "required field missing"),
        ("inner", {"size": None}, "inner.size", "required field missing"),
        ("items", "ab", "items", "expected an array"),
        ("items", {"a": "b"}, "items", "expected an array"),
        ("items", ["a", 1], "items[1]", "expected a string"),
        ("items", ["a", None], "items[1]", "required field missing"),
        ("table", {"a": None}, "table.a", "required field missing"),
        ("names", "a", "names", "expected a set"),
        ("names", ["a", "a", 1], "names[2]", "expected a string"),
        ("quoted", "A", "quoted", "'A' is not small"),
        ("firm", None, "firm", "required field missing"),
        ("pair", [{"size": 1}, {"size": "x"}], "pair[1].size", "expected an integer"),
        ("table", ["a"], "table", "expected a map"),
        ("table", {"a": "x"}, "table.a", "expected an array"),
        ("table", {"a": [1]}, "table.a[0]", "expected a string"),
        ("nmae", 1, "nmae", "unknown field; did you mean 'name'?"),
        ("zzz", 1, "zzz", "unknown field"),
        ("lua", "return 1", "lua", "kongai runs no Lua"),
        (5, 1, "5", "unknown field"),
    ],
)
def test_what_a_field_refuses(field: Any, given: Any, path: str, message: str) -> None:
    assert refused(Record, {field: given}) == [(path, message)]


def test_a_field_of_kong_only_may_be_given_unset() -> None:
    for unset in ("null", "false", "[]"):
        assert load(Record, {"lua": json.loads(unset)}) == Record()
    assert refused(Record, {"lua": 0}) == [("lua", "kongai runs no Lua")]


def test_every_problem_is_found() -> None:
    data = {"x": 1, "name": 5, "inner": {"size": "x", "y": 1}, "items": [1, "a", 2]}
    assert sorted(refused(Record, data)) == [
        ("inner.size", "expected an integer"),
        ("inner.y", "unknown field"),
        ("items[0]", "expected a string"),
        ("items[2]", "expected a string"),
        ("name", "expected a string"),
        ("x", "unknown field"),
    ]


@pytest.mark.parametrize("data", [["a"], "x", None, 5])
def test_a_record_is_a_mapping(data: Any) -> None:
    assert refused(Record, data) == [("", "expected a record")]


def test_a_struct_may_check_its_fields_together() -> None:
    assert load(Whole, {"low": 5, "items": ["good"]}).low == 5
    assert refused(Whole, {"low": 6, "items": ["good", "bad"]}) == [
        ("", "too much in all"),
        ("low", "too high"),
        ("items[1]", "is bad"),
    ]


def test_fields_are_checked_together_only_when_each_is_good() -> None:
    assert refused(Whole, {"low": 6, "items": [1]}) == [
        ("items[0]", "expected a string")
    ]


def test_a_value_error_of_the_struct_is_a_problem() -> None:
    assert refused(Raising, {"low": 1}) == [("", "low must be zero")]


def test_problems_stand_at_the_path_that_is_given() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Record, {"count": 0}, ("services", 3))
    assert [problem.path for problem in caught.value.problems] == ["services[3].count"]


def test_fields_from_elsewhere_are_neither_given_nor_missed() -> None:
    assert load(Inner, {"size": 1}, elsewhere=("label",)) == Inner(size=1)
    with pytest.raises(ConfigError, match="label: unknown field"):
        load(Inner, {"size": 1, "label": "x"}, elsewhere=("label",))


def test_a_reference_is_resolved_and_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAME", "does not begin with s")
    assert load(Record, {"secret": "{vault://env/name}"}).secret == (
        "does not begin with s"
    )
    assert refused(Record, {"secret": "x{vault://env/name}"}) == [
        ("secret", "invalid value")
    ]


def test_a_reference_to_another_vault_is_refused() -> None:
    text = "there is no vault 'aws' in kongai; it has 'env'"
    assert refused(Record, {"secret": "{vault://aws/name}"}) == [("secret", text)]


def test_other_fields_take_a_reference_for_text() -> None:
    assert load(Record, {"name": "{vault://env/name}"}).name == "{vault://env/name}"
