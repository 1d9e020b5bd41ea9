from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai.criteria import normalize
from kongai.entities import (
    Consumer,
    KeyAuthCredential,
    Route,
    Service,
    Target,
    Upstream,
)
from kongai.exchange import Exchange
from kongai.incoming import client_headers
from kongai.load_balancing import LoadBalancer, Peer, Turn, hash_key
from kongai.router import Router


def upstream(*weights: int, **fields: Any) -> Upstream:
    targets = [
        Target(target=f"10.0.0.{number}:80", weight=weight)
        for number, weight in enumerate(weights, 1)
    ]
    return Upstream(name="u", targets=targets, **fields)


def numbers(balancer: LoadBalancer, count: int) -> list[int]:
    """The numbers of the targets that so many requests, one by one, go to."""
    found = []
    for _ in range(count):
        peer = balancer.choose(None)
        assert peer is not None
        balancer.release(peer)
        found.append(number_of(peer))
    return found


def number_of(peer: Peer | None) -> int:
    assert peer is not None
    return int(peer.host.rpartition(".")[2])


# In turn


@pytest.mark.parametrize(
    "weights", [(100,), (1, 1), (100, 100, 100), (10, 20, 50, 20), (1, 7), (3, 5, 7)]
)
@pytest.mark.parametrize("already", [0, 1, 5])
def test_every_run_of_a_cycle_has_the_exact_shares(
    weights: tuple[int, ...], already: int
) -> None:
    balancer = LoadBalancer(upstream(*weights))
    numbers(balancer, already)
    assert Counter(numbers(balancer, sum(weights))) == dict(enumerate(weights, 1))


def test_a_heavy_target_does_not_get_its_share_in_one_go() -> None:
    order = numbers(LoadBalancer(upstream(5, 1, 1)), 7)
    assert max(len(run) for run in "".join(map(str, order)).split("2")) < 5


@pytest.mark.parametrize(
    "algorithm", ["round-robin", "least-connections", "consistent-hashing"]
)
def test_a_target_without_weight_gets_nothing(algorithm: Any) -> None:
    balancer = LoadBalancer(upstream(0, 10, algorithm=algorithm))
    chosen = [balancer.choose(str(key)) for key in range(50)]
    assert {number_of(peer) for peer in chosen} == {2}


@pytest.mark.parametrize("weights", [(), (0,), (0, 0)])
@pytest.mark.parametrize(
    "algorithm", ["round-robin", "least-connections", "consistent-hashing"]
)
def test_there_may_be_no_target_at_all(
    weights: tuple[int, ...], algorithm: Any
) -> None:
    assert LoadBalancer(upstream(*weights, algorithm=algorithm)).choose("key") is None


# By connections


def test_the_target_with_the_fewest_requests_for_its_weight_is_next() -> None:
    balancer = LoadBalancer(upstream(10, 30, algorithm="least-connections"))
    order = [number_of(balancer.choose(None)) for _ in range(8)]
    assert Counter(order) == {1: 2, 2: 6}
    assert order[:2] == [2, 2]


def test_what_is_over_counts_no_more() -> None:
    balancer = LoadBalancer(upstream(10, 30, algorithm="least-connections"))
    assert numbers(balancer, 20) == [2] * 20


def test_a_target_that_is_let_go_is_free_once() -> None:
    balancer = LoadBalancer(upstream(1, algorithm="least-connections"))
    (peer,) = balancer.peers
    first, second = Turn(balancer), Turn(balancer)
    first.next(None, ())
    second.next(None, ())
    assert peer.under_way == 2
    first.end()
    first.end()
    assert peer.under_way == 1
    second.next(None, (peer,))
    assert peer.under_way == 1
    second.end()
    assert peer.under_way == 0


# By a hash

KEYS = [f"user {number}" for number in range(4000)]


def mapping(balancer: LoadBalancer) -> dict[str, str]:
    chosen = {key: balancer.choose(key) for key in KEYS}
    return {key: peer.host for key, peer in chosen.items() if peer is not None}


def test_the_same_key_leads_to_the_same_target_in_every_process() -> None:
    hashing = upstream(10, 10, 20, algorithm="consistent-hashing")
    assert mapping(LoadBalancer(hashing)) == mapping(LoadBalancer(hashing))
    names = [number_of(LoadBalancer(hashing).choose(key)) for key in KEYS[:8]]
    assert names == [3, 2, 2, 2, 3, 3, 3, 3]


def test_shares_of_the_keys_are_as_the_weights() -> None:
    balancer = LoadBalancer(upstream(10, 10, 20, algorithm="consistent-hashing"))
    shares = Counter(mapping(balancer).values())
    assert shares["10.0.0.1"] == pytest.approx(1000, rel=0.1)
    assert shares["10.0.0.3"] == pytest.approx(2000, rel=0.1)


def test_when_a_target_goes_only_its_own_keys_move() -> None:
    hashing = upstream(10, 10, 20, 40, algorithm="consistent-hashing")
    less = Upstream(
        name="u", algorithm="consistent-hashing", targets=hashing.targets[:3]
    )
    before, after = mapping(LoadBalancer(hashing)), mapping(LoadBalancer(less))
    moved = {before[key] for key in KEYS if before[key] != after[key]}
    assert moved == {"10.0.0.4"}
    heirs = Counter(after[key] for key in KEYS if before[key] == "10.0.0.4")
    assert heirs["10.0.0.3"] > 1.5 * heirs["10.0.0.1"]


