"""What can be said of a model beside its name: `model.options`, as Kong has it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

SENDABLE = Meta(
    pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*\Z",
    description="a header can't hold a line end or a control character",
)


class CacheWriteCost(msgspec.Struct, frozen=True, kw_only=True):
    """A price for cache writes of one time to live, USD per million tokens."""

    ttl: str
    cost: float


class ContextWindowFactor(msgspec.Struct, frozen=True, kw_only=True):
    """Factors on the prices of prompts longer than `above` tokens."""

    above: Annotated[str, Meta(pattern=r"^[0-9]+$", description="expected a number")]
    input_factor: float
    output_factor: float


class ServiceTierFactor(msgspec.Struct, frozen=True, kw_only=True):
    """A factor on the price of answers of a service tier."""

    tier: str
    factor: float


class DashScope(msgspec.Struct, frozen=True, kw_only=True):
    """Which of its two clouds Alibaba is asked in."""

    international: bool = True

    @property
    def host(self) -> str:
        """The name of the API's host."""
        return f"dashscope{'-intl' if self.international else ''}.aliyuncs.com"


class Databricks(msgspec.Struct, frozen=True, kw_only=True):
    """Where at Databricks the model is served."""

    workspace_instance_id: str | None = None


class HuggingFace(msgspec.Struct, frozen=True, kw_only=True):
    """How Hugging Face is to go about a request."""

    use_cache: bool | None = None
    wait_for_model: bool | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The model's options; prices are USD per million tokens."""

    NOT_HERE: ClassVar[dict[str, str]] = dict.fromkeys(
        ("bedrock", "cohere", "gemini"),
        "belongs to a provider that is not available in this version of kongai",
    )

    max_tokens: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=500)] | None = None
    embeddings_dimensions: int | None = None
    upstream_url: str | None = None
    upstream_path: str | None = None
    anthropic_version: Annotated[str, SENDABLE] | None = None
    azure_instance: str | None = None
    azure_deployment_id: str | None = None
    azure_api_version: str = "2023-05-15"
    dashscope: DashScope = msgspec.field(default_factory=DashScope)
    databricks: Databricks = msgspec.field(default_factory=Databricks)
    huggingface: HuggingFace = msgspec.field(default_factory=HuggingFace)
    llama2_format: (
        Annotated[
            Literal["openai", "ollama"],
            Meta(extra={"kong": ("raw", "openai", "ollama")}),
        ]
        | None
    ) = None
    mistral_format: Literal["openai", "ollama"] | None = None
    input_cost: Annotated[float, Meta(gt=0)] | None = None
    output_cost: Annotated[float, Meta(gt=0)] | None = None
    cache_read_cost: float | None = None
    cache_write_cost: float | None = None
    cache_write_cost_list: tuple[CacheWriteCost, ...] = ()
    context_window_factor: tuple[ContextWindowFactor, ...] = ()
    service_tier_factor: tuple[ServiceTierFactor, ...] = ()
