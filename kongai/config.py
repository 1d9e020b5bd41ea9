"""A declarative configuration to services, routes, consumers, upstreams and plugins.

Both spellings are read: decK's (references as ``{name: ...}``, top-level keys such as
`_info`) and Kong's own for DB-less mode (references as strings). Every problem is found
before anything is refused; each has its path and, in a file, its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path as FilePath
from typing import Any

import msgspec

from kongai import inventory
from kongai.declaration import CHILDREN, PARENTS, Declared, flatten
from kongai.document import Document, parse
from kongai.entities import STRUCTS, Consumer, Route, Service, Upstream
from kongai.entities.service import url_parts
from kongai.entities.upstream import algorithm_of
from kongai.errors import ConfigError, Problem
from kongai.identity import plugin_id, target_key
from kongai.plugin import Plugin
from kongai.plugin_entries import make, read_entry
from kongai.schema import Path, check, read
from kongai.scopes import Scope, Scoped


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
    upstreams: tuple[Upstream, ...] = ()
    """Each with its targets."""
    origins: Mapping[str, str] = {}
    """Where each entity and plugin was declared, by its id, for people to read."""


def load_file(path: str | PathLike[str]) -> Config:
    """Read a declarative file, YAML or JSON.

    Raises:
        ConfigError: with every problem found, each with its line.
        OSError: the file can't be read.
    """
    return build(parse(text_of(path), str(path)))


def text_of(path: str | PathLike[str]) -> str:
    """The text of a declarative file.

    Raises:
        ConfigError: it is not text.
        OSError: it can't be read.
    """
    try:
        return FilePath(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problem = Problem("", "the file is not UTF-8 text")
        raise ConfigError([problem], str(path)) from None


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


_UNIQUE: dict[str, tuple[str, ...]] = {
    "services": ("name",),
    "routes": ("name",),
    "consumers": ("username", "custom_id"),
    "upstreams": ("name",),
    "keyauth_credentials": ("key",),
    "plugins": ("instance_name",),
}
_SECRET = frozenset({"key"})
_NAMED_BY = {"services": "name", "routes": "name", "consumers": "username"}
_NO_PARENT = frozenset({"routes", "plugins"})
"""Kinds of entities that need not belong to another."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