def test_without_a_key_requests_take_turns() -> None:
    balancer = LoadBalancer(upstream(1, 1, algorithm="consistent-hashing"))
    assert Counter(numbers(balancer, 10)) == {1: 5, 2: 5}


# Again


@pytest.mark.parametrize(
    "algorithm", ["round-robin", "least-connections", "consistent-hashing"]
)
def test_a_request_that_failed_goes_where_it_was_not_yet(algorithm: Any) -> None:
    balancer = LoadBalancer(upstream(1, 5, 100, algorithm=algorithm))
    for key in KEYS[:20]:
        turn, tried = Turn(balancer), []
        for _ in range(3):
            peer = turn.next(key, tried)
            assert peer is not None
            tried.append(peer)
        assert {number_of(peer) for peer in tried} == {1, 2, 3}
        assert turn.next(key, tried) is not None
        turn.end()
    assert [peer.under_way for peer in balancer.peers] == [0, 0, 0]


# What decides

CONSUMER = Consumer(id="the consumer's id", username="alice")


def exchange(
    target: str = "/", headers: Sequence[tuple[str, str]] = (), **route: Any
) -> Exchange:
    environ = EnvironBuilder(
        path=target.partition("?")[0], environ_base={"REMOTE_ADDR": "192.0.2.7"}
    ).get_environ()
    for name, value in headers:
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    request = Request(environ)
    made = Exchange(
        request,
        target=target,
        path=normalize(target.partition("?")[0]),
        headers=client_headers(request),
    )
    for name, value in headers:
        if name not in made.headers:
            made.headers.add(name, value)
    pairs = [(Route(paths=("/", r"~/of/(?<team>\w+)"), **route), Service(host="u"))]
    made.match = Router(pairs).match("GET", "", made.path, made.headers)
    return made


@pytest.mark.parametrize(
    ("fields", "given", "key"),
    [
        ({}, exchange(), None),
        ({"hash_on": "ip"}, exchange(), "192.0.2.7"),
        ({"hash_on": "path"}, exchange("/a/./b?c=d"), "/a/b"),
        (
            {"hash_on": "header", "hash_on_header": "X-User"},
            exchange(headers=[("x-user", "alice")]),
            "alice",
        ),
        ({"hash_on": "header", "hash_on_header": "X-User"}, exchange(), None),
        (
            {"hash_on": "query_arg", "hash_on_query_arg": "k"},
            exchange("/?k=a%20b&j=c"),
            "a b",
        ),
        (
            {"hash_on": "query_arg", "hash_on_query_arg": "k"},
            exchange("/?k=b&k=a"),
            "a,b",
        ),
        ({"hash_on": "query_arg", "hash_on_query_arg": "k"}, exchange("/?j=c"), None),
        (
            {"hash_on": "uri_capture", "hash_on_uri_capture": "team"},
            exchange("/of/search"),
            "search",
        ),
        (
            {"hash_on": "uri_capture", "hash_on_uri_capture": "team"},
            exchange("/elsewhere"),
            None,
        ),
        (
            {
                "hash_on": "query_arg",
                "hash_on_query_arg": "k",
                "hash_fallback": "header",
                "hash_fallback_header": "x-user",
            },
            exchange("/?j=c", headers=[("x-user", "alice")]),
            "alice",
        ),
        ({"hash_on": "consumer", "hash_fallback": "ip"}, exchange(), "192.0.2.7"),
    ],
)
def test_what_of_a_request_decides(
    fields: dict[str, Any], given: Exchange, key: str | None
) -> None:
    assert hash_key(upstream(1, **fields), given) == key


def test_a_consumer_decides_by_its_id_and_else_its_key_does() -> None:
    by_consumer = upstream(1, hash_on="consumer", hash_fallback="ip")
    given = exchange()
    given.credential = KeyAuthCredential(id="the key's id")
    assert hash_key(by_consumer, given) == "the key's id"
    given.consumer = CONSUMER
    assert hash_key(by_consumer, given) == "the consumer's id"


def test_a_cookie_decides_and_is_set_where_it_is_missing() -> None:
    by_cookie = upstream(
        1, hash_on="cookie", hash_on_cookie="stick", hash_on_cookie_path="/shop"
    )
    known = exchange(headers=[("cookie", "a=b; stick=here")])
    assert (hash_key(by_cookie, known), known.set_cookies) == ("here", [])
    new = exchange()
    value = hash_key(by_cookie, new)
    (cookie,) = new.set_cookies
    assert cookie.startswith(f"stick={value}; Path=/shop")
    assert hash_key(by_cookie, exchange()) != value


@pytest.mark.parametrize(
    ("fields", "target", "scheme", "header"),
    [
        ({}, "10.0.0.1:80", "http", "10.0.0.1"),
        ({}, "10.0.0.1:80", "https", "10.0.0.1:80"),
        ({}, "one.example", "http", "one.example:8000"),
        ({}, "[::1]:443", "https", "[::1]"),
        ({"host_header": "api.example"}, "10.0.0.1:443", "https", "api.example"),
        ({"host_header": "api.example"}, "10.0.0.1:81", "http", "api.example:81"),
        ({"host_header": "api.example:9"}, "10.0.0.1:81", "http", "api.example:9"),
        ({"host_header": "[::1]"}, "10.0.0.1:81", "http", "[::1]:81"),
    ],
)
def test_the_host_header_names_the_target_or_what_the_upstream_says(
    fields: dict[str, Any], target: str, scheme: str, header: str
) -> None:
    balancer = LoadBalancer(
        Upstream(name="u", targets=[Target(target=target)], **fields)
    )
    assert balancer.host_header(scheme, balancer.peers[0]) == header
