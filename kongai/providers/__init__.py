"""Providers: where each lives, which format it speaks, how to address it.

A provider that is only an address, a header and a known format is one row of the table.
"""

from __future__ import annotations

from typing import NamedTuple


class Provider(NamedTuple):
    """An LLM provider, as `model.provider` names it."""

    name: str
    format: str
    """The wire format it speaks, a name that `registry.format` knows."""
    url: str
    """Scheme and host of its API."""
    chat_path: str
    """The path of its chat endpoint."""
    version_header: str | None = None
    """The header that carries `options.anthropic_version`, if there is one."""
    version: str | None = None
    """The version that `AIProxy(provider=...)` asks for."""


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="anthropic",
            format="anthropic",
            url="https://api.anthropic.com",
            chat_path="/v1/messages",
            version_header="anthropic-version",
            version="2023-06-01",
        ),
    )
}
"""The providers that kongai speaks to, by name."""
