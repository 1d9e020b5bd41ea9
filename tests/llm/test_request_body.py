from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kongai.llm import request_body
from kongai.llm.request_body import (
    MAX_MEMBERS,
    BadBody,
    NoRequest,
    exact_members,
    read_body,
)

MEGABYTE = 1024 * 1024


def test_the_members_are_as_they_are_written() -> None:
    body = b'{ "a" : [1, 2.0] ,\n"b": {"c": -0}, "\\u00e9":1e999, "d": 9%b }' % (
        b"9" * 400
    )
    read = read_body(body)
    assert read.exact
    assert {name: bytes(value) for name, value in read.members.items()} == {
        "a": b"[1, 2.0]",
        "b": b'{"c": -0}',
        "é": b"1e999",
        "d": b"9" * 401,
    }


def test_what_a_member_is() -> None:
    read = read_body(
        b'{"text":"\\u00e9","no":null,"yes":true,"array":[ ],"full":[\n[]],"number":1,'
        b'"object":{"yes":true,"text":"x"}}'
    )
    assert [read.text(name) for name in ("text", "yes", "none")] == ["é", None, None]
    for name in read.members:
        assert read.is_text(name) is (name == "text")
        assert read.is_true(name) is (name == "yes")
        assert read.is_array(name) is (name in ("array", "full"))
        assert read.is_filled_array(name) is (name == "full")
        assert bool(read.object(name).members) is (name == "object")
    assert read.object("object").is_true("yes")
    assert read.object("object").text("text") == "x"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"not json", "no JSON: invalid character"),
        (b'{"a":1', "no JSON: "),
        (b'{"a":1} x', "no JSON: trailing characters"),
        (b'{"a":1}\0', "no JSON: "),
        (b'{"a":1,}', "no JSON: trailing comma"),
        (b"{'a':1}", "no JSON: object keys must be strings"),
        (b'{"a":01}', "no JSON: invalid number"),
        (b'{"a":nan}', "no JSON: invalid character"),
        (b'{"a":"\n"}', "no JSON: invalid character"),
        (b'{"a":"\\ud83d" b}', "no JSON: "),
        (b"null", "JSON, but no object"),
        (b'["a"]', "JSON, but no object"),
        (b"[" * 100_000, "JSON, but no object"),
    ],
    ids=lambda given: ascii(given[:16]),
)
def test_what_is_no_object(body: bytes, where: str) -> None:
    with pytest.raises(NoRequest) as refused:
        read_body(body)
    assert str(refused.value).startswith(where)


NESTED = [b'{"a":' + b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a":"\xff"}', request_body.NOT_UTF8),
        (b'{"\xff":1}', request_body.NOT_UTF8),
        (b'{"a":"\xed\xa0\x80"}', request_body.NOT_UTF8),
        (b'{"a":"\xc0\xaf"}', request_body.NOT_UTF8),
        (b"\xff", request_body.NOT_UTF8),
        (b'\xef\xbb\xbf{"a":1}', request_body.MARKED),
        *(
            ('{"a":1}'.encode(coding), request_body.WIDE)
            for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")
        ),
        *(
            (b'{"a":%b}' % value, request_body.NOT_A_NUMBER)
            for value in (b"NaN", b"Infinity", b"-Infinity", b'[1, {"b": NaN}]')
        ),
        *((body, request_body.TOO_DEEP) for body in NESTED),
    ],
    ids=lambda given: ascii(given[:16]),
)
def test_what_others_might_read_otherwise(body: bytes, text: str) -> None:
    with pytest.raises(BadBody) as refused:
        read_body(body)
    assert not isinstance(refused.value, NoRequest)
    assert str(refused.value) == text


@pytest.mark.parametrize("character", ["é", "世", "🙂"])
@pytest.mark.parametrize("before", [*range(8176, 8196), 16_384, 100_000])
def test_a_long_body_is_utf8_everywhere(character: str, before: int) -> None:
    spoken, whole = character.encode(), b'{"a":"%b%b%b"}'
    end = b"x" * 20_000
    assert read_body(whole % (b"x" * before, spoken, end)).exact
    for part in (spoken[1:], spoken[:-1]):
        with pytest.raises(BadBody, match=f"^{request_body.NOT_UTF8}$"):
            read_body(whole % (b"x" * before, part, end))


