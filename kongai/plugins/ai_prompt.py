"""How long `ai-proxy` keeps a request's body: no longer than something needs it.

Once the provider answers, the request is not sent again, but its answer may take
minutes. All that the body is then good for is the record: for the payload, and for an
estimate of the prompt where the provider does not count it.
"""

from __future__ import annotations

from collections.abc import Callable

from kongai.exchange import Exchange
from kongai.llm.call import Call
from kongai.llm.formats import AnswerReader

LARGE = 1024 * 1024
"""Bytes from which the prompt of a streamed answer is estimated at once rather than
kept until the count comes: that takes some 20 ms a megabyte, and mostly for nothing."""


def let_go(exchange: Exchange, call: Call) -> None:
    """Drop the body, and give its room to others."""
    if not exchange.body_forgotten:
        exchange.forget_body()
    call.body = None
    exchange.body_share.release()


def dropped(
    exchange: Exchange, call: Call, reader: AnswerReader, estimate: Callable[[], int]
) -> bool:
    """Drop the request's body if its length is known by now, or it is too large.

    Args:
        exchange: the exchange.
        call: the call, which has the body.
        reader: has read of the answer what has passed.
        estimate: the tokens of the prompt, by the body.

    Returns:
        Whether it was dropped.
    """
    if not reader.usage.prompt_tokens:
        if len(call.body or b"") < LARGE:
            return False
        call.prompt_estimate = estimate()
    let_go(exchange, call)
    return True
