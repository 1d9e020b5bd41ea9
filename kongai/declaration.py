"""What a document declares: entities as one flat list, nested in the file or not.

An entity may stand in its section at the top level and refer to its parent, or inside
the parent. Both spellings are read: decK's, with its `_info` and `_plugin_configs`, and
Kong's own for DB-less mode. Nothing here knows what an entity's fields mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kongai.criteria import migrated_path
from kongai.schema import Path, Report, read

FORMAT_VERSIONS = ("1.1", "2.1", "3.0")

CHILDREN: dict[str, tuple[str, ...]] = {
    "certificates": (),
    "ca_certificates": (),
    "upstreams": ("targets",),
    "targets": (),
    "services": ("routes", "plugins"),
    "routes": ("plugins",),
    "consumers": ("keyauth_credentials", "plugins"),
    "keyauth_credentials": (),
    "plugins": (),
}
"""The kinds of entities, in the order in which they are made, and what may stand inside
each of them."""

PARENTS: dict[str, tuple[str, ...]] = {
    "targets": ("upstream",),
    "routes": ("service",),
    "keyauth_credentials": ("consumer",),
    "plugins": ("route", "service", "consumer"),
}
"""The fields by which entities of a kind refer to others."""

_NAMES = ("id", "name", "username", "custom_id")
_COMMENTS = ("_comment", "_ignore")
_KNOWN = (
    *("_format_version", "_transform", *_COMMENTS),
    *("_info", "_konnect", "_plugin_configs", "_workspace"),
)
_ELSEWHERE = {
    **dict.fromkeys(
        (
            "acls",
            "basicauth_credentials",
            "consumer_group_consumers",
            "consumer_group_plugins",
            "consumer_groups",
            "custom_entities",
            "filter_chains",
            "hmacauth_credentials",
            "jwt_secrets",
            "key_sets",
            "keys",
            "licenses",
            "mtls_auth_credentials",
            "oauth2_credentials",
            "oauth2_tokens",
            "partials",
            "rbac_roles",
            "rbac_users",
            "workspaces",
        ),
        "are not available in this version of kongai",
    ),
    "snis": "are not available: kongai serves no TLS itself",
    "vaults": "are not available: the environment is the one vault, {vault://env/...}",
}


@dataclass(eq=False)
class Declared:
    """One entity as it was written."""

    kind: str
    """The section it belongs to, ``routes`` for example."""
    item: dict[str, Any]
    """Its fields, without comments and without the entities inside."""
    path: Path
    parent: Declared | None = None
    """The entity it stands in."""
    defaulted: tuple[str, ...] = ()
    """Those of its fields that are decK's `_info.defaults` for all of its kind."""
    value: Any = None
    """What was made of it; None while nothing was, or if it has problems."""
    children: list[Declared] = field(default_factory=list)
    """The entities that belong to it."""

    def names(self) -> Iterator[str]:
        """By what others may refer to it."""
        for name in _NAMES:
            if isinstance(given := self.item.get(name), str) and given:
                yield given

    def inside(self, kind: str) -> Iterator[Declared]:
        """The entities of a kind that belong to this one, wherever they stand."""
        return (child for child in self.children if child.kind == kind)


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    """decK's notes on a file."""

    defaults: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    select_tags: tuple[str, ...] = ()
    default_lookup_tags: Any = None
    consumer_group_policy_overrides: Any = None


def flatten(data: Any, report: Report) -> dict[str, list[Declared]]:
    """All entities of a document, by kind.

    Args:
        data: what the document says.
        report: called with the path and the text of each problem.
    """
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        report((), "expected an object")
        return {kind: [] for kind in CHILDREN}
    return _Reader(data, report).read()