@pytest.mark.parametrize("first", [b"model", b"MODEL", b"\\u006dodel", b"mo\\u0064el"])
@pytest.mark.parametrize("spaces", [b"", b" ", b"\r\n\t"])
def test_two_members_of_one_name(first: bytes, spaces: bytes) -> None:
    """A small reader may take the first, another one the last."""
    members = [b'"%b"' % first + spaces + b':"a"', b'"x":{"model":1}', b'"model":"b"']
    body = b"{" + (b"," + spaces).join(members) + spaces + b"}"
    with pytest.raises(BadBody, match='^request body has "model" twice$'):
        read_body(body)


@pytest.mark.parametrize("name", ["Stream", "STREAM", "\u017ftream", "\\u0053tream"])
def test_a_member_that_others_may_take_for_one_that_counts(name: str) -> None:
    """Go's JSON, and so Ollama's, takes it for `stream`."""
    body = f'{{"model":"m","{name}":true,"x":1}}'
    with pytest.raises(BadBody, match='^request body has "stream" in another spelling'):
        read_body(body.encode())


def test_a_spelling_that_nothing_depends_on() -> None:
    assert read_body(b'{"\\u0073tream":true,"Metadata":1,"maxTokens":1}').exact
    assert read_body(b'{"x":{"Stream":true}}').exact


def test_a_name_that_a_client_made_up_is_not_repeated() -> None:
    with pytest.raises(BadBody, match="^request body has a member twice$"):
        read_body(b'{"sk-ant-canary":1,"sk-ant-canary":2}')


def test_members_of_members_may_have_one_name() -> None:
    """What the gateway does not decide by is the provider's business."""
    assert read_body(b'{"model":"a","x":{"y":1,"y":2},"y":[{"model":1}]}').exact


names = st.sampled_from(["model", "stream", "é", "\\", '"', "a b", "", "🙂", "x"])
spelt = st.booleans().flatmap(
    lambda plain: names.map(lambda name: json.dumps(name, ensure_ascii=plain))
)
space = st.sampled_from(["", " ", "\n", "\t \r"])
values = st.sampled_from(
    ["1", '"a"', '",\\"model\\":1"', "[{}]", '{"model":{}}', "null"]
)


@given(st.lists(st.tuples(space, spelt, space, space, values, space), max_size=6))
def test_no_pair_is_overlooked(written: list[tuple[str, ...]]) -> None:
    text = "{" + ",".join(f"{a}{k}{b}:{c}{v}{d}" for a, k, b, c, v, d in written) + "}"
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    unique = len({name for name, _ in pairs}) == len(pairs)
    try:
        read = read_body(text.encode())
    except BadBody:
        assert not unique
    else:
        assert unique
        assert list(read.members) == [name for name, _ in pairs]
        assert [bytes(value).decode() for value in read.members.values()] == [
            value for *_, value, _ in written
        ]


cased = st.sampled_from(
    ["model", "Model", "MODEL", "\u017ftream", "stream", "é", "É", "ß", "ss", "x", "X"]
)


@given(
    st.lists(st.tuples(cased, values), max_size=5),
    st.booleans(),
    st.sampled_from(["", " ", "}", ",", "x"]),
)
def test_a_body_that_is_read_at_once_is_read_the_same(
    written: list[tuple[str, str]], ascii_only: bool, end: str
) -> None:
    pairs = (f"{json.dumps(k, ensure_ascii=ascii_only)}:{v}" for k, v in written)
    text = "{" + ",".join(pairs) + "}" + end
    # Padded beyond what is read at once.
    bodies = [text.encode(), text.encode() + b" " * 2 * request_body._SHORT]
    seen = []
    for body in bodies:
        try:
            members = exact_members(body)
            seen.append([(name, bytes(value)) for name, value in members.items()])
        except BadBody as refusal:
            seen.append([(type(refusal).__name__, str(refusal))])
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"\ud83d"', "�"),
        (rb'"\udc00 x"', "� x"),
        (rb'"\ud83d\ud83d\ude00"', "�😀"),
        (rb'"\ud83d\ude00\ude00"', "😀�"),
        (rb'"\uD83D\uDE00 \uDBFF"', "😀 �"),
        (rb'"\\\ud83d"', "\\�"),
    ],
)
def test_half_of_a_surrogate_pair(written: bytes, read: str) -> None:
    """JavaScript writes it for a text that was cut in the middle of a character."""
    body = b'{"model":"m","x":%b,"stream":true}' % written
    given = read_body(body)
    assert not given.exact
    assert (given.text("x"), given.text("model")) == (read, "m")
    with pytest.raises(BadBody, match="surrogate"):
        exact_members(body)


