from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, strategies as st
from werkzeug.datastructures import Headers

from kongai.criteria import normalize
from kongai.entities import Route, Service
from kongai.proxy import Proxy
from kongai.router import Match, Router, upstream_path
from kongai.testing import MockTransport, answer

CASES = Path(__file__).parent / "cases"
ROUTING = yaml.safe_load((CASES / "routing.yml").read_text("utf-8"))
PATHS = yaml.safe_load((CASES / "upstream_paths.yml").read_text("utf-8"))
TRANSPORT = MockTransport(lambda request: answer())


def router(routes: dict[str, dict[str, Any]]) -> Router:
    """The routes by their names, each with its fields and those of its service."""
    return Router(
        (
            Route(name=name, **{k: v for k, v in fields.items() if k != "service"}),
            Service(**fields["service"]) if "service" in fields else None,
        )
        for name, fields in routes.items()
    )


def find(routes: dict[str, dict[str, Any]], case: dict[str, Any]) -> Match | None:
    return router(routes).match(
        case.get("method", "GET"),
        case.get("host", "example.com"),
        case.get("path", "/"),
        case.get("headers", {}),
        sni=case.get("sni"),
    )


@pytest.mark.parametrize(
    ("routes", "case"),
    [
        pytest.param(table["routes"], case, id=f"{table['rule']}: {case}")
        for table in ROUTING
        for case in table["cases"]
    ],
)
def test_which_route_wins(
    routes: dict[str, dict[str, Any]], case: dict[str, Any]
) -> None:
    match = find(routes, case)
    expected = {key: case[key] for key in ("prefix", "rest", "captures") if key in case}
    found = {key: getattr(match, key, None) for key in expected}
    assert (match and match.route.name, found) == (case["route"], expected)
    if "upstream" in case:
        assert match is not None
        assert upstream_path(match, case["path"]) == case["upstream"]


@pytest.mark.parametrize("table", ROUTING, ids=lambda table: table["rule"])
def test_the_routes_of_the_table_are_ones_that_kong_takes(
    table: dict[str, Any],
) -> None:
    routes = [
        {k: v for k, v in route.items() if k != "service"}
        for route in table["routes"].values()
    ]
    data = {"_format_version": "3.0", "routes": routes}
    assert len(Proxy.from_config(data, transport=TRANSPORT).routes) == len(routes)


@pytest.mark.parametrize(
    ("handling", "base", "path", "strip", "request_path", "wanted"),
    [(handling, *row) for handling, rows in PATHS.items() for row in rows],
)
def test_the_path_upstream(
    handling: Literal["v0", "v1"],
    base: str | None,
    path: str | None,
    strip: bool,
    request_path: str,
    wanted: str,
) -> None:
    route = Route(
        paths=None if path is None else (path,),
        methods=("GET",),
        strip_path=strip,
        path_handling=handling,
    )
    match = Router([(route, Service(host="h", path=base))]).match(
        "GET", "h", request_path, {}
    )
    assert match is not None
    assert upstream_path(match, request_path) == wanted


