from __future__ import annotations

from collections.abc import Generator

import pytest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Request

from kongai import Plugin, Proxy
from kongai.errors import NoServiceFound, UpstreamError
from kongai.exchange import Attempt, Exchange, UpstreamRequest, UpstreamResponse
from kongai.plugin import Chain
from kongai.sending import send
from kongai.testing import ListSink, MockTransport, answer


class Hosts(Plugin):
    """Tries one host after the other until one answers with 200."""

    name = "hosts"

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    def balancer(self, exchange: Exchange) -> Generator[UpstreamRequest, Attempt, None]:
        for host in self.hosts:
            attempt = yield UpstreamRequest("GET", "http", host, 80, "/", [])
            if attempt.response is not None and attempt.response.status == 200:
                return


def exchange(*hosts: str) -> Exchange:
    request = Request(EnvironBuilder("/").get_environ())
    return Exchange(request, chain=Chain([Hosts(*hosts)]))


def upstreams(request: UpstreamRequest) -> UpstreamResponse:
    """Answers with the status that the host's name says, or not at all."""
    if request.host.isdecimal():
        found = answer(status=int(request.host))
        found.peer = ("10.0.0.1", 8080)
        return found
    raise UpstreamError(ended=request.host, sent=False)


def tries(exchange: Exchange) -> list[tuple[str, int, str | None, int | None]]:
    return [(one.ip, one.port, one.state, one.code) for one in exchange.tries]


def test_each_try_is_noted() -> None:
    asked = exchange("connect", "503", "200", "never")
    assert send(asked, MockTransport(upstreams)).status == 200
    assert tries(asked) == [
        ("connect", 80, "failed", 502),
        ("10.0.0.1", 8080, "next", 503),
        ("10.0.0.1", 8080, None, None),
    ]
    assert asked.upstream_request is not None
    assert asked.upstream_request.host == "200"
    assert asked.timings.sent is not None
    assert asked.timings.answered is not None


def test_the_last_outcome_stands() -> None:
    assert send(exchange("connect", "500"), MockTransport(upstreams)).status == 500
    with pytest.raises(UpstreamError) as caught:
        send(exchange("500", "connect"), MockTransport(upstreams))
    assert caught.value.ended == "connect"


def test_who_has_no_address_was_not_asked() -> None:
    asked = exchange("dns")
    with pytest.raises(UpstreamError):
        send(asked, MockTransport(upstreams))
    assert asked.tries == []
    assert asked.timings.sent is None


def test_without_a_plan_there_is_no_service() -> None:
    with pytest.raises(NoServiceFound):
        send(exchange(), MockTransport(upstreams))


class Failover(Plugin):
    name = "failover"

    def balancer(self, exchange: Exchange) -> Generator[UpstreamRequest, Attempt, None]:
        for host in ("first", "second"):
            attempt = yield UpstreamRequest("GET", "http", host, 80, "/", [])
            if attempt.response is not None and attempt.response.status == 200:
                return


def test_an_answer_that_a_balancer_passes_over_is_a_try_of_its_own() -> None:
    busy, good = answer(b"busy", status=429), answer(b"good")
    transport = MockTransport(lambda r: busy if r.host == "first" else good)
    rows = ListSink()
    proxy = Proxy(plugins=[Failover()], sinks=[rows], transport=transport)
    with Client(proxy).get("/") as found:
        assert found.get_data() == b"good"
    assert (busy.closed, good.closed) == (1, 1)
    (row,) = rows
    assert [(t["ip"], t.get("state"), t.get("code")) for t in row["tries"]] == [
        ("first", "next", 429),
        ("second", None, None),
    ]
    assert row["upstream_status"] == "429, 200"


class Nowhere(Plugin):
    name = "nowhere"

    def balancer(self, exchange: Exchange) -> Generator[UpstreamRequest, Attempt, None]:
        yield from ()


def test_a_balancer_that_knows_no_upstream_leads_nowhere() -> None:
    transport = MockTransport(lambda request: answer(b""))
    with Client(Proxy(plugins=[Nowhere()], transport=transport)).get("/") as found:
        assert found.status_code == 503
