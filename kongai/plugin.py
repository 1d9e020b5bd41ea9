"""Plugins: a class with a name, a priority and Kong's phases.

A plugin overrides the phases it needs; the others cost nothing, because the chain of a
route is compiled once into tuples of the phases that really exist. In each phase the
higher priority runs first. `body_filter` is given the stream, not a chunk at a time: it
returns an iterator of bytes, usually by being a generator, and its local variables are
its state.

The phases, in the order of an exchange: `rewrite` (plugins of every route only),
`access`, `balancer`, `header_filter`, `body_filter`, `log`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from kongai.errors import ConfigError, Problem

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from kongai.exchange import Attempt, Exchange, UpstreamRequest
    from kongai.llm.formats import ErrorFormat

PHASES = ("rewrite", "access", "balancer", "header_filter", "body_filter", "log")


class Plugin:
    """Subclass, name it, override the phases you need.

    Attributes:
        name: as a configuration file names it, for example ``ai-proxy``.
        priority: higher runs first; Kong's numbers, ai-proxy 770, file-log 9.
        Config: a frozen `msgspec.Struct` with the plugin's settings, if it has any.
            Its fields are the keys of `config` in a file. A method `problems()` may
            yield pairs of a field's path and what is wrong with the whole.
        authenticates: whether it may say who the consumer is; plugins behind it then
            run with what is configured for that consumer.
        secret_names: headers and query arguments, in lower case, that hold credentials;
            no record of the gateway shows them, that of another route neither.
        error_format: how clients of its routes expect to be told of errors, those of
            other plugins included; None for Kong's way.
        id: the plugin's id in records; given by the configuration.
        instance_name: a label of the user's own.
    """

    name: ClassVar[str] = ""
    priority: ClassVar[int] = 0
    Config: ClassVar[type | None] = None
    authenticates: ClassVar[bool] = False

    secret_names: frozenset[str] = frozenset()
    error_format: ErrorFormat | None = None
    id: str = ""
    instance_name: str | None = None

    @classmethod
    def from_config(cls, config: Any) -> Plugin:
        """Make the plugin a configuration file asks for.

        Args:
            config: an instance of `Config`, or None for a plugin without one.
        """
        return cls() if config is None else cls(config)  # type: ignore[call-arg]

    def rewrite(self, exchange: Exchange) -> None:
        """Before routing; only plugins that apply to every route."""

    def access(self, exchange: Exchange) -> Response | None:
        """Before the upstream is asked; returning a response ends the line."""

    def balancer(
        self, exchange: Exchange
    ) -> Generator[UpstreamRequest, Attempt, None] | None:
        """Where to send the request: yields requests and is sent each outcome.

        When the generator ends, the last outcome stands. Returning None leaves the
        request to the route's service.
        """

    def header_filter(self, exchange: Exchange) -> None:
        """When the answer's status and headers are there; they may still change."""

    def body_filter(
        self, exchange: Exchange, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """The answer's body as it passes: take chunks, yield chunks."""
        return chunks

    def log(self, exchange: Exchange) -> None:
        """After the last byte, or when the client has gone; exactly once."""

    def explain(self, exchange: Exchange) -> Iterable[tuple[str, str]]:
        """What a person should know of it, for `kongai explain`.

        Args:
            exchange: a request that is only looked at; it has no body.

        Returns:
            Pairs of a topic and a text: ``upstream`` for where the request would go,
            ``limit`` for what it must keep to, ``consumer`` for what becomes of one
            from nobody that is known.
        """
        return ()

    def init_worker(self) -> None:
        """When a server process starts, before its first request: load what is slow."""

    def reopen(self) -> None:
        """When files are to be opened anew, because they were rotated."""

    def prepare_close(self) -> None:
        """When the gateway is about to stop: begin with what takes time."""

    def close(self) -> None:
        """When the gateway stops; all plugins were told to prepare for it."""


def check(plugin: Plugin) -> Iterable[str]:
    """What is wrong with a plugin's class; empty when it can be used."""
    kind = type(plugin).__name__
    if not plugin.name or not isinstance(plugin.name, str):
        yield f"{kind} has no name; set the class attribute `name`"
    if type(plugin) not in _MISFITS:
        _MISFITS[type(plugin)] = tuple(_misfits(plugin))
    yield from _MISFITS[type(plugin)]


_MISFITS: WeakKeyDictionary[type[Plugin], tuple[str, ...]] = WeakKeyDictionary()
"""By class, for looking is slow, and each route may have a plugin of its own."""


def _misfits(plugin: Plugin) -> Iterator[str]:
    """What is wrong with the phases' parameters."""
    kind = type(plugin).__name__
    for phase in PHASES:
        theirs, ours = getattr(plugin, phase), getattr(Plugin, phase)
        expected = len(inspect.signature(ours).parameters) - 1
        try:
            inspect.signature(theirs).bind(*range(expected))
        except (TypeError, ValueError):
            wanted = ", ".join(inspect.signature(ours).parameters)
            yield f"{kind}.{phase} must take ({wanted})"


class Chain:
    """The plugins of one route, compiled: per phase a tuple of bound methods.

    Args:
        plugins: those that apply to the route, in any order.

    Raises:
        ConfigError: a plugin can't be used, or two of them want to choose the upstream.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        # The sort is stable: plugins of equal priority keep the order they came in.
        self.plugins = tuple(
            sorted(plugins, key=lambda plugin: plugin.priority, reverse=True)
        )
        problems = [
            Problem("plugins", text)
            for plugin in self.plugins
            for text in check(plugin)
        ]
        if problems:
            raise ConfigError(problems)
        formats = (plugin.error_format for plugin in self.plugins)
        self.error_format = next(filter(None, formats), None)
        self.rewrite = self._compile("rewrite")
        self.access = self._compile("access")
        self.turns = tuple(
            self.plugins.index(plugin) + 1 for plugin in self._having("access")
        )
        """For each of `access`, how many plugins have had their turn after it."""
        self.header_filter = self._compile("header_filter")
        self.body_filter = self._compile("body_filter")
        self.log = self._compile("log")
        balancers = self._compile("balancer")
        if len(balancers) > 1:
            names = " and ".join(plugin.name for plugin in self._having("balancer"))
            raise ConfigError(
                [Problem("plugins", f"{names} both choose the upstream; keep one")]
            )
        self.balancer = balancers[0] if balancers else None

    def _having(self, phase: str) -> list[Plugin]:
        return [
            plugin
            for plugin in self.plugins
            if getattr(type(plugin), phase) is not getattr(Plugin, phase)
        ]

    def _compile(self, phase: str) -> tuple[Callable[..., Any], ...]:
        return tuple(getattr(plugin, phase) for plugin in self._having(phase))


NO_PLUGINS = Chain(())
"""The chain of an exchange that has not been routed yet."""
