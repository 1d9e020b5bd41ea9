from __future__ import annotations

import itertools
from typing import ClassVar

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from kongai import Proxy
from kongai.entities import Consumer, Route, Service
from kongai.errors import ConfigError, RequestRejected
from kongai.exchange import Exchange
from kongai.plugin import Plugin
from kongai.scopes import Plugins, Scope, Scoped, candidates
from kongai.testing import ListSink, MockTransport, answer

SCOPES = list(candidates(Scope("r", "s", "c")))


class Named(Plugin):
    """Notes that it ran, by its label, in each of its phases."""

    name: ClassVar[str] = "named"
    priority = 10

    def __init__(self, label: str) -> None:
        self.label = label

    def _note(self, exchange: Exchange, phase: str) -> None:
        ran = exchange.request.environ.setdefault("test.ran", [])
        ran.append(f"{phase}:{self.name}:{self.label}")
        exchange.log.set("ran", list(ran))

    def access(self, exchange: Exchange) -> Response | None:
        self._note(exchange, "access")
        return None

    def header_filter(self, exchange: Exchange) -> None:
        self._note(exchange, "header")


class Early(Named):
    name = "early"
    priority = 100


class Login(Plugin):
    """Takes the request's word for who it is."""

    name = "login"
    priority = 50

    def access(self, exchange: Exchange) -> None:
        who = exchange.consumers.find(exchange.headers.get("X-Who", ""))
        if who is not None:
            exchange.authenticate(who, None)


class LoginThenNo(Login):
    """Finds out who it is, and refuses just then."""

    name = "login-then-no"

    def access(self, exchange: Exchange) -> None:
        super().access(exchange)
        raise RequestRejected


def placed(plugin: Plugin, scope: Scope) -> Scoped:
    return Scoped(plugin, *scope)


def chosen(plugins: Plugins, scope: Scope) -> list[str]:
    chain = plugins.chain(scope.route, scope.service)
    if scope.consumer is not None:
        chain = plugins.narrowed(chain, 0, scope)
    return [plugin.label for plugin in chain.plugins if isinstance(plugin, Named)]


def test_a_consumer_comes_before_a_route_and_a_route_before_a_service() -> None:
    assert [
        Scope("r", "s", "c"),
        Scope("r", None, "c"),
        Scope(None, "s", "c"),
        Scope("r", "s", None),
        Scope(None, None, "c"),
        Scope("r", None, None),
        Scope(None, "s", None),
        Scope(),
    ] == SCOPES


@pytest.mark.parametrize("count", range(1, 9))
def test_the_most_specific_configuration_runs(count: int) -> None:
    for some in itertools.combinations(range(8), count):
        plugins = Plugins(placed(Named(str(n)), SCOPES[n]) for n in reversed(some))
        assert chosen(plugins, Scope("r", "s", "c")) == [str(min(some))]


def test_what_is_for_others_does_not_run() -> None:
    plugins = Plugins(placed(Named("x"), scope) for scope in SCOPES[:-1])
    assert chosen(plugins, Scope("r2", "s2", "c2")) == []
    assert chosen(plugins, Scope()) == []
    assert chosen(plugins, Scope("r", "s2")) == ["x"]


def test_plugins_of_several_names_do_not_hide_each_other() -> None:
    plugins = Plugins(
        [Scoped(Named("all")), Scoped(Early("route"), route="r")], [Named("extra")]
    )
    assert chosen(plugins, Scope("r")) == ["route", "all", "extra"]
    assert chosen(plugins, Scope()) == ["all", "extra"]


def test_every_plugin_is_there_once() -> None:
    one, two, extra = Named("1"), Named("2"), Named("3")
    assert list(Plugins([Scoped(one), Scoped(two, route="r")], [extra])) == [
        one,
        two,
        extra,
    ]


def test_chains_are_made_once() -> None:
    plugins = Plugins([Scoped(Named("1")), Scoped(Named("2"), consumer="c")])
    chain = plugins.chain("r", "s")
    assert plugins.chain("r", "s") is chain
    scope = Scope("r", "s", "c")
    assert plugins.narrowed(chain, 0, scope) is plugins.narrowed(chain, 0, scope)


def test_for_a_consumer_without_plugins_nothing_changes() -> None:
    plugins = Plugins([Scoped(Named("1")), Scoped(Named("2"), consumer="c")])
    chain = plugins.chain("r", "s")
    assert plugins.narrowed(chain, 0, Scope("r", "s", "other")) is chain


def test_what_is_no_plugin_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a Plugin, not str"):
        Plugins([Scoped("named")])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected a Plugin, not int"):
        Plugins([], [3])  # type: ignore[list-item]


# In a gateway


def ran(*plugins: Plugin | Scoped, who: str = "alice", path: str = "/a") -> list[str]:
    """What ran for a request, in order, as its record tells."""
    sink = ListSink()
    proxy = Proxy(
        [Service("http://up.test", name="s", routes=[Route(name="r", paths=["/a"])])],
        plugins=plugins,
        consumers=[Consumer(username="alice"), Consumer(username="bob")],
        sinks=[sink],
        transport=MockTransport(lambda _: answer(b"{}")),
    )
    with Client(proxy).get(path, headers={"X-Who": who}) as response:
        response.get_data()
    found: list[str] = sink[0].get("ran", [])
    return found


def test_once_a_consumer_is_known_its_plugins_run() -> None:
    plugins = (Login(), Named("all"), Scoped(Named("alice's"), consumer="alice"))
    assert ran(*plugins) == ["access:named:alice's", "header:named:alice's"]
    assert ran(*plugins, who="bob") == ["access:named:all", "header:named:all"]
    assert ran(*plugins, who="") == ["access:named:all", "header:named:all"]


def test_a_plugin_for_a_consumer_alone_does_not_run_for_others() -> None:
    plugins = (Login(), Scoped(Named("alice's"), consumer="alice"))
    assert ran(*plugins, who="bob") == []


def test_what_ran_before_keeps_its_configuration() -> None:
    plugins = (Login(), Early("all"), Scoped(Early("alice's"), consumer="alice"))
    assert ran(*plugins) == ["access:early:all", "header:early:all"]


def test_a_consumers_plugin_that_would_have_run_before_does_not_run_at_all() -> None:
    assert ran(Login(), Scoped(Early("alice's"), consumer="alice")) == []


def test_a_consumer_on_a_route_comes_before_the_consumer() -> None:
    plugins = (
        Login(),
        Scoped(Named("both"), consumer="alice", route="r"),
        Scoped(Named("alice's"), consumer="alice"),
    )
    assert ran(*plugins) == ["access:named:both", "header:named:both"]


def test_later_phases_run_for_a_consumer_that_was_refused() -> None:
    plugins = (
        LoginThenNo(),
        Named("all"),
        Scoped(Named("alice's"), consumer="alice"),
    )
    assert ran(*plugins) == ["header:named:alice's"]
    assert ran(*plugins, who="bob") == ["header:named:all"]


def test_without_a_route_only_what_is_for_everything_runs() -> None:
    plugins = (Login(), Named("all"), Scoped(Early("route's"), route="r"))
    assert ran(*plugins, path="/nowhere") == ["header:named:all"]
