from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import create_environ

from kongai import AIProxy, Exchange, Plugin, Proxy
from kongai.errors import UpstreamError
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.llm.chat import ChatRequest
from kongai.plugins.ai_prompt import LARGE
from kongai.testing import ListSink, answer

from .ai_gateway import CHUNKS, DONE, PATHS, STREAM, asked, chunk

STARTED = b"""event: message_start
data: {"type":"message_start","message":{"model":"m-1","usage":{"input_tokens":20}}}

"""
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOPPED = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Forgetful:
    """A transport that keeps nothing of what it was sent."""

    def __init__(self, pieces: list[bytes | UpstreamError]) -> None:
        self._pieces = pieces

    def send(self, _: UpstreamRequest) -> UpstreamResponse:
        return answer(self._pieces, headers=STREAM)

    def close(self) -> None:
        """Nothing to do."""


class Seen(Plugin):
    """Keeps the exchange, and what its log phase finds of the body."""

    name = "seen"

    def __init__(self) -> None:
        self.body: bytes | None = b"none"

    def access(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def header_filter(self, exchange: Exchange) -> None:
        self.body = exchange.body


class Stream:
    """A streamed answer that is read piece by piece."""

    def __init__(
        self,
        client: str,
        provider: str,
        *pieces: bytes | UpstreamError,
        body: dict[str, Any],
        **settings: Any,
    ) -> None:
        self.records, self.plugin = ListSink(), Seen()
        ai_proxy = AIProxy(provider=provider, llm_format=client, **settings)
        self.proxy = Proxy(
            plugins=[ai_proxy, self.plugin],
            sinks=[self.records],
            transport=Forgetful(list(pieces)),
        )
        self._path, self._body = PATHS[client], body

    @contextmanager
    def begun(self) -> Iterator[Iterator[bytes]]:
        environ = create_environ(
            self._path,
            method="POST",
            data=json.dumps(self._body),
            content_type="application/json",
        )
        chunks: Any = self.proxy(environ, lambda *_: lambda _: None)
        try:
            yield chunks
        finally:
            chunks.close()

    @property
    def held(self) -> int:
        """Bytes that the body takes of the budget."""
        return self.proxy._body_memory.held

    @property
    def usage(self) -> dict[str, Any]:
        (record,) = self.records
        found: dict[str, Any] = record["ai"]["proxy"]["usage"]
        return found


def question(size: int = 100) -> dict[str, Any]:
    return asked(stream=True, system="s" * size)


def test_a_body_is_dropped_once_its_tokens_are_counted() -> None:
    """Anthropic says it at once; the answer may take minutes."""
    stream = Stream(
        "anthropic", "anthropic", PING, STARTED, PING, STOPPED, body=question()
    )
    with stream.begun() as chunks:
        assert next(chunks) == PING
        assert stream.held > 100
        assert next(chunks) == STARTED
        assert next(chunks) == PING
        assert stream.held == 0
        assert list(chunks) == [STOPPED]
    assert stream.plugin.body is not None
    assert stream.usage["prompt_tokens"] == 20


@pytest.mark.parametrize(
    ("client", "provider"), [("anthropic", "openai"), ("openai", "anthropic")]
)
def test_a_body_that_was_translated_is_dropped_with_the_answers_head(
    client: str, provider: str
) -> None:
    pieces = CHUNKS if provider == "openai" else [STARTED, STOPPED]
    stream = Stream(client, provider, *pieces, body=question())
    with stream.begun() as chunks:
        assert stream.held == 0
        gc.collect()
        call = stream.plugin.exchange.llm
        assert call is not None
        assert call.translation is not None
        chat: ChatRequest = call.translation.chat
        assert (call.body, chat.messages, chat.tools) == (None, [], [])
        list(chunks)
    assert stream.records[0]["kongai"]["ended"] == "ok"


def test_without_statistics_nothing_needs_the_body() -> None:
    logging = {"log_statistics": False}
    stream = Stream("openai", "openai", *CHUNKS, body=question(), logging=logging)
    with stream.begun() as chunks:
        assert stream.held == 0
        list(chunks)


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_count_that_comes_last_or_never_is_estimated(size: int) -> None:
    """A large body is read for it at once, a small one only if need be."""
    pieces: list[bytes | UpstreamError] = [
        chunk({"content": "x" * 25}),
        chunk({"content": "y"}),
        UpstreamError(),
    ]
    body = asked(stream=True, metadata="s" * size)
    stream = Stream("openai", "openai", *pieces, body=body)
    with stream.begun() as chunks:
        next(chunks)
        next(chunks)
        assert (stream.held == 0) is (size == LARGE)
    assert stream.usage["prompt_tokens"] == round(6 * 1.8)
    assert stream.held == 0


def test_what_a_provider_counts_wins_over_an_estimate() -> None:
    body = asked(stream=True, metadata="s" * LARGE)
    stream = Stream("openai", "openai", *CHUNKS, body=body)
    with stream.begun() as chunks:
        list(chunks)
    assert stream.usage["prompt_tokens"] == 20


@pytest.mark.parametrize("pieces", [[STARTED, STOPPED], [PING, STOPPED]])
def test_a_body_that_is_logged_is_kept(pieces: list[bytes]) -> None:
    logging = {"log_statistics": True, "log_payloads": True}
    stream = Stream(
        "anthropic", "anthropic", *pieces, body=question(LARGE), logging=logging
    )
    with stream.begun() as chunks:
        next(chunks)
        next(chunks)
        assert stream.held > LARGE
    (record,) = stream.records
    assert json.loads(record["ai"]["proxy"]["payload"]["request"]) == question(LARGE)


def test_bytes_that_were_given_back_are_not_in_memory() -> None:
    """The room that a body had is free only if its bytes are."""
    mark = b"to be found nowhere"
    body = asked(stream=True, system=mark.decode())
    stream = Stream("anthropic", "anthropic", STARTED, PING, STOPPED, body=body)
    with stream.begun() as chunks:
        next(chunks)
        next(chunks)
        gc.collect()
        found = [
            thing
            for thing in gc.get_objects()
            # Its class, for there are things that don't like to be asked for it.
            if type(thing) is UpstreamRequest
            and isinstance(thing.body, bytes)
            and mark in thing.body
        ]
        assert found == []
        exchange = stream.plugin.exchange
        assert (exchange.body, exchange.llm and exchange.llm.body) == (None, None)


def test_the_end_of_a_stream_is_still_looked_at() -> None:
    stream = Stream("openai", "openai", chunk({"content": "a"}), DONE, body=question())
    with stream.begun() as chunks:
        assert list(chunks)[-1] == DONE
    assert stream.records[0]["kongai"]["ended"] == "ok"
