"""How long `ai-proxy` keeps a request's body: no longer than something needs it.

Once the provider answers, the request is not sent again, but its answer may take
minutes. All that the body is then good for is the record: for the payload, and for an
estimate of the prompt where the provider does not count it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kongai.exchange import Exchange
from kongai.llm.call import Call
from kongai.llm.formats import AnswerReader

LARGE = 1024 * 1024
"""Bytes from which the prompt of a streamed answer is estimated at once rather than
kept until the count comes: that takes some 20 ms a megabyte, and mostly for nothing."""


def let_go(exchange: Exchange, call: Call) -> None:
    """Drop the body, and give its room to others."""
    exchange.forget_body()
    call.body = None
    exchange.body_share.release()


def kept_for_the_count(
    chunks: Iterator[bytes],
    exchange: Exchange,
    call: Call,
    reader: AnswerReader,
    estimate: Callable[[], int],
) -> Iterator[bytes]:
    """Pass the answer on, and drop the request's body when its length is known.

    Args:
        chunks: the answer, before the reader reads it.
        exchange: the exchange.
        call: the call, which has the body.
        reader: gets each chunk before the next is asked for.
        estimate: the tokens of the prompt, by the body.
    """
    for chunk in chunks:
        yield chunk
        if not reader.usage.prompt_tokens:
            if not (call.streaming and len(call.body or b"") >= LARGE):
                continue
            call.prompt_estimate = estimate()
        let_go(exchange, call)
        break
    yield from chunks
