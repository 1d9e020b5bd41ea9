from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder

from kongai import AIProxy, Proxy, Route
from kongai.errors import RequestRejected
from kongai.exchange import Exchange, UpstreamRequest, UpstreamResponse
from kongai.plugins.ai_proxy_config import AIProxyConfig
from kongai.plugins.ai_templates import is_template, problems, resolve, templated
from kongai.router import Router
from kongai.schema import load
from kongai.testing import MockTransport, answer


def config(
    *, name: str | None = None, provider: str = "openai", **options: Any
) -> AIProxyConfig:
    model = {"provider": provider, "name": name, "options": options}
    return load(AIProxyConfig, {"route_type": "llm/v1/chat", "model": model})


def exchange(
    target: str = "/", *, path: str = "~/(?<first>[^/]*)", **headers: str
) -> Exchange:
    """An exchange of a request that has matched a route with this path."""
    where, _, query = target.partition("?")
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    made = Exchange(EnvironBuilder().get_request(), target=target, path=where)
    made.headers.extend(given)
    router = Router([(Route(paths=(path,)), None)])
    made.match = router.match("GET", "h", where, made.headers)
    assert made.match is not None
    assert made.query == (query or None)
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$(headers.x)", True),
        ("a-$(uri_captures.b)-c", True),
        ("$(nonsense)", True),
        ("$()", True),
        ("gpt-4", False),
        ("$x", False),
        ("(headers.x)", False),
        (None, False),
        (False, False),
    ],
)
def test_what_is_a_template(text: Any, found: bool) -> None:
    assert is_template(text) is found


@pytest.mark.parametrize(
    "given",
    [
        {"name": "$(headers.model)"},
        {"upstream_url": "http://h/$(headers.x)"},
        {
            "provider": "databricks",
            "databricks": {"workspace_instance_id": "$(headers.w)"},
        },
        {"azure_api_version": "$(query_params.api-version)"},
    ],
)
def test_a_target_depends_on_the_request_if_a_text_of_it_does(
    given: dict[str, Any],
) -> None:
    assert templated(config(**given))


def test_other_targets_do_not() -> None:
    assert not templated(config(name="gpt-4", upstream_url="http://h", max_tokens=5))


def test_values_come_from_headers_the_query_and_the_path() -> None:
    found = resolve(
        config(
            name="$(headers.X-Model)",
            provider="azure",
            azure_instance="$(query_params.where)",
            azure_deployment_id="west-$(uri_captures.first)-$(headers.x-model)",
            azure_api_version="2024-10-21",
        ),
        exchange("/blue/chat?a=b&where=%69nst&where=other", x_model="gpt-4.1"),
    )
    assert found.model.name == "gpt-4.1"
    assert found.model.options.azure_instance == "inst"
    assert found.model.options.azure_deployment_id == "west-blue-gpt-4.1"
    assert found.model.options.azure_api_version == "2024-10-21"


def test_everything_else_of_a_target_stays() -> None:
    given = config(name="$(headers.m)", max_tokens=5, upstream_url="http://h/v1")
    found = resolve(given, exchange(m="a"))
    assert isinstance(found, AIProxyConfig)
    assert found == config(name="a", max_tokens=5, upstream_url="http://h/v1")
    assert given.model.name == "$(headers.m)"


def test_records_below_the_options_are_filled_in_too() -> None:
    given = config(
        provider="databricks", databricks={"workspace_instance_id": "$(headers.w)"}
    )
    found = resolve(given, exchange(w="adb-12.3"))
    assert found.model.options.databricks.workspace_instance_id == "adb-12.3"


def test_spaces_within_a_template_mean_nothing() -> None:
    assert resolve(config(name="$( headers.m )"), exchange(m="a")).model.name == "a"


def test_an_address_may_be_the_clients() -> None:
    given = config(upstream_url="$(headers.to)")
    found = resolve(given, exchange(to="http://other:8080/v1/chat/completions"))
    assert found.model.options.upstream_url == "http://other:8080/v1/chat/completions"


@pytest.mark.parametrize(
    ("template", "value", "path"),
    [
        ("$(headers.p)", "v1/audio", "/v1/audio"),
        ("$(headers.p)", "/v1/audio", "/v1/audio"),
        ("/openai/$(headers.p)/x", "a/b", "/openai/a/b/x"),
    ],
)
def test_a_path_may_be_the_clients(template: str, value: str, path: str) -> None:
    found = resolve(config(upstream_path=template), exchange(p=value))
    assert found.model.options.upstream_path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("$(headers.x-model)", "headers key x-model was not provided"),
        ("$(headers.empty)", "headers key empty was not provided"),
        ("$(query_params.q)", "query_params key q was not provided"),
        ("$(query_params.flag)", "query_params key flag was not provided"),
        ("$(query_params.nothing)", "query_params key nothing was not provided"),
        ("$(uri_captures.second)", "uri_captures key second was not provided"),
        ("a-$(model)", "cannot parse expression for field '$(model)'"),
        ("$()", "cannot parse expression for field '$()'"),
        ("$(headers.)", "cannot parse expression for field '$(headers.)'"),
        ("$(cookies.a)", "source 'cookies' is not supported"),
        ("$(headers.ok)-$(headers.no)", "headers key no was not provided"),
    ],
)
def test_what_can_not_be_filled_in(name: str, message: str) -> None:
    asked = exchange("/?flag&nothing=", empty="", ok="1")
    with pytest.raises(RequestRejected) as caught:
        resolve(config(name=name), asked)
    assert caught.value.message == message
    assert caught.value.status == 400


