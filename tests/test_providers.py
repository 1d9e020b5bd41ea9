from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from kongai import registry
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.providers import PROVIDERS, Provider
from kongai.schema import load


@pytest.mark.parametrize(("name", "provider"), PROVIDERS.items())
def test_every_row_leads_somewhere(name: str, provider: Provider) -> None:
    parts = urlsplit(provider.url)
    assert provider.name == name
    assert parts.scheme == "https"
    assert parts.hostname
    assert provider.url == f"https://{parts.netloc}"
    assert provider.chat_path.startswith("/")
    assert provider.format in registry.format_names()


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_configuration_finds_its_provider(name: str) -> None:
    config = load(
        AIProxyConfig,
        {
            "route_type": "llm/v1/chat",
            "llm_format": PROVIDERS[name].format,
            "model": {
                "provider": name,
                "options": {"anthropic_version": "2023-06-01"},
            },
        },
    )
    assert config.provider is PROVIDERS[name]


def test_anthropic() -> None:
    assert PROVIDERS["anthropic"] == Provider(
        name="anthropic",
        format="anthropic",
        url="https://api.anthropic.com",
        chat_path="/v1/messages",
        version_header="anthropic-version",
        version="2023-06-01",
    )
