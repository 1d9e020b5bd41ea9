from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kongai.llm.chat import Losses, Untranslatable
from kongai.llm.json_fields import MAX_OBJECTS, Fields, object_text, with_fields

TAKERS: dict[str, Callable[[Fields, str], Any]] = {
    "text": Fields.text,
    "integer": Fields.integer,
    "number": Fields.number,
    "flag": Fields.flag,
    "texts": Fields.texts,
    "value": Fields.value,
    "object": Fields.object,
    "objects": lambda fields, name: list(fields.objects(name)),
}


def fields(value: Any) -> Fields:
    return Fields.parse(json.dumps(value).encode())


def lost(given: Fields) -> list[str]:
    losses = Losses()
    given.report(losses)
    return losses.names()


def test_each_type() -> None:
    given = fields(
        {"t": "é", "i": 7, "n": 1, "f": False, "l": ["a"], "v": {"a": [1, None]}}
    )
    assert given.text("t") == "é"
    assert given.integer("i") == 7
    assert given.number("n") == 1.0
    assert given.flag("f") is False
    assert given.texts("l") == ["a"]
    assert given.value("v") == {"a": [1, None]}
    assert lost(given) == []


@pytest.mark.parametrize("body", [{}, {"x": None}])
def test_what_is_not_there(body: Any) -> None:
    for name, take in TAKERS.items():
        given = fields(body)
        assert take(given, "x") == ([] if name in ("texts", "objects") else None)
        assert given.json("x") is None
        assert not given.has("x")


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        ("text", 1, "a string"),
        ("text", ["secret"], "a string"),
        ("integer", 1.5, "an integer"),
        ("integer", "1", "an integer"),
        ("integer", True, "an integer"),
        ("number", "1", "a number"),
        ("flag", 0, "a boolean"),
        ("flag", "true", "a boolean"),
        ("texts", "secret", "an array of strings"),
        ("texts", ["a", None], "an array of strings"),
        ("value", ["secret"], "an object"),
        ("object", "secret", "an object"),
        ("objects", {"secret": 1}, "an array"),
    ],
)
def test_another_type_is_refused_by_place_and_never_by_value(
    how: str, value: Any, expected: str
) -> None:
    with pytest.raises(Untranslatable) as refused:
        TAKERS[how](fields({"x": value}), "x")
    assert str(refused.value) == f"x: expected {expected}"


def test_the_place_of_an_error_leads_through_objects_and_arrays() -> None:
    inner = {"image": {"url": 1}}
    given = fields({"messages": [{"content": []}, {"content": [{}, inner]}]})
    _, message = given.objects("messages")
    _, part = message.objects("content")
    image = part.object("image")
    assert image is not None
    with pytest.raises(Untranslatable, match=r"^messages\[1\].content\[1\].image.url:"):
        image.text("url")
    assert str(part.refusal("no")) == "messages[1].content[1]: no"
    assert str(given.refusal("no")) == "no"


def test_the_place_of_an_item_that_is_no_object() -> None:
    with pytest.raises(Untranslatable, match=r"^x\[1\]: expected an object$"):
        list(fields({"x": [{}, 1]}).objects("x"))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'"x"', b"{", b"{}x", b"\xff", b'{"a":"\xff"}'),
        *(b'{"a":"\\ud83d"}', b'{"a":"\\ud83d x"}', b'{"a":["\\udc00x"]}'),
        *(b'{"a":NaN}', b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf{}"),
    ],
    ids=lambda body: ascii(body[:10]),
)
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(Untranslatable, match="^expected a JSON object$"):
        Fields.parse(body)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_what_says_nothing_is_not_missed(value: Any) -> None:
    assert lost(fields({"x": value})) == []


@pytest.mark.parametrize("value", [True, 0, "no", [None], {"a": None}])
def test_what_nobody_took_is_named(value: Any) -> None:
    assert lost(fields({"x": value})) == ["x"]


def test_names_of_what_is_left_over_tell_no_indices() -> None:
    given = fields({"a": [{"b": 1}, {"b": 2, "c": {"d": 3}}], "e": 1})
    for item in given.objects("a"):
        item.object("c")
    assert lost(given) == ["e", "a[].b", "a[].c.d"]


def test_what_is_taken_is_not_left_over() -> None:
    given = fields({"a": 1, "b": "x", "c": {"d": 1}})
    given.integer("a")
    given.drop("b")
    given.drop("nothing")
    assert given.json("c") == '{"d": 1}'
    assert lost(given) == []


def test_an_object_can_be_lost_as_a_whole() -> None:
    given = fields({"tools": [{"type": "search", "in": {"a": 1}, "b": 1}, {"c": 1}]})
    for tool in given.objects("tools"):
        kind = tool.text("type")
        tool.object("in")
        if kind:
            tool.lose(f"[{kind}]")
    assert lost(given) == ["tools[search]", "tools[].c"]


