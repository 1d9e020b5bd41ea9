from __future__ import annotations

import logging
from typing import Any

import pytest

from kongai.errors import ConfigError
from kongai.plugins.ai_proxy_config import AIProxyConfig, Auth
from kongai.references import is_reference, problem, resolve
from kongai.schema import load

ENVIRON = {
    "MY_KEY": "abc",
    "EMPTY": "",
    "P_MY_KEY": "prefixed",
    "OBJ": '{"key": "member", "a-b": "dashed", "n": 1, "o": {}, "e": ""}',
    "BROKEN": "{",
    "LIST": '["key"]',
    "DEEP": "[" * 100_000,
}


@pytest.mark.parametrize(
    ("value", "yes"),
    [
        ("{vault://env/name}", True),
        ("{vault://env/}", True),
        ("{vault://hcv/secret/key}", True),
        ("Bearer {vault://env/name}", False),
        ("{vault://env/name} ", False),
        ("{vault://env/name", False),
        ("{VAULT://env/name}", False),
        ("vault://env/name", False),
        ("", False),
        (None, False),
        (["{vault://env/name}"], False),
    ],
)
def test_a_reference_is_a_whole_value(value: Any, yes: bool) -> None:
    assert is_reference(value) is yes


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("{vault://env/MY_KEY}", "abc"),
        ("{vault://env/my-key}", "abc"),
        ("{vault://env/my_key}", "abc"),
        ("{vault://env/my-key/}", "abc"),
        ("{vault://env/my-key?prefix=p_}", "prefixed"),
        ("{vault://env/my-key?prefix=p-}", "prefixed"),
        ("{vault://env/my-key?other=x}", "abc"),
        ("{vault://env/obj/key}", "member"),
        ("{vault://env/bj/key?prefix=o}", "member"),
        ("{vault://env/obj/a-b}", "dashed"),
        ("{vault://env/obj/e}", ""),
        ("{vault://env/empty}", ""),
    ],
)
def test_what_a_reference_means(
    reference: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve(reference, ENVIRON) == value
    assert caplog.records == []


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("{vault://env/nope}", "NOPE is not set"),
        ("{vault://env/my-key?prefix=x_}", "X_MY_KEY is not set"),
        ("{vault://env/é}", "É is not set"),
        ("{vault://env/}", " is not set"),
        ("{vault://env/obj/nope}", "OBJ has no string 'nope'"),
        ("{vault://env/obj/n}", "OBJ has no string 'n'"),
        ("{vault://env/obj/o}", "OBJ has no string 'o'"),
        ("{vault://env/list/key}", "LIST has no string 'key'"),
        ("{vault://env/broken/key}", "BROKEN is not JSON"),
        ("{vault://env/deep/key}", "DEEP is not JSON"),
        ("{vault://hcv/a/b}", "there is no vault 'hcv' in kongai; it has 'env'"),
        ("{vault://env}", "expected {vault://env/name}"),
    ],
)
def test_a_reference_that_leads_nowhere_is_empty_and_a_warning(
    reference: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve(reference, ENVIRON) == ""
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"unable to resolve reference {reference}: {reason}"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("{vault://env/nope}", None),
        ("{vault://hcv/a}", "there is no vault 'hcv' in kongai; it has 'env'"),
        ("{vault://env}", "expected {vault://env/name}"),
    ],
)
def test_some_references_lead_nowhere_in_any_environment(
    reference: str, text: str | None
) -> None:
    assert problem(reference) == text


def test_a_name_that_no_variable_can_have_is_one_that_is_not_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve("{vault://env/\ud800}") == ""
    assert len(caplog.records) == 1


def ai_proxy(**auth: Any) -> AIProxyConfig:
    return load(
        AIProxyConfig,
        {
            "route_type": "llm/v1/chat",
            "llm_format": "anthropic",
            "model": {
                "provider": "anthropic",
                "options": {"anthropic_version": "2023-06-01"},
            },
            "auth": auth,
        },
    )


def test_a_setting_is_read_from_the_environment_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_KEY", "k")
    config = ai_proxy(
        header_name="x-api-key", header_value="{vault://env/anthropic-key}"
    )
    assert config.auth == Auth(header_name="x-api-key", header_value="k")


def test_a_reference_inside_a_longer_value_is_a_literal() -> None:
    value = "Bearer {vault://env/anthropic-key}"
    config = ai_proxy(header_name="authorization", header_value=value)
    assert config.auth.header_value == value


def test_a_gateway_starts_without_its_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_KEY", raising=False)
    config = ai_proxy(
        header_name="x-api-key", header_value="{vault://env/anthropic-key}"
    )
    assert config.auth.header_value == ""
    assert "ANTHROPIC_KEY is not set" in caplog.text


def test_only_fields_that_say_so_take_references() -> None:
    with pytest.raises(ConfigError) as caught:
        ai_proxy(param_location="{vault://env/anthropic-key}")
    assert "auth.param_location: expected one of: body, query" in str(caught.value)
