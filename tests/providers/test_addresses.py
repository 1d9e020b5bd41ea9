from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kongai.providers import PROVIDERS
from kongai.providers.addresses import is_part, is_piece, is_url, objections
from kongai.providers.options import Options


@pytest.mark.parametrize(
    "text",
    [
        *("http://localhost", "https://llm.example:8443/base/v1/messages"),
        *("http://[::1]:8080/", "HTTP://h", "http://h/?a=b"),
    ],
)
def test_urls(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize(
    "text",
    [
        *("llm.example", "llm.example:80", "/v1/messages", "ftp://llm.example/", ""),
        *("http://", "http:///v1", "https://:443/", "http://x:99999/", "http://x:0/"),
        *("http://x:port/", "http://[::1/", "http://h h", "http://h/a b", "http://h\n"),
    ],
)
def test_no_urls(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize("text", ["a", "my-gpt-4.1", "A_b~c", "adb-1.2", "a.b", ".a"])
def test_parts(text: str) -> None:
    assert is_part(text)
    assert is_piece(text)


LEADING_ELSEWHERE = [
    *("", ".", "..", "a b", "a\n", "a?b", "a#b", "a\\b", "\u00e9", "a\tb"),
]


@pytest.mark.parametrize(
    "text", [*LEADING_ELSEWHERE, "a/b", "a@b", "a:80", "a..b", "a%2fb", "a,b"]
)
def test_no_parts(text: str) -> None:
    assert not is_part(text)


@pytest.mark.parametrize("text", ["a/b", "/v1/a:b@c", "a%20b", "a..b", "a/", "a=b&c"])
def test_pieces_of_a_path(text: str) -> None:
    assert is_piece(text)


@pytest.mark.parametrize(
    "text",
    [
        *LEADING_ELSEWHERE,
        *("a/../b", "../b", "a/..", "a/./b", "%2e%2e/b", "a%2f..%2fb", "a/.%2E"),
    ],
)
def test_no_pieces_of_a_path(text: str) -> None:
    assert not is_piece(text)


SAID = "expected letters, digits and any of - . _ ~"


@pytest.mark.parametrize(
    ("provider", "given", "expected"),
    [
        ("openai", {}, []),
        ("openai", {"azure_instance": "a/b"}, []),
        ("azure", {"azure_instance": "a/b"}, [("azure_instance", SAID)]),
        ("azure", {"azure_instance": "evil.test#"}, [("azure_instance", SAID)]),
        (
            "azure",
            {"azure_instance": "a", "azure_deployment_id": "../x"},
            [("azure_deployment_id", SAID)],
        ),
        ("azure", {"azure_instance": "a", "azure_deployment_id": "gpt-4.1"}, []),
        (
            "databricks",
            {"databricks": {"workspace_instance_id": "x@y"}},
            [("databricks.workspace_instance_id", SAID)],
        ),
        ("dashscope", {"dashscope": {"international": False}}, []),
        (
            "openai",
            {"upstream_url": "h"},
            [("upstream_url", "expected an http or https URL")],
        ),
        (
            "openai",
            {"upstream_path": "v1"},
            [("upstream_path", "should start with: /")],
        ),
        (
            "openai",
            {"upstream_path": "/v1?a=b"},
            [("upstream_path", "expected a path without spaces, '?' and '#'")],
        ),
        ("openai", {"upstream_path": "/v1", "upstream_url": "http://h"}, []),
    ],
)
def test_objections(
    provider: str, given: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    options = msgspec.convert(given, Options)
    assert [*objections(PROVIDERS[provider], options)] == expected
