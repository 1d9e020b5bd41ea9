from __future__ import annotations

from typing import Any

import pytest

from kongai.candidates import Candidate, asked, candidate, rank
from kongai.entities import Route


def made(path: str | None = None, **fields: Any) -> Candidate:
    return candidate(Route(**fields), None, path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (made(hosts=["*.x:80"]), made(hosts=["x"])),
        (made(hosts=["x"]), made(hosts=["*.x"])),
        (made("~/a"), made("/a/b/c")),
        (
            made("~/a", headers={"k": ["1"], "j": ["1"]}),
            made("~/a", headers={"k": ["1"]}, regex_priority=5),
        ),
        (made("~/a", regex_priority=1), made("~/abc")),
        (made("/abc"), made("/a")),
        (made("/a", created_at=1), made("/a", created_at=2)),
        (made("/a", created_at=2), made("/a")),
    ],
)
def test_of_one_category_the_first_to_be_tried(
    first: Candidate, second: Candidate
) -> None:
    assert rank(first) < rank(second)


def test_a_priority_is_for_regexes_only() -> None:
    assert rank(made("/a", regex_priority=9)) == rank(made("/a"))


@pytest.mark.parametrize(
    ("host", "sni", "names"),
    [
        ("x", None, ("x", "x:80")),
        ("x", "", ("x", "x:443")),
        ("x:8000", None, ("x", "x:8000")),
        ("x:", None, ("x", "x:80")),
        ("[::1]", None, ("[::1]", "[::1]:80")),
        ("[::1]:8000", None, ("[::1]", "[::1]:8000")),
    ],
)
def test_a_host_without_a_port_has_that_of_its_scheme(
    host: str, sni: str | None, names: tuple[str, str]
) -> None:
    assert asked("GET", host, "/", (), sni).names == names


def test_a_request_is_looked_at_decoded_and_in_lower_case() -> None:
    headers = [("X-Team", "Search"), ("x-team", "ADS")]
    found = asked("GET", "h", "/caf%C3%A9/a%2Fb", headers, None)
    assert found.headers == {"x-team": ["search", "ads"]}
    assert found.path == "/caf\xc3\xa9/a%2Fb"


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"hosts": ["x"]}, True),
        ({"hosts": ["x:8000"]}, True),
        ({"hosts": ["x:80"]}, False),
        ({"hosts": ["*.x"]}, False),
        ({"hosts": ["x.*"]}, False),
        ({"headers": {"K": ["A", "b"]}}, True),
        ({"headers": {"K": ["c"]}}, False),
        ({"headers": {"K": ["~*^[ab]$"]}}, True),
        ({"headers": {"K": ["a"], "J": ["a"]}}, False),
        ({"methods": ["GET", "PUT"]}, True),
        ({"methods": ["PUT"]}, False),
        ({"snis": ["s."]}, True),
        ({"snis": ["t"]}, False),
    ],
)
def test_what_fits_a_request(fields: dict[str, Any], fits: bool) -> None:
    request = asked("GET", "x:8000", "/a", [("k", "A")], "s")
    assert (made(**fields).objection(request) is None) == fits


@pytest.mark.parametrize(
    ("path", "fits"),
    [("/a", True), ("/ab", True), ("/b", False), ("~/a.$", True), ("~/a$", False)],
)
def test_a_prefix_is_text_and_a_regex_starts_with_the_path(
    path: str, fits: bool
) -> None:
    assert made(path).path_fits("/ab") == fits
