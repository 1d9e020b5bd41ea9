from __future__ import annotations

import sys
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest

from kongai import config, registry
from kongai.errors import ConfigError
from kongai.llm.formats import Format, ProviderFormat
from kongai.plugin import Plugin
from kongai.plugins.ai_proxy import AIProxy
from kongai.plugins.file_log import FileLog


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package, installed, that has plugins of its own."""
    (tmp_path / "their_plugins.py").write_text(
        "from kongai import Plugin\n"
        "class Theirs(Plugin):\n    name = 'their-plugin'\n"
        "class Shadow(Plugin):\n    name = 'file-log'\n"
        "class Failing(Plugin):\n    name = 'failing'\n"
        "    def __init__(self):\n        raise ValueError('c4nary')\n"
        "something = 1\n"
    )
    info = tmp_path / "their_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{registry.PLUGIN_GROUP}]\n"
        "their-plugin = their_plugins:Theirs\n"
        "file-log = their_plugins:Shadow\n"
        "failing = their_plugins:Failing\n"
        "thing = their_plugins:something\n"
        "absent = their_plugins:Absent\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_plugins", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"), [("ai-proxy", AIProxy), ("file-log", FileLog)]
)
def test_built_in_plugins_have_kongs_names(name: str, kind: type[Plugin]) -> None:
    assert registry.plugin(name) is kind
    assert kind.name == name


def test_every_name_leads_to_its_plugin() -> None:
    names = registry.plugin_names()
    assert names == sorted(names)
    assert {"ai-proxy", "file-log"} <= set(names)
    assert [registry.plugin(name).name for name in names] == names


def test_every_format_has_the_functions_of_a_format() -> None:
    assert registry.format_names() == ["anthropic", "openai"]
    for name in registry.format_names():
        assert registry.provider_format(name) is registry.format(name)
        assert _functions(registry.format(name)) >= _of(Format)


def test_a_format_may_be_one_that_no_client_speaks() -> None:
    format = registry.provider_format("ollama")
    assert _functions(format) >= _of(ProviderFormat)
    with pytest.raises(registry.UnknownName):
        registry.format("ollama")
    with pytest.raises(registry.UnknownName):
        registry.provider_format("gemini")


def _functions(module: Any) -> set[str]:
    return {name for name, value in vars(module).items() if callable(value)}


def _of(protocol: type) -> set[str]:
    """The functions that a protocol asks for."""
    return {
        name
        for kind in protocol.__mro__
        for name, value in vars(kind).items()
        if getattr(kind, "_is_protocol", False)
        and isfunction(value)
        and not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("ai-prxy", "ai-proxy"),
        ("file_log", "file-log"),
        ("filelog", "file-log"),
        ("prometheus", None),
        ("", None),
    ],
)
def test_an_unknown_plugin_has_a_suggestion_if_one_is_like_it(
    name: str, suggestion: str | None
) -> None:
    with pytest.raises(registry.UnknownName) as caught:
        registry.plugin(name)
    assert (caught.value.name, caught.value.suggestion) == (name, suggestion)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(registry.UnknownName) as caught:
        registry.format("antropic")
    assert caught.value.suggestion == "anthropic"


@pytest.mark.usefixtures("package")
def test_a_package_adds_a_plugin_by_its_entry_point() -> None:
    assert "their-plugin" in registry.plugin_names()
    assert registry.plugin("their-plugin").name == "their-plugin"
    (plugin,) = config.load_text(
        '_format_version: "3.0"\nplugins: [{name: their-plugin}]\n'
    ).plugins
    assert type(plugin).__name__ == "Theirs"


@pytest.mark.usefixtures("package")
def test_a_package_does_not_replace_a_built_in_plugin() -> None:
    with pytest.raises(registry.Unusable, match="the name of a built-in"):
        registry.plugin("file-log")
    assert registry.plugin_names().count("file-log") == 1


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thing", "plugin 'thing': their_plugins:something is not a kongai.Plugin"),
        (
            "absent",
            "plugin 'absent': their_plugins:Absent can't be loaded (AttributeError)",
        ),
        ("failing", "plugin 'failing' can't be made (ValueError)"),
    ],
)
def test_a_packages_plugin_that_is_no_use_is_a_problem_of_the_file(
    name: str, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_text(f'_format_version: "3.0"\nplugins: [{{name: {name}}}]\n')
    (problem,) = caught.value.problems
    assert (problem.message, problem.line) == (text, 2)


@pytest.mark.usefixtures("package")
def test_a_packages_plugin_is_suggested_too() -> None:
    with pytest.raises(registry.UnknownName) as caught:
        registry.plugin("their-plugins")
    assert caught.value.suggestion == "their-plugin"


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("port", ["path", "port"], "port"),
        ("prot", ["path", "port"], "port"),
        ("x", ["path", "port"], None),
        ("port", [], None),
    ],
)
def test_the_nearest_name(name: str, known: list[str], found: str | None) -> None:
    assert registry.nearest(name, known) == found


@pytest.mark.usefixtures("package")
def test_what_is_not_used_is_not_imported() -> None:
    assert "their-plugin" in registry.plugin_names()
    assert "their_plugins" not in sys.modules
    registry.plugin("their-plugin")
    assert "their_plugins" in sys.modules
