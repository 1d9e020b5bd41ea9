from __future__ import annotations

from typing import Any

import pytest

from kongai import kong, registry
from kongai.plugin_entries import PluginEntry, make, read_entry
from kongai.plugins.file_log import FileLog
from kongai.schema import Path


def problems(item: dict[str, Any]) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []

    def report(path: Path, text: str) -> None:
        found.append((path, text))

    entry = read_entry(item, ("plugins", 0), report)
    if entry is not None:
        make(entry, item.get("config"), ("plugins", 0), report)
    return found


def test_an_entry_becomes_the_plugin_with_its_id_and_label() -> None:
    entry = PluginEntry(name="file-log", id="x", instance_name="mine")
    plugin = make(entry, {"path": "/tmp/a.json"}, (), lambda path, text: None)
    assert isinstance(plugin, FileLog)
    assert (plugin.id, plugin.instance_name) == ("x", "mine")
    assert plugin.config.path == "/tmp/a.json"


def test_an_entry_that_is_not_enabled_makes_nothing_but_is_checked() -> None:
    assert problems({"name": "file-log", "enabled": False}) == [
        (("plugins", 0, "config", "path"), "required field missing")
    ]
    entry = PluginEntry(name="file-log", enabled=False)
    assert make(entry, {"path": "/tmp/a"}, (), lambda path, text: None) is None


@pytest.mark.parametrize("name", sorted(kong.PLUGINS - {*registry.plugin_names()}))
def test_a_plugin_of_kongs_is_no_mistake_but_not_there(name: str) -> None:
    ((_, text),) = problems({"name": name})
    assert text.startswith(f"plugin '{name}' is not available in this version")
    assert text.endswith(kong.INSTEAD.get(name, "of kongai"))


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("protocols", "http", "expected a set"),
        ("protocols", None, "required field missing"),
        ("enabled", None, "required field missing"),
        ("tags", ["a/b"], None),
        ("instance_name", "a b", None),
        ("ordering", {"before": {}}, None),
        ("bogus", 1, "unknown field"),
    ],
)
def test_what_an_entry_may_not_have(field: str, value: Any, text: str | None) -> None:
    found = problems({"name": "file-log", "config": {"path": "/tmp/a"}, field: value})
    assert [path[2] for path, _ in found] == [field]
    assert text in (None, found[0][1])
