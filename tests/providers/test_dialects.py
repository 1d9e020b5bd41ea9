from __future__ import annotations

import pytest

from kongai.llm.formats import Dialect
from kongai.providers import PROVIDERS
from kongai.providers.options import Options

REASONING = Dialect(
    max_tokens="max_completion_tokens", sampling=False, reasoning="effort"
)


def dialect(provider: str, model: str, options: Options | None = None) -> Dialect:
    return PROVIDERS[provider].dialect(model, options or Options())


@pytest.mark.parametrize(
    "model",
    [
        *("o1", "o1-mini", "o3", "o3-mini-2025-01-31", "o4-mini", "openai/o3"),
        *("gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5-2025-08-07", "GPT-5-nano"),
        *("gpt-5.3-codex", "gpt-5.1-2025-11-13"),
        *("openai/gpt-5-mini", "us/openai/gpt-5"),
    ],
)
def test_models_that_reason_are_asked_in_other_words(model: str) -> None:
    assert dialect("openai", model) == REASONING


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-5.4", "gpt-5.4-mini", "gpt-5.5-2026-04-23", "gpt-5.6-luna", "gpt-5.10"),
        *("gpt-6", "gpt-6-mini", "gpt-6.1", "gpt-7", "openai/gpt-5.4"),
    ],
)
def test_newer_models_do_not_think_while_tools_are_offered(model: str) -> None:
    assert dialect("openai", model) == REASONING._replace(tools_with_reasoning=False)
    options = Options(azure_deployment_id=model, azure_api_version="2025-01-01")
    assert not dialect("azure", "", options).tools_with_reasoning


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "gpt-5-chat-latest", "gpt-50"),
        "gpt-35-turbo",
        *("o", "omni-moderation", "o1x", "foo-o1", "", "chatgpt-5"),
    ],
)
def test_other_models_of_openais_take_what_the_format_has(model: str) -> None:
    assert dialect("openai", model) == Dialect()


@pytest.mark.parametrize(
    "provider",
    ["openai", "azure", "vllm", "cerebras", "dashscope", "databricks", "huggingface"],
)
def test_gpt_oss_is_told_its_effort_and_takes_sampling(provider: str) -> None:
    found = dialect(provider, "openai/gpt-oss-120b")
    assert found.reasoning == "effort"
    assert found.sampling
    assert found.max_tokens == "max_tokens"
    assert dialect(provider, "qwen-3-32b").reasoning is None


def test_databricks_has_its_own_name_before_a_models() -> None:
    assert dialect("databricks", "databricks-gpt-oss-20b").reasoning == "effort"


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("2023-05-15", False),
        ("2024-08-01-preview", False),
        ("2024-09-01-preview", True),
        ("2024-10-21", True),
        ("2025-04-01-preview", True),
        ("preview", True),
    ],
)
def test_azure_tells_a_streams_usage_since_a_version(version: str, told: bool) -> None:
    found = dialect("azure", "gpt-4o", Options(azure_api_version=version))
    assert found == Dialect(stream_usage=told)


@pytest.mark.parametrize(
    ("model", "deployment", "reasons"),
    [
        ("gpt-4o", "gpt-4o", False),
        ("o3-mini", "my-deployment", True),
        ("gpt-4o", "o3-mini", True),
        ("claude-sonnet-4-5", "gpt-5-mini", True),
        ("", "prod", False),
    ],
)
def test_at_azure_the_deployment_may_name_the_model(
    model: str, deployment: str, reasons: bool
) -> None:
    options = Options(azure_deployment_id=deployment, azure_api_version="2025-01-01")
    assert (dialect("azure", model, options) == REASONING) is reasons


def test_mistral_takes_nothing_that_it_does_not_know() -> None:
    assert dialect("mistral", "mistral-large") == Dialect(
        short_call_ids=True, stream_usage=False, user=False, user_after_tool=False
    )


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (
            "deepseek",
            Dialect(past_reasoning="reasoning_content", plain_text=True),
        ),
        ("vllm", Dialect(past_reasoning="reasoning_content", top_k=True)),
        ("cerebras", Dialect(past_reasoning="reasoning", plain_text=True)),
        (
            "openrouter",
            Dialect(
                top_k=True,
                cache_points=True,
                past_reasoning="reasoning",
                reasoning="openrouter",
            ),
        ),
        ("dashscope", Dialect()),
        ("databricks", Dialect()),
        ("huggingface", Dialect()),
        ("ollama", Dialect(top_k=True, plain_text=True)),
    ],
)
def test_providers_that_take_more_or_less(provider: str, expected: Dialect) -> None:
    assert dialect(provider, "some-model") == expected


@pytest.mark.parametrize(
    ("model", "reasoning"),
    [("grok-3-mini", "effort"), ("grok-4", None), ("grok-3-mini-fast", "effort")],
)
def test_xai_tells_only_small_models_their_effort(
    model: str, reasoning: str | None
) -> None:
    assert dialect("xai", model) == dialect("xai", "")._replace(reasoning=reasoning)


@pytest.mark.parametrize(
    ("model", "stop"),
    [
        *[("grok-4", False), ("grok-4-0709", False), ("grok-4.6", False)],
        *[("grok-3-mini", False), ("grok-3", False), ("grok-code-fast-1", False)],
        *[("grok-4-fast-reasoning", False), ("grok-5", False), ("", False)],
        *[("grok-4-fast-non-reasoning", True), ("grok-4.20-non-reasoning", True)],
    ],
)
def test_models_of_xais_that_reason_take_no_stop_sequences(
    model: str, stop: bool
) -> None:
    found = dialect("xai", model)
    assert (found.stop, found.sampling) == (stop, True)


@pytest.mark.parametrize(
    "model",
    [
        *("claude-opus-4-7", "claude-opus-4-8", "claude-opus-4-10-20270101"),
        *("claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", "claude-opus-5-5"),
        *("claude-fable-5", "claude-mythos-preview", "anthropic/claude-opus-4.7"),
    ],
)
def test_newer_claudes_take_no_sampling_and_no_budget(model: str) -> None:
    found = dialect("anthropic", model)
    assert (found.sampling, found.top_k, found.reasoning) == (False, False, "adaptive")


@pytest.mark.parametrize(
    ("model", "one_sampler"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("anthropic/claude-3.7-sonnet", False),
        ("claude-opus-4-20250514", False),
        ("claude-sonnet-4-0", False),
        ("claude-opus-4-1-20250805", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", True),
        ("", False),
    ],
)
def test_older_claudes_take_sampling_and_a_budget(
    model: str, one_sampler: bool
) -> None:
    found = dialect("anthropic", model)
    assert (found.sampling, found.top_k, found.reasoning) == (True, True, "budget")
    assert found.one_sampler is one_sampler


@pytest.mark.parametrize(
    "model",
    [
        *("claude-3-5-sonnet-20241022", "claude-3-5-haiku-latest", "claude-3.5-sonnet"),
        *("claude-3-haiku-20240307", "claude-3-opus-latest", "anthropic/claude-3-opus"),
        *("claude-2.1", "claude-instant-1.2"),
    ],
)
def test_the_oldest_claudes_do_not_think(model: str) -> None:
    found = dialect("anthropic", model)
    assert (found.sampling, found.top_k, found.reasoning) == (True, True, None)
    assert not found.one_sampler


def test_anthropic_insists_on_a_limit_and_caches_where_it_is_told() -> None:
    found = dialect("anthropic", "claude-sonnet-4-5")
    assert found.default_max_tokens == 4096
    assert found.cache_points
    assert found.longest_tool_name == 128
