from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from kongai.exchange import Exchange, UpstreamRequest
from kongai.llm.call import Call
from kongai.plugins.ai_endpoint import Endpoint
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.schema import load

KEY = "sk-ant-0123456789"
OPTIONS: dict[str, dict[str, Any]] = {
    "anthropic": {"anthropic_version": "2023-06-01"},
    "azure": {"azure_instance": "i", "azure_deployment_id": "d"},
    "llama2": {"llama2_format": "ollama", "upstream_url": "http://l"},
    "mistral": {"mistral_format": "openai"},
    "ollama": {"upstream_url": "http://o:11434"},
    "vllm": {"upstream_url": "http://v:8000"},
}


def endpoint(
    provider: str = "anthropic",
    *,
    client: str = "openai",
    route_type: str = "llm/v1/chat",
    auth: dict[str, Any] | None = None,
    **options: Any,
) -> Endpoint:
    settings = {
        "route_type": route_type,
        "llm_format": client,
        "auth": auth,
        "model": {
            "provider": provider,
            "options": {**OPTIONS.get(provider, {}), **options},
        },
    }
    config = load(AIProxyConfig, settings)
    return Endpoint(config, llm_format=config.llm_format)


BODY = b'{"model":"m", "messages":[ ]}'


class Asked:
    """What an upstream is asked, and what the exchange knows then.

    Args:
        made: the endpoint.
        headers: of the client.
        target: of the client.
        given: the client's body; None for one that is not read.
        body: the one that is to go up, where it was changed.
        read: whether it is a request that is read and counted.
        streaming: whether a stream was asked for.
    """

    def __init__(
        self,
        made: Endpoint,
        *headers: tuple[str, str],
        target: str = "/route",
        given: bytes | None = BODY,
        body: bytes | None = None,
        read: bool = True,
        streaming: bool = False,
    ) -> None:
        self.exchange = Exchange(
            EnvironBuilder(method="POST").get_request(),
            target=target,
            headers=Headers(headers),
        )
        self.exchange.body = given
        call = Call("provider", made.path(None), read)
        call.body, call.streaming = given if body is None else body, streaming
        self.request: UpstreamRequest = next(made.send(self.exchange, call))

    def __getitem__(self, name: str) -> str | None:
        """A header's value; None if there is none."""
        return Headers(self.request.headers).get(name)

    @property
    def query(self) -> str:
        return self.request.target.partition("?")[2]

    @property
    def sent(self) -> Any:
        assert isinstance(self.request.body, bytes)
        return json.loads(self.request.body)


# Where


@pytest.mark.parametrize(
    ("options", "chat", "models"),
    [
        ({}, "/v1/messages", "/v1/models"),
        ({"upstream_url": "http://h/up/v1/messages"}, "/up/v1/messages", None),
        ({"upstream_url": "http://h/up"}, "/up", None),
        ({"upstream_url": "http://h//up/"}, "/up/", None),
        ({"upstream_url": "http://h/"}, "/v1/messages", "/v1/models"),
        ({"upstream_url": "http://h/up/v1/messages?a=b"}, "/up/v1/messages", None),
        ({"upstream_path": "/up/v1/messages"}, "/up/v1/messages", None),
        ({"upstream_path": "//up/v1/messages"}, "/up/v1/messages", None),
        (
            {"upstream_path": "/other", "upstream_url": "http://h/up"},
            "/up",
            "/up/v1/models",
        ),
        (
            {"upstream_path": "/up/v1/messages", "upstream_url": "http://h/"},
            "/up/v1/messages",
            None,
        ),
    ],
)
def test_the_apis_other_paths_are_beside_that_of_chat(
    options: dict[str, str], chat: str, models: str | None
) -> None:
    made = endpoint(client="anthropic", **options)
    assert made.path(None) == chat
    assert made.path("/v1/models") == (models or "/up/v1/models")


