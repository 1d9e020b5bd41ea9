"""Providers: where each lives, which format it speaks, how to address it.

A provider that is only an address, a header and a known format is one row of the table.
Any other that speaks one of the formats is reached as `openai` or as `anthropic`, with
`upstream_url`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from kongai.llm.formats import Dialect
from kongai.providers import dialects
from kongai.providers.options import Options

ProviderName: TypeAlias = Literal[
    "anthropic",
    "azure",
    "cerebras",
    "dashscope",
    "databricks",
    "deepseek",
    "huggingface",
    "llama2",
    "mistral",
    "ollama",
    "openai",
    "openrouter",
    "vllm",
    "xai",
]
KONG_PROVIDERS = ("bedrock", "cohere", "gemini")
"""Those that Kong has and kongai has not."""

_FREE_TO_PLACE = "/v1"
_MUST_SET = "must set 'model.options.{}' for {}"


class Provider(NamedTuple):
    """An LLM provider, as `model.provider` names it."""

    name: str
    root: str
    """Where its API is, up to and including the API's own root; options in braces.
    Only a path, for what people host themselves."""
    tells: Callable[[str, Options], Dialect] = dialects.compatible
    """What it takes of its format, for a model and options."""
    format: str = "openai"
    """The wire format it speaks, a name that `registry.provider_format` knows."""
    format_option: str | None = None
    """The option that says which format it speaks, if that is up to the user."""
    needs: tuple[str, ...] = ()
    """The options that must be set even if `upstream_url` is."""
    credential: str = "authorization"
    """The header with its key, in lower case; `authorization` has it as a bearer's."""
    prices: str | None = None
    """Its name in genai-prices; None where that has no prices of it."""
    version_header: str | None = None
    """The header that carries `options.anthropic_version`, if there is one."""
    version_argument: str | None = None
    """The query argument that carries `options.azure_api_version`, if there is one."""
    version: str | None = None
    """The version that `AIProxy(provider=...)` asks for."""
    sets_cookies: bool = True
    """Whether cookies that it sets reach the client; Kong takes away those that some
    providers' own gateways set."""

    def format_name(self, options: Options) -> str:
        """The wire format that it speaks."""
        chosen: str | None = getattr(options, self.format_option or "", None)
        return chosen or self.format

    def dialect(self, model: str, options: Options) -> Dialect:
        """What it takes of its format, for a model."""
        if self.format_name(options) == "ollama":
            return dialects.ollama(model, options)
        return self.tells(model, options)

    def is_self_hosted(self, options: Options) -> bool:
        """Whether nobody but the user knows where it is."""
        return self.root == _FREE_TO_PLACE or self.format_name(options) == "ollama"

    def url(self, options: Options) -> str:
        """Where its API is, as an URL; of what people host themselves only the path."""
        if self.format_name(options) == "ollama":
            return ""
        return self.root.format(options=options)

    def placed(self) -> Iterator[str]:
        """The options that become a part of its address."""
        for _, name, _, _ in string.Formatter().parse(self.root):
            if name is not None:
                yield name.removeprefix("options.")

    def missing(self, options: Options) -> Iterator[str]:
        """What must be set and is not, in Kong's words and Kong's order."""
        needs = list(self.needs)
        if options.upstream_url is None:
            needs += [name for name in self.placed() if name not in needs]
        for name in needs:
            if option(options, name) is None:
                yield _MUST_SET.format(name, f"{self.name} provider")
        if self.is_self_hosted(options) and options.upstream_url is None:
            yield _MUST_SET.format("upstream_url", "self-hosted providers/models")


def option(options: Options, path: str) -> Any:
    """The value of an option; dots lead into a record."""
    value: Any = options
    for name in path.split("."):
        value = getattr(value, name)
    return value


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="anthropic",
            root="https://api.anthropic.com",
            tells=dialects.anthropic,
            format="anthropic",
            needs=("anthropic_version",),
            credential="x-api-key",
            prices="anthropic",
            version_header="anthropic-version",
            version="2023-06-01",
        ),
        Provider(
            name="azure",
            root="https://{options.azure_instance}.openai.azure.com"
            "/openai/deployments/{options.azure_deployment_id}",
            tells=dialects.azure,
            needs=("azure_instance", "azure_deployment_id"),
            credential="api-key",
            prices="azure",
            sets_cookies=False,
            version_argument="api-version",
        ),
        Provider(
            name="cerebras",
            root="https://api.cerebras.ai/v1",
            tells=dialects.cerebras,
            prices="cerebras",
        ),
        Provider(
            name="dashscope",
            root="https://{options.dashscope.host}/compatible-mode/v1",
        ),
        Provider(
            name="databricks",
            root="https://{options.databricks.workspace_instance_id}"
            ".cloud.databricks.com/serving-endpoints/v1",
            prices="databricks",
        ),
        Provider(
            name="deepseek",
            root="https://api.deepseek.com/v1",
            tells=dialects.deepseek,
            prices="deepseek",
        ),
        Provider(name="huggingface", root="https://router.huggingface.co/v1"),
        Provider(
            name="llama2",
            root=_FREE_TO_PLACE,
            format_option="llama2_format",
            needs=("llama2_format",),
        ),
        Provider(
            name="mistral",
            root="https://api.mistral.ai/v1",
            tells=dialects.mistral,
            format_option="mistral_format",
            needs=("mistral_format",),
            prices="mistral",
            sets_cookies=False,
        ),
        Provider(name="ollama", root=_FREE_TO_PLACE, format="ollama"),
        Provider(
            name="openai",
            root="https://api.openai.com/v1",
            tells=dialects.openai,
            prices="openai",
            sets_cookies=False,
        ),
        Provider(
            name="openrouter",
            root="https://openrouter.ai/api/v1",
            tells=dialects.openrouter,
            prices="openrouter",
        ),
        Provider(name="vllm", root=_FREE_TO_PLACE, tells=dialects.vllm),
        Provider(
            name="xai",
            root="https://api.x.ai/v1",
            tells=dialects.xai,
            prices="x-ai",
        ),
    )
}
"""The providers that kongai speaks to, by name."""
