from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import AIProxy, config
from kongai.errors import ConfigError
from kongai.llm.formats import Dialect, anthropic, openai
from kongai.plugins.ai_endpoint import Endpoint
from kongai.plugins.ai_proxy_config import AIProxyConfig, Auth
from kongai.plugins.ai_templates import templated
from kongai.providers import KONG_PROVIDERS, PROVIDERS
from kongai.schema import load
from kongai.scopes import Scoped

EXAMPLES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "kong_examples.yml").read_text("utf-8")
)
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


def model(provider: str, **options: Any) -> dict[str, Any]:
    """What sets another provider, with changes of its options."""
    return {"llm_format": ..., "model": {"provider": provider, "options": options}}


def problems(**changes: Any) -> list[str]:
    """What is said about settings; dots of a path are written `__`."""
    paths = {name.replace("__", "."): value for name, value in changes.items()}
    try:
        load(AIProxyConfig, settings(paths))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_defaults() -> None:
    least = {"route_type": "llm/v1/chat", "model": {"provider": "openai"}}
    made = load(AIProxyConfig, least)
    assert made.client_format is openai
    assert made.provider.name == "openai"
    assert made.genai_category == "text/generation"
    assert made.response_streaming == "allow"
    assert made.max_request_body_size == 32 * 1024 * 1024
    assert made.model_name_header is True
    assert made.model.name is None
    assert made.model.model_alias is None
    assert made.auth == Auth()
    assert made.auth.allow_override is False
    assert made.logging.log_statistics is False
    assert made.logging.log_payloads is False
    options = made.model.options
    assert options.context_window_factor == ()
    assert options.max_tokens is options.temperature is options.top_p is None
    assert options.azure_api_version == "2023-05-15"
    assert options.dashscope.international is True
    assert options.huggingface.use_cache is None


@pytest.mark.parametrize(
    ("client", "provider", "options", "format", "translates"),
    [
        ("anthropic", "anthropic", {}, "anthropic", False),
        ("openai", "anthropic", {}, "anthropic", True),
        ("anthropic", "openai", {}, "openai", True),
        ("openai", "mistral", {"mistral_format": "openai"}, "openai", False),
        ("openai", "llama2", {"llama2_format": "ollama"}, "ollama", True),
        ("anthropic", "ollama", {}, "ollama", True),
    ],
)
def test_formats_of_both_sides(
    client: str, provider: str, options: dict[str, str], format: str, translates: bool
) -> None:
    common = {"anthropic_version": "2023-06-01", "upstream_url": "http://h"}
    made = load(
        AIProxyConfig,
        {
            "route_type": "llm/v1/chat",
            "llm_format": client,
            "model": {"provider": provider, "options": {**common, **options}},
        },
    )
    assert made.client_format is {"anthropic": anthropic, "openai": openai}[client]
    assert made.provider_format == format
    assert made.translates is translates


def test_the_dialect_is_that_of_the_provider_with_its_options() -> None:
    made = load(
        AIProxyConfig,
        settings(
            model(
                "azure",
                azure_instance="i",
                azure_deployment_id="d",
                azure_api_version="2024-10-21",
            )
        ),
    )
    assert made.dialect("gpt-4o") == Dialect()
    assert made.dialect("o3").max_tokens == "max_completion_tokens"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("genai_category", "text/generation"),
        ("llm_format", "openai"),
        ("llm_format", ...),
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
        ("model.name", "$(headers.x-model)"),
        ("model.model_alias", "fast"),
        ("model.model_alias", "*"),
        ("model.options.max_tokens", 256),
        ("model.options.max_tokens", -1),
        ("model.options.temperature", 0),
        ("model.options.temperature", 5),
        ("model.options.top_p", 1),
        ("model.options.top_p", 0.5),
        ("model.options.top_k", 0),
        ("model.options.top_k", 500),
        ("model.options.embeddings_dimensions", 256),
        ("model.options.azure_instance", "x/y"),  # another provider's
        ("model.options.llama2_format", "ollama"),
        ("model.options.mistral_format", "ollama"),
        ("model.options.dashscope", {"international": False}),
        ("model.options.databricks", {"workspace_instance_id": "x"}),
        ("model.options.huggingface", {"use_cache": True, "wait_for_model": None}),
        ("model.options.bedrock", None),
        ("model.options.anthropic_version", "$(headers.version)"),
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
        ("model.options.upstream_path", "$(uri_captures.path)"),
        ("model.options.upstream_path", "/$(uri_captures.x)"),
        ("model.options.upstream_url", "$(headers.url)"),
        ("model.options.upstream_url", "http://x/$(headers.y)"),
    ],
)
def test_accepted(path: str, value: Any) -> None:
    assert problems(**{path: value}) == []