@pytest.mark.parametrize(
    ("provider", "options", "chat", "models"),
    [
        (
            "openai",
            {},
            "https://api.openai.com:443/v1/chat/completions",
            "https://api.openai.com:443/v1/models",
        ),
        (
            "openai",
            {"upstream_url": "http://localhost:1234"},
            "http://localhost:1234/v1/chat/completions",
            "http://localhost:1234/v1/models",
        ),
        (
            "openai",
            {"upstream_url": "https://api.deepseek.com/chat/completions"},
            "https://api.deepseek.com:443/chat/completions",
            "https://api.deepseek.com:443/models",
        ),
        (
            "openai",
            {"upstream_path": "/v2/chat/completions"},
            "https://api.openai.com:443/v2/chat/completions",
            "https://api.openai.com:443/v2/models",
        ),
        (
            "azure",
            {},
            "https://i.openai.azure.com:443/openai/deployments/d/chat/completions",
            "https://i.openai.azure.com:443/openai/deployments/d/models",
        ),
        (
            "openrouter",
            {},
            "https://openrouter.ai:443/api/v1/chat/completions",
            "https://openrouter.ai:443/api/v1/models",
        ),
        (
            "vllm",
            {},
            "http://v:8000/v1/chat/completions",
            "http://v:8000/v1/models",
        ),
        ("ollama", {}, "http://o:11434/api/chat", "http://o:11434/models"),
        ("llama2", {}, "http://l:80/api/chat", "http://l:80/models"),
        (
            "llama2",
            {"llama2_format": "openai"},
            "http://l:80/v1/chat/completions",
            "http://l:80/v1/models",
        ),
        (
            "llama2",
            {"upstream_url": "http://[::1]:9/x/api/chat"},
            "http://[::1]:9/x/api/chat",
            "http://[::1]:9/x/models",
        ),
    ],
)
def test_addresses(
    provider: str, options: dict[str, str], chat: str, models: str
) -> None:
    made = endpoint(provider, **options)
    assert made.url(made.path(None)) == chat
    assert made.url(made.path("/models")) == models


@pytest.mark.parametrize(
    ("route_type", "path"),
    [
        ("llm/v1/chat", "/v1/chat/completions"),
        ("llm/v1/completions", "/v1/completions"),
        ("llm/v1/embeddings", "/v1/embeddings"),
    ],
)
def test_each_route_type_has_its_endpoint(route_type: str, path: str) -> None:
    made = endpoint("openai", route_type=route_type)
    assert made.path(None) == path
    assert made.path("/models") == "/v1/models"
    beside = endpoint("openai", route_type=route_type, upstream_url=f"http://h/x{path}")
    assert beside.path(None) == f"/x{path}"
    assert beside.path("/models") == "/x/v1/models"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/v1/messages", "http://h:80/x"),
        ("https://h", "https://h:443/x"),
        ("http://[::1]:8080", "http://[::1]:8080/x"),
        ("http://$(headers.host)/v1/chat", "http://$(headers.host)/v1/chat"),
        ("$(headers.url)", "$(headers.url)"),
    ],
)
def test_people_are_told_where_a_path_is(url: str, shown: str) -> None:
    assert endpoint(upstream_url=url).url("/x") == shown


def test_it_is_asked_there() -> None:
    asked = Asked(endpoint("openai"), target="/route?a=b")
    request = asked.request
    assert (request.scheme, request.host, request.port) == (
        "https",
        "api.openai.com",
        443,
    )
    assert request.target == "/v1/chat/completions?a=b"
    assert request.body == BODY
    assert asked["host"] == "api.openai.com"
    assert asked["content-length"] == str(len(BODY))


# Headers


@pytest.mark.parametrize(
    ("accepted", "streaming", "asked"),
    [
        ("gzip, deflate, br", False, "gzip, identity"),
        ("GZIP", False, "gzip, identity"),
        ("br;q=1, gzip;q=0.5", False, "gzip, identity"),
        ("gzip;q=0.01", False, "gzip, identity"),
        ("gzip, deflate", True, "identity"),
        ("br, zstd", False, "identity"),
        ("gzip;q=0, br", False, "identity"),
        ("gzip; q=0.0", False, "identity"),
        ("", False, "identity"),
        (None, False, "identity"),
    ],
)
def test_what_is_read_comes_plain_or_in_gzip_if_the_client_takes_that(
    accepted: str | None, streaming: bool, asked: str
) -> None:
    headers = [] if accepted is None else [("accept-encoding", accepted)]
    found = Asked(endpoint("openai"), *headers, streaming=streaming)
    assert found["accept-encoding"] == asked


