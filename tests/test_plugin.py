from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, ClassVar

import msgspec
import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from kongai.errors import ConfigError
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.plugin import PHASES, Chain, Plugin, check


class Quiet(Plugin):
    name = "quiet"


class Busy(Plugin):
    """Has a part in every phase."""

    name = "busy"

    def rewrite(self, exchange: Exchange) -> None:
        exchange.state[self] = ["rewrite"]

    def access(self, exchange: Exchange) -> Response | None:
        return Response("no")

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        return None

    def header_filter(self, exchange: Exchange) -> None:
        exchange.state[self].append("header_filter")

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        yield from (chunk.upper() for chunk in chunks)

    def log(self, exchange: Exchange) -> None:
        exchange.state[self].append("log")


def logging(name: str, priority: int) -> Plugin:
    """A plugin that only logs: its name, to the exchange."""

    def log(self: Plugin, exchange: Exchange) -> None:
        exchange.log.set(name, True)

    kind = type(name, (Plugin,), {"name": name, "priority": priority, "log": log})
    made: Plugin = kind()
    return made


def plugin_with(**members: Any) -> Plugin:
    made: Plugin = type("Odd", (Plugin,), {"name": "odd", **members})()
    return made


def exchange() -> Exchange:
    return Exchange(Request(EnvironBuilder().get_environ()))


def refused(*plugins: Plugin) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        Chain(plugins)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def test_higher_priorities_come_first_and_equal_ones_keep_their_order() -> None:
    plugins = [
        logging("d", 9),
        logging("b", 770),
        logging("e", 9),
        logging("f", -1000),
        logging("c", 10),
        logging("a", 1_000_000),
        logging("e2", 9),
    ]
    chain = Chain(plugins)
    order = ["a", "b", "c", "d", "e", "e2", "f"]
    assert [plugin.name for plugin in chain.plugins] == order
    done = exchange()
    for log in chain.log:
        log(done)
    record: dict[str, Any] = {}
    done.log.apply(record)
    assert list(record) == order


def test_only_phases_that_a_plugin_overrides_are_in_the_chain() -> None:
    quiet, busy, one = Quiet(), Busy(), logging("one", 5)
    chain = Chain([quiet, busy, one])
    assert [plugin.name for plugin in chain.plugins] == ["one", "quiet", "busy"]
    phases = {phase: getattr(chain, phase) for phase in PHASES if phase != "balancer"}
    assert {phase: len(steps) for phase, steps in phases.items()} == {
        "rewrite": 1,
        "access": 1,
        "header_filter": 1,
        "body_filter": 1,
        "log": 2,
    }
    assert chain.balancer == busy.balancer
    assert chain.log == (one.log, busy.log)


def test_a_chain_of_quiet_plugins_has_nothing_to_do() -> None:
    chain = Chain([Quiet(), Quiet()])
    assert [getattr(chain, phase) for phase in PHASES] == [
        *((), ()),
        None,
        *((), (), ()),
    ]


def test_a_phase_is_inherited_and_counts() -> None:
    class Child(Busy):
        name = "child"

    child = Child()
    assert Chain([child]).access == (child.access,)


def test_phases_that_are_not_overridden_change_nothing() -> None:
    quiet, done = Quiet(), exchange()
    chunks = iter([b"a"])
    assert quiet.body_filter(done, chunks) is chunks
    assert quiet.access(done) is None
    assert quiet.balancer(done) is None
    quiet.rewrite(done)
    quiet.header_filter(done)
    quiet.log(done)
    quiet.init_worker()
    quiet.close()
    assert done.state == {}


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_plugin_needs_a_name(name: Any) -> None:
    message = "Odd has no name; set the class attribute `name`"
    assert refused(plugin_with(name=name)) == [("plugins", message)]


def test_the_base_class_alone_is_no_plugin() -> None:
    message = "Plugin has no name; set the class attribute `name`"
    assert refused(Plugin()) == [("plugins", message)]


def test_several_problems_are_told_at_once() -> None:
    odd = plugin_with(name="", access=lambda self: None)
    assert refused(odd, Plugin()) == [
        ("plugins", "Odd has no name; set the class attribute `name`"),
        ("plugins", "Odd.access must take (self, exchange)"),
        ("plugins", "Plugin has no name; set the class attribute `name`"),
    ]


@pytest.mark.parametrize(
    ("phase", "function", "wanted"),
    [
        ("rewrite", lambda self: None, "(self, exchange)"),
        ("access", lambda: None, "(self, exchange)"),
        ("access", lambda self, exchange, more: None, "(self, exchange)"),
        ("access", lambda self, *, exchange: None, "(self, exchange)"),
        ("access", None, "(self, exchange)"),
        ("balancer", lambda self: None, "(self, exchange)"),
        ("header_filter", lambda self, a, b: None, "(self, exchange)"),
        ("body_filter", lambda self, chunk: chunk, "(self, exchange, chunks)"),
        ("log", "not a function", "(self, exchange)"),
    ],
)
def test_a_phase_with_other_arguments_is_refused_by_name(
    phase: str, function: Any, wanted: str
) -> None:
    assert refused(plugin_with(**{phase: function})) == [
        ("plugins", f"Odd.{phase} must take {wanted}")
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda self, anything: None,
        lambda self, exchange, more=None: None,
        lambda *args: None,
        lambda self, *args, **kwargs: None,
    ],
)
def test_what_can_be_called_with_the_arguments_will_do(
    function: Callable[..., Any],
) -> None:
    plugin = plugin_with(access=function)
    assert list(check(plugin)) == []
    assert len(Chain([plugin]).access) == 1


def test_two_plugins_cannot_both_choose_the_upstream() -> None:
    class Other(Busy):
        name = "other"
        priority = 5

    message = "other and busy both choose the upstream; keep one"
    assert refused(Busy(), Other()) == [("plugins", message)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    limit: int = 3


class Configured(Plugin):
    name = "configured"
    Config: ClassVar[type] = Settings

    def __init__(self, config: Settings) -> None:
        self.config = config


def test_a_plugin_is_made_with_its_settings_or_without_any() -> None:
    made = Configured.from_config(Settings(limit=5))
    assert isinstance(made, Configured)
    assert made.config.limit == 5
    assert isinstance(Quiet.from_config(None), Quiet)
