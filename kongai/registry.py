"""Names to things: plugins and formats, the built-in ones and others' own.

A package adds a plugin with an entry point in the group ``kongai.plugins``, whose name
is the plugin's. What is not used is not imported.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from kongai.llm.formats import Format, ProviderFormat
from kongai.plugin import Plugin

_PLUGINS = {
    "ai-proxy": "kongai.plugins.ai_proxy:AIProxy",
    "correlation-id": "kongai.plugins.correlation_id:CorrelationId",
    "file-log": "kongai.plugins.file_log:FileLog",
    "http-log": "kongai.plugins.http_log:HttpLog",
    "key-auth": "kongai.plugins.key_auth:KeyAuth",
    "request-size-limiting": (
        "kongai.plugins.request_size_limiting:RequestSizeLimiting"
    ),
    "request-termination": "kongai.plugins.request_termination:RequestTermination",
    "tcp-log": "kongai.plugins.tcp_log:TcpLog",
}
_FORMATS = {
    "anthropic": "kongai.llm.formats.anthropic",
    "openai": "kongai.llm.formats.openai",
}
_PROVIDER_FORMATS = {**_FORMATS, "ollama": "kongai.llm.formats.ollama"}

PLUGIN_GROUP = "kongai.plugins"


class UnknownName(LookupError):
    """Nothing is registered under this name.

    Args:
        name: what was asked for.
        known: the names there are.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.suggestion = nearest(name, known)


class Unusable(Exception):
    """A package's plugin can't be used; the text says why."""


def plugin(name: str) -> type[Plugin]:
    """The class of a plugin.

    Raises:
        UnknownName: there is no such plugin.
        Unusable: a package has one, but it can't be loaded, is no `Plugin`, or has the
            name of one of kongai's.
    """
    others = _of_packages(tuple(sys.path))
    if name in _PLUGINS:
        if name in others:
            raise Unusable(f"{others[name].value} must not take the name of a built-in")
        module, _, attribute = _PLUGINS[name].partition(":")
        return cast("type[Plugin]", getattr(import_module(module), attribute))
    if name not in others:
        raise UnknownName(name, [*_PLUGINS, *others])
    try:
        found = others[name].load()
    except Exception as error:
        raise Unusable(
            f"{others[name].value} can't be loaded ({type(error).__name__})"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise Unusable(f"{others[name].value} is not a kongai.Plugin")
    return found


def plugin_names() -> list[str]:
    """The names of all plugins there are."""
    return sorted({*_PLUGINS, *_of_packages(tuple(sys.path))})


@lru_cache(maxsize=1)
def _of_packages(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The plugins of packages; a look through every one on the path takes its time."""
    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP)}


def format(name: str) -> Format:
    """The module of a wire format that clients speak.

    Raises:
        UnknownName: there is no such format.
    """
    if name not in _FORMATS:
        raise UnknownName(name, _FORMATS)
    return cast("Format", import_module(_FORMATS[name]))


def provider_format(name: str) -> ProviderFormat:
    """The module of a wire format that providers speak.

    Raises:
        UnknownName: there is no such format.
    """
    if name not in _PROVIDER_FORMATS:
        raise UnknownName(name, _PROVIDER_FORMATS)
    return cast("ProviderFormat", import_module(_PROVIDER_FORMATS[name]))


def format_names() -> list[str]:
    """The names of all wire formats that clients speak."""
    return sorted(_FORMATS)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if any is like it at all."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None
