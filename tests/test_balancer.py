from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import repeat
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai.balancer import IDEMPOTENT, Address, forward, retrying, to_service
from kongai.entities import (
    CACertificate,
    Certificate,
    Route,
    Service,
    Target,
    Upstream,
)
from kongai.errors import NoPeer, NoServiceFound, UpstreamError, UpstreamTimeout
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.incoming import client_headers, raw_target
from kongai.load_balancing import LoadBalancer
from kongai.router import Router
from kongai.testing import answer
from kongai.tls import TLS

Plan = Generator[UpstreamRequest, Attempt, None]

SENT = UpstreamError(sent=True)
UNSENT = UpstreamError(sent=False)
LATE = UpstreamTimeout(sent=True)
STALE = UpstreamError(sent=True, stale=True)
NO_HTTP = UpstreamError(sent=True, hopeless=True)
HOPELESS = UpstreamError(sent=False, hopeless=True)


def request(
    method: str = "GET", body: bytes | Iterable[bytes] | None = None
) -> UpstreamRequest:
    return UpstreamRequest(method, "http", "h", 80, "/", [], body)


def tries(plan: Plan, outcomes: Iterable[UpstreamError | int]) -> int:
    """How often a plan tries, when the tries end like this and the last goes on."""
    asked = next(plan)
    for count, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, UpstreamError):
            attempt = Attempt(asked, error=outcome)
        else:
            attempt = Attempt(asked, response=answer(status=outcome))
        try:
            asked = plan.send(attempt)
        except StopIteration:
            return count
    raise AssertionError("the plan wants to go on")


@pytest.mark.parametrize(
    ("method", "body", "outcomes", "count"),
    [
        ("GET", None, [200], 1),
        ("GET", None, [UNSENT] * 9, 6),
        ("GET", None, [SENT] * 9, 6),
        ("GET", None, [LATE] * 9, 6),
        ("GET", None, [SENT, UNSENT, 200], 3),
        ("GET", None, [500], 1),
        ("GET", None, [SENT, 503], 2),
        ("GET", None, [HOPELESS], 1),
        ("GET", None, [NO_HTTP], 1),
        ("GET", None, [SENT, NO_HTTP], 2),
        ("GET", None, [STALE] + [SENT] * 9, 7),
        ("GET", None, [STALE] * 9, 7),
        ("PUT", b"x", [UNSENT, STALE, 200], 3),
        ("PUT", "stream", [STALE], 1),
        ("POST", b"x", [STALE], 1),
        ("POST", b"x", [UNSENT, STALE], 2),
        ("PUT", b"x", [SENT] * 9, 6),
        ("DELETE", None, [SENT] * 9, 6),
        ("HEAD", None, [SENT] * 9, 6),
        ("OPTIONS", None, [SENT] * 9, 6),
        ("POST", b"x", [200], 1),
        ("POST", b"x", [429], 1),
        ("POST", b"x", [UNSENT] * 9, 6),
        ("POST", b"x", [SENT], 1),
        ("POST", b"x", [LATE], 1),
        ("POST", b"x", [UNSENT, SENT], 2),
        ("POST", b"x", [UNSENT, 200], 2),
        ("POST", b"x", [HOPELESS], 1),
        ("POST", None, [SENT], 1),
        ("PATCH", b"x", [SENT], 1),
        ("PATCH", b"x", [UNSENT, SENT], 2),
        ("get", None, [SENT], 1),
        ("MADE-UP", None, [SENT], 1),
        ("PUT", "stream", [SENT], 1),
        ("PUT", "stream", [UNSENT, UNSENT, SENT], 3),
        ("POST", "stream", [UNSENT] * 9, 6),
        ("GET", "stream", [SENT], 1),
    ],
)
def test_what_is_tried_again(
    method: str, body: Any, outcomes: list[UpstreamError | int], count: int
) -> None:
    sent = iter([b"x"]) if body == "stream" else body
    assert tries(retrying(repeat(request(method, sent)), 5), outcomes) == count


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_the_first_try_is_none_of_the_retries(retries: int) -> None:
    assert tries(retrying(repeat(request()), retries), [UNSENT] * 20) == retries + 1


def test_a_connection_gone_stale_is_no_failure_of_the_service() -> None:
    assert tries(retrying(repeat(request()), 0), [STALE, 200]) == 2
    assert tries(retrying(repeat(request()), 0), [STALE, STALE]) == 2
    assert tries(retrying(repeat(request("POST", b"x")), 0), [STALE]) == 1


