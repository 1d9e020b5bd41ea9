"""An answer that breaks off at any of its bytes: what the client and the record have.

Answers of some 6 KB are cut at every offset, by a reset of the connection or by its
end. A stride through the offsets is in every run; `pytest -m soak` takes all of them.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, IncompleteRead
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from kongai import AIProxy, Proxy
from kongai.errors import AnswerCut, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.sinks import encode
from kongai.sse import Decoder
from kongai.testing import ListSink, MockTransport, answer
from tests.live import anthropic_api, openai_api
from tests.live.harness import Connection, FakeUpstream, Gateway, Request, howto_config
from tests.live.upstream import EVENT_STREAM

STRIDE = 211
"""Between the offsets of a quick run; prime, so that it meets events everywhere."""
TEXT = 'Grüezi, «Welt»! 世界 🙂 said "twice"\n' * 10
CALL = anthropic_api.ToolUse("search", {"query": "a" * 200, "deep": [1, {"x": "é"}]})
PROMPT, COMPLETION = 119, 29
CLAUDE, GPT = "claude-haiku-4-5", "gpt-4.1-mini"
FORMATS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
MESSAGE = "upstream stream ended early"


def anthropic_stream() -> bytes:
    usage = anthropic_api.Usage(PROMPT, COMPLETION)
    said = (TEXT, CALL)
    return b"".join(anthropic_api.message_events(said, usage, model=CLAUDE, cut=14))


def openai_stream() -> bytes:
    tokens = openai_api.Tokens(PROMPT, COMPLETION)
    said = (TEXT, CALL)
    return b"".join(openai_api.completion_events(said, tokens, model=GPT, cut=32))


def whole(provider: str) -> bytes:
    if provider == "anthropic":
        usage = anthropic_api.Usage(PROMPT, COMPLETION)
        body = anthropic_api.message((TEXT * 12, CALL), usage, model=CLAUDE)
    else:
        tokens = openai_api.Tokens(PROMPT, COMPLETION)
        body = openai_api.completion((TEXT * 12, CALL), tokens, model=GPT)
    return json.dumps(body, ensure_ascii=False).encode()


STREAMS = {"anthropic": anthropic_stream(), "openai": openai_stream()}
LAST = {
    "anthropic": b'data: {"type": "message_stop"}\n\n',
    "openai": b"data: [DONE]\n\n",
}


@dataclass
class Seen:
    """What came of one cut."""

    status: int
    body: bytes
    cut: bool
    """Whether the answer ended in a way that nobody takes for its end."""
    record: dict[str, Any]

    @property
    def ended(self) -> str:
        return str(self.record["kongai"]["ended"])

    @property
    def usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = self.record["ai"]["proxy"]["usage"]
        return usage


class Line:
    """A client, a gateway, and a provider whose answer breaks off."""

    def __init__(self, client: str, provider: str, body: bytes, **headers: str) -> None:
        self.client, self.provider, self.body = client, provider, body
        self.streamed = body == STREAMS[provider]
        kind = "text/event-stream" if self.streamed else "application/json"
        self._headers = [("content-type", kind), *headers.items()]
        self._records = ListSink()
        self._proxy = Proxy(
            plugins=[AIProxy(provider=provider, llm_format=client)],
            sinks=[self._records],
            transport=MockTransport(self._answer),
        )

    def _answer(self, _: UpstreamRequest) -> UpstreamResponse:
        pieces: list[bytes | UpstreamTruncated] = [self.body[: self._offset]]
        if self._reset:
            pieces.append(UpstreamTruncated())
        self._given = answer(pieces, headers=self._headers)
        return self._given

    def cut(self, offset: int, how: str) -> Seen:
        """Ask, get so many bytes of the answer, and then its end or a reset."""
        self._offset, self._reset = offset, how == "reset"
        self._records.clear()
        asked: dict[str, Any] = {
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Grüezi?"}],
            "stream": self.streamed,
        }
        if self.streamed and self.client == "openai":
            asked["stream_options"] = {"include_usage": True}
        environ = EnvironBuilder(FORMATS[self.client], method="POST", json=asked)
        started: list[str] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            started.append(status)
            return lambda data: None

        pieces: list[bytes] = []
        cut = False
        with closing(self._proxy(environ.get_environ(), start)) as body:
            try:
                pieces.extend(body)
            except AnswerCut:
                cut = True
        [status] = started
        assert self._given.closed
        [record] = self._records
        json.loads(encode(record), parse_constant=pytest.fail)
        return Seen(int(status[:3]), b"".join(pieces), cut, record)


def offsets(body: bytes, stride: int) -> Iterator[int]:
    """Every so many bytes, and always the start and the end."""
    yield from range(0, len(body) - 2, stride)
    yield from range(len(body) - 2, len(body) + 1)


amounts = pytest.mark.parametrize(
    "stride",
    [
        pytest.param(STRIDE, id="some"),
        pytest.param(1, id="all", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
ways = pytest.mark.parametrize("how", ["reset", "end"])
providers = pytest.mark.parametrize("provider", STREAMS)


def error_of(client: str, rest: bytes) -> dict[str, Any]:
    """The error event that is all the rest of a stream, and readable behind any cut."""
    assert rest.startswith(b"\n\n")
    [event] = Decoder().feed(rest)
    if client == "anthropic":
        assert event.event == b"error"
    said: dict[str, Any] = json.loads(event.data)["error"]
    return said


class Told:
    """What a stream says in the events that are whole, when it is cut there."""

    def __init__(self, stream: bytes) -> None:
        events = [event.data for event in Decoder().feed(stream)]
        self.done = b"[DONE]" in events
        said = [json.loads(data) for data in events if data != b"[DONE]"]
        kinds = [event.get("type") for event in said]
        self.done = self.done or "message_stop" in kinds
        choices = [choice for event in said for choice in event.get("choices", ())]
        self.reason = any(choice["finish_reason"] for choice in choices)
        """Whether it says why it ends: OpenAI's kin may say no more than that."""
        usages = [event for event in said if event.get("usage")]
        self.completion = bool(usages)
        self.prompt = self.completion or "message_start" in kinds
        self.text = "content_block_delta" in kinds or any(
            choice["delta"].get("content") for choice in choices
        )


