from __future__ import annotations

import pytest

from kongai.consumers import Consumers
from kongai.entities import Consumer, KeyAuthCredential, Route, Service
from kongai.errors import ConfigError
from kongai.identity import entity_id, plugin_id
from kongai.inventory import directory, identified, paired, scoped
from kongai.plugin import Plugin
from kongai.scopes import Scope, Scoped


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


def test_routes_made_by_hand_are_checked_like_a_files() -> None:
    with pytest.raises(ConfigError) as caught:
        paired([], [Route(paths=("~/(",))])
    (problem,) = caught.value.problems
    assert problem.path == "routes[0].paths[0]"
    assert problem.message.startswith("invalid regex: '/('")


class Some(Plugin):
    name = "some"


def test_consumers_have_the_ids_they_would_have_in_a_file() -> None:
    given = Consumer(username="alice", id="5", created_at=1, updated_at=2)
    alice, bob, only, other = directory(
        [
            given,
            Consumer(username="bob"),
            Consumer(custom_id="only"),
            Consumer(custom_id="only2"),
        ]
    )
    assert (alice.id, alice.created_at, alice.updated_at) == ("5", 1, 2)
    assert bob.id == entity_id("consumers", "bob")
    assert bob.created_at == bob.updated_at
    assert only.id not in (None, other.id, entity_id("consumers", "only"))


def test_credentials_have_ids_dates_and_keys() -> None:
    given = KeyAuthCredential(key="k", id="7", created_at=1)
    consumer = Consumer(
        username="alice",
        keyauth_credentials=[given, KeyAuthCredential(), KeyAuthCredential(tags=["t"])],
    )
    found = directory([consumer])
    [alice] = found
    kept, first, second = alice.keyauth_credentials
    assert kept == given
    for made in (first, second):
        assert made.key is not None
        assert len(made.key) == 32
        assert made.key.isalnum()
        assert made.key.isascii()
        assert made.created_at == alice.created_at
        assert found.by_key(made.key) == (alice, made)
    assert first.key != second.key
    assert first.id != second.id
    assert second.tags == ["t"]


@pytest.mark.parametrize(
    ("consumer", "path"),
    [
        (Consumer(), "consumers[1]"),
        (Consumer(username=""), "consumers[1].username"),
        (Consumer(username="b", tags=["a,b"]), "consumers[1].tags[0]"),
    ],
)
def test_consumers_are_checked_like_those_of_a_file(
    consumer: Consumer, path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        directory([Consumer(username="a"), consumer])
    assert [problem.path for problem in caught.value.problems] == [path]


def key(name: str, key: str) -> Consumer:
    return Consumer(username=name, keyauth_credentials=[KeyAuthCredential(key=key)])


@pytest.mark.parametrize(
    ("consumers", "problem"),
    [
        ([key("a", "x"), key("a", "y")], "consumers: two consumers named 'a'"),
        (
            [key("a", "secret"), key("b", "secret")],
            "consumers[1].keyauth_credentials[0].key: another credential has this key",
        ),
    ],
)
def test_two_consumers_have_no_name_or_key_in_common(
    consumers: list[Consumer], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        directory(consumers)
    assert str(caught.value) == problem


def everything(
    plugins: list[Plugin | Scoped] | None = None,
) -> tuple[list[Scoped], Service, Route, Consumer]:
    """The scoped plugins of a gateway where each entity has one, and the entities."""
    service = Service(
        "http://a",
        name="s",
        routes=[Route(name="r", paths=["/"], plugins=[Some()])],
        plugins=[Some()],
    )
    pairs = paired([service], [])
    consumers = directory([Consumer(username="c", plugins=[Some()])])
    [(route, owner)], [consumer] = pairs, consumers
    assert owner is not None
    return list(scoped(pairs, consumers, plugins or ())), owner, route, consumer


def test_a_plugin_inside_an_entity_is_for_that_entity() -> None:
    found, service, route, consumer = everything()
    assert [one.scope for one in found] == [
        Scope(route=route.id),
        Scope(service=service.id),
        Scope(consumer=consumer.id),
    ]
    assert [one.plugin.id for one in found] == [
        plugin_id("some", route=route.id or ""),
        plugin_id("some", service=service.id or ""),
        plugin_id("some", consumer=consumer.id or ""),
    ]


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_plugin_may_name_what_it_is_for(by: str) -> None:
    _, service, route, consumer = everything()
    names = ["r", "s", "c"]
    if by == "id":
        names = [str(one.id) for one in (route, service, consumer)]
    found = everything([Some(), Scoped(Some(), *names)])[0][3:]
    assert [one.scope for one in found] == [
        Scope(),
        Scope(route.id, service.id, consumer.id),
    ]
    whole, narrow = (one.plugin.id for one in found)
    assert whole == plugin_id("some")
    # The reference counts as it is written, as in Kong.
    assert narrow == plugin_id(
        "some", route=names[0], service=names[1], consumer=names[2]
    )


def test_a_plugin_keeps_the_id_it_was_given() -> None:
    plugin = Some()
    plugin.id = "mine"
    assert everything([Scoped(plugin, consumer="c")])[0][-1].plugin.id == "mine"


@pytest.mark.parametrize("kind", ["route", "service", "consumer"])
def test_a_plugin_for_what_is_not_there_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        everything([Some(), Scoped(Some(), **{kind: "nobody"})])
    assert [str(problem) for problem in caught.value.problems] == [
        f"plugins[1].{kind}: there is no {kind} 'nobody'"
    ]


def test_a_custom_id_is_no_name_of_a_consumer() -> None:
    consumers = directory([Consumer(custom_id="c")])
    with pytest.raises(ConfigError):
        list(scoped([], consumers, [Scoped(Some(), consumer="c")]))


def test_nothing_makes_nothing() -> None:
    assert list(scoped([], Consumers(), [])) == []
