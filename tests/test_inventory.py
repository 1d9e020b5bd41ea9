from __future__ import annotations

import pytest

from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.identity import entity_id
from kongai.inventory import identified, paired


def test_each_route_comes_with_its_service_in_order() -> None:
    first = Service("http://a", name="a", routes=[Route(paths=["/1"])])
    second = Service("http://b", name="b", routes=[Route(paths=["/2"])])
    pairs = paired([first, second], [Route(paths=["/3"])])
    assert [(r.paths, s and s.name) for r, s in pairs] == [
        (["/1"], "a"),
        (["/2"], "b"),
        (["/3"], None),
    ]


def test_what_is_made_by_hand_has_the_id_it_would_have_in_a_file() -> None:
    named = identified(Route(name="r", paths=["/"]))
    assert named.id == entity_id("routes", "r")
    assert identified(Service("http://h", name="r")).id == entity_id("services", "r")
    assert named.created_at == named.updated_at
    assert identified(named) == named
    unnamed = Route(paths=["/"])
    assert identified(unnamed).id != identified(unnamed).id


@pytest.mark.parametrize(
    ("services", "routes", "path"),
    [
        ([Service("http://h", retries=-1)], [], "services[0].retries"),
        (
            [Service("http://h", routes=[Route(paths=["x"])])],
            [],
            "services[0].routes[0].paths[0]",
        ),
        ([], [Route(paths=["/"]), Route(paths=["/"], name="a b")], "routes[1].name"),
        ([], [Route(name="r", paths=["/"]), Route(name="r", paths=["/"])], "routes"),
    ],
)
def test_what_is_made_by_hand_is_checked_like_a_file(
    services: list[Service], routes: list[Route], path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        paired(services, routes)
    assert [problem.path for problem in caught.value.problems] == [path]