def test_what_is_not_read_comes_as_the_client_wants_it() -> None:
    found = Asked(endpoint("openai"), ("accept-encoding", "br"), read=False)
    assert found["accept-encoding"] == "br"
    assert Asked(endpoint("openai"), read=False)["accept-encoding"] is None


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_anthropics_version_is_that_of_the_file(client: str) -> None:
    found = Asked(endpoint(client=client), ("Anthropic-Version", "2099-01-01"))
    assert found["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("use_cache", "wait", "sent"),
    [
        (None, None, (None, None)),
        (True, False, ("true", "false")),
        (False, None, ("false", None)),
    ],
)
def test_hugging_face_is_told_by_headers(
    use_cache: bool | None, wait: bool | None, sent: tuple[str | None, str | None]
) -> None:
    given = {"use_cache": use_cache, "wait_for_model": wait}
    found = Asked(endpoint("huggingface", huggingface=given))
    assert (found["x-use-cache"], found["x-wait-for-model"]) == sent
    assert Asked(endpoint("openai", huggingface=given))["x-use-cache"] is None


def test_a_body_of_the_gateways_own_is_json() -> None:
    kind = ("content-type", "application/json; charset=utf-8")
    made = endpoint("openai")
    assert Asked(made, kind)["content-type"] == kind[1]
    changed = Asked(made, kind, body=b'{"a":1}')
    assert changed["content-type"] == "application/json"
    assert changed["content-length"] == "7"
    assert Asked(made, kind, given=None)["content-type"] == kind[1]


ANTHROPICS = [
    ("anthropic-beta", "a,b"),
    ("Anthropic-Dangerous-Direct-Browser-Access", "true"),
    ("x-stainless-lang", "js"),
    ("x-app", "cli"),
]
OPENAIS = [
    ("OpenAI-Organization", "org"),
    ("openai-project", "p"),
    ("openai-beta", "b"),
    ("openai-else", "e"),
]


@pytest.mark.parametrize("provider", ["openai", "azure", "ollama"])
def test_what_is_for_anthropic_does_not_go_to_others(provider: str) -> None:
    found = Asked(endpoint(provider, client="anthropic"), *ANTHROPICS)
    names = {name.lower() for name, _ in found.request.headers}
    assert not {name for name in names if name.startswith("anthropic-")}
    assert {"x-stainless-lang", "x-app"} <= names


def test_what_is_for_openai_does_not_go_to_anthropic() -> None:
    found = Asked(endpoint("anthropic"), *OPENAIS)
    names = {name.lower() for name, _ in found.request.headers}
    assert {name for name in names if name.startswith("openai-")} == {"openai-else"}


@pytest.mark.parametrize(
    ("provider", "client", "headers"),
    [("anthropic", "anthropic", ANTHROPICS), ("openai", "openai", OPENAIS)],
)
def test_between_equals_headers_are_the_clients(
    provider: str, client: str, headers: list[tuple[str, str]]
) -> None:
    found = Asked(endpoint(provider, client=client), *headers)
    assert {*headers} <= {*found.request.headers}


# Credentials

HEADER = {"header_name": "Authorization", "header_value": "Bearer ours-0123"}
ANTHROPICS_HEADER = {"header_name": "x-api-key", "header_value": "ours-0123"}
CLIENTS_KEY = ("x-api-key", KEY)
CLIENTS_BEARER = ("authorization", f"Bearer {KEY}")


def keys(found: Asked) -> dict[str, str]:
    """The headers with a key that the upstream got."""
    names = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    return {name: value for name in names if (value := found[name]) is not None}


@pytest.mark.parametrize(
    ("override", "sent", "expected"),
    [
        (False, None, "ours"),
        (True, None, "ours"),
        (False, "theirs", "ours"),
        (True, "theirs", "theirs"),
    ],
)
def test_whose_credential_counts(
    override: bool, sent: str | None, expected: str
) -> None:
    auth = {"header_name": "X-Key", "header_value": "ours", "allow_override": override}
    headers = [("x-key", sent)] if sent else []
    found = Asked(endpoint("openai", auth=auth), *headers)
    assert found["x-key"] == expected
    assert found.exchange.secret_names == {"x-key"}
    assert found.exchange.secret_values == {"ours"}


@pytest.mark.parametrize("override", [False, True])
def test_between_equals_only_the_named_header_is_touched(override: bool) -> None:
    auth = {**HEADER, "allow_override": override}
    found = Asked(endpoint("openai", auth=auth), CLIENTS_KEY)
    assert keys(found) == {"authorization": "Bearer ours-0123", "x-api-key": KEY}


