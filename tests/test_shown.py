from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

import kongai.shown
from kongai import redact
from kongai.incoming import argument
from kongai.shown import LONGEST_KEPT, MAX_HEADERS, Shown, shown

ALSO = frozenset({"x-team"})
CANARY = "c4nary-5f1d-77aa"

WORDS = st.sampled_from(
    [
        *("Bearer ", "basic\t", "sk-", "AIzaSy", "0123456789", "http://u:p@h/", "@"),
        *(
            "?token=",
            "&a=",
            "key=",
            "caf\xc3\xa9",
            "\u017f\u212a-12345678",
            "%73k-",
            "+",
        ),
        *("REDACTED", "\xff", "beta", "\ud800", " ", "/", "?"),
    ]
)
VALUES = st.lists(WORDS | st.text(max_size=5), max_size=6).map("".join)
HEADER_NAMES = st.sampled_from(
    [
        "Accept",
        "accept",
        "X-Api-Key",
        "x-team",
        "Cookie",
        "Location",
        "X-A",
        "sk-1234567",
    ]
)


def decoded(value: str) -> str:
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def headers_by_the_rules(headers: list[tuple[str, str]]) -> dict[str, Any]:
    """What a record shows of a head, each field by itself."""
    by_name: dict[str, list[str]] = {}
    for name, value in headers[:MAX_HEADERS]:
        value = redact.header_value(name, decoded(value), ALSO)
        by_name.setdefault(name.lower(), []).append(value)
    return {n: found if found[1:] else found[0] for n, found in by_name.items()}


def query_by_the_rules(target: str) -> dict[str, Any]:
    by_name: dict[str, list[Any]] = {}
    for part in filter(None, target.partition("?")[2].split("&")):
        name, value = argument(part)
        if isinstance(value, str):
            value = redact.argument(name, value, ALSO)
        by_name.setdefault(redact.text(name), []).append(value)
    return {n: found if found[1:] else found[0] for n, found in by_name.items()}


@given(st.lists(st.tuples(HEADER_NAMES, VALUES), max_size=6))
def test_a_head_is_shown_the_same_each_time(headers: list[tuple[str, str]]) -> None:
    show = Shown(ALSO)
    expected = headers_by_the_rules(headers)
    for _ in range(2):
        assert show.headers(headers) == expected
        assert list(show.headers(headers)) == list(expected)


@given(VALUES.map("/".__add__))
def test_a_target_is_shown_the_same_each_time(target: str) -> None:
    show = Shown(ALSO)
    expected = redact.target(target, ALSO), query_by_the_rules(target)
    assert show.target(target) == expected[0]
    for _ in range(2):
        assert show.target_and_query(target) == expected
        assert show.target(target) == expected[0]


def test_a_record_may_be_changed() -> None:
    show = Shown()
    for _ in range(2):
        _, fields = show.target_and_query("/a?b=1")
        assert fields == {"b": "1"}
        fields["b"] = 2
        headers = show.headers([("A", "1")])
        assert headers == {"a": "1"}
        headers["a"] = "2"


def remembered(show: Shown) -> str:
    return repr([vars(show), redact._known_names])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("X-Api-Key", CANARY), ("authorization", f"Bearer {CANARY}")),
        *(("X-Team", CANARY), ("Accept", f"sk-{CANARY}"), ("Cookie", f"a={CANARY}")),
        *(("Location", f"/a?key={CANARY}"), ("Referer", f"http://u:{CANARY}@h/")),
        *((f"sk-{CANARY}", "1"), (f"key-sk-{CANARY}", "1")),
        ("X-Long", CANARY + "x" * LONGEST_KEPT),
    ],
)
def test_no_credential_of_a_head_is_remembered(name: str, value: str) -> None:
    show = Shown(ALSO)
    for _ in range(2):
        show.headers([("Accept", "*/*"), (name, value)])
    kept = remembered(show)
    assert CANARY not in kept
    assert "*/*" in kept


