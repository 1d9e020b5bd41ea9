"""A declarative configuration to services, routes and plugins.

Both spellings are read: decK's (references as ``{name: ...}``, top-level keys such as
`_info`) and Kong's own for DB-less mode (references as strings). Every problem is found
before anything is refused; each has its path and, in a file, its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar

import msgspec

from kongai import registry
from kongai.document import Document, parse
from kongai.entities import Consumer, Route, Service
from kongai.entities.service import url_parts
from kongai.errors import ConfigError, Problem
from kongai.identity import plugin_id
from kongai.inventory import identified
from kongai.plugin import Plugin
from kongai.schema import Path, read
from kongai.scopes import Scoped

FORMAT_VERSIONS = ("1.1", "2.1", "3.0")

_IGNORED = ("_comment", "_ignore", "_info", "_konnect", "_transform", "_workspace")
_ELSEWHERE = {
    name: f"'{name}' are not available in this version of kongai"
    for name in (
        "ca_certificates",
        "certificates",
        "consumer_groups",
        "consumers",
        "key_sets",
        "keyauth_credentials",
        "keys",
        "targets",
        "upstreams",
        "vaults",
    )
}
_SECTIONS = ("services", "routes", "plugins")
_COMMENTS = ("_comment", "_ignore")

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)

E = TypeVar("E", Service, Route)


class Config(msgspec.Struct, frozen=True):
    """What a configuration says: the arguments of a `Proxy`."""

    services: tuple[Service, ...] = ()
    """Each with its routes and plugins."""
    routes: tuple[Route, ...] = ()
    """Routes without a service."""
    plugins: tuple[Plugin | Scoped, ...] = ()
    """Plugins for everything, or each with what it is for."""
    consumers: tuple[Consumer, ...] = ()
    """Each with its credentials and plugins."""


def load_file(path: str | PathLike[str]) -> Config:
    """Read a declarative file, YAML or JSON.

    Raises:
        ConfigError: with every problem found, each with its line.
        OSError: the file can't be read.
    """
    source = str(path)
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError([Problem("", "the file is not UTF-8 text")], source) from None
    return build(parse(text, source))


def load_text(text: str) -> Config:
    """Read a declarative configuration from its text.

    Raises:
        ConfigError: with every problem found, each with its line.
    """
    return build(parse(text))


def load_mapping(data: Mapping[str, Any]) -> Config:
    """Read a declarative configuration given as a mapping.

    Raises:
        ConfigError: with every problem found, each with its path.
    """
    return build(Document(data, {}, None))


def build(document: Document) -> Config:
    """Turn a document into a configuration.

    Raises:
        ConfigError: with every problem found.
    """
    builder = _Builder(document)
    config = builder.build()
    if builder.problems:
        raise ConfigError(builder.sorted_problems(), document.source)
    return config


@dataclass
class _Entity(Generic[E]):
    """A service or route on its way to its final form."""

    value: E
    path: Path
    service: _Entity[Service] | None = None
    plugins: dict[str, Plugin] = field(default_factory=dict)
    """By plugin name: one configuration of a plugin for each scope."""
    of_service: dict[str, Plugin] = field(default_factory=dict)
    """Plugins for this route together with its service: the most specific scope."""


class _Builder:
    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._services: list[_Entity[Service]] = []
        self._routes: list[_Entity[Route]] = []
        self._global: dict[str, Plugin] = {}
        self._broken: list[Any] = []
        """Names and ids of entities that have problems of their own."""
        self._declared: set[tuple[str, str, str]] = set()

    def build(self) -> Config:
        data = self._document.data
        if not isinstance(data, Mapping):
            self._report((), "expected a declarative configuration")
            return Config()
        self._check_top_level(data)
        for path, item in self._items(data, "services", ()):
            self._service(item, path)
        for path, item in self._items(data, "routes", ()):
            self._route(item, path, None)
        for path, item in self._items(data, "plugins", ()):
            self._scoped_plugin(item, path)
        return Config(
            tuple(self._finished(service) for service in self._services),
            tuple(_with_plugins(r) for r in self._routes if r.service is None),
            tuple(self._global.values()),
        )

    def sorted_problems(self) -> list[Problem]:
        """The problems in the order of the file."""
        return sorted(self.problems, key=lambda problem: problem.line or 0)

    def _report(self, path: Path, message: str) -> None:
        self.problems.append(self._document.problem(path, message))

    def _check_top_level(self, data: Mapping[str, Any]) -> None:
        version = data.get("_format_version")
        if version is None:
            self._report(("_format_version",), "required field missing")
        elif not isinstance(version, str):
            self._report(("_format_version",), "expected a string; put it in quotes")
        elif version not in FORMAT_VERSIONS:
            expected = ", ".join(FORMAT_VERSIONS)
            self._report(("_format_version",), f"expected one of: {expected}")
        for name, value in data.items():
            if name in _ELSEWHERE and value:
                self._report((name,), _ELSEWHERE[name])
            elif name not in ("_format_version", *_SECTIONS, *_IGNORED, *_ELSEWHERE):
                self._report((name,), "unknown field")
        info = data.get("_info")
        if isinstance(info, Mapping) and info.get("defaults"):
            self._report(
                ("_info", "defaults"), "not available; set the fields on each entity"
            )

    def _items(
        self, parent: Mapping[str, Any], name: str, path: Path
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        items = parent.get(name)
        if items is None:
            return
        if not isinstance(items, (list, tuple)):
            self._report((*path, name), "expected an array")
            return
        for index, item in enumerate(items):
            where = (*path, name, index)
            if isinstance(item, Mapping):
                yield where, {k: v for k, v in item.items() if k not in _COMMENTS}
            else:
                self._report(where, "expected a record")

    def _service(self, item: dict[str, Any], path: Path) -> None:
        children = {name: item.pop(name, None) for name in ("routes", "plugins")}
        service = self._entity(Service, "services", item, path)
        if service is not None:
            if service.value.host is None:
                self._report((*path, "host"), "required field missing")
            self._services.append(service)
        for where, child in self._items(children, "routes", path):
            self._route(child, where, service)
        for where, child in self._items(children, "plugins", path):
            self._nested_plugin(child, where, service)

    def _route(
        self, item: dict[str, Any], path: Path, service: _Entity[Service] | None
    ) -> None:
        plugins = {"plugins": item.pop("plugins", None)}
        reference = _reference(item.pop("service", None))
        if reference is not None:
            service = self._referred(
                self._services, "service", reference, (*path, "service")
            )
        route = self._entity(Route, "routes", item, path)
        if route is not None:
            route.service = service
            self._routes.append(route)
        for where, child in self._items(plugins, "plugins", path):
            self._nested_plugin(child, where, route)

    def _entity(
        self, kind: type[E], section: str, item: dict[str, Any], path: Path
    ) -> _Entity[E] | None:
        good = section != "services" or self._url_is_good(item, path)
        value = read(kind, item, path, self._report, elsewhere=("routes", "plugins"))
        if value is None or not good:
            self._broken += [item.get("name"), item.get("id")]
            return None
        self._check_id(section, value.id, path)
        self._check_unique(section, "name", value.name, path)
        return _Entity(identified(value), path)

    def _check_id(self, section: str, given: str | None, path: Path) -> None:
        if given is not None and not _UUID.fullmatch(given):
            self._report((*path, "id"), "expected a valid UUID")
        self._check_unique(section, "id", given, path)

    def _check_unique(
        self, section: str, field: str, given: str | None, path: Path
    ) -> None:
        if given is None:
            return
        if (section, field, given) in self._declared:
            self._report(
                (*path, field),
                f"uniqueness violation: '{section}' entity with {field} set to "
                f"'{given}' already declared",
            )
        self._declared.add((section, field, given))

    def _url_is_good(self, item: dict[str, Any], path: Path) -> bool:
        """Expand the shorthand here, where a bad URL still has its own line."""
        url = item.pop("url", None)
        if url is None:
            return True
        try:
            item.update(url_parts(url if isinstance(url, str) else ""))
        except ValueError as error:
            self._report((*path, "url"), str(error))
            return False
        return True

    def _referred(
        self, entities: list[_Entity[E]], kind: str, reference: Any, path: Path
    ) -> _Entity[E] | None:
        """The entity that a reference means, by its name or id."""
        for entity in entities:
            if reference and reference in (entity.value.name, entity.value.id):
                return entity
        if reference not in self._broken:
            self._report(
                path,
                f"invalid reference '{kind}: {reference}' (no such entry in '{kind}s')",
            )
        return None

    def _nested_plugin(
        self, item: dict[str, Any], path: Path, parent: _Entity[Any] | None
    ) -> None:
        plugin = self._plugin(item, path)
        if plugin is None or parent is None:
            return
        kind = "route" if isinstance(parent.value, Route) else "service"
        scope = {kind: parent.value.id}
        plugin.id = plugin.id or plugin_id(plugin.name, **scope)
        self._place(parent.plugins, plugin, path)

    def _scoped_plugin(self, item: dict[str, Any], path: Path) -> None:
        references = {
            name: _reference(item.pop(name, None)) for name in ("route", "service")
        }
        for name in ("consumer", "consumer_group"):
            if item.pop(name, None) is not None:
                self._report(
                    (*path, name),
                    f"'{name}s' are not available in this version of kongai",
                )
        route = service = None
        if references["route"] is not None:
            route = self._referred(
                self._routes, "route", references["route"], (*path, "route")
            )
        if references["service"] is not None:
            service = self._referred(
                self._services, "service", references["service"], (*path, "service")
            )
        plugin = self._plugin(item, path)
        scope = {name: ref for name, ref in references.items() if ref is not None}
        if plugin is None or len(scope) != sum(e is not None for e in (route, service)):
            return
        plugin.id = plugin.id or plugin_id(plugin.name, **scope)
        if route is not None and service is not None:
            if route.service is service:
                self._place(route.of_service, plugin, path)
        elif route is not None:
            self._place(route.plugins, plugin, path)
        elif service is not None:
            self._place(service.plugins, plugin, path)
        else:
            self._place(self._global, plugin, path)

    def _place(self, scope: dict[str, Plugin], plugin: Plugin, path: Path) -> None:
        if plugin.name in scope:
            self._report(
                (*path, "name"),
                f"uniqueness violation: plugin '{plugin.name}' already declared here",
            )
        scope[plugin.name] = plugin

    def _plugin(self, item: dict[str, Any], path: Path) -> Plugin | None:
        settings = item.pop("config", None)
        head = read(_PluginHead, item, path, self._report)
        if head is None:
            return None
        self._check_id("plugins", head.id, path)
        self._check_unique("plugins", "instance_name", head.instance_name, path)
        try:
            kind = registry.plugin(head.name)
        except registry.UnknownName as unknown:
            hint = unknown.suggestion
            self._report(
                (*path, "name"),
                f"plugin '{head.name}' not enabled; "
                + (f"did you mean '{hint}'?" if hint else "kongai does not have it"),
            )
            return None
        except registry.Unusable as unusable:
            self._report((*path, "name"), f"plugin '{head.name}': {unusable}")
            return None
        config = self._plugin_config(kind, settings, (*path, "config"))
        if config is _INVALID or not head.enabled:
            return None
        try:
            plugin = kind.from_config(config)
        except Exception as error:
            # Its text may quote a setting that is secret.
            kind_of_error = type(error).__name__
            self._report(path, f"plugin '{head.name}' can't be made ({kind_of_error})")
            return None
        plugin.id = head.id or ""
        plugin.instance_name = head.instance_name
        return plugin

    def _plugin_config(self, kind: type[Plugin], settings: Any, path: Path) -> Any:
        if kind.Config is None:
            if settings:
                self._report(path, f"plugin '{kind.name}' takes no config")
                return _INVALID
            return None
        settings = {} if settings is None else settings
        config: Any = read(kind.Config, settings, path, self._report)
        return _INVALID if config is None else config

    def _finished(self, service: _Entity[Service]) -> Service:
        routes = [route for route in self._routes if route.service is service]
        return msgspec.structs.replace(
            service.value,
            routes=tuple(_with_plugins(route) for route in routes),
            plugins=tuple(service.plugins.values()),
        )


_INVALID: Any = object()


def _reference(given: Any) -> Any:
    """A reference's name or id: given as it is, or as ``{name: ...}``, decK's way."""
    if isinstance(given, Mapping):
        return given.get("name") or given.get("id") or ""
    return given


class _PluginHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin's entry has beside its `config` and its scope."""

    name: str
    instance_name: str | None = None
    enabled: bool = True
    protocols: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    id: str | None = None
    created_at: int | None = None
    updated_at: int | None = None


def _with_plugins(route: _Entity[Route]) -> Route:
    plugins = {**route.plugins, **route.of_service}
    return msgspec.structs.replace(route.value, plugins=tuple(plugins.values()))
