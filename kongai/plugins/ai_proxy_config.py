"""The settings of `ai-proxy`, as Kong's schema names them (Kong 3.15)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from kongai import registry
from kongai.llm.formats import Dialect, Format
from kongai.plugins import ai_templates
from kongai.providers import KONG_PROVIDERS, PROVIDERS, Provider, ProviderName
from kongai.providers.options import SENDABLE, Options

DEFAULT_MAX_BODY = 32 * 1024 * 1024
"""The API's own limit, in bytes; Claude Code outgrows Kong's default of 1 MiB."""

_TOKEN = Meta(
    pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", description="not a header's name"
)
_RouteType = Annotated[
    Literal["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"],
    Meta(
        extra={
            "kong": (
                *("audio/v1/audio/speech", "audio/v1/audio/transcriptions"),
                *("audio/v1/audio/translations", "image/v1/images/edits"),
                *("image/v1/images/generations", "llm/v1/assistants"),
                *("llm/v1/batches", "llm/v1/chat", "llm/v1/completions"),
                *("llm/v1/embeddings", "llm/v1/files", "llm/v1/responses"),
                *("preserve", "realtime/v1/realtime", "video/v1/videos/generations"),
            )
        }
    ),
]
_Category = Annotated[
    Literal["text/generation", "text/embeddings"],
    Meta(
        extra={
            "kong": (
                *("audio/speech", "audio/transcription", "image/generation"),
                *("text/embeddings", "text/generation", "video/generation"),
            )
        }
    ),
]
_Format = Annotated[
    Literal["anthropic", "openai"],
    Meta(
        extra={
            "kong": (
                *("anthropic", "bedrock", "cohere"),
                *("gemini", "huggingface", "openai"),
            )
        }
    ),
]
_Provider = Annotated[
    ProviderName, Meta(extra={"kong": tuple(sorted({*PROVIDERS, *KONG_PROVIDERS}))})
]
_NO_STATISTICS = (
    "anthropic does not support statistics when route_type is llm/v1/completions"
)
_NATIVE_IS_CHAT = (
    "native provider options in llm_format can only be used with the 'llm/v1/chat' "
    "route_type"
)
_NO_ENDPOINT = "'{}' is not available in this version of kongai for {} in {} format"


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
    header_value: Annotated[str, SENDABLE] | None = None
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


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, of which provider."""

    provider: _Provider
    name: str | None = None
    model_alias: str | None = None
    """What a client writes in the place of `name`; ``*`` is whatever it writes."""
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

    @property
    def provider_format(self) -> str:
        """The name of the wire format that the provider speaks."""
        return self.provider.format_name(self.model.options)

    def dialect(self, model: str) -> Dialect:
        """What the provider takes of its format, for a model."""
        return self.provider.dialect(model, self.model.options)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        for text in self.provider.missing(self.model.options):
            yield "model.options", text
        auth = self.auth
        if (auth.header_name is None) != (auth.header_value is None):
            yield "auth", _all_or_none("header_name", "header_value")
        params = (auth.param_name, auth.param_value, auth.param_location)
        if len({param is None for param in params}) > 1:
            yield "auth", _all_or_none("param_name", "param_value", "param_location")
        yield from ai_templates.problems(self)
        if (
            self.provider.name == "anthropic"
            and self.route_type == "llm/v1/completions"
            and self.logging.log_statistics
        ):
            yield "route_type", _NO_STATISTICS
        endpoints = registry.provider_format(self.provider_format).ENDPOINTS
        if self.route_type not in endpoints:
            yield (
                "route_type",
                _NO_ENDPOINT.format(
                    self.route_type, self.provider.name, self.provider_format
                ),
            )


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

    @property
    def client_format(self) -> Format:
        """The module of the format that clients speak."""
        return _client_format(self.llm_format)

    @property
    def translates(self) -> bool:
        """Whether clients speak another format than the provider."""
        return self.llm_format != self.provider_format

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        yield from Target.problems(self)
        native = self.llm_format != "openai"
        if native and self.route_type != "llm/v1/chat":
            yield "route_type", _NATIVE_IS_CHAT
        if native and self.auth.param_location == "body":
            yield "auth.param_location", "native bodies take no parameters; use 'query'"
        embeds = self.route_type == "llm/v1/embeddings"
        if self.genai_category == "text/embeddings" and not embeds:
            yield "genai_category", "needs the route_type 'llm/v1/embeddings'"


_client_format = cache(registry.format)


def _all_or_none(*names: str) -> str:
    return "all or none of these fields must be set: " + ", ".join(
        f"'auth.{name}'" for name in names
    )