def check_usage(seen: Seen, told: Told) -> None:
    """What was counted so far is right, and what was not is estimated."""
    usage = seen.usage
    assert (seen.status, seen.record["upstream_status"]) == (200, "200")
    estimated = told.text and not told.completion
    assert seen.record["kongai"].get("usage_estimated", False) is estimated
    assert "usage_unread" not in seen.record["kongai"]
    if told.prompt:
        assert usage["prompt_tokens"] == PROMPT
    if told.completion:
        assert usage["completion_tokens"] == COMPLETION
    else:
        assert (usage["completion_tokens"] > 0) is told.text


@amounts
@ways
@providers
def test_a_stream_that_is_passed_on(provider: str, how: str, stride: int) -> None:
    line = Line(provider, provider, STREAMS[provider])
    for offset in offsets(line.body, stride):
        seen, told = line.cut(offset, how), Told(line.body[:offset])
        assert seen.body.startswith(line.body[:offset])
        rest = seen.body[offset:]
        check_usage(seen, told)
        if told.done or (told.reason and how == "end"):
            assert (seen.ended, seen.cut, rest) == ("ok", False, b"")
            continue
        assert seen.cut
        assert seen.ended == ("upstream_cut" if how == "reset" else "no_terminal_event")
        if told.reason:
            assert rest == b""
        else:
            assert error_of(provider, rest)["message"] == MESSAGE


@amounts
@ways
@providers
def test_a_stream_that_is_translated(provider: str, how: str, stride: int) -> None:
    [client] = FORMATS.keys() - {provider}
    line = Line(client, provider, STREAMS[provider])
    whole_stream = timeless(line.cut(len(line.body), how).body)
    for offset in offsets(line.body, stride):
        seen, told = line.cut(offset, how), Told(line.body[:offset])
        check_usage(seen, told)
        if told.done or (told.reason and how == "end"):
            assert (seen.ended, seen.cut) == ("ok", False)
            if told.completion:
                assert timeless(seen.body) == whole_stream
            continue
        assert seen.cut
        assert seen.ended == ("upstream_cut" if how == "reset" else "no_terminal_event")
        before, gap, rest = seen.body.rpartition(b"\n\n\n\n")
        assert error_of(client, b"\n\n" + rest)["message"] == MESSAGE
        assert whole_stream.startswith(timeless(before + gap[:2]))