@pytest.mark.parametrize(
    ("provider", "auth"),
    [
        ("openai", HEADER),
        ("openai", {**HEADER, "allow_override": True}),
        ("azure", {"header_name": "api-key", "header_value": "ours-0123"}),
        (
            "openai",
            {"param_name": "k", "param_value": "v", "param_location": "query"},
        ),
    ],
)
def test_with_a_key_of_the_file_anthropics_goes_to_nobody_else(
    provider: str, auth: dict[str, Any]
) -> None:
    made = endpoint(provider, client="anthropic", auth=auth)
    assert KEY not in str(Asked(made, CLIENTS_KEY).request.headers)
    if auth.get("header_name") != "Authorization":
        assert KEY not in str(Asked(made, CLIENTS_BEARER).request.headers)


EVERY_KEY = [
    ("Authorization", "Bearer theirs-1"),
    ("X-Api-Key", "theirs-2"),
    ("Api-Key", "theirs-3"),
    ("X-Goog-Api-Key", "theirs-4"),
]


@pytest.mark.parametrize(
    ("provider", "client", "auth", "expected"),
    [
        ("openai", "anthropic", HEADER, {"authorization": "Bearer ours-0123"}),
        ("anthropic", "openai", ANTHROPICS_HEADER, {"x-api-key": "ours-0123"}),
        (
            "anthropic",
            "openai",
            {"param_name": "k", "param_value": "v", "param_location": "query"},
            {},
        ),
        ("openai", "anthropic", None, {"authorization": "Bearer theirs-1"}),
        ("azure", "anthropic", None, {"api-key": "theirs-3"}),
        ("anthropic", "openai", None, {"x-api-key": "theirs-2"}),
    ],
)
def test_of_a_clients_keys_none_but_the_providers_goes_up(
    provider: str, client: str, auth: dict[str, Any] | None, expected: dict[str, str]
) -> None:
    made = endpoint(provider, client=client, auth=auth)
    assert keys(Asked(made, *EVERY_KEY)) == expected


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_header_that_is_configured_may_be_one_of_those(client: str) -> None:
    auth = {"header_name": "x-goog-api-key", "header_value": "ours-0123"}
    provider = "openai" if client == "anthropic" else "anthropic"
    made = endpoint(provider, client=client, auth=auth)
    assert keys(Asked(made, *EVERY_KEY)) == {"x-goog-api-key": "ours-0123"}
    made = endpoint(provider, client=client, auth={**auth, "allow_override": True})
    assert keys(Asked(made, *EVERY_KEY)) == {"x-goog-api-key": "theirs-4"}


def test_between_equals_every_key_is_passed_on() -> None:
    assert len(keys(Asked(endpoint("openai"), *EVERY_KEY))) == 4


def test_with_a_key_of_the_file_openais_does_not_go_to_anthropic() -> None:
    made = endpoint("anthropic", auth=ANTHROPICS_HEADER)
    found = Asked(made, ("Authorization", "Bearer sk-openai"))
    assert keys(found) == {"x-api-key": "ours-0123"}


def test_the_named_header_may_still_be_the_clients() -> None:
    auth = {**HEADER, "allow_override": True}
    made = endpoint("openai", client="anthropic", auth=auth)
    found = Asked(made, CLIENTS_KEY, ("authorization", "Bearer theirs"))
    assert keys(found) == {"authorization": "Bearer theirs"}


