"""The index finds what a search without it finds, and does not search for long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kongai.candidates import Asked, Candidate, asked, candidate, rank
from kongai.entities import Route
from kongai.route_index import Index
from kongai.router import Router

HOSTS = ["a.x.t", "x.t", "x.t:8000", "*.x.t", "a.*", "*.x.t:8000", "[::1]"]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/A", "~/a", "~/a/\\d+", "~/a/b", "~/.*b$"]
PATHS += ["~/(a|c)/", "~/(?i)a/", "~/a?", "~/a/b|/c", "/c d", "~/c d"]
VALUES = ["1", "2", "~*^[12]$"]


def some(values: Sequence[str]) -> st.SearchStrategy[Any]:
    """None, or one to three of the values."""
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=3)


routes = st.builds(
    Route,
    hosts=some(HOSTS),
    paths=some(PATHS),
    methods=some(["GET", "PUT"]),
    headers=some(["k", "j"]).flatmap(
        lambda names: st.fixed_dictionaries(
            {
                name: st.lists(st.sampled_from(VALUES), min_size=1, max_size=2)
                for name in names or ()
            }
        )
    ),
    snis=some(["s.t", "u.t."]),
    regex_priority=st.integers(-1, 1),
    created_at=st.none() | st.integers(1, 2),
)
requests = st.builds(
    asked,
    st.sampled_from(["GET", "PUT", "POST"]),
    st.sampled_from(["a.x.t", "x.t", "x.t:8000", "b.x.t:8000", "a.z", "z", "[::1]:80"]),
    st.sampled_from(
        ["/", "/a", "/a/", "/a/1", "/a/b", "/a/b/c", "/ab", "/c%20d", "/c"]
    ),
    st.lists(
        st.tuples(st.sampled_from(["K", "j"]), st.sampled_from("123")), max_size=2
    ),
    st.none() | st.sampled_from(["", "s.t", "u.t"]),
)


def by_searching(candidates: Sequence[Candidate], request: Asked) -> Candidate | None:
    """Kong's way, category by category, looking at each of its candidates."""
    hits = Hits(candidates, request)
    categories = sorted({c.kinds for c in candidates}, key=lambda k: (-sum(k), not_(k)))
    if not any(hits.kinds):
        return None
    if hits.kinds in categories:
        del categories[: categories.index(hits.kinds)]
    for kinds in categories:
        members = [c for c in candidates if c.kinds == kinds]
        for found in (*hits.first_look(members), *members):
            if found.objection(request) is None:
                return found
    return None


def not_(kinds: tuple[bool, ...]) -> tuple[bool, ...]:
    return tuple(not used for used in kinds)


class Hits:
    """What of a request any route asks for."""

    def __init__(self, candidates: Sequence[Candidate], request: Asked) -> None:
        self.request = request
        plain = {host for c in candidates for host in c.hosts}
        wild = [pair for c in candidates for pair in c.wildcards]
        fitting = [text for text, p in wild if p.match(request.names[1])]
        self.host: str | None = None
        if plain & {*request.names}:
            self.host = request.host
        elif fitting:
            self.host = fitting[0]
        names = [h.name for c in candidates for h in c.headers]
        self.header = next((name for name in names if name in request.headers), None)
        self.path = self._path(candidates)
        method = any(request.method in c.methods for c in candidates)
        sni = any(request.sni in c.snis for c in candidates)
        others = (self.host, self.header, self.path)
        self.kinds = (*(hit is not None for hit in others), method, sni)

    def _path(self, candidates: Sequence[Candidate]) -> str | None:
        fitting = [c for c in candidates if c.path and c.path_fits(self.request.path)]
        for found in fitting:
            if found.pattern:
                return found.text
        prefixes = [c.prefix for c in fitting if c.prefix]
        return max(prefixes, key=len, default=None)

    def first_look(self, members: Sequence[Candidate]) -> Sequence[Candidate]:
        named = [c for c in members if self.header in {h.name for h in c.headers}]
        if named:
            return named
        host, request = self.host or self.request.host, self.request
        sharing = [
            [c for c in members if host in c.hosts_as_written],
            [c for c in members if self.path is not None and c.text == self.path],
            [c for c in members if request.method in c.methods],
            [c for c in members if (request.sni or "") in c.snis],
        ]
        return min(filter(None, sharing), key=len, default=[])


@settings(max_examples=400)
@given(st.lists(routes, max_size=12), requests)
def test_the_index_finds_what_a_search_finds(
    given: list[Route], request: Asked
) -> None:
    candidates = sorted(
        (candidate(r, None, path) for r in given for path in r.paths or (None,)),
        key=rank,
    )
    found = next(
        (
            candidates[number]
            for number in Index(candidates).plausible(request)
            if candidates[number].objection(request) is None
        ),
        None,
    )
    wanted = by_searching(candidates, request)
    assert found is wanted


def many(number: int) -> list[Route]:
    """Routes as a large gateway has them: most by prefix or host, some otherwise."""
    kinds: list[Any] = [
        lambda n: {"paths": [f"/team-{n}/api"]},
        lambda n: {"paths": [f"/team-{n}"], "methods": ["GET", "POST"]},
        lambda n: {"hosts": [f"team-{n}.example"]},
        lambda n: {"hosts": [f"team-{n}.example"], "paths": ["/", "/v1"]},
        lambda n: {"headers": {"x-team": [f"team-{n}"]}},
        lambda n: {"headers": {"x-team": [f"t-{n}"]}, "paths": ["/v2"]},
        lambda n: {"hosts": ["front.example"], "paths": [f"/{n}"]},
        lambda n: {"paths": [rf"~/re-{n}/\d+$"]},
    ]
    return [Route(name=str(n), **kinds[n % len(kinds)](n)) for n in range(number)]


REQUESTS = [
    ("GET", "h", "/team-40/api/x", {}),
    ("GET", "h", "/team-41/x", {}),
    ("GET", "team-42.example", "/", {}),
    ("PUT", "team-43.example:81", "/v1/x", {}),
    ("GET", "h", "/", {"X-Team": "team-44"}),
    ("GET", "h", "/v2/x", {"X-Team": "t-45"}),
    ("GET", "front.example", "/46/x", {}),
    ("GET", "h", "/re-47/12", {}),
    ("GET", "h", "/nothing", {}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request_: request_[2])
def test_few_of_many_routes_are_tried(request_: tuple[str, str, str, Any]) -> None:
    method, host, path, headers = request_
    candidates = [
        candidate(route, None, path)
        for route in many(5000)
        for path in route.paths or (None,)
    ]
    request = asked(method, host, path, headers.items(), None)
    tried = list(Index(candidates).plausible(request))
    assert len(tried) <= 2


def test_thousands_of_routes_cost_little_more_than_dozens() -> None:
    few, all_of_them = Router((r, None) for r in many(50)), many(5000)
    thousands = Router((route, None) for route in all_of_them)
    for request in REQUESTS:
        found = few.match(*request), thousands.match(*request)
        assert found[0] == found[1]
    assert seconds(thousands) < 10 * seconds(few)


def seconds(router: Router) -> float:
    """The shortest of some runs over all requests: the others were disturbed."""
    runs = []
    for _ in range(20):
        start = time.perf_counter()
        for request in REQUESTS:
            router.match(*request)
        runs.append(time.perf_counter() - start)
    return min(runs)
