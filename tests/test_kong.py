from __future__ import annotations

from kongai import kong, registry


def test_kongais_own_plugins_are_kongs() -> None:
    own = {
        name
        for name in registry.plugin_names()
        if registry.plugin(name).__module__.startswith("kongai.")
    }
    assert own <= kong.PLUGINS


def test_what_to_use_instead_is_there() -> None:
    assert kong.INSTEAD.keys() <= kong.PLUGINS - {*registry.plugin_names()}