ELSEWHERE = ["a/b", "..", "a?b", "a#b", "a@b", "a:80", "a b", "a\\b", "evil.test/x"]


@pytest.mark.parametrize("value", ELSEWHERE)
@pytest.mark.parametrize(
    ("field", "given"),
    [
        (
            "azure_instance",
            {
                "provider": "azure",
                "azure_instance": "$(headers.v)",
                "azure_deployment_id": "d",
            },
        ),
        (
            "azure_deployment_id",
            {
                "provider": "azure",
                "azure_instance": "i",
                "azure_deployment_id": "x-$(headers.v)",
            },
        ),
        (
            "databricks.workspace_instance_id",
            {
                "provider": "databricks",
                "databricks": {"workspace_instance_id": "$(headers.v)"},
            },
        ),
        ("upstream_url", {"upstream_url": "https://$(headers.v).example/v1"}),
        ("upstream_url", {"upstream_url": "https://api.example:$(headers.v)/v1"}),
    ],
)
def test_a_value_does_not_lead_to_another_host(
    field: str, given: dict[str, Any], value: str
) -> None:
    with pytest.raises(RequestRejected) as caught:
        resolve(config(**given), exchange(v=value))
    assert caught.value.message == f"invalid value for field 'model.options.{field}'"
    assert caught.value.status == 400


@pytest.mark.parametrize("value", ["../b", "a/../../b", "a?b", "a#b", "a b", "%2E%2e"])
@pytest.mark.parametrize(
    "given",
    [
        {"upstream_url": "https://api.example/tenants/$(headers.v)/chat"},
        {"upstream_path": "/tenants/$(headers.v)"},
        {"upstream_path": "$(headers.v)"},
    ],
)
def test_a_value_does_not_lead_out_of_a_path(given: dict[str, str], value: str) -> None:
    with pytest.raises(RequestRejected, match="invalid value for field"):
        resolve(config(**given), exchange(v=value))


@pytest.mark.parametrize("value", ["other", "ftp://h/", "http://h /", "http://:1/"])
def test_the_clients_address_must_be_one(value: str) -> None:
    with pytest.raises(RequestRejected, match="field 'model.options.upstream_url'"):
        resolve(config(upstream_url="$(headers.to)"), exchange(to=value))


@pytest.mark.parametrize("value", ["a%0d%0aX-Evil:%201", "a%00", "%C3%A9"])
def test_a_value_can_not_end_a_line(value: str) -> None:
    given = config(name="m", anthropic_version="$(query_params.v)")
    with pytest.raises(RequestRejected, match="model.options.anthropic_version"):
        resolve(given, exchange(f"/?v={value}"))


def test_what_depends_on_the_request_is_no_problem_of_the_file() -> None:
    assert [
        *problems(config(upstream_url="$(headers.x)", upstream_path="$(a.b)"))
    ] == []


@pytest.mark.parametrize(
    "url", ["$(headers.x)", "http://$(headers.x)/v1", "https://h:$(headers.port)"]
)
def test_a_plugin_can_be_made_before_its_address_is_known(url: str) -> None:
    model = {"provider": "openai", "options": {"upstream_url": url}}
    AIProxy(route_type="llm/v1/chat", model=model)


def test_kongs_example_of_azures_deployments() -> None:
    before = "/openai/deployments/"
    asked: list[str] = []

    def azure(request: UpstreamRequest) -> UpstreamResponse:
        asked.append(f"https://{request.host}{request.target}")
        return answer([b"{}"], headers=[("content-type", "application/json")])

    options = {
        "azure_instance": "my-openai-instance",
        "azure_deployment_id": "$(uri_captures.azure_instance)",
    }
    model = {
        "provider": "azure",
        "name": "$(uri_captures.azure_instance)",
        "options": options,
    }
    proxy = Proxy(
        routes=[
            Route(
                paths=(f"~{before}(?<azure_instance>[^#?/]+)/chat/completions",),
                plugins=[AIProxy(route_type="llm/v1/chat", model=model)],
            )
        ],
        sinks=[],
        transport=MockTransport(azure),
    )
    messages = [{"role": "user", "content": "Hello"}]
    for name in ("my-gpt-4", "my%2Fgpt"):
        Client(proxy).post(
            f"{before}{name}/chat/completions?api-version=2024-10-21",
            json={"messages": messages},
        )
    host, version = "my-openai-instance.openai.azure.com", "api-version=2024-10-21"
    assert asked == [f"https://{host}{before}my-gpt-4/chat/completions?{version}"]