@pytest.mark.parametrize(
    ("provider", "client", "headers", "expected"),
    [
        ("openai", "anthropic", [CLIENTS_KEY], {"authorization": f"Bearer {KEY}"}),
        ("openai", "anthropic", [CLIENTS_BEARER], {"authorization": f"Bearer {KEY}"}),
        (
            "openai",
            "anthropic",
            [("x-api-key", "other"), CLIENTS_BEARER],
            {"authorization": f"Bearer {KEY}"},
        ),
        ("azure", "anthropic", [CLIENTS_KEY], {"api-key": KEY}),
        ("azure", "anthropic", [CLIENTS_BEARER], {"api-key": KEY}),
        ("anthropic", "openai", [("api-key", KEY)], {"x-api-key": KEY}),
        ("openai", "anthropic", [("api-key", KEY)], {"authorization": f"Bearer {KEY}"}),
        ("anthropic", "openai", [CLIENTS_BEARER, ("api-key", "a")], {"x-api-key": KEY}),
        ("anthropic", "openai", [("x-goog-api-key", KEY)], {}),
        ("openai", "openai", [("api-key", KEY)], {"api-key": KEY}),
        ("azure", "anthropic", [CLIENTS_KEY, ("api-key", "a")], {"api-key": "a"}),
        ("anthropic", "openai", [CLIENTS_BEARER], {"x-api-key": KEY}),
        (
            "anthropic",
            "openai",
            [("Authorization", f"bearer {KEY}")],
            {"x-api-key": KEY},
        ),
        ("anthropic", "openai", [CLIENTS_KEY], {"x-api-key": KEY}),
        ("anthropic", "openai", [("authorization", "Basic eA==")], {}),
        ("anthropic", "openai", [], {}),
        ("openai", "openai", [CLIENTS_KEY], {"x-api-key": KEY}),
        ("anthropic", "anthropic", [CLIENTS_BEARER], dict([CLIENTS_BEARER])),
    ],
)
def test_without_a_key_of_the_file_the_clients_is_said_as_the_provider_has_it(
    provider: str,
    client: str,
    headers: list[tuple[str, str]],
    expected: dict[str, str],
) -> None:
    assert keys(Asked(endpoint(provider, client=client), *headers)) == expected


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ("Bearer ours-0123", {"Bearer ours-0123", "ours-0123"}),
        ("Basic  b3VyczowMTIz ", {"Basic  b3VyczowMTIz ", "b3VyczowMTIz"}),
        ("Bearer ours", {"Bearer ours"}),
        ("ours-0123", {"ours-0123"}),
    ],
)
def test_a_token_is_a_secret_without_its_scheme_too(
    value: str, secrets: set[str]
) -> None:
    auth = {"header_name": "Authorization", "header_value": value}
    found = Asked(endpoint("openai", auth=auth))
    assert found.exchange.secret_values == secrets


# The query


def param(location: str, **more: Any) -> dict[str, Any]:
    return {
        "param_name": "key",
        "param_value": "a b+c/d0",
        "param_location": location,
        **more,
    }


@pytest.mark.parametrize(
    ("override", "query", "expected"),
    [
        (False, "", "key=a%20b%2Bc%2Fd0"),
        (False, "?x=1&key=k&y", "x=1&y&key=a%20b%2Bc%2Fd0"),
        (True, "?x=1&key=k&y", "x=1&key=k&y"),
        (True, "?x=1", "x=1&key=a%20b%2Bc%2Fd0"),
    ],
)
def test_a_key_in_the_query(override: bool, query: str, expected: str) -> None:
    made = endpoint("openai", auth=param("query", allow_override=override))
    found = Asked(made, target=f"/{query}")
    assert found.query == expected
    assert found.request.body == BODY
    assert found.exchange.secret_names == {"key"}
    assert found.exchange.secret_values == {"a b+c/d0", "a%20b%2Bc%2Fd0"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "api-version=2023-05-15"),
        ("/?a=b", "a=b&api-version=2023-05-15"),
        ("/?api-version=2025-01-01&a=b", "api-version=2025-01-01&a=b"),
        ("/?api-version=", "api-version="),
    ],
)
def test_azure_is_told_a_version_by_the_file_or_else_the_client(
    target: str, expected: str
) -> None:
    assert Asked(endpoint("azure"), target=target).query == expected


def test_azures_version_can_not_bring_another_argument() -> None:
    made = endpoint("azure", azure_api_version="v&a=b")
    assert Asked(made).query == "api-version=v%26a%3Db"


@pytest.mark.parametrize(
    ("provider", "client", "target", "sent"),
    [
        ("openai", "anthropic", "/?beta=true", "/v1/chat/completions"),
        ("openai", "anthropic", "/?a=%31&beta=true", "/v1/chat/completions?a=%31"),
        ("openai", "openai", "/?beta=true", "/v1/chat/completions?beta=true"),
        ("anthropic", "anthropic", "/?beta=true", "/v1/messages?beta=true"),
        ("openai", "openai", "/?", "/v1/chat/completions?"),
    ],
)
def test_the_query_that_only_anthropic_knows(
    provider: str, client: str, target: str, sent: str
) -> None:
    made = endpoint(provider, client=client)
    assert Asked(made, target=target).request.target == sent


CREDENTIALS = "key=1&api-key=2&api_key=3&access_token=4"


