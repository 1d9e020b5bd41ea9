from __future__ import annotations

from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai.exchange import Exchange
from kongai.plugins.custom_fields import CustomFields, problems


def applied(
    fields: dict[str, Any] | None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """What becomes of a record with a route."""
    request = Request(EnvironBuilder().get_environ())
    exchange = Exchange(request, headers=Headers(headers or {}))
    CustomFields(fields).set(exchange)
    record: dict[str, Any] = {"route": {"name": "r"}, "status": 200}
    exchange.log.apply(record)
    return record


def test_fact_42_constants_nest_are_escaped_and_delete() -> None:
    fields = {
        "new_field": 123,
        "nested.keys": 456,
        "escape\\.dots": 789,
        "route": None,
    }
    assert applied(fields) == {
        "new_field": 123,
        "nested": {"keys": 456},
        "escape.dots": 789,
        "status": 200,
    }


@pytest.mark.parametrize("value", ["text", "", 0, -1.5, True, False])
def test_a_constant_keeps_its_type(value: Any) -> None:
    (found,) = (applied({"x": value})["x"],)
    assert (found, type(found)) == (value, type(value))


def test_a_field_of_a_record_within_the_record_is_replaced() -> None:
    assert applied({"route.name": "x"})["route"] == {"name": "x"}
    assert applied(None) == applied({})


def test_a_header_of_the_request() -> None:
    fields = {"team": {"header": "X-Team"}, "route.name": {"header": "x-none"}}
    assert applied(fields, {"x-team": "search"}) == {
        "team": "search",
        "route": {},
        "status": 200,
    }


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "cookie"])
def test_a_secret_header_stays_secret(name: str) -> None:
    assert applied({"x": {"header": name}}, {name: "c4nary"})["x"] == "REDACTED"


def test_a_credential_in_any_header_stays_secret() -> None:
    found = applied({"x": {"header": "x-note"}}, {"x-note": "Bearer c4nary"})["x"]
    assert found == "REDACTED"


def test_an_environment_variable_is_read_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KONGAI_TEST_REGION", "eu")
    fields = CustomFields({"region": {"env": "KONGAI_TEST_REGION"}})
    monkeypatch.setenv("KONGAI_TEST_REGION", "us")
    exchange = Exchange(Request(EnvironBuilder().get_environ()))
    fields.set(exchange)
    record: dict[str, Any] = {}
    exchange.log.apply(record)
    assert record == {"region": "eu"}


@pytest.mark.parametrize(
    "value",
    [
        *([], [1], {}, {"header": ""}, {"header": 5}, {"env": None}, {"lua": "x"}),
        *({"header": "a", "env": "b"}, float("nan"), float("inf"), ("a",)),
    ],
)
def test_what_a_field_can_not_be(value: Any) -> None:
    [(path, text)] = problems({"a.b": value})
    assert path == "custom_fields.a.b"
    assert text.startswith("expected a string, a number, a boolean, null, {header: ")


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b"])
def test_a_name_has_no_empty_part(name: str) -> None:
    [(_, text)] = problems({name: 1})
    assert text == "a name must not be empty"


def test_a_variable_that_is_not_set_is_a_problem_of_the_file() -> None:
    [(path, text)] = problems({"x": {"env": "KONGAI_TEST_UNSET"}})
    assert path == "custom_fields.x"
    assert text == (
        "the environment variable KONGAI_TEST_UNSET is not set; set it before the start"
    )


def test_nothing_is_wrong_with_what_can_be() -> None:
    fields = {"a": 1, "b\\.c": None, "c": {"header": "x"}, "d": {"env": "PATH"}}
    assert list(problems(fields)) == []
    assert list(problems(None)) == []
