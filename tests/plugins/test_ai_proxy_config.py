from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kongai import AIProxy
from kongai.errors import ConfigError
from kongai.llm.formats import anthropic
from kongai.plugins.ai_proxy_config import AIProxyConfig, Auth
from kongai.schema import load

LEAST: dict[str, Any] = {
    "route_type": "llm/v1/chat",
    "llm_format": "anthropic",
    "model": {
        "provider": "anthropic",
        "options": {"anthropic_version": "2023-06-01"},
    },
}


def settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The least settings there can be, with changes by dotted path."""
    changed = _copy(LEAST)
    for path, value in changes.items():
        *parents, name = path.split(".")
        target = changed
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is ...:
            del target[name]
        else:
            target[name] = value
    return changed


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in value.items()}


def problems(**changes: Any) -> list[str]:
    """What is said about settings; dots of a path are written `__`."""
    paths = {name.replace("__", "."): value for name, value in changes.items()}
    try:
        load(AIProxyConfig, settings(paths))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_defaults() -> None:
    config = load(AIProxyConfig, LEAST)
    assert config.client_format is anthropic
    assert config.provider.name == "anthropic"
    assert config.genai_category == "text/generation"
    assert config.response_streaming == "allow"
    assert config.max_request_body_size == 32 * 1024 * 1024
    assert config.model_name_header is True
    assert config.model.name is None
    assert config.auth == Auth()
    assert config.auth.allow_override is False
    assert config.logging.log_statistics is False
    assert config.logging.log_payloads is False
    assert config.model.options.context_window_factor == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("genai_category", "text/generation"),
        ("response_streaming", "deny"),
        ("response_streaming", "always"),
        ("max_request_body_size", 0),
        ("max_request_body_size", 2**40),
        ("model_name_header", False),
        ("logging", {"log_statistics": True, "log_payloads": True}),
        ("auth", {"header_name": "x-api-key", "header_value": "k"}),
        ("auth", {"header_name": "a", "header_value": "k", "allow_override": True}),
        ("auth", {"param_name": "k", "param_value": "v", "param_location": "query"}),
        ("auth", {}),
        ("model.name", "claude-sonnet-4-5"),
        ("model.name", "us.anthropic/claude:1"),
        ("model.options.input_cost", 3),
        ("model.options.output_cost", 0.001),
        ("model.options.cache_read_cost", 0),
        ("model.options.cache_write_cost", 3.75),
        ("model.options.cache_write_cost_list", [{"ttl": "1h", "cost": 6}]),
        (
            "model.options.context_window_factor",
            [{"above": "200000", "input_factor": 2, "output_factor": 1.5}],
        ),
        ("model.options.service_tier_factor", [{"tier": "batch", "factor": 0.5}]),
        ("model.options.upstream_url", "http://localhost"),
        ("model.options.upstream_url", "https://llm.example:8443/base/v1/messages"),
        ("model.options.upstream_url", "http://[::1]:8080/"),
        ("model.options.upstream_path", "/v1/messages"),
    ],
)
def test_accepted(path: str, value: Any) -> None:
    assert problems(**{path: value}) == []


def test_null_is_not_given() -> None:
    assert load(AIProxyConfig, settings({"model.name": None, "auth": None})) == load(
        AIProxyConfig, LEAST
    )


HEADERS = "'auth.header_name', 'auth.header_value'"
PARAMS = "'auth.param_name', 'auth.param_value', 'auth.param_location'"
NOT_HERE = "not available in this version of kongai"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("route_type", ..., "route_type: required field missing"),
        ("model", ..., "model: required field missing"),
        ("model.provider", ..., "model.provider: required field missing"),
        ("max_request_body_size", -1, "max_request_body_size: value must be at least"),
        ("max_request_body_size", "1", "max_request_body_size: expected an integer"),
        ("max_request_body_size", 1.5, "max_request_body_size: expected an integer"),
        ("model_name_header", "yes", "model_name_header: expected a boolean"),
        (
            "response_streaming",
            "never",
            "response_streaming: expected one of: allow, always, deny",
        ),
        ("model", "claude", "model: expected a record"),
        ("model.name", "", "model.name: length must be at least 1"),
        ("model.name", 4, "model.name: expected a string"),
        ("logging", [1], "logging: expected a record"),
        ("logging.log_everything", True, "logging.log_everything: unknown field"),
        (
            "loging",
            {},
            "loging: unknown field; did you mean 'logging'?",
        ),
        (
            "model.options.input_cost",
            0,
            "model.options.input_cost: value must be greater than 0",
        ),
        (
            "model.options.output_cost",
            "3",
            "model.options.output_cost: expected a number",
        ),
        (
            "model.options.cache_write_cost_list",
            [{"ttl": "5m"}],
            "model.options.cache_write_cost_list[0].cost: required field missing",
        ),
        (
            "model.options.context_window_factor",
            [{"above": "many", "input_factor": 1, "output_factor": 1}],
            "model.options.context_window_factor[0].above: expected a number",
        ),
        (
            "model.options.service_tier_factor",
            [{"tier": "", "factor": 1}],
            "model.options.service_tier_factor[0].tier: length must be at least 1",
        ),
        (
            "model.options.anthropic_version",
            ...,
            "model.options: must set 'model.options.anthropic_version'",
        ),
        (
            "auth.header_name",
            "x-api-key",
            f"auth: all or none of these fields must be set: {HEADERS}",
        ),
        (
            "auth.header_value",
            "k",
            f"auth: all or none of these fields must be set: {HEADERS}",
        ),
        (
            "auth.param_name",
            "k",
            f"auth: all or none of these fields must be set: {PARAMS}",
        ),
        (
            "auth",
            {"param_name": "k", "param_location": "query"},
            f"auth: all or none of these fields must be set: {PARAMS}",
        ),
        (
            "auth",
            {"param_name": "k", "param_value": "v", "param_location": "body"},
            "auth.param_location: native bodies take no parameters; use 'query'",
        ),
        (
            "auth.param_location",
            "header",
            "auth.param_location: expected one of: body, query",
        ),
    ],
)
def test_refused(path: str, value: Any, expected: str) -> None:
    found = problems(**{path: value})
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    "url",
    [
        *("llm.example", "llm.example:80", "/v1/messages", "ftp://llm.example/"),
        *("http://", "http:///v1", "https://:443/", "http://x:99999/", "http://x:0/"),
        *("http://x:port/", "http://[::1/"),
    ],
)
def test_an_upstream_url_that_is_none(url: str) -> None:
    assert problems(model__options__upstream_url=url) == [
        "model.options.upstream_url: expected an http or https URL"
    ]


def test_an_upstream_path_is_absolute() -> None:
    assert problems(model__options__upstream_path="v1/messages") == [
        "model.options.upstream_path: should start with: /"
    ]


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("route_type", "llm/v1/completions", f"Kong's others are {NOT_HERE}"),
        ("route_type", "preserve", f"Kong's others are {NOT_HERE}"),
        ("llm_format", "openai", f"Kong's others are {NOT_HERE}"),
        ("llm_format", ..., f"openai, is {NOT_HERE}"),
        ("model.provider", "openai", f"Kong's others are {NOT_HERE}"),
        ("model.provider", "anthropic\n", f"Kong's others are {NOT_HERE}"),
        ("genai_category", "image/generation", f"Kong's others are {NOT_HERE}"),
        ("model.model_alias", "fast", NOT_HERE),
        ("model.name", "$(headers.x-model)", NOT_HERE),
        ("model.options.upstream_path", "/$(uri_captures.x)", NOT_HERE),
        ("model.options.upstream_url", "http://x/$(headers.y)", NOT_HERE),
        ("model.options.max_tokens", 256, "not written into native bodies"),
        ("model.options.temperature", 0.5, "not written into native bodies"),
        ("model.options.azure_instance", "x", "does not have"),
        ("model.options.bedrock", {"aws_region": "x"}, "does not have"),
        ("auth.aws_access_key_id", "x", f"AWS identities are {NOT_HERE}"),
        (
            "auth.gcp_use_service_account",
            True,
            f"Google Cloud identities are {NOT_HERE}",
        ),
        ("auth.azure_client_id", "x", f"Azure identities are {NOT_HERE}"),
    ],
)
def test_what_kong_has_and_kongai_lacks_is_said(
    path: str, value: Any, reason: str
) -> None:
    """A setting that is known to Kong is never called a mistake."""
    found = problems(**{path: value})
    assert len(found) == 1
    assert found[0].startswith(f"{path}: ")
    assert reason in found[0]


def test_all_problems_come_at_once() -> None:
    found = problems(
        route_type=...,
        max_request_body_size=-1,
        model__options={"input_cost": -1, "upstream_uri": "http://x"},
    )
    assert {problem.partition(":")[0] for problem in found} == {
        "max_request_body_size",
        "model.options.input_cost",
        "model.options.upstream_uri",
        "route_type",
    }


def test_the_plugin_is_made_from_the_same_keys() -> None:
    plugin = AIProxy(provider="anthropic", llm_format="anthropic")
    assert plugin.config.model.options.anthropic_version == "2023-06-01"
    assert plugin.config.logging.log_statistics is True
    assert AIProxy(**LEAST).config == load(AIProxyConfig, LEAST)
    assert AIProxy(load(AIProxyConfig, LEAST)).config == load(AIProxyConfig, LEAST)


def test_the_plugin_refuses_what_a_file_would_refuse() -> None:
    with pytest.raises(ConfigError, match="max_request_body_size: expected an integer"):
        AIProxy(provider="anthropic", llm_format="anthropic", max_request_body_size="1")
    with pytest.raises(ConfigError, match="model.provider: expected one of: anthropic"):
        AIProxy(provider="nobody", llm_format="anthropic")


def test_a_credential_does_not_show() -> None:
    secret = "s3cret"
    config = load(
        AIProxyConfig,
        settings(
            {
                "auth": {
                    "header_name": "x-api-key",
                    "header_value": secret,
                    "param_name": "k",
                    "param_value": secret,
                    "param_location": "query",
                }
            }
        ),
    )
    assert config.auth.header_value == secret
    assert secret not in repr(config)
    assert secret not in str(config)
