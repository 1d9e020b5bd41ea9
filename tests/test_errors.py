from __future__ import annotations

import pytest

from kongai import errors
from kongai.errors import (
    AnswerCut,
    BodyIncomplete,
    ClientGone,
    ClientStalled,
    ClientTimeout,
    ConfigError,
    GatewayError,
    HTTPSRequired,
    KongAIError,
    LogUnavailable,
    NoPeer,
    NoRouteMatched,
    NoServiceFound,
    Overloaded,
    Problem,
    Refused,
    RequestRejected,
    ServerStopping,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    whereabouts,
)

SECRET = "c4nary-5f1d"


ANSWERS = [
    (GatewayError, KongAIError, 500, "An unexpected error occurred", "internal"),
    (
        NoRouteMatched,
        GatewayError,
        404,
        "no Route matched with those values",
        "no_route",
    ),
    (
        NoServiceFound,
        GatewayError,
        503,
        "no Service found with those values",
        "no_service",
    ),
    (
        NoPeer,
        GatewayError,
        503,
        "failure to get a peer from the ring-balancer",
        "no_peer",
    ),
    (
        HTTPSRequired,
        GatewayError,
        426,
        "Please use HTTPS protocol",
        "https_required",
    ),
    (RequestRejected, GatewayError, 400, "Bad request", "bad_request"),
    (Refused, RequestRejected, 400, "Bad request", "bad_request"),
    (
        BodyIncomplete,
        RequestRejected,
        400,
        "The request body is incomplete",
        "client_abort",
    ),
    (ClientTimeout, RequestRejected, 408, "Request timeout", "client_timeout"),
    (ServerStopping, GatewayError, 503, "The gateway is stopping", "shutdown"),
    (Overloaded, GatewayError, 503, "The gateway is overloaded", "overload"),
    (
        LogUnavailable,
        GatewayError,
        503,
        "The log can't be written",
        "log_unavailable",
    ),
    (
        UpstreamError,
        GatewayError,
        502,
        "An invalid response was received from the upstream server",
        "upstream_protocol",
    ),
    (
        UpstreamTimeout,
        UpstreamError,
        504,
        "The upstream server is timing out",
        "first_byte_timeout",
    ),
    (
        UpstreamTruncated,
        UpstreamError,
        502,
        "upstream stream ended early",
        "upstream_cut",
    ),
]


@pytest.mark.parametrize(("kind", "parent", "status", "message", "ended"), ANSWERS)
def test_each_error_has_its_status_its_words_and_its_end(
    kind: type[GatewayError],
    parent: type[KongAIError],
    status: int,
    message: str,
    ended: str,
) -> None:
    error = kind()
    assert isinstance(error, parent)
    assert (error.status, error.message, error.ended) == (status, message, ended)
    assert str(error) == message
    other = kind("Other", status=499, ended="other")
    assert (other.status, other.message, other.ended) == (499, "Other", "other")
    assert str(other) == "Other"
    assert (kind().status, kind().message) == (status, message)


def test_every_error_that_is_an_answer_is_in_the_table() -> None:
    answers = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GatewayError)
    }
    assert {row[0] for row in ANSWERS} == answers


@pytest.mark.parametrize("kind", [UpstreamError, UpstreamTimeout, UpstreamTruncated])
def test_an_upstreams_error_says_whether_to_try_again(
    kind: type[UpstreamError],
) -> None:
    assert kind().sent
    assert not kind().hopeless
    assert not kind(sent=False).sent
    assert kind(hopeless=True).hopeless


def test_a_client_that_left_is_not_caught_by_accident() -> None:
    assert not issubclass(ClientGone, Exception)
    assert ClientGone().ended == ClientGone.ended == "client_abort"
    assert issubclass(AnswerCut, KongAIError)


def test_a_client_that_does_not_read_counts_as_gone() -> None:
    assert issubclass(ClientStalled, ClientGone)
    assert ClientStalled().ended == "write_timeout"


def test_an_overloaded_gateway_says_when_to_come_again() -> None:
    assert dict(Overloaded().headers) == {"Retry-After": "1"}
    assert not issubclass(AnswerCut, GatewayError)


@pytest.mark.parametrize(
    ("problem", "source", "line"),
    [
        (Problem("services[0].url", "bad"), None, "services[0].url: bad"),
        (Problem("", "bad"), None, "bad"),
        (Problem("a.b", "bad", 7), None, "7: a.b: bad"),
        (Problem("a.b", "bad", 7), "kong.yml", "kong.yml:7: a.b: bad"),
        (Problem("a.b", "bad"), "kong.yml", "kong.yml: a.b: bad"),
        (Problem("", "bad", 7), "kong.yml", "kong.yml:7: bad"),
    ],
)
def test_a_problem_says_where(problem: Problem, source: str | None, line: str) -> None:
    error = ConfigError([problem], source)
    assert error.lines() == [line]
    assert str(error) == line
    assert isinstance(error, KongAIError)


def test_all_problems_are_told_in_order() -> None:
    problems = [Problem("b", "one", 1), Problem("a", "two", 2)]
    error = ConfigError(iter(problems), "kong.yml")
    assert error.problems == problems
    assert str(error) == "kong.yml:1: b: one\nkong.yml:2: a: two"


def fail() -> None:
    raise ValueError(f"https://up.example/?key={SECRET}")


def test_whereabouts_name_the_place_and_never_the_text() -> None:
    with pytest.raises(ValueError, match=SECRET) as caught:
        fail()
    text = whereabouts(caught.value)
    assert text.startswith("ValueError at ")
    assert text.endswith(" fail")
    assert __file__ in text
    assert SECRET not in text


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert whereabouts(KeyError(SECRET)) == "KeyError at an unknown place"