class _Builder:
    def __init__(self, document: Document) -> None:
        self.problems: dict[Problem, None] = {}
        self._document = document
        self._all: dict[str, list[Declared]] = {}
        self._index: dict[tuple[str, str], Declared] = {}
        """By kind, and by id or name."""
        self._origins: dict[str, str] = {}
        self._written: dict[Path, Path] = {}
        """Where fields stand that are not written with their entities."""
        self._astray: set[Declared] = set()
        """Those that refer to something that is not there."""
        self._everywhere: list[Plugin | Scoped] = []
        self._plugins: dict[Declared, list[Plugin]] = {}
        """The plugins of one service, route or consumer alone."""
        self._declared: dict[tuple[str, ...], Declared] = {}
        self._scopes: dict[tuple[str, Scope], Declared] = {}

    def build(self) -> Config:
        self._all = flatten(self._document.data, self._report)
        for kind, entities in self._all.items():
            for declared in entities:
                for name in declared.names():
                    self._index.setdefault((kind, name), declared)
                for name in declared.defaulted:
                    place = (*declared.path, name)
                    defaults = ("_info", "defaults", kind.removesuffix("s"))
                    self._written[place] = (*defaults, name)
        for kind in CHILDREN:
            for declared in self._all[kind]:
                parents = self._parents(declared)
                if kind == "plugins":
                    self._plugin(declared, parents)
                else:
                    self._entity(declared, parents)
        if self.problems:
            return Config()
        return Config(
            tuple(self._service(service) for service in self._all["services"]),
            tuple(self._route(r) for r in self._all["routes"] if r.parent is None),
            tuple(self._everywhere),
            tuple(self._consumer(one) for one in self._all["consumers"]),
            tuple(self._upstream(one) for one in self._all["upstreams"]),
            self._origins,
        )

    def sorted_problems(self) -> list[Problem]:
        """The problems in the order of the file."""
        return sorted(self.problems, key=lambda problem: problem.line or 0)

    def _report(self, path: Path, message: str) -> None:
        for length in range(len(path), 0, -1):
            if place := self._written.get(path[:length]):
                path = (*place, *path[length:])
                break
        problem = self._document.problem(path, message)
        # What is wrong with a default is so for each of many entities.
        self.problems[problem] = None

    def _parents(self, declared: Declared) -> dict[str, tuple[str, Declared]]:
        """What an entity belongs to: by field, how it was said and what it means."""
        found = {}
        for field in PARENTS.get(declared.kind, ()):
            given = declared.item.pop(field, None)
            path = (*declared.path, field)
            around = declared.parent
            if around is not None and around.kind == f"{field}s":
                if given is not None and self._found(around.kind, given) is not around:
                    self._report(path, "value must be null")
                found[field] = (getattr(around.value, "id", None) or "", around)
            elif given is not None:
                entity = self._referred(f"{field}s", given, path)
                if entity is None:
                    self._astray.add(declared)
                else:
                    found[field] = (_name(given, f"{field}s") or "", entity)
            elif declared.kind not in _NO_PARENT:
                self._report(path, "required field missing")
        for _, entity in found.values():
            if declared.kind != "plugins" and entity is not declared.parent:
                declared.parent = entity
                entity.children.append(declared)
        return found

    def _referred(self, kind: str, reference: Any, path: Path) -> Declared | None:
        name = _name(reference, kind)
        if name is None:
            text = "expected a name or an id, alone or as {%s: ...} or {id: ...}"
            self._report(path, text % _NAMED_BY.get(kind, "name"))
            return None
        entity = self._index.get((kind, name))
        if entity is not None:
            return entity
        field = path[-1] if isinstance(path[-1], str) else path[-2]
        # No name is a text of several lines, but a private key is.
        shown = name if name.isprintable() else "..."
        self._report(
            path,
            f"invalid reference '{field}: {shown}' (no such entry in '{kind}')",
        )
        return None

    def _found(self, kind: str, reference: Any) -> Declared | None:
        name = _name(reference, kind)
        return None if name is None else self._index.get((kind, name))

    def _entity(
        self, declared: Declared, parents: Mapping[str, tuple[str, Declared]]
    ) -> None:
        kind, item, path = declared.kind, declared.item, declared.path
        good = kind != "services" or self._url_is_good(item, path)
        apart = ("url", *_FOR_TLS) if kind == "services" else ()
        secured = {name: item.pop(name, None) for name in apart}
        inside = (*CHILDREN[kind], *apart)
        value: Any = read(STRUCTS[kind], item, path, self._report, elsewhere=inside)
        self._check_unique(declared)
        if value is None or not good:
            return
        if any(given is not None for given in secured.values()):
            value = self._with_certificates(value, secured, path)
        if kind == "services" and value.host is None:
            self._report((*path, "host"), "required field missing")
            return
        key = _key(declared, value, parents)
        if kind == "upstreams":
            value = msgspec.structs.replace(value, **algorithm_of(item))
        declared.value = inventory.identified(value, key)
        first = self._index.setdefault((kind, declared.value.id), declared)
        if kind == "targets" and first is not declared:
            there = self._document.place(first.path)
            self._report(path, f"uniqueness violation: already declared ({there})")
        self._origins[declared.value.id] = self._document.place(path)

    def _with_certificates(
        self, service: Any, secured: Mapping[str, Any], path: Path
    ) -> Any:
        """The service with the certificates that it refers to."""
        found: dict[str, Any] = {}
        if (given := secured["client_certificate"]) is not None:
            where = (*path, "client_certificate")
            entity = self._referred("certificates", given, where)
            found["client_certificate"] = entity and entity.value
        if (several := secured["ca_certificates"]) is not None:
            where = (*path, "ca_certificates")
            if not isinstance(several, (list, tuple)):
                self._report(where, "expected an array")
                return service
            entities = [
                self._referred("ca_certificates", one, (*where, index))
                for index, one in enumerate(several)
            ]
            found["ca_certificates"] = tuple(e.value for e in entities if e)
        made = msgspec.structs.replace(service, **found)
        check(made, path, self._report)
        return made

    def _check_unique(self, declared: Declared) -> None:
        kind, item, path = declared.kind, declared.item, declared.path
        given = item.get("id")
        if isinstance(given, str) and not _UUID.fullmatch(given):
            self._report((*path, "id"), "expected a valid UUID")
        for field in ("id", *_UNIQUE.get(kind, ())):
            given = item.get(field)
            if not isinstance(given, str) or not given:
                continue
            if (kind, field, given) in self._declared:
                shown = "a value that is" if field in _SECRET else f"'{given}'"
                self._report(
                    (*path, field),
                    f"uniqueness violation: '{kind}' entity with {field} set to "
                    f"{shown} already declared",
                )
            self._declared[kind, field, given] = declared

    def _url_is_good(self, item: dict[str, Any], path: Path) -> bool:
        """Expand the shorthand here, where a bad URL still has its own line."""
        if "url" not in item:
            return True
        url = item.pop("url")
        try:
            item.update(url_parts(url if isinstance(url, str) else ""))
        except ValueError as error:
            self._report((*path, "url"), str(error))
            return False
        return True

    def _plugin(
        self, declared: Declared, parents: Mapping[str, tuple[str, Declared]]
    ) -> None:
        entry = read_entry(declared.item, declared.path, self._report)
        self._check_unique(declared)
        if entry is None:
            return
        settings = declared.item.get("config")
        plugin = make(entry, settings, declared.path, self._report)
        owners = {field: owner for field, (_, owner) in parents.items()}
        if declared in self._astray or any(o.value is None for o in owners.values()):
            return
        scope = Scope(**{field: owner.value.id for field, owner in owners.items()})
        self._check_scope(declared, entry.name, scope)
        if plugin is None:
            return
        written = {field: text for field, (text, _) in parents.items()}
        plugin.id = plugin.id or plugin_id(plugin.name, **written)
        self._origins[plugin.id] = self._document.place(declared.path)
        if len(owners) == 1:
            (owner,) = owners.values()
            self._plugins.setdefault(owner, []).append(plugin)
        else:
            self._everywhere.append(Scoped(plugin, *scope) if owners else plugin)

    def _check_scope(self, declared: Declared, name: str, scope: Scope) -> None:
        first = self._scopes.setdefault((name, scope), declared)
        if first is not declared:
            kinds = " and ".join(scope.given()) or "gateway"
            there = self._document.place(first.path)
            self._report(
                declared.path,
                f"uniqueness violation: plugin '{name}' already declared for this "
                f"{kinds} ({there})",
            )

    def _of(self, owner: Declared) -> tuple[Plugin, ...]:
        return tuple(self._plugins.get(owner, ()))

    def _service(self, declared: Declared) -> Service:
        made: Service = msgspec.structs.replace(
            declared.value,
            routes=tuple(self._route(one) for one in declared.inside("routes")),
            plugins=self._of(declared),
        )
        return made

    def _route(self, declared: Declared) -> Route:
        made: Route = msgspec.structs.replace(
            declared.value, plugins=self._of(declared)
        )
        return made

    def _upstream(self, declared: Declared) -> Upstream:
        made: Upstream = msgspec.structs.replace(
            declared.value,
            targets=tuple(one.value for one in declared.inside("targets")),
        )
        return made

    def _consumer(self, declared: Declared) -> Consumer:
        made: Consumer = msgspec.structs.replace(
            declared.value,
            keyauth_credentials=tuple(
                one.value for one in declared.inside("keyauth_credentials")
            ),
            plugins=self._of(declared),
        )
        return made


_FOR_TLS = ("client_certificate", "ca_certificates")


def _name(reference: Any, kind: str) -> str | None:
    """A reference's name or id: given as it is, or as ``{name: ...}``, decK's way."""
    if isinstance(reference, Mapping):
        fields = ("name", _NAMED_BY.get(kind, "name"), "id")
        reference = next((reference[f] for f in fields if reference.get(f)), None)
    return reference if isinstance(reference, str) and reference else None


def _key(
    declared: Declared, value: Any, parents: Mapping[str, tuple[str, Declared]]
) -> str | None:
    """What an entity's id is made from, if it is not random."""
    if declared.kind == "targets":
        return target_key(parents["upstream"][0] if parents else "", value.target)
    field = _NAMED_BY.get(declared.kind)
    return getattr(value, field) if field else None
