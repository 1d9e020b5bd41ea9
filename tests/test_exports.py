from __future__ import annotations

import importlib
import importlib.resources
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import kongai


def modules() -> list[str]:
    found = pkgutil.walk_packages(kongai.__path__, "kongai.")
    return ["kongai", *sorted(module.name for module in found)]


def is_public(name: str) -> bool:
    return not name.startswith("_")


def defined(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module defines itself: its public classes and functions."""
    for name, value in vars(module).items():
        if (
            is_public(name)
            and (inspect.isclass(value) or inspect.isroutine(value))
            and value.__module__ == module.__name__
        ):
            yield name, value


def test_the_door_has_what_it_says_and_nothing_else() -> None:
    submodules = {name.split(".")[1] for name in modules()[1:]}
    there = {name for name in vars(kongai) if is_public(name)} - submodules
    assert set(kongai.__all__) - {"__version__"} == there


@pytest.mark.parametrize("name", modules())
def test_all_is_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(set(exported))
    for one in exported:
        assert hasattr(module, one)


def test_a_star_brings_all() -> None:
    namespace: dict[str, Any] = {}
    exec("from kongai import *", namespace)
    assert set(kongai.__all__) <= set(namespace)


def test_the_version_is_one() -> None:
    parts = kongai.__version__.split(".")
    assert len(parts) == 3
    assert all(part.isdigit() for part in parts)


def documented(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Everything of a module that must say what it is for."""
    yield module.__name__, module
    for name, value in defined(module):
        yield f"{module.__name__}.{name}", value
        if not inspect.isclass(value):
            continue
        for attribute, member in vars(value).items():
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            if is_public(attribute) and isinstance(
                member, (property, type(defined), type)
            ):
                yield f"{module.__name__}.{name}.{attribute}", member


@pytest.mark.parametrize("name", modules())
def test_everything_public_says_what_it_is_for(name: str) -> None:
    silent = [
        where
        for where, value in documented(importlib.import_module(name))
        if not has_docstring(value)
    ]
    assert silent == []


def has_docstring(value: Any) -> bool:
    text = (value.__doc__ or "").strip()
    # Dataclasses and named tuples that say nothing are given their signature.
    return bool(text) and not text.startswith(f"{getattr(value, '__name__', None)}(")


def test_the_search_for_docstrings_finds_what_there_is() -> None:
    found = {
        where
        for name in modules()
        for where, _ in documented(importlib.import_module(name))
    }
    assert {
        "kongai",
        "kongai.proxy.Proxy",
        "kongai.proxy.Proxy.handle",
        "kongai.proxy.Proxy.from_file",
        "kongai.exchange.Exchange.host",
        "kongai.sinks.LogSink.emit",
        "kongai.testing.serve_live",
        "kongai.plugins.ai_proxy.AIProxy.access",
    } <= found


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("kongai").joinpath("py.typed").is_file()