@given(
    st.sampled_from(["/", "/s", "/s/", "/s/t", "/s/t/"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", None]),
    st.booleans(),
    st.text(alphabet="ab/.%2ef", max_size=12),
)
def test_no_path_climbs_out_of_its_service(
    base: str, path: str | None, strip: bool, text: str
) -> None:
    request_path = normalize("/" + text)
    paths = None if path is None else (path,)
    route = Route(paths=paths, methods=("GET",), strip_path=strip)
    match = Router([(route, Service(host="h", path=base))]).match(
        "GET", "h", request_path, {}
    )
    if match is None:
        assert path is not None
        assert not request_path.startswith(path)
        return
    target = upstream_path(match, request_path)
    assert target == base.rstrip("/") or target.startswith(base.rstrip("/") + "/")
    assert ".." not in target.split("/")


def test_any_of_a_repeated_header_will_do() -> None:
    headers = Headers([("x-team", "red"), ("X-Team", "Blue")])
    route = Route(name="r", headers={"x-team": ("blue",)})
    assert Router([(route, None)]).match("GET", "h", "/", headers) is not None


def test_a_route_with_several_headers_needs_them_all() -> None:
    route = Route(headers={"a": ("1",), "b": ("2",)})
    both = {"A": "1", "B": "2"}
    assert Router([(route, None)]).match("GET", "h", "/", both) is not None
    assert Router([(route, None)]).match("GET", "h", "/", {"A": "1"}) is None


def test_no_more_than_255_header_names_count() -> None:
    many = Route(name="many", headers={f"x{i}": ("1",) for i in range(300)})
    older = Route(name="older", headers={f"x{i}": ("1",) for i in range(256)})
    headers = {f"x{i}": "1" for i in range(300)}
    match = Router([(older, None), (many, None)]).match("GET", "h", "/", headers)
    assert match is not None
    assert match.route.name == "older"


def test_an_explanation_names_what_each_route_lacks_up_to_the_one_that_matches() -> (
    None
):
    routes = {
        "both": {"hosts": ["a.t"], "paths": ["/a"], "methods": ["PUT"]},
        "header": {"hosts": ["a.t"], "headers": {"x-team": ["1"]}},
        "two": {"paths": ["/b", "/a"], "hosts": ["a.t"]},
        "never": {"paths": ["/"]},
    }
    tried = router(routes).explain("GET", "a.t", "/a", {})
    assert [(found.route.name, found.path, found.objection) for found in tried] == [
        ("both", "/a", "method GET is not one of PUT"),
        ("header", None, "header x-team is not there"),
        ("two", "/a", None),
    ]
    assert [found.objection for found in router(routes).explain("GET", "b", "/c", {})][
        :4
    ] == ["no host fits 'b'"] * 4


@pytest.mark.parametrize(
    ("first", "later", "reason"),
    [
        (
            {"paths": ["/a"], "methods": ["GET"]},
            {"paths": ["/a/b"]},
            "a route by paths comes after one by paths and methods",
        ),
        (
            {"hosts": ["h"]},
            {"paths": ["/a"]},
            "a route by paths comes after one by hosts",
        ),
        ({"hosts": ["h.t"]}, {"hosts": ["*.t"]}, "its host has a wildcard"),
        ({"paths": ["~/a"]}, {"paths": ["/a/b"]}, "its path is no regular expression"),
        (
            {"paths": ["~/a"], "regex_priority": 1},
            {"paths": ["~/a/b"]},
            "its regex_priority is lower",
        ),
        ({"paths": ["/a/b"]}, {"paths": ["/a"]}, "its path is shorter"),
        (
            {"paths": ["/a"], "created_at": 1},
            {"paths": ["/a"], "created_at": 2},
            "it is younger",
        ),
        ({"paths": ["/a"]}, {"paths": ["/a"]}, "it has its turn later"),
    ],
)
def test_of_two_routes_that_match_it_is_said_why_one_comes_later(
    first: dict[str, Any], later: dict[str, Any], reason: str
) -> None:
    host = "h.t" if "h.t" in first.get("hosts", ()) else "h"
    for routes in (
        {"first": first, "later": later},
        {"later": later, "first": first},
    ):
        both = router(routes)
        found = both.match("GET", host, "/a/b", {})
        assert found is not None
        if reason != "it has its turn later":
            assert found.route.name == "first"
        (tried,) = both.outranked("GET", host, "/a/b", {})
        assert tried.objection == reason


def test_the_other_paths_of_the_route_that_wins_are_not_said_to_come_later() -> None:
    one = router({"r": {"paths": ["/a", "/"]}})
    assert one.outranked("GET", "h", "/a", {}) == []
    assert one.outranked("GET", "h", "b", {}) == []


def test_an_explanation_says_why_a_route_with_snis_has_no_turn() -> None:
    routes = {"sni": {"paths": ["/"], "snis": ["s.t"]}, "plain": {"paths": ["/"]}}
    tried = router(routes).explain("GET", "h", "/", {})
    assert [(found.route.name, found.objection) for found in tried] == [
        ("sni", "it has SNIs, and for plain HTTP a route without them comes first"),
        ("plain", None),
    ]
    (found,) = router(routes).explain("GET", "h", "/", {}, sni="s.t")
    assert found.objection is None


@given(st.sampled_from(ROUTING), st.data())
def test_an_explanation_ends_where_the_match_is(
    table: dict[str, Any], data: st.DataObject
) -> None:
    case = data.draw(st.sampled_from(table["cases"]))
    match = find(table["routes"], case)
    tried = router(table["routes"]).explain(
        case.get("method", "GET"),
        case.get("host", "example.com"),
        case.get("path", "/"),
        case.get("headers", {}),
        sni=case.get("sni"),
    )
    assert [found.route.name for found in tried if found.objection is None] == (
        [] if match is None else [match.route.name]
    )


def test_a_match_names_the_routes_service() -> None:
    service = Service(host="h")
    match = Router([(Route(paths=("/",)), service)]).match("GET", "h", "/", {})
    assert match is not None
    assert match.service is service


def test_what_was_found_is_remembered_within_bounds() -> None:
    made = router({"a": {"paths": ["/a"]}, "b": {"paths": ["/b"], "methods": ["PUT"]}})
    for _ in range(2):
        for number in range(1500):
            found = made.match("GET", "h", f"/a/{number}", {})
            assert found is not None
            assert found.rest == f"/{number}"
        assert made.match("GET", "h", "/b", {}) is None
        assert made.match("PUT", "h", "/b", {}) is not None
        assert made.match("GET", "h", "/a" * 1000, {}) is not None
    assert len(made._found) <= 1000
    assert all(len(path) < 300 for _, _, path, _ in made._found)
