from __future__ import annotations

import msgspec
import pytest

from kongai.entities import Route

ONE_OF = "must set one of 'methods', 'hosts', 'headers', 'paths'"
FOR_TLS = (
    "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or "
    "'tls_passthrough'"
)
NO_HOST = (
    "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
)


def test_a_route_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Route(name="r").name = "x"  # type: ignore[misc]
    assert msgspec.structs.replace(Route(name="r"), name="x").name == "x"


@pytest.mark.parametrize(
    ("route", "path", "text"),
    [
        (Route(), "", f"{ONE_OF}, 'snis' when 'protocols' is 'https'"),
        (Route(protocols=["http"]), "", f"{ONE_OF} when 'protocols' is 'http'"),
        (Route(protocols=["http"], paths=["/"], snis=["a"]), "snis", FOR_TLS),
        (Route(paths=["/", "//"]), "paths.1", "must not have empty segments"),
        (Route(hosts=["a", "a b"]), "hosts.1", "invalid hostname: a b"),
        (Route(snis=["a", "::1"]), "snis.1", "must not be an IP"),
        (Route(headers={"Host": ["x"]}), "headers", NO_HOST),
    ],
)
def test_what_a_route_may_not_be(route: Route, path: str, text: str) -> None:
    assert list(route.problems()) == [(path, text)]


def test_one_thing_to_ask_for_is_enough() -> None:
    for route in (
        Route(methods=["GET"]),
        Route(hosts=["*.example"]),
        Route(paths=["~/a$"]),
        Route(headers={"x-team": ["search"]}),
        Route(snis=["a.example"]),
    ):
        assert list(route.problems()) == []
