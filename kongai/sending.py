"""Reaching an upstream: does what a balancer says, one attempt after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kongai import balancer
from kongai.errors import NoServiceFound, UpstreamError
from kongai.exchange import (
    Attempt,
    Exchange,
    Try,
    UpstreamRequest,
    UpstreamResponse,
)

if TYPE_CHECKING:
    from kongai.transport import Transport


def send(exchange: Exchange, transport: Transport) -> UpstreamResponse:
    """Send an exchange's request where its balancer says; the last outcome stands.

    Args:
        exchange: the exchange; its tries are noted there.
        transport: how upstreams are reached.

    Raises:
        NoServiceFound: there is nowhere to send it.
        UpstreamError: no attempt gave an answer.
    """
    choose = exchange.chain.balancer
    plan = choose(exchange) if choose else None
    if plan is None:
        plan = balancer.to_service(exchange)
    choosing = time.perf_counter_ns()
    request = next(plan, None)
    if request is None:
        raise NoServiceFound
    while True:
        chosen_in = time.perf_counter_ns() - choosing
        attempt = _attempt(exchange, transport, request, chosen_in)
        choosing = time.perf_counter_ns()
        try:
            request = plan.send(attempt)
        except StopIteration:
            break
        except BaseException:
            _let_go(attempt)
            raise
        if attempt.response is not None:
            last = exchange.tries[-1]
            last.state, last.code = "next", attempt.response.status
        _let_go(attempt)
    if attempt.error is not None:
        raise attempt.error
    assert attempt.response is not None
    return attempt.response


def _attempt(
    exchange: Exchange, transport: Transport, request: UpstreamRequest, chosen_in: int
) -> Attempt:
    exchange.upstream_request = request
    started = Try(time.time_ns(), request.host, request.port, chosen_in)
    exchange.tries.append(started)
    before, exchange.timings.sent = exchange.timings.sent, time.perf_counter()
    try:
        response = transport.send(request)
    except UpstreamError as error:
        if error.ended == "dns":
            # As in Kong, who has no address has not been tried.
            exchange.tries.pop()
            exchange.timings.sent = before
            return Attempt(request, error=error)
        started.state, started.code = "failed", error.status
        return Attempt(request, error=error)
    exchange.timings.answered = time.perf_counter()
    if response.peer is not None:
        started.ip, started.port = response.peer
    return Attempt(request, response=response)


def _let_go(attempt: Attempt) -> None:
    if attempt.response is not None:
        attempt.response.close()
