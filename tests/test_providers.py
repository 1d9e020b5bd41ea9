from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, get_args

import msgspec
import pytest
from genai_prices.data_snapshot import get_snapshot

from kongai import registry
from kongai.llm.formats import Dialect
from kongai.llm.pricing import price_table
from kongai.providers import KONG_PROVIDERS, PROVIDERS, Provider, ProviderName
from kongai.providers.options import Options

NAMES = {
    "azure_instance": "inst",
    "azure_deployment_id": "dep",
    "databricks": {"workspace_instance_id": "dbc-1"},
}


def options(**given: Any) -> Options:
    return msgspec.convert({**NAMES, **given}, Options)


@pytest.mark.parametrize(("name", "provider"), PROVIDERS.items())
def test_every_row_can_be_spoken_to(name: str, provider: Provider) -> None:
    assert provider.name == name
    format = registry.provider_format(provider.format)
    assert "llm/v1/chat" in format.ENDPOINTS
    assert isinstance(provider.dialect("a-model", options()), Dialect)
    for needed in provider.needs:
        assert needed in Options.__struct_fields__


def test_the_names_that_a_file_may_have_are_those_of_the_table() -> None:
    assert get_args(ProviderName) == tuple(PROVIDERS)
    assert not {*PROVIDERS} & {*KONG_PROVIDERS}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("anthropic", "https://api.anthropic.com"),
        ("azure", "https://inst.openai.azure.com/openai/deployments/dep"),
        ("cerebras", "https://api.cerebras.ai/v1"),
        ("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        ("databricks", "https://dbc-1.cloud.databricks.com/serving-endpoints/v1"),
        ("deepseek", "https://api.deepseek.com/v1"),
        ("huggingface", "https://router.huggingface.co/v1"),
        ("llama2", "/v1"),
        ("mistral", "https://api.mistral.ai/v1"),
        ("ollama", ""),
        ("openai", "https://api.openai.com/v1"),
        ("openrouter", "https://openrouter.ai/api/v1"),
        ("vllm", "/v1"),
        ("xai", "https://api.x.ai/v1"),
    ],
)
def test_where_providers_are(name: str, url: str) -> None:
    assert PROVIDERS[name].url(options()) == url


def test_alibaba_has_another_cloud_in_china() -> None:
    url = PROVIDERS["dashscope"].url(options(dashscope={"international": False}))
    assert url == "https://dashscope.aliyuncs.com/compatible-mode/v1"


def test_options_that_become_part_of_an_address() -> None:
    placed = {name: [*row.placed()] for name, row in PROVIDERS.items()}
    assert {name: found for name, found in placed.items() if found} == {
        "azure": ["azure_instance", "azure_deployment_id"],
        "dashscope": ["dashscope.host"],
        "databricks": ["databricks.workspace_instance_id"],
    }


@pytest.mark.parametrize(
    ("name", "given", "format"),
    [
        ("anthropic", {}, "anthropic"),
        ("openai", {}, "openai"),
        ("openai", {"llama2_format": "ollama", "mistral_format": "ollama"}, "openai"),
        ("ollama", {}, "ollama"),
        ("llama2", {"llama2_format": "openai"}, "openai"),
        ("llama2", {"llama2_format": "ollama"}, "ollama"),
        ("mistral", {"mistral_format": "openai"}, "openai"),
        ("mistral", {"mistral_format": "ollama"}, "ollama"),
        ("vllm", {}, "openai"),
    ],
)
def test_formats(name: str, given: dict[str, str], format: str) -> None:
    assert PROVIDERS[name].format_name(options(**given)) == format


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("openai", {}, []),
        ("anthropic", {}, ["anthropic_version' for anthropic provider"]),
        ("anthropic", {"anthropic_version": "2023-06-01"}, []),
        (
            "azure",
            {},
            [
                "azure_instance' for azure provider",
                "azure_deployment_id' for azure provider",
            ],
        ),
        ("azure", {"azure_deployment_id": "d"}, ["azure_instance' for azure provider"]),
        (
            # As in Kong, another address does not make them superfluous.
            "azure",
            {"azure_instance": "i", "upstream_url": "http://h"},
            ["azure_deployment_id' for azure provider"],
        ),
        (
            "databricks",
            {},
            ["databricks.workspace_instance_id' for databricks provider"],
        ),
        ("databricks", {"upstream_url": "http://h"}, []),
        (
            "llama2",
            {},
            [
                "llama2_format' for llama2 provider",
                "upstream_url' for self-hosted providers/models",
            ],
        ),
        (
            "llama2",
            {"llama2_format": "ollama"},
            ["upstream_url' for self-hosted providers/models"],
        ),
        ("llama2", {"llama2_format": "openai", "upstream_url": "http://h"}, []),
        ("mistral", {}, ["mistral_format' for mistral provider"]),
        ("mistral", {"mistral_format": "openai"}, []),
        (
            "mistral",
            {"mistral_format": "ollama"},
            ["upstream_url' for self-hosted providers/models"],
        ),
        ("ollama", {}, ["upstream_url' for self-hosted providers/models"]),
        ("vllm", {}, ["upstream_url' for self-hosted providers/models"]),
    ],
)
def test_what_must_be_set(name: str, given: dict[str, str], said: list[str]) -> None:
    found = [*PROVIDERS[name].missing(msgspec.convert(given, Options))]
    assert found == [f"must set 'model.options.{text}" for text in said]


@pytest.mark.parametrize("name", ["llama2", "mistral"])
def test_behind_ollama_every_model_is_asked_as_ollama_has_it(name: str) -> None:
    given = options(llama2_format="ollama", mistral_format="ollama")
    assert PROVIDERS[name].dialect("m", given) == PROVIDERS["ollama"].dialect(
        "m", given
    )
    assert PROVIDERS[name].dialect("m", given) != PROVIDERS[name].dialect(
        "m", options()
    )


def test_prices_are_of_a_provider_that_the_table_has() -> None:
    """The oldest table does not have Databricks yet; its models have no price then."""
    there = {provider.id for provider in get_snapshot().providers}
    named = {row.prices for row in PROVIDERS.values()} - {None}
    assert named - {"databricks"} <= there
    hour = datetime(2026, 11, 24, tzinfo=timezone.utc)
    assert price_table("databricks", "no-such-model", hour) is None
    assert {"anthropic", "openai", "x-ai"} <= named


def test_anthropic() -> None:
    row = PROVIDERS["anthropic"]
    assert row.version_header == "anthropic-version"
    assert row.version == "2023-06-01"
    assert row.credential == "x-api-key"
    assert [row for row in PROVIDERS.values() if row.version is not None] == [row]
