from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder

from kongai import Proxy, Route
from kongai.plugins.ai_paths import below_route


@pytest.mark.parametrize(
    ("route", "path", "below"),
    [
        ("/anything", "/anything", ""),
        ("/anything", "/anything/", ""),
        ("/anything", "/anything/v1/messages", "/v1/messages"),
        ("/anything", "/anything/chat/completions", "/chat/completions"),
        ("/anything", "/anythingelse/v1/messages", "/v1/messages"),
        ("/", "/team/a/v1/models", "/v1/models"),
        ("/v1", "/v1/messages", "/v1/messages"),
        ("/v1/messages", "/v1/messages", "/v1/messages"),
        ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/a/v1", "/a/v1/chat/completions", "/v1/chat/completions"),
        ("/a/v1/chat/completions", "/a/v1/chat/completions", ""),
    ],
)
def test_the_apis_path_begins_with_its_version(
    route: str, path: str, below: str
) -> None:
    proxy = Proxy(routes=[Route(paths=(route,))])
    exchange = proxy.routed(EnvironBuilder(path=path).get_request())
    assert below_route(exchange) == below