def test_it_is_the_same_request_each_time() -> None:
    asked = request("POST", b"prompt")
    plan = retrying(repeat(asked), 2)
    assert next(plan) is asked
    assert plan.send(Attempt(asked, error=UNSENT)) is asked


def at(*hosts: str) -> list[UpstreamRequest]:
    return [UpstreamRequest("GET", "http", host, 80, "/", []) for host in hosts]


def test_where_one_target_is_hopeless_another_is_tried() -> None:
    assert tries(retrying(at("a", "b", "c"), 5), [HOPELESS, HOPELESS, 200]) == 3


def test_a_hopeless_target_is_not_tried_again() -> None:
    assert tries(retrying(at("a", "b", "a"), 5), [HOPELESS, UNSENT]) == 2


def test_a_prompt_is_never_sent_twice() -> None:
    """It would be billed twice."""
    assert not {"POST", "PATCH", "CONNECT"} & IDEMPOTENT


def matched(
    service: Service | None,
    route: Route | None = None,
    *,
    target: str = "/route/a?b=1",
    **environ: Any,
) -> Exchange:
    path, _, query = target.partition("?")
    made = EnvironBuilder(path=path, query_string=query, **environ).get_environ()
    made["REQUEST_URI"] = target
    incoming = Request(made)
    exchange = Exchange(
        incoming,
        target=raw_target(made),
        path=path,
        headers=client_headers(incoming),
    )
    router = Router([(route or Route(paths=("/route",)), service)])
    exchange.match = router.match(
        incoming.method, exchange.host, path, exchange.headers
    )
    return exchange


def test_a_route_leads_to_its_service() -> None:
    service = Service("https://api.example:8443/base", retries=2)
    exchange = matched(service, method="POST", data=b"hello", base_url="http://front")
    exchange.read_body()
    plan = to_service(exchange)
    asked = next(plan)
    assert (asked.method, asked.scheme, asked.host, asked.port, asked.target) == (
        "POST",
        "https",
        "api.example",
        8443,
        "/base/a?b=1",
    )
    assert asked.body == b"hello"
    assert asked.headers[0] == ("Host", "api.example:8443")
    assert ("Content-Length", "5") in asked.headers
    plan.close()
    assert tries(to_service(exchange), [UNSENT] * 9) == 3


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/route/a", "/a"),
        ("/route/a?", "/a?"),
        ("/route/a?b=%zz&c=1%202+3", "/a?b=%zz&c=1%202+3"),
        ("/route/a?b?c", "/a?b?c"),
    ],
)
def test_the_query_goes_upstream_as_it_came(target: str, wanted: str) -> None:
    asked = next(to_service(matched(Service("http://h"), target=target)))
    assert asked.target == wanted


@pytest.mark.parametrize(
    ("url", "preserve", "sent", "host"),
    [
        ("http://h", False, "front.example:81", "h"),
        ("http://h:81", False, "front.example", "h:81"),
        ("https://h", False, "front.example", "h"),
        ("http://h:443", False, "front.example", "h:443"),
        ("http://[::1]:81", False, "front.example", "[::1]:81"),
        ("http://h:81", True, "front.example", "front.example"),
        ("http://h:81", True, "front.example:80", "front.example:80"),
        ("http://h:81", True, "Front.example:8000", "Front.example:8000"),
    ],
)
def test_the_host_header_is_the_services_or_the_clients(
    url: str, preserve: bool, sent: str, host: str
) -> None:
    route = Route(paths=("/route",), preserve_host=preserve)
    exchange = matched(Service(url), route, headers={"Host": sent})
    assert next(to_service(exchange)).headers[0] == ("Host", host)


def test_a_route_without_a_service_leads_nowhere() -> None:
    for exchange in (matched(None), matched(Service()), matched(Service("http://h"))):
        if exchange.service is not None and exchange.service.host is not None:
            exchange.match = None
        with pytest.raises(NoServiceFound, match="^no Service found"):
            next(to_service(exchange))


def test_a_service_sets_time_outs_retries_and_verification() -> None:
    service = Service(
        "https://h",
        connect_timeout=1500,
        read_timeout=2500,
        retries=7,
        tls_verify=False,
    )
    exchange = matched(service)
    asked = next(to_service(exchange))
    assert (asked.connect_timeout, asked.read_timeout) == (1.5, 2.5)
    assert asked.verify is False
    assert tries(to_service(exchange), [UNSENT] * 9) == 8


