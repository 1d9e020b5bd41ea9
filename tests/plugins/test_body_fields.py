from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from kongai.plugins.body_fields import has_fields, values, without

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
MULTIPART = 'multipart/form-data; boundary="b-1"'


def multipart(*parts: tuple[str, bytes], before: bytes = b"") -> bytes:
    """A multipart form, its lines ended as MIME has it."""
    body = before
    for name, content in parts:
        body += b"--b-1\r\nContent-Disposition: form-data; "
        body += f'name="{name}"\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--b-1--\r\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FORM, True),
        ("Application/JSON; charset=utf-8", True),
        (MULTIPART, True),
        ("", False),
        ("text/plain", False),
        ("application/problem+json", False),
        ("multipart/mixed; boundary=b-1", False),
    ],
)
def test_three_types_have_fields(kind: str, expected: bool) -> None:
    assert has_fields(kind) is expected


@pytest.mark.parametrize(
    ("body", "kind", "found"),
    [
        (b"x=1&k=a", FORM, ["a"]),
        (b"k=a&k=%62+c", FORM, ["a", "b c"]),
        (b"%6B=a", FORM, ["a"]),
        (b"k", FORM, [True]),
        (b"k=", FORM, [""]),
        (b"K=a", FORM, []),
        (b"", FORM, []),
        (b'{"k":"a","x":{"k":"b"}}', JSON, ["a"]),
        (b'{"k":"\\u00e9"}', JSON, ["é"]),
        (b'{"k":["a"]}', JSON, [["a"]]),
        (b'{"k":5}', JSON, [5]),
        (b'{"x":1}', JSON, []),
        (b"[1]", JSON, []),
        (b"{bad", JSON, []),
        (b"", JSON, []),
        (b'{"k":"\xff"}', JSON, []),
        (b"[" * 100_000, JSON, []),
        (b'{"x":' + b"[" * 100_000, JSON, []),
        (multipart(("x", b"1"), ("k", b"a")), MULTIPART, ["a"]),
        (multipart(("k", b"a\r\n--b-12\r\n")), MULTIPART, ["a\r\n--b-12\r\n"]),
        (multipart(("k", b"a"), ("k", b"b")), MULTIPART, ["a", "b"]),
        (multipart(("k", b"a"), before=b"hello\r\n"), MULTIPART, ["a"]),
        (multipart(("k", b"a"))[:-8], MULTIPART, []),
        (multipart(("k", b"a")), "multipart/form-data", []),
        (b"", MULTIPART, []),
        (b"k=a", "text/plain", []),
    ],
)
def test_fields_are_found_by_name(body: bytes, kind: str, found: list[Any]) -> None:
    assert values(body, kind, "k") == found


@pytest.mark.parametrize(
    ("body", "kind", "left"),
    [
        (b"k=a", FORM, b""),
        (b"x=1&k=a&y=%20&&k", FORM, b"x=1&y=%20&"),
        (b'{"k":"a"}', JSON, b"{}"),
        (b'{"z":1.50, "k":1, "a":[ 1 ]}', JSON, b'{"z":1.50,"a":[ 1 ]}'),
        (multipart(("k", b"a"), ("x", b"1")), MULTIPART, multipart(("x", b"1"))),
        (multipart(("x", b"1"), ("k", b"a")), MULTIPART, multipart(("x", b"1"))),
        (multipart(("k", b"a")), MULTIPART, b"--b-1--\r\n"),
        (
            multipart(("k", b"a"), before=b"hello\r\n"),
            MULTIPART,
            b"hello\r\n--b-1--\r\n",
        ),
    ],
)
def test_a_field_is_taken_out_and_the_rest_stays(
    body: bytes, kind: str, left: bytes
) -> None:
    assert without(body, kind, "k") == left
    assert values(left, kind, "k") == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"x=%20&&y=+", FORM),
        (b'{ "x" : 1 }', JSON),
        (b"{bad", JSON),
        (b"", JSON),
        (multipart(("x", b"1"), before=b"k"), MULTIPART),
        (b"no multipart", MULTIPART),
        (multipart(("k", b"a")), "multipart/form-data"),
        (b"k=a", "text/plain"),
    ],
)
def test_a_body_without_the_field_stays_byte_for_byte(body: bytes, kind: str) -> None:
    assert without(body, kind, "k") == body


def test_a_clients_own_multipart_is_understood() -> None:
    builder = EnvironBuilder(method="POST", data={"k": "a"}, content_type=None)
    builder.files.add_file("f", __file__)
    with builder.get_request() as request:
        body, kind = request.get_data(), request.content_type or ""
    assert values(body, kind, "k") == ["a"]
    left = without(body, kind, "k")
    assert b"form-data" in left
    assert values(left, kind, "k") == []
    assert values(left, kind, "f") == values(body, kind, "f") != []
    builder.close()


def test_json_is_still_json() -> None:
    body = json.dumps({"k": 1, "é": "\u2028", "n": 1e400, "k2": None}).encode()
    assert b"Infinity" in body
    assert without(body, JSON, "k") == body, "no JSON, so nothing is changed"