@pytest.mark.parametrize(
    "query",
    [
        *(f"key={CANARY}", f"x-team={CANARY}", f"a=sk-{CANARY}", f"sk-{CANARY}=1"),
        *(f"%6bey={CANARY}", f"a=%73k-{CANARY}", f"a=Bearer+{CANARY}", f"sk-{CANARY}"),
        *(f"a=1&a={CANARY}&token=2", "a=" + "x" * LONGEST_KEPT + CANARY),
    ],
)
def test_no_credential_of_a_target_is_remembered(query: str) -> None:
    show = Shown(ALSO)
    for _ in range(2):
        show.target_and_query("/plain?beta=true")
        show.target_and_query(f"/a?{query}")
        show.target(f"/a?{query}")
    kept = remembered(show)
    assert CANARY not in kept
    assert "/plain?beta=true" in kept


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kongai.shown, "MAX_KEPT", 10)
    show = Shown()
    for number in range(100):
        head = [(f"X-{number}", "1"), ("X-A", str(number)), ("Accept", "*/*")]
        fields = show.headers(head)
        assert fields == {f"x-{number}": "1", "x-a": str(number), "accept": "*/*"}
        assert show.headers([(f"X-Key-{number}", "1")]).popitem()[1] == redact.REDACTED
        assert show.target_and_query(f"/{number}?a=1") == (f"/{number}?a=1", {"a": "1"})
        assert show.text(f"model-{number}") == f"model-{number}"
    memories = [memory for memory in vars(show).values() if isinstance(memory, dict)]
    assert [0 < len(memory) <= 10 for memory in memories] == [True] * 5


def test_names_have_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_MOST_KEPT", 10)
    names = [f"x-a{number}" for number in range(100)] + [f"x-key{n}" for n in range(9)]
    assert [redact.is_secret(name) for name in names] == [False] * 100 + [True] * 9
    assert len(redact._known_names) <= 10


def test_gateways_with_the_same_secret_names_share_what_is_remembered() -> None:
    assert shown(frozenset({"a"})) is shown(frozenset({"a"}))
    assert shown(frozenset({"a"})).headers([("A", "1")]) == {"a": "REDACTED"}
    assert shown(frozenset()).headers([("A", "1")]) == {"a": "1"}


def test_a_field_may_be_left_out_of_a_head() -> None:
    head = [("A", "1"), ("Date", "now"), ("date", "then"), *[("B", "2")] * MAX_HEADERS]
    fields = Shown().headers(head, without="Date")
    assert fields == {"a": "1", "date": "then", "b": ["2"] * (MAX_HEADERS - 2)}


def test_texts_are_shown_without_credentials_and_these_not_remembered() -> None:
    show = Shown()
    for _ in range(2):
        assert show.text("claude-x") == "claude-x"
        assert show.text(f"sk-{CANARY}") == redact.REDACTED
        assert show.text(f"<{CANARY}>", frozenset({"", CANARY})) == f"<{CANARY}>"
        assert show.text("x" * (LONGEST_KEPT + 1)) == "x" * (LONGEST_KEPT + 1)
    assert show.texts == {"claude-x": "claude-x"}
    assert CANARY not in remembered(show)


def test_ids_are_shown_and_not_remembered() -> None:
    show = Shown()
    head = [("X-Kong-Request-Id", "0123abc"), ("Date", "now"), ("X-A", "1")]
    assert list(show.headers(head).values()) == ["0123abc", "now", "1"]
    assert show.headers([("Request-Id", f"sk-{CANARY}")]) == {"request-id": "REDACTED"}
    assert list(show._headers) == [("X-A", "1")]


def test_what_has_a_known_secret_in_it_is_not_remembered() -> None:
    show = Shown()
    secrets = frozenset({CANARY, "", "caf\xe9"})
    head = [
        *(("X-A", CANARY), ("X-B", f"<{CANARY}>"), (CANARY, "1"), ("X-C", "1")),
        ("X-D", "caf\xc3\xa9"),
    ]
    for _ in range(2):
        assert show.headers(head, secrets)["x-b"] == f"<{CANARY}>"
        for target in (f"/{CANARY}", f"/a?b={CANARY}", "/a?b=c4n%61ry-5f1d-77aa", "/c"):
            show.target_and_query(target, secrets)
    kept = vars(show)
    assert kept["_headers"] == {("X-C", "1"): ("x-c", "1")}
    assert kept["targets"] == {"/c": ()}
    assert CANARY not in remembered(show)