@pytest.mark.parametrize("verify", [None, True, False])
def test_a_services_certificates_hold_at_every_address(verify: bool | None) -> None:
    """At that of a model's provider as well."""
    service = Service(
        "https://h",
        tls_verify=verify,
        tls_verify_depth=2,
        ca_certificates=[CACertificate(cert="one"), CACertificate(cert="other")],
        client_certificate=Certificate(cert="shown", key="secret"),
    )
    exchange = matched(service)
    elsewhere = forward(exchange, Address("https", "provider", 443, "provider"), "/")
    for plan in (to_service(exchange), elsewhere):
        asked = next(plan)
        assert asked.verify is (verify is not False)
        assert asked.tls.authorities == ("one", "other")
        assert (asked.tls.certificate, asked.tls.key) == ("shown", "secret")
        assert asked.tls.depth == 2


@pytest.mark.parametrize("service", [None, Service(), Service("https://h")])
def test_without_settings_kongs_hold_and_certificates_are_verified(
    service: Service | None,
) -> None:
    exchange = matched(service)
    address = Address("https", "h", 443, "h")
    asked = next(forward(exchange, address, "/"))
    assert (asked.connect_timeout, asked.read_timeout) == (60.0, 60.0)
    assert asked.verify is True
    assert asked.tls == TLS()
    assert tries(forward(exchange, address, "/"), [UNSENT] * 9) == 6


def test_an_upstream_gets_headers_and_a_body_of_its_own() -> None:
    """What one target is sent, its credential above all, is not the next one's."""
    exchange = matched(None, method="POST", data=b"hello", headers={"x-api-key": "a"})
    exchange.read_body()
    headers = exchange.headers.copy()
    headers["x-api-key"] = "b"
    address = Address("https", "h", 443, "h")
    first = next(forward(exchange, address, "/", headers=headers, body=b"hi"))
    assert ("x-api-key", "b") in [(n.lower(), v) for n, v in first.headers]
    assert (first.body, exchange.body) == (b"hi", b"hello")
    assert exchange.sent_headers is headers
    second = next(forward(exchange, address, "/"))
    assert ("x-api-key", "a") in [(n.lower(), v) for n, v in second.headers]
    assert second.body == b"hello"
    assert exchange.sent_headers is None


# Among targets


def shared(**fields: Any) -> Exchange:
    """A request for a service with an upstream of two targets."""
    targets = [Target(target="one.example:8080"), Target(target="two.example:80")]
    exchange = matched(Service(host="u", path="/base"), **fields)
    upstream = Upstream(name="u", targets=targets)
    exchange.upstreams = {"u": LoadBalancer(upstream)}
    return exchange


def under_way(exchange: Exchange) -> list[int]:
    return [peer.under_way for peer in exchange.upstreams["u"].peers]


def where(request: UpstreamRequest) -> tuple[str, int, list[str]]:
    hosts = [value for name, value in request.headers if name == "Host"]
    return request.host, request.port, hosts


def test_a_service_named_like_an_upstream_goes_to_its_targets() -> None:
    exchange = shared()
    plan = to_service(exchange)
    request = next(plan)
    assert where(request) == ("one.example", 8080, ["one.example:8080"])
    assert request.target.startswith("/base")
    request = plan.send(Attempt(request, error=UNSENT))
    assert where(request) == ("two.example", 80, ["two.example"])


def test_targets_get_the_clients_host_where_the_route_says_so() -> None:
    route = Route(paths=("/route",), preserve_host=True)
    request = next(to_service(shared(route=route, headers={"Host": "asked.example"})))
    assert where(request) == ("one.example", 8080, ["asked.example"])


def test_the_count_of_what_is_under_way_follows_the_exchange() -> None:
    exchange = shared()
    plan = to_service(exchange)
    request = next(plan)
    assert under_way(exchange) == [1, 0]
    plan.send(Attempt(request, error=UNSENT))
    assert under_way(exchange) == [0, 1]
    exchange.let_go()
    exchange.let_go()
    assert under_way(exchange) == [0, 0]


def test_there_is_no_peer_where_no_target_has_weight() -> None:
    exchange = shared()
    exchange.upstreams = {"u": LoadBalancer(Upstream(name="u"))}
    with pytest.raises(NoPeer):
        next(to_service(exchange))


def test_once_all_targets_have_failed_those_without_hope_are_left_out() -> None:
    plan = to_service(shared())
    asked = [next(plan)]
    for error in (HOPELESS, UNSENT, UNSENT):
        asked.append(plan.send(Attempt(asked[-1], error=error)))
    names = [request.host.partition(".")[0] for request in asked]
    assert names == ["one", "two", "two", "two"]
    with pytest.raises(StopIteration):
        plan.send(Attempt(asked[-1], error=HOPELESS))