@pytest.mark.parametrize(
    "changes",
    [
        model("openai"),
        model("azure", azure_instance="i", azure_deployment_id="d"),
        model(
            "azure", azure_instance="$(headers.i)", azure_deployment_id="d-$(headers.x)"
        ),
        model("llama2", llama2_format="openai", upstream_url="http://h"),
        model("mistral", mistral_format="openai"),
        model("databricks", databricks={"workspace_instance_id": "x"}),
        model("ollama", upstream_url="http://h:11434"),
        {**model("openai"), "llm_format": "anthropic"},
        {**model("openai"), "route_type": "llm/v1/completions"},
        {**model("openai"), "route_type": "llm/v1/embeddings"},
        {
            **model("openai"),
            "route_type": "llm/v1/embeddings",
            "genai_category": "text/embeddings",
        },
        {
            **model("openai"),
            "auth": {"param_name": "k", "param_value": "v", "param_location": "body"},
        },
    ],
)
def test_providers_and_route_types_that_are_accepted(changes: dict[str, Any]) -> None:
    load(AIProxyConfig, settings(changes))


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
            "model.options.max_tokens",
            "5",
            "model.options.max_tokens: expected an integer",
        ),
        (
            "model.options.temperature",
            5.1,
            "model.options.temperature: value should be between 0 and 5",
        ),
        (
            "model.options.top_p",
            1.1,
            "model.options.top_p: value should be between 0 and 1",
        ),
        (
            "model.options.top_k",
            501,
            "model.options.top_k: value should be between 0 and 500",
        ),
        (
            "model.options.llama2_format",
            "x",
            "model.options.llama2_format: expected one of: raw, openai, ollama",
        ),
        (
            "model.options.huggingface",
            {"wait_for_model": "x"},
            "model.options.huggingface.wait_for_model: expected a boolean",
        ),
        (
            "model.options.service_tier_factor",
            [{"tier": "$(headers.x)", "factor": 1}],
            "model.options.service_tier_factor[0].tier: templates are not filled in",
        ),
        (
            "model.provider",
            "anthropic\n",
            "model.provider: expected one of: anthropic, azure, bedrock, cerebras,",
        ),
        ("route_type", "x", "route_type: expected one of: audio/v1/audio/speech, "),
        ("llm_format", "x", "llm_format: expected one of: anthropic, bedrock, "),
        ("genai_category", "x", "genai_category: expected one of: audio/speech, "),
        (
            "genai_category",
            "text/embeddings",
            "genai_category: needs the route_type 'llm/v1/embeddings'",
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


def test_an_upstream_url_that_is_none() -> None:
    assert problems(model__options__upstream_url="llm.example") == [
        "model.options.upstream_url: expected an http or https URL"
    ]


def test_an_upstream_path_is_absolute() -> None:
    assert problems(model__options__upstream_path="v1/messages") == [
        "model.options.upstream_path: should start with: /"
    ]


def said(**changes: Any) -> list[str]:
    """What is said about settings of the provider that is given."""
    try:
        load(AIProxyConfig, settings(changes))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


STATISTICS = {"logging": {"log_statistics": True}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"llm_format": ..., "route_type": "llm/v1/completions", **STATISTICS},
            [
                (
                    "route_type: anthropic does not support statistics when "
                    "route_type is llm/v1/completions"
                ),
                (
                    f"route_type: 'llm/v1/completions' is {NOT_HERE} for anthropic in "
                    "anthropic format"
                ),
            ],
        ),
        (
            {"llm_format": ..., "route_type": "llm/v1/embeddings"},
            [
                (
                    f"route_type: 'llm/v1/embeddings' is {NOT_HERE} for anthropic in "
                    "anthropic format"
                )
            ],
        ),
        (
            {
                **model("llama2", llama2_format="ollama", upstream_url="http://h"),
                "route_type": "llm/v1/completions",
            },
            [
                (
                    f"route_type: 'llm/v1/completions' is {NOT_HERE} for llama2 in "
                    "ollama format"
                )
            ],
        ),
        (
            {
                **model("openai"),
                "llm_format": "anthropic",
                "route_type": "llm/v1/embeddings",
            },
            [
                (
                    "route_type: native provider options in llm_format can only be "
                    "used with the 'llm/v1/chat' route_type"
                )
            ],
        ),
        (
            model("azure", azure_instance="evil.test/", azure_deployment_id="a/b"),
            [
                (
                    "model.options.azure_instance: expected letters, digits and any of "
                    "- . _ ~"
                ),
                (
                    "model.options.azure_deployment_id: expected letters, digits and "
                    "any of - . _ ~"
                ),
            ],
        ),
        (
            model("llama2", llama2_format="raw", upstream_url="http://h"),
            [
                (
                    f"model.options.llama2_format: 'raw' is {NOT_HERE}; it has: "
                    "ollama, openai"
                )
            ],
        ),
        (
            model("vllm"),
            [
                (
                    "model.options: must set 'model.options.upstream_url' for "
                    "self-hosted providers/models"
                )
            ],
        ),
    ],
)
def test_what_does_not_fit_together(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert said(**changes) == expected


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("route_type", "llm/v1/responses", f"'llm/v1/responses' is {NOT_HERE}; it has"),
        ("route_type", "preserve", f"'preserve' is {NOT_HERE}; it has: llm/v1/chat, "),
        ("llm_format", "gemini", f"'gemini' is {NOT_HERE}; it has: anthropic, openai"),
        ("genai_category", "image/generation", f"'image/generation' is {NOT_HERE}"),
        *(
            ("model.provider", name, f"'{name}' is {NOT_HERE}; it has: anthropic, ")
            for name in KONG_PROVIDERS
        ),
        ("model.options.bedrock", {"aws_region": "x"}, f"that is {NOT_HERE}"),
        ("model.options.gemini", {"project_id": "x"}, f"that is {NOT_HERE}"),
        ("model.options.cohere", {"wait_for_model": True}, f"that is {NOT_HERE}"),
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
    made = load(
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
    assert made.auth.header_value == secret
    assert secret not in repr(made)
    assert secret not in str(made)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_kongs_examples_are_accepted_and_ask_whom_kong_asks(
    example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    indented = re.sub("^", "    ", example["config"], flags=re.MULTILINE)
    file = f"_format_version: '3.0'\nplugins:\n- name: ai-proxy\n  config:\n{indented}"
    for name in re.findall(r'env "(DECK_\w+)"', file):
        value = name.removeprefix("DECK_").lower().replace("_", "-")
        monkeypatch.setenv(name, example.get("env", {}).get(name, value))
    (found,) = config.load_text(file.rstrip(" ")).plugins
    plugin = found.plugin if isinstance(found, Scoped) else found
    assert isinstance(plugin, AIProxy)
    if "asks" not in example:
        assert templated(plugin.config)
        return
    endpoint = Endpoint(plugin.config, llm_format=plugin.config.llm_format)
    assert endpoint.url(endpoint.path(None)) == example["asks"]


def test_kongs_examples_are_of_every_provider_that_kong_has() -> None:
    shown = {yaml.safe_load(e["config"])["model"]["provider"] for e in EXAMPLES}
    # DeepSeek is asked as OpenAI there, and OpenRouter is not in Kong.
    assert shown == {*PROVIDERS} - {"deepseek", "openrouter"}
