"""A plugin's entry in a file, turned into the plugin."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kongai import kong, registry
from kongai.entities.types import A_SET, KONG_PROTOCOLS, Name, Tags, Timestamp
from kongai.plugin import Plugin
from kongai.schema import Path, Report, read

_NO_ORDER = "not available: plugins run in the order of their priorities"
_Protocol = Annotated[
    Literal["grpc", "grpcs", "http", "https", "ws", "wss"],
    Meta(extra={"kong": KONG_PROTOCOLS}),
]


class PluginEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin's entry has beside its `config` and what it is for."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"enabled", "protocols"})
    NOT_HERE: ClassVar[dict[str, str]] = {
        "ordering": _NO_ORDER,
        "partials": "'partials' are not available in this version of kongai",
        "condition": "conditions are not available in this version of kongai",
        "consumer_group": "consumer groups are not available in this version of kongai",
    }

    name: str
    instance_name: Name | None = None
    enabled: bool = True
    protocols: Annotated[tuple[_Protocol, ...], A_SET] | None = None
    """No effect: in Kong too, a plugin runs for whatever its route takes."""
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None


def read_entry(item: dict[str, Any], path: Path, report: Report) -> PluginEntry | None:
    """Read an entry without its `config`; None if there is a problem with it."""
    rest = {name: value for name, value in item.items() if name != "config"}
    return read(PluginEntry, rest, path, report)


def make(
    entry: PluginEntry, settings: Any, path: Path, report: Report
) -> Plugin | None:
    """Make the plugin that an entry asks for.

    Args:
        entry: the entry.
        settings: its `config`, as it stands in the file.
        path: where the entry stands.
        report: called with the path and the text of each problem.

    Returns:
        None if there was a problem, or if the entry is not enabled.
    """
    kind = _class(entry.name, path, report)
    if kind is None:
        return None
    config = _config(kind, settings, (*path, "config"), report)
    if config is _INVALID or not entry.enabled:
        return None
    try:
        plugin = kind.from_config(config)
    except Exception as error:
        # Its text may quote a setting that is secret.
        kind_of_error = type(error).__name__
        report(path, f"plugin '{entry.name}' can't be made ({kind_of_error})")
        return None
    plugin.id = entry.id or ""
    plugin.instance_name = entry.instance_name
    return plugin


_INVALID: Any = object()


def _class(name: str, path: Path, report: Report) -> type[Plugin] | None:
    try:
        return registry.plugin(name)
    except registry.UnknownName as unknown:
        report((*path, "name"), _unknown(name, unknown.suggestion))
    except registry.Unusable as unusable:
        report((*path, "name"), f"plugin '{name}': {unusable}")
    return None


def _unknown(name: str, suggestion: str | None) -> str:
    if name in kong.PLUGINS:
        advice = kong.INSTEAD.get(name)
        return f"plugin '{name}' is not available in this version of kongai" + (
            f"; {advice}" if advice else ""
        )
    hint = f"did you mean '{suggestion}'?" if suggestion else "kongai does not have it"
    return f"plugin '{name}' not enabled; {hint}"


def _config(kind: type[Plugin], settings: Any, path: Path, report: Report) -> Any:
    if kind.Config is None:
        if settings:
            report(path, f"plugin '{kind.name}' takes no config")
            return _INVALID
        return None
    config: Any = read(kind.Config, {} if settings is None else settings, path, report)
    return _INVALID if config is None else config
