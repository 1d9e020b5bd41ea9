"""The settings of `ai-proxy`, as Kong's schema names them (Kong 3.15)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from kongai import registry
from kongai.entities.types import DEFAULT_PORTS
from kongai.llm.formats import Format
from kongai.providers import PROVIDERS, Provider

DEFAULT_MAX_BODY = 32 * 1024 * 1024
"""The API's own limit, in bytes; Claude Code outgrows Kong's default of 1 MiB."""


def _one_of(*names: str) -> Meta:
    """An enumeration shorter than Kong's, which says so."""
    return Meta(
        pattern=rf"^(?:{'|'.join(names)})\Z",
        description=f"expected one of: {', '.join(names)} "
        "(Kong's others are not available in this version of kongai)",
    )


_TOKEN = Meta(
    pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", description="not a header's name"
)
_SENDABLE = Meta(
    pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*\Z",
    description="a header can't hold a line end or a control character",
)
_Provider = Annotated[str, _one_of(*PROVIDERS)]
_Format = Annotated[str, _one_of(*registry.format_names())]
_RouteType = Annotated[str, _one_of("llm/v1/chat")]
_Category = Annotated[str, _one_of("text/generation")]
_NO_TEMPLATES = (
    "templates such as $(headers.x) are not available in this version of kongai"
)
_NO_OPENAI = (
    "required: Kong's default, openai, is not available in this version of kongai"
)
_TEMPLATE = re.compile(r"\$\([^)]*\)")


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's credential, and whether the client's own may replace it."""

    REFERENCEABLE: ClassVar[frozenset[str]] = frozenset(
        {"header_name", "header_value", "param_name", "param_value"}
    )
    NOT_HERE: ClassVar[dict[str, str]] = {
        name: f"{cloud} identities are not available in this version of kongai"
        for cloud, names in {
            "AWS": ("aws_access_key_id", "aws_secret_access_key"),
            "Azure": (
                "azure_client_id",
                "azure_client_secret",
                "azure_tenant_id",
                "azure_use_managed_identity",
            ),
            "Google Cloud": (
                "gcp_metadata_url",
                "gcp_oauth_token_url",
                "gcp_service_account_json",
                "gcp_use_service_account",
            ),
        }.items()
        for name in names
    }

    header_name: Annotated[str, _TOKEN] | None = None
    header_value: Annotated[str, _SENDABLE] | None = None
    param_name: str | None = None
    param_value: str | None = None
    param_location: Literal["query", "body"] | None = None
    allow_override: bool = False

    def __repr__(self) -> str:
        return f"Auth(header_name={self.header_name!r}, param_name={self.param_name!r})"


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """What of the exchange goes into the record."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"log_statistics", "log_payloads"})

    log_statistics: bool = False
    log_payloads: bool = False


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


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The model's options; prices are USD per million tokens."""

    NOT_HERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("max_tokens", "temperature", "top_p", "top_k"),
            "sampling options are not written into native bodies; the client sets them",
        ),
        **dict.fromkeys(
            (
                "azure_api_version",
                "azure_deployment_id",
                "azure_instance",
                "bedrock",
                "cohere",
                "dashscope",
                "databricks",
                "embeddings_dimensions",
                "gemini",
                "huggingface",
                "llama2_format",
                "mistral_format",
            ),
            "belongs to a provider that this version of kongai does not have",
        ),
    }

    anthropic_version: Annotated[str, _SENDABLE] | None = None
    upstream_url: str | None = None
    upstream_path: Annotated[
        str, Meta(pattern="^/", description="should start with: /")
    ] | (None) = None
    input_cost: Annotated[float, Meta(gt=0)] | None = None
    output_cost: Annotated[float, Meta(gt=0)] | None = None
    cache_read_cost: float | None = None
    cache_write_cost: float | None = None
    cache_write_cost_list: tuple[CacheWriteCost, ...] = ()
    context_window_factor: tuple[ContextWindowFactor, ...] = ()
    service_tier_factor: tuple[ServiceTierFactor, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, of which provider."""

    NOT_HERE: ClassVar[dict[str, str]] = {
        "model_alias": "aliases are not available in this version of kongai"
    }

    provider: _Provider
    name: str | None = None
    options: Options = msgspec.field(default_factory=Options)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One model of one provider, and how it is asked."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"logging"})

    route_type: _RouteType
    model: Model
    auth: Auth = msgspec.field(default_factory=Auth)
    logging: Logging = msgspec.field(default_factory=Logging)

    @property
    def provider(self) -> Provider:
        """The provider that the model is of."""
        return PROVIDERS[self.model.provider]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        options, auth = self.model.options, self.auth
        if self.provider.version_header and options.anthropic_version is None:
            yield (
                "model.options",
                "must set 'model.options.anthropic_version' for anthropic provider",
            )
        if (auth.header_name is None) != (auth.header_value is None):
            yield "auth", _all_or_none("header_name", "header_value")
        params = (auth.param_name, auth.param_value, auth.param_location)
        if len({param is None for param in params}) > 1:
            yield "auth", _all_or_none("param_name", "param_value", "param_location")
        if options.upstream_url is not None and not _is_url(options.upstream_url):
            yield "model.options.upstream_url", "expected an http or https URL"
        if auth.param_location == "body":
            yield "auth.param_location", "native bodies take no parameters; use 'query'"
        for name in ("name", "options.upstream_url", "options.upstream_path"):
            if _TEMPLATE.search(_attribute(self.model, name) or ""):
                yield f"model.{name}", _NO_TEMPLATES


class AIProxyConfig(Target, frozen=True, kw_only=True):
    """The settings of `ai-proxy`, with Kong's names.

    `max_request_body_size` is in bytes, 0 for no limit; where Kong defaults to 1 MiB,
    kongai defaults to the API's own 32 MiB.
    """

    llm_format: _Format = "openai"
    genai_category: _Category = "text/generation"
    response_streaming: Literal["allow", "deny", "always"] = "allow"
    max_request_body_size: Annotated[int, Meta(ge=0)] = DEFAULT_MAX_BODY
    model_name_header: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        yield from Target.problems(self)
        if self.llm_format not in registry.format_names():
            # The default is Kong's, and a default is not looked at like a given value.
            yield "llm_format", _NO_OPENAI

    @property
    def client_format(self) -> Format:
        """The module of the format that clients speak."""
        return registry.format(self.llm_format)


def _all_or_none(*names: str) -> str:
    return "all or none of these fields must be set: " + ", ".join(
        f"'auth.{name}'" for name in names
    )


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
        )
    except ValueError:
        return False


def _attribute(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value