def test_an_object_outside_an_array_is_lost_under_its_own_name() -> None:
    given = fields({"choice": {"a": 1}})
    choice = given.object("choice")
    assert choice is not None
    choice.lose("[odd]")
    assert lost(given) == ["choice[odd]"]


@pytest.mark.parametrize(
    ("value", "names"),
    [("auto", []), ("low", []), ("high", ["x"]), (["auto"], ["x"]), (1, ["x"])],
)
def test_a_string_without_a_meaning_of_its_own(value: Any, names: list[str]) -> None:
    given = fields({"x": value})
    given.drop_if("x", "auto", "low")
    assert lost(given) == names


@pytest.mark.parametrize(
    ("value", "first"),
    [("x", b'"'), ([], b"["), ({}, b"{"), (None, b"n"), (-1, b"-")],
)
def test_the_first_byte_tells_the_type(value: Any, first: bytes) -> None:
    assert fields({"x": value}).starts("x") == first
    assert fields({"y": value}).starts("x") == b""


def test_json_comes_as_it_is_written() -> None:
    given = Fields.parse(b'{"x": {"b" :1.0, "a":"\\u00e9"} }')
    assert given.json("x") == '{"b" :1.0, "a":"\\u00e9"}'


def test_losses_are_bounded() -> None:
    losses = Losses()
    for number in range(1000):
        losses.add(f"{number}" * 200)
        losses.add("0" * 200)
    assert len(losses.names()) == 50
    assert {len(name) for name in losses.names()} == {100}
    assert len(repr(losses)) < 6000


def test_a_loss_counts_once() -> None:
    losses = Losses()
    for name in ("b", "a", "b"):
        losses.add(name)
    assert losses.names() == ["b", "a"]


@pytest.mark.parametrize(
    ("body", "set_to", "expected"),
    [
        (
            b'{"messages":[1],"x":1}',
            {"model": "m"},
            b'{"messages":[1],"x":1,"model":"m"}',
        ),
        (b'{"model":null,"x":1}', {"model": "m"}, b'{"model":"m","x":1}'),
        (
            b'{"stream":false,"x":1}',
            {"stream": True, "model": "m"},
            b'{"stream":true,"x":1,"model":"m"}',
        ),
        (b'{"x":1}', {}, b'{"x":1}'),
        (b'{"x":1}', {"model": 'a"\n\xe9'}, '{"x":1,"model":"a\\"\\né"}'.encode()),
        (b'{"x":1,"y":2,"z":null}', {"x": None}, b'{"y":2,"z":null}'),
        (b'{"x":1}', {"y": None}, b'{"x":1}'),
        (b"{}", {"x": {"y": None}}, b'{"x":{"y":null}}'),
    ],
)
def test_with_fields(body: bytes, set_to: dict[str, Any], expected: bytes) -> None:
    assert with_fields(body, set_to) == expected


@pytest.mark.parametrize(
    "value",
    [
        b'{"b" :  1,\n"a":[ 1.0, 1e2 , "\\u00e9/\\/" ]}',
        b"12345678901234567890123",
        b"1.10",
        '"🙂é"'.encode(),
        b'{"a":1,"a":2}',
    ],
)
def test_with_fields_keeps_every_other_values_bytes(value: bytes) -> None:
    """A value written anew would miss the provider's prompt cache."""
    body = b'{"system":%b,"messages":[{"role":"user"}]}' % value
    changed = with_fields(body, {"model": "m"})
    assert b'"system":%b,"messages":[{"role":"user"}]' % value in changed


@pytest.mark.parametrize("text", ["{}", ' {"a": 1.0}\n', '{"a":"é"}'])
def test_the_text_of_an_object(text: str) -> None:
    assert object_text(text) == msgspec.Raw(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "[]", "null", "1", '"{}"', "{", "{}{}", "{'a':1}", '{"a":NaN}'),
        *('{"a":"\\ud83d"}', '{"a":"\ud83d"}', '{"a":' * 100_000),
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_what_is_no_text_of_an_object(text: str) -> None:
    assert object_text(text) is None


def test_so_many_objects_are_read_and_no_more() -> None:
    """Time is bounded however small they are, and wherever they are."""
    inner = {"content": [{}] * (MAX_OBJECTS // 2)}
    given = fields({"messages": [inner, inner]})
    messages = given.objects("messages")
    assert len(list(next(messages).objects("content"))) == MAX_OBJECTS // 2
    with pytest.raises(Untranslatable, match="more than 100000"):
        list(next(messages).objects("content"))