def timeless(stream: bytes) -> bytes:
    """A stream without the time of its answer."""
    return re.sub(rb'"created":[0-9]+', b"", stream)


@amounts
@ways
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@providers
def test_a_whole_answer_that_is_passed_on(
    provider: str, coding: str, how: str, stride: int
) -> None:
    """Without a length, a connection that ends well may have lost the rest."""
    body = whole(provider)
    if coding == "gzip":
        body = gzip.compress(body, compresslevel=0)
    line = Line(provider, provider, body, **{"content-encoding": coding})
    for offset in offsets(body, stride):
        seen = line.cut(offset, how)
        assert seen.body == body[:offset]
        complete = offset == len(body) and how == "end"
        assert (seen.ended, seen.cut) == (
            ("ok", False) if complete else ("upstream_cut", True)
        )
        read = offset == len(body) or (coding == "gzip" and offset >= len(body) - 8)
        assert (seen.usage["total_tokens"] == PROMPT + COMPLETION) is read


@amounts
@ways
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@providers
def test_a_whole_answer_that_is_translated(
    provider: str, coding: str, how: str, stride: int
) -> None:
    """The client has nothing of it yet, and learns by the status what became of it."""
    [client] = FORMATS.keys() - {provider}
    body = whole(provider)
    if coding == "gzip":
        body = gzip.compress(body, compresslevel=0)
    line = Line(client, provider, body, **{"content-encoding": coding})
    for offset in offsets(body, stride):
        seen = line.cut(offset, how)
        assert not seen.cut
        said = json.loads(seen.body)
        if how == "reset":
            assert (seen.status, seen.ended) == (502, "upstream_cut")
            assert said["error"]["message"] == MESSAGE
        elif offset == len(body):
            assert (seen.status, seen.ended) == (200, "ok")
        else:
            assert (seen.status, seen.ended) == (500, "transformation_failed")
            assert said["error"]["message"].startswith("transformation failed")


EXCHANGES = pytest.mark.parametrize(
    "count",
    [
        pytest.param(10, id="some"),
        pytest.param(200, id="all", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)


@EXCHANGES
def test_a_stream_over_real_connections(count: int) -> None:
    """Cut at as many of its offsets, by turns with a reset and in good order."""
    stream = STREAMS["anthropic"]
    cuts = [len(stream) * index // count for index in range(count)]

    def answering(request: Request, connection: Connection) -> None:
        index = len(upstream.requests) - 1
        connection.start_stream(EVENT_STREAM)
        if cuts[index]:
            connection.chunk(stream[: cuts[index]])
        passed.wait(5)
        connection.reset() if index % 2 else connection.end()

    passed = threading.Event()
    with FakeUpstream(answering) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        with Gateway(config) as gateway:
            for index, offset in enumerate(cuts):
                passed.clear()
                body, finished = asked_for_stream(gateway.url, offset, passed)
                assert body[:offset] == stream[:offset]
                assert not finished
                assert error_of("anthropic", body[offset:])["message"] == MESSAGE
                ended = "upstream_cut" if index % 2 else "no_terminal_event"
                record = gateway.records(index + 1)[-1]
                assert record["kongai"]["ended"] == ended
            assert len(gateway.records(count)) == count


def asked_for_stream(
    url: str, expected: int, passed: threading.Event
) -> tuple[bytes, bool]:
    """The body that a client gets, and whether it got the last chunk.

    Args:
        url: the gateway's.
        expected: so many bytes come before the cut.
        passed: set once they have come.
    """
    asked = {"model": CLAUDE, "max_tokens": 9, "stream": True}
    asked["messages"] = [{"role": "user", "content": "Hi"}]
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=10)) as client:
        client.request(
            "POST",
            "/anything/v1/messages",
            json.dumps(asked),
            {"content-type": "application/json"},
        )
        response = client.getresponse()
        assert response.status == 200
        body = response.read(expected) if expected else b""
        passed.set()
        try:
            return body + response.read(), True
        except IncompleteRead as error:
            return body + error.partial, False
