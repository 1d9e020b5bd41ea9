"""Which plugins apply to an exchange: Kong's rule of the most specific scope.

A plugin's configuration holds for everything, or for one route, service or consumer, or
for a combination of these. Of each plugin name one configuration runs, the most
specific that fits. A consumer is known only once a plugin has authenticated it: that
changes the plugins which have not had their turn yet, and those alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kongai.errors import ConfigError, Problem
from kongai.plugin import Chain, Plugin


class Scope(NamedTuple):
    """What a plugin's configuration holds for: ids, None for any."""

    route: str | None = None
    service: str | None = None
    consumer: str | None = None

    def given(self) -> dict[str, str]:
        """What it names: ids, or names, by the kinds of what they are of."""
        return {kind: id for kind, id in self._asdict().items() if id is not None}


class Scoped(NamedTuple):
    """A plugin, and what it is for.

    Args:
        plugin: the plugin.
        route, service, consumer: an id or a name; None for any.
    """

    plugin: Plugin
    route: str | None = None
    service: str | None = None
    consumer: str | None = None

    @property
    def scope(self) -> Scope:
        """What it is for."""
        return Scope(self.route, self.service, self.consumer)


def candidates(scope: Scope) -> Iterator[Scope]:
    """The scopes that fit an exchange, the most specific first, as Kong orders them."""
    route, service, consumer = scope
    yield from (
        Scope(route, service, consumer),
        Scope(route, None, consumer),
        Scope(None, service, consumer),
        Scope(route, service, None),
        Scope(None, None, consumer),
        Scope(route, None, None),
        Scope(None, service, None),
        Scope(),
    )


class Plugins:
    """The plugins of a gateway, and the chains they make.

    Args:
        scoped: plugins and what they are for, in ids.
        extra: plugins for everything, whatever else has their name.

    Raises:
        ConfigError: something is not a plugin, or two have one name and scope.
    """

    def __init__(self, scoped: Iterable[Scoped], extra: Sequence[Plugin] = ()) -> None:
        self._by_name: dict[str, dict[Scope, Plugin]] = {}
        self._extra = tuple(extra)
        self._consumers: set[str | None] = set()
        """Those for whom there is a plugin of their own."""
        self._chains: dict[tuple[str | None, str | None], Chain] = {}
        self._narrowed: dict[tuple[Chain, int, Scope], Chain] = {}
        for one in scoped:
            _check(one.plugin)
            of_name = self._by_name.setdefault(one.plugin.name, {})
            # Of two given by hand the first holds; a file with two is refused before.
            of_name.setdefault(one.scope, one.plugin)
            self._consumers.add(one.consumer)
        for plugin in self._extra:
            _check(plugin)

    def __iter__(self) -> Iterator[Plugin]:
        for by_scope in self._by_name.values():
            yield from by_scope.values()
        yield from self._extra

    def scope_of(self, plugin: Plugin) -> Scope:
        """What a plugin of the gateway is for."""
        by_scope = self._by_name.get(plugin.name, {})
        return next((s for s, one in by_scope.items() if one is plugin), Scope())

    def chain(self, route: str | None = None, service: str | None = None) -> Chain:
        """The plugins for a route and its service, nobody being authenticated.

        Raises:
            ConfigError: they can't be used together.
        """
        chain = self._chains.get((route, service))
        if chain is None:
            chosen = self._chosen(Scope(route, service), self._by_name)
            chain = self._chains[route, service] = Chain([*chosen, *self._extra])
        return chain

    def narrowed(self, chain: Chain, done: int, scope: Scope) -> Chain:
        """The plugins once a consumer is known.

        Args:
            chain: those until now.
            done: how many of them have had their turn.
            scope: the route, the service and the consumer.

        Raises:
            ConfigError: they can't be used together.
        """
        if scope.consumer not in self._consumers:
            return chain
        key = (chain, done, scope)
        found = self._narrowed.get(key)
        if found is None:
            settled = chain.plugins[:done]
            lowest = settled[-1].priority if settled else None
            names = {plugin.name for plugin in settled}
            open_names = [
                name
                for name, by_scope in self._by_name.items()
                if name not in names
                and (lowest is None or _priority(by_scope) <= lowest)
            ]
            rest = [plugin for plugin in self._extra if plugin not in settled]
            found = Chain([*settled, *self._chosen(scope, open_names), *rest])
            self._narrowed[key] = found
        return found

    def _chosen(self, scope: Scope, names: Iterable[str]) -> Iterator[Plugin]:
        for name in names:
            by_scope = self._by_name[name]
            for candidate in candidates(scope):
                if candidate in by_scope:
                    yield by_scope[candidate]
                    break


def _priority(by_scope: dict[Scope, Plugin]) -> int:
    return next(iter(by_scope.values())).priority


def _check(plugin: object) -> None:
    if not isinstance(plugin, Plugin):
        found = f"expected a Plugin, not {type(plugin).__name__}"
        raise ConfigError([Problem("plugins", found)])