@pytest.mark.parametrize(
    "written", [rb'"\\ud83d"', rb'"\ud83d\ude00"', rb'"\\\\ud83d"']
)
def test_what_only_looks_like_half_of_a_pair(written: bytes) -> None:
    body = b'{"x":%b}' % written
    assert read_body(body).exact
    assert bytes(exact_members(body)["x"]) == written


def test_half_of_a_pair_beside_one_that_is_only_written_of() -> None:
    written = rb'"%b\\ud83d \ud83d\ude00 \ud83d"' % (rb"\\ud83d " * 300)
    read = read_body(b'{"x":%b}' % written).text("x")
    assert read == "\\ud83d " * 301 + "😀 \ufffd"


def test_half_of_a_pair_is_found_in_no_time() -> None:
    """Some 20 ms for 16 MB; a second where every byte is looked at in turn."""
    body = b'{"a":"%b\\ud83d"}' % (b"x" * 16 * MEGABYTE)
    started = time.process_time()
    assert request_body.without_halves(body).endswith(b'\\ufffd"}')
    assert time.process_time() - started < 0.4


def test_as_many_members_as_are_allowed() -> None:
    members = [b'"%d":0' % number for number in range(MAX_MEMBERS)]
    assert len(exact_members(b"{" + b",".join(members) + b"}")) == MAX_MEMBERS
    with pytest.raises(BadBody, match="more than 1000 members"):
        read_body(b"{" + b",".join([*members, b'"x":0']) + b"}")


@given(st.binary() | st.text(r'{}[]:,"\modelud83de 1NaIinfty').map(str.encode))
def test_anything_is_read_or_refused(body: bytes) -> None:
    try:
        members = exact_members(body)
    except BadBody:
        return
    assert json.loads(body.decode()).keys() == members.keys()


BOMBS = {
    "arrays": b'{"messages":[' + b"[]," * (MEGABYTE // 3) + b"[]]}",
    "numbers": b'{"messages":[1' + b",1" * (MEGABYTE // 2) + b"]}",
    "deep pieces": b'{"messages":['
    + b",".join([b"[" * 200 + b"]" * 200] * (MEGABYTE // 401))
    + b"]}",
    "one number": b'{"a":' + b"9" * MEGABYTE + b"}",
    "white space": b'{"messages":[' + b" " * MEGABYTE + b"]}",
    "escapes": b'{"a":"' + rb"\u0041" * (MEGABYTE // 6) + b'"}',
    "halves of pairs": b'{"a":"' + rb"\ud83d" * (MEGABYTE // 6) + b'"}',
    "backslashes": b'{"a":"' + b"\\" * MEGABYTE + rb'\ud83d"}',
    "names": b"{"
    + b",".join(b'"%d":0' % number for number in range(MEGABYTE // 10))
    + b"}",
    "one name": b"{" + b",".join([b'"":0'] * (MEGABYTE // 5)) + b"}",
    "no end": b'{"a":"' + b"x" * MEGABYTE,
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_time_and_memory_are_bounded(body: bytes) -> None:
    """Some 10 ms for most of them; quadratic would be minutes."""

    def read() -> None:
        try:
            read = read_body(body)
            read.is_filled_array("messages")
        except BadBody:
            pass

    started = time.process_time()
    read()
    assert time.process_time() - started < 0.5
    tracemalloc.start()
    try:
        read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(body)
