from __future__ import annotations

import os
import re
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import Client, TestResponse

from kongai import Plugin, Proxy, RequestRejected
from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.exchange import Exchange
from kongai.plugins.correlation_id import CorrelationId, CorrelationIdConfig
from kongai.testing import ListSink, MockTransport, answer

HEADER = "Kong-Request-ID"
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Gateway:
    def __init__(self, *plugins: Plugin, **settings: Any) -> None:
        self.records = ListSink()
        self.transport = MockTransport(lambda _: answer(b"{}"))
        self.proxy = Proxy(
            [Service("http://up.test", routes=[Route(paths=["/r"])])],
            plugins=[CorrelationId(**settings), *plugins],
            sinks=[self.records],
            transport=self.transport,
        )

    def ask(
        self, path: str = "/r", headers: tuple[tuple[str, str], ...] = ()
    ) -> TestResponse:
        environ = {"kongai.headers": [("Host", "h"), *headers], "REMOTE_PORT": "7"}
        return Client(self.proxy).get(path, environ_overrides=environ, buffered=True)

    @property
    def sent(self) -> Headers:
        return Headers(self.transport.requests[-1].headers)


@pytest.mark.parametrize(
    ("generator", "pattern"),
    [
        (None, rf"{UUID}#\d+"),
        ("uuid#counter", rf"{UUID}#\d+"),
        ("uuid", UUID),
        ("tracker", rf"localhost-80-{os.getpid()}-7-\d+-\d{{10}}\.\d{{3}}"),
    ],
    ids=["none", "uuid#counter", "uuid", "tracker"],
)
def test_each_request_has_an_id_of_its_own(generator: str | None, pattern: str) -> None:
    gateway = Gateway(**({"generator": generator} if generator else {}))
    found = []
    for _ in range(3):
        assert HEADER not in gateway.ask().headers
        found.append(gateway.sent[HEADER])
        assert re.fullmatch(pattern, found[-1])
    assert len(set(found)) == 3
    assert [record["correlation_id"] for record in gateway.records] == found


def test_requests_are_counted_and_each_process_counts_for_itself() -> None:
    gateway = Gateway()
    ids = []
    for started in (False, False, True):
        if started:
            gateway.proxy.init_worker()
        gateway.ask()
        ids.append(gateway.sent[HEADER].split("#"))
    (first, one), (second, two), (third, three) = ids
    assert first == second != third
    assert (one, two, three) == ("1", "2", "1")


def test_a_clients_own_id_is_kept() -> None:
    gateway = Gateway(echo_downstream=True)
    response = gateway.ask(headers=(("kong-request-id", "mine"), ("X", "1")))
    assert gateway.sent.getlist(HEADER) == ["mine"]
    assert response.headers[HEADER] == "mine"
    assert gateway.records[-1]["correlation_id"] == "mine"


def test_of_several_the_first_is_echoed_and_all_are_kept() -> None:
    gateway = Gateway(echo_downstream=True)
    response = gateway.ask(headers=((HEADER, "a"), (HEADER, "b")))
    assert gateway.sent.getlist(HEADER) == ["a", "b"]
    assert response.headers.getlist(HEADER) == ["a"]


def test_an_empty_id_is_none() -> None:
    gateway = Gateway(generator="uuid")
    gateway.ask(headers=((HEADER, ""), ("X", "1")))
    [found] = gateway.sent.getlist(HEADER)
    assert re.fullmatch(UUID, found)


def test_the_answer_has_the_id_that_went_upstream() -> None:
    gateway = Gateway(echo_downstream=True, header_name="X-My")
    response = gateway.ask()
    assert response.headers["X-My"] == gateway.sent["X-My"] != ""


def test_refusals_have_it_too() -> None:
    class No(Plugin):
        name = "no"

        def access(self, exchange: Exchange) -> None:
            raise RequestRejected

    gateway = Gateway(No(), echo_downstream=True)
    response = gateway.ask()
    assert response.status_code == 400
    assert response.headers[HEADER] == gateway.records[-1]["correlation_id"]


def test_what_has_no_route_has_an_id_in_the_answer() -> None:
    response = Gateway(echo_downstream=True).ask("/nowhere")
    assert response.status_code == 404
    assert re.fullmatch(rf"{UUID}#\d+", response.headers[HEADER])
    given = Gateway(echo_downstream=True).ask("/nowhere", ((HEADER, "mine"),))
    assert given.headers[HEADER] == "mine"
    assert HEADER not in Gateway().ask("/nowhere").headers


def test_a_name_that_is_none_of_a_header_is_escaped() -> None:
    gateway = Gateway(echo_downstream=True, header_name="a b:é")
    response = gateway.ask()
    assert gateway.sent["a%20b%3A%C3%A9"] == response.headers["a%20b%3A%C3%A9"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"header_name": ""}, "header_name: length must be at least 1"),
        ({"header_name": 5}, "header_name: expected a string"),
        ({"generator": "x"}, "generator: expected one of: tracker, uuid, uuid#counter"),
        ({"echo_downstream": "x"}, "echo_downstream: expected a boolean"),
        ({"bogus": 1}, "bogus: unknown field"),
    ],
)
def test_settings_that_kong_refuses(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CorrelationId(**fields)
    assert [str(one) for one in caught.value.problems] == [problem]


def test_settings_are_kongs() -> None:
    assert CorrelationId().config == CorrelationIdConfig(
        header_name=HEADER, generator="uuid#counter", echo_downstream=False
    )