@pytest.mark.parametrize(
    ("provider", "client", "auth", "sent"),
    [
        ("openai", "anthropic", None, "a=b"),
        ("openai", "anthropic", HEADER, "a=b"),
        ("anthropic", "openai", None, "a=b"),
        ("azure", "anthropic", None, "a=b&api-version=2023-05-15"),
        ("anthropic", "openai", param("query"), "a=b&key=a%20b%2Bc%2Fd0"),
        ("anthropic", "openai", param("query", allow_override=True), "a=b&key=1"),
        ("anthropic", "openai", param("body"), "a=b"),
        ("openai", "openai", None, f"a=b&{CREDENTIALS}"),
    ],
)
def test_a_clients_key_in_the_query_goes_to_no_other_vendor(
    provider: str, client: str, auth: dict[str, Any] | None, sent: str
) -> None:
    made = endpoint(provider, client=client, auth=auth)
    assert Asked(made, target=f"/?a=b&{CREDENTIALS}").query == sent


def test_a_key_in_the_query_is_known_however_it_is_escaped() -> None:
    made = endpoint("openai", client="anthropic")
    assert Asked(made, target="/?%6bey=1").request.target == "/v1/chat/completions"


# The body


def test_a_key_in_the_body() -> None:
    found = Asked(endpoint("openai", auth=param("body")))
    assert found.sent == {"model": "m", "messages": [], "key": "a b+c/d0"}
    assert found["content-type"] == "application/json"
    assert found.query == ""
    assert found.exchange.secret_names == {"key"}
    assert found.exchange.secret_values == {"a b+c/d0"}
    assert found.exchange.body == BODY


@pytest.mark.parametrize(
    ("override", "expected"), [(False, "a b+c/d0"), (True, "theirs-0123")]
)
def test_whose_key_in_the_body_counts(override: bool, expected: str) -> None:
    given = b'{"key":"theirs-0123","model": "m"}'
    auth = param("body", allow_override=override)
    found = Asked(endpoint("openai", auth=auth), given=given)
    assert found.sent == {"key": expected, "model": "m"}
    assert (found.request.body == given) is override
    assert ("theirs-0123" in found.exchange.secret_values) is override
    assert "a b+c/d0" in found.exchange.secret_values


@pytest.mark.parametrize("given", [b'{"model":"m"}', b'{"key":null}', b"[1]", b"x"])
def test_a_body_without_a_key_gets_the_files(given: bytes) -> None:
    auth = param("body", allow_override=True)
    found = Asked(endpoint("openai", auth=auth), given=given, body=b'{"model":"m"}')
    assert found.sent == {"model": "m", "key": "a b+c/d0"}


def test_the_clients_key_outlives_a_translation() -> None:
    auth = param("body", allow_override=True)
    found = Asked(
        endpoint("anthropic", auth=auth), given=b'{"key":"theirs-0123"}', body=b"{}"
    )
    assert found.sent == {"key": "theirs-0123"}


def test_a_word_that_a_client_calls_a_key_is_not_taken_out_of_the_record() -> None:
    auth = param("body", allow_override=True)
    found = Asked(endpoint("openai", auth=auth), given=b'{"key":"a"}')
    assert found.sent == {"key": "a"}
    assert "a" not in found.exchange.secret_values


def test_a_secret_is_known_as_json_writes_it_too() -> None:
    auth = {**param("body"), "param_value": 'a"b\\c'}
    found = Asked(endpoint("openai", auth=auth))
    assert found.exchange.secret_values == {'a"b\\c', 'a\\"b\\\\c'}


def test_a_body_that_nobody_has_read_gets_no_key() -> None:
    found = Asked(endpoint("openai", auth=param("body")), given=None, read=False)
    assert found.request.body is None


def test_what_is_set_takes_the_place_of_what_the_client_sent() -> None:
    """One field for all that it sent of a name, where the first of them was."""
    made = endpoint(
        client="anthropic",
        anthropic_version="2023-06-01",
        auth={"header_name": "X-Api-Key", "header_value": "sk-configured"},
    )
    found = Asked(
        made,
        *(("a", "1"), ("ANTHROPIC-VERSION", "1"), ("x-api-key", "sk-client")),
        *(
            ("b", "2"),
            ("Anthropic-Version", "2"),
            ("accept-encoding", "br"),
            ("c", "3"),
        ),
    )
    assert list(found.exchange.sent_headers or ()) == [
        *(("a", "1"), ("anthropic-version", "2023-06-01")),
        *(("X-Api-Key", "sk-configured"), ("b", "2")),
        *(("Accept-Encoding", "identity"), ("c", "3")),
    ]
    assert found.exchange.headers.getlist("anthropic-version") == ["1", "2"]
