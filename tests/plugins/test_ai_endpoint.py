from __future__ import annotations

from typing import Any

import pytest

from kongai.plugins.ai_endpoint import Endpoint
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.schema import load


def endpoint(**options: Any) -> Endpoint:
    model = {
        "provider": "anthropic",
        "options": {"anthropic_version": "2023-06-01", **options},
    }
    config = {"route_type": "llm/v1/chat", "llm_format": "anthropic", "model": model}
    return Endpoint(load(AIProxyConfig, config))


@pytest.mark.parametrize(
    ("options", "chat", "models"),
    [
        ({}, "/v1/messages", "/v1/models"),
        ({"upstream_url": "http://h/up/v1/messages"}, "/up/v1/messages", None),
        ({"upstream_url": "http://h/up"}, "/up", None),
        ({"upstream_url": "http://h/"}, "/v1/messages", "/v1/models"),
        ({"upstream_path": "/up/v1/messages"}, "/up/v1/messages", None),
    ],
)
def test_the_apis_other_paths_are_beside_that_of_chat(
    options: dict[str, str], chat: str, models: str | None
) -> None:
    made = endpoint(**options)
    assert made.path("/v1/messages", chat=True) == chat
    assert made.path("/v1/models", chat=False) == (models or "/up/v1/models")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/v1/messages", "http://h:80/x"),
        ("https://h", "https://h:443/x"),
        ("http://[::1]:8080", "http://[::1]:8080/x"),
    ],
)
def test_people_are_told_where_a_path_is(url: str, shown: str) -> None:
    assert endpoint(upstream_url=url).url("/x") == shown


def test_the_providers_own_address() -> None:
    assert endpoint().url("/x") == "https://api.anthropic.com:443/x"
