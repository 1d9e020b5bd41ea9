"""The configuration of the gateways under load."""

from __future__ import annotations

import json
from typing import Any

from tests.live.harness import LOG_PATH


def config(
    upstream_url: str,
    *,
    version: str = "1",
    read_timeout: float = 120.0,
    body_limit: int = 524288,
) -> str:
    """One route for each way through the gateway.

    ``/claude/v1/messages`` and ``/gpt`` go through `ai-proxy`, ``/plain`` is passed on
    as it is, and ``/lag`` is answered by the gateway itself, without a record.

    Args:
        upstream_url: where `mock_llm` listens.
        version: what ``/lag`` says.
        read_timeout: seconds that the upstream may be silent.
        body_limit: bytes that `ai-proxy` takes.
    """
    file_log = {"name": "file-log", "config": {"path": LOG_PATH}}
    lag = {
        "name": "request-termination",
        "config": {"status_code": 200, "body": version, "content_type": "text/plain"},
    }
    claude = _ai_proxy("anthropic", f"{upstream_url}/v1/messages", body_limit)
    gpt = _ai_proxy("openai", f"{upstream_url}/v1/chat/completions", body_limit)
    models = {
        "name": "models",
        "url": "http://127.0.0.1:1",
        "read_timeout": int(read_timeout * 1000),
        "plugins": [file_log],
        "routes": [
            {"name": "claude", "paths": ["/claude"], "plugins": [claude]},
            {"name": "gpt", "paths": ["/gpt"], "plugins": [gpt]},
        ],
    }
    plain = {
        "name": "plain",
        "url": f"{upstream_url}/plain",
        "plugins": [file_log],
        "routes": [{"name": "plain", "paths": ["/plain"]}],
    }
    return json.dumps(
        {
            "_format_version": "3.0",
            "services": [models, plain],
            "routes": [{"name": "lag", "paths": ["/lag"], "plugins": [lag]}],
        }
    )


def _ai_proxy(provider: str, url: str, body_limit: int) -> dict[str, Any]:
    options: dict[str, Any] = {"upstream_url": url}
    if provider == "anthropic":
        options["anthropic_version"] = "2023-06-01"
    return {
        "name": "ai-proxy",
        "config": {
            "route_type": "llm/v1/chat",
            "llm_format": provider,
            "max_request_body_size": body_limit,
            "logging": {"log_statistics": True},
            "model": {"provider": provider, "options": options},
        },
    }