class _Reader:
    def __init__(self, data: Mapping[str, Any], report: Report) -> None:
        self._data = data
        self._report = report
        self._found: dict[str, list[Declared]] = {kind: [] for kind in CHILDREN}
        self._configs: Mapping[str, Any] = {}
        self._defaults: Mapping[str, Mapping[str, Any]] = {}
        self._tags: tuple[str, ...] = ()
        self._migrate = data.get("_format_version") in ("1.1", "2.1")

    def read(self) -> dict[str, list[Declared]]:
        self._check_top_level()
        for kind in CHILDREN:
            self._section(self._data, kind, (), None)
        return self._found

    def _check_top_level(self) -> None:
        data = self._data
        version = data.get("_format_version")
        if version is None:
            self._report(("_format_version",), "required field missing")
        elif not isinstance(version, str):
            self._report(("_format_version",), "expected a string; put it in quotes")
        elif version not in FORMAT_VERSIONS:
            expected = ", ".join(FORMAT_VERSIONS)
            self._report(("_format_version",), f"expected one of: {expected}")
        if not isinstance(data.get("_transform", True), bool):
            self._report(("_transform",), "expected a boolean")
        self._check_comments(data, ())
        for name, value in data.items():
            if name in _ELSEWHERE:
                if value:
                    self._report((name,), f"'{name}' {_ELSEWHERE[name]}")
            elif name not in (*_KNOWN, *CHILDREN):
                self._report((name,), "unknown field")
        self._read_decks_fields()

    def _check_comments(self, item: Mapping[str, Any], path: Path) -> None:
        for name, kind, text in (
            ("_comment", str, "expected a string"),
            ("_ignore", (list, tuple), "expected an array"),
        ):
            given = item.get(name)
            if given is not None and not isinstance(given, kind) and given != {}:
                self._report((*path, name), text)

    def _read_decks_fields(self) -> None:
        info = self._data.get("_info")
        if info is not None:
            found = read(_Info, info, ("_info",), self._report)
            if found is not None:
                self._tags = found.select_tags
                self._defaults = dict(self._checked_defaults(found.defaults))
        configs = self._data.get("_plugin_configs")
        if isinstance(configs, Mapping):
            self._configs = configs
        elif configs is not None:
            self._report(("_plugin_configs",), "expected a map")

    def _checked_defaults(
        self, defaults: Mapping[str, Any]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, fields in defaults.items():
            if name in ("service", "route", "upstream", "target"):
                yield f"{name}s", fields
            else:
                self._report(("_info", "defaults", name), "unknown field")

    def _section(
        self, holder: Mapping[str, Any], kind: str, path: Path, parent: Declared | None
    ) -> None:
        items = holder.get(kind)
        if items is None or items == {}:
            return
        if not isinstance(items, (list, tuple)):
            self._report((*path, kind), "expected an array")
            return
        for index, item in enumerate(items):
            where = (*path, kind, index)
            if isinstance(item, Mapping):
                self._entity(dict(item), kind, where, parent)
            else:
                self._report(where, "expected a record")

    def _entity(
        self, item: dict[str, Any], kind: str, path: Path, parent: Declared | None
    ) -> None:
        self._check_comments(item, path)
        for name in _COMMENTS:
            item.pop(name, None)
        inside = {child: item.pop(child, None) for child in CHILDREN[kind]}
        defaults = self._defaults.get(kind, {})
        defaulted = tuple(name for name in defaults if name not in item)
        item = {**defaults, **item}
        if self._tags and isinstance(item.get("tags", []), list):
            item["tags"] = [*item.get("tags", []), *self._tags]
        if kind == "routes" and self._migrate:
            self._migrate_paths(item)
        if kind == "plugins" and "_config" in item:
            self._fill_in_config(item, path)
        declared = Declared(kind, item, path, parent, defaulted)
        self._found[kind].append(declared)
        if parent is not None:
            parent.children.append(declared)
        for child in CHILDREN[kind]:
            self._section(inside, child, path, declared)

    def _migrate_paths(self, item: dict[str, Any]) -> None:
        paths = item.get("paths")
        if isinstance(paths, list):
            item["paths"] = [
                migrated_path(p) if isinstance(p, str) else p for p in paths
            ]

    def _fill_in_config(self, item: dict[str, Any], path: Path) -> None:
        name = item.pop("_config")
        shared = self._configs.get(name) if isinstance(name, str) else None
        own = item.get("config") or {}
        if isinstance(shared, Mapping) and isinstance(own, Mapping):
            item["config"] = {**shared, **own}
        elif not isinstance(shared, Mapping):
            # What is no name may be settings, which hold secrets.
            text = f"there is no '{name}' in '_plugin_configs'"
            known = isinstance(name, str)
            self._report((*path, "_config"), text if known else "expected a string")
