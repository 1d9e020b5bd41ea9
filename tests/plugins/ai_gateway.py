"""A gateway with `ai-proxy` between any client's format and any provider's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from werkzeug.test import Client

from kongai import AIProxy, Proxy
from kongai.errors import AnswerCut, UpstreamError
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.testing import ListSink, MockTransport, answer, events

Headers = Sequence[tuple[str, str]]
JSON = [("content-type", "application/json")]
STREAM = [("content-type", "text/event-stream")]
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


def asked(**fields: Any) -> dict[str, Any]:
    """A question that is one in both formats; a field that is ``...`` is left out."""
    messages = [{"role": "user", "content": "What do two and two make?"}]
    body = {"model": "m", "max_tokens": 100, "messages": messages, **fields}
    return {name: value for name, value in body.items() if value is not ...}


def completion(text: str | None = "Four.", /, **fields: Any) -> bytes:
    """A whole answer in OpenAI's format."""
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m-1"}
    return json.dumps({**body, "choices": [choice], "usage": usage, **fields}).encode()


def chunk(delta: Mapping[str, Any] | None = None, /, **fields: Any) -> bytes:
    """An event of a stream in OpenAI's format; without a delta it has no choice."""
    finish = fields.pop("finish_reason", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1"}
    choices = [] if delta is None else [choice]
    data = json.dumps({**body, "choices": choices, **fields})
    return f"data: {data}\n\n".encode()


USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
DONE = b"data: [DONE]\n\n"
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Fo"}),
    chunk({"content": "ur."}),
    chunk({}, finish_reason="stop"),
    chunk(usage=USAGE),
    DONE,
]
"""The stream that says what `completion` says."""
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "content": [{"type": "text", "text": "Four."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 5},
}


class Got:
    """What a client got, read to the end."""

    def __init__(self, status: int, headers: Any, pieces: list[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.pieces = pieces
        self.body = b"".join(pieces)
        self.cut = False

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """The events of a stream of Anthropic's format."""
        return events(self.pieces)

    def error(self) -> str:
        """The text of an error, which is in the same place in all formats."""
        message: str = self.json()["error"]["message"]
        return message


class Gateway:
    """A gateway, an upstream that is a function, and the records.

    Args:
        client: the client's format.
        provider: the name of the provider.
        upstream: the answer: its body, the pieces of a stream, or an answer itself.
        model: keys of `model`; those of `options` below it.
        ai_proxy: more settings of the plugin.
    """

    def __init__(
        self,
        client: str,
        provider: str,
        upstream: bytes | Iterable[bytes | UpstreamError] | UpstreamResponse = b"",
        *,
        model: Mapping[str, Any] | None = None,
        **ai_proxy: Any,
    ) -> None:
        self.client = client
        self.records = ListSink()
        self._upstream = upstream
        self.upstream = MockTransport(self._answer)
        plugin = AIProxy(
            provider=provider, llm_format=client, model=dict(model or {}), **ai_proxy
        )
        self.proxy = Proxy(
            plugins=[plugin], sinks=[self.records], transport=self.upstream
        )

    def _answer(self, _: UpstreamRequest) -> UpstreamResponse:
        if isinstance(self._upstream, UpstreamResponse):
            return self._upstream
        if isinstance(self._upstream, bytes):
            return answer(self._upstream)
        return answer(self._upstream, headers=STREAM)

    def ask(
        self,
        body: Any = None,
        headers: Headers = (),
        path: str | None = None,
        method: str = "POST",
    ) -> Got:
        """Ask, and read the whole answer."""
        typed = "content-type" in {name.lower() for name, _ in headers}
        data = body if isinstance(body, bytes) else json.dumps(body or asked()).encode()
        with Client(self.proxy).open(
            path or PATHS[self.client],
            method=method,
            data=data if method == "POST" or body is not None else None,
            headers=[*([] if typed else JSON), *headers],
        ) as response:
            pieces: list[bytes] = []
            got = Got(response.status_code, response.headers, pieces)
            try:
                pieces.extend(response.iter_encoded())
            except AnswerCut:
                got.cut = True
            got.body = b"".join(pieces)
            return got

    @property
    def seen(self) -> UpstreamRequest:
        """The one request that the upstream got."""
        (request,) = self.upstream.requests
        return request

    @property
    def sent(self) -> Any:
        """The body of that request."""
        body = self.seen.body
        assert isinstance(body, bytes)
        return json.loads(body)

    @property
    def record(self) -> dict[str, Any]:
        """The one record that was written."""
        (record,) = self.records
        return record

    @property
    def usage(self) -> dict[str, Any]:
        """Its usage."""
        usage: dict[str, Any] = self.record["ai"]["proxy"]["usage"]
        return usage
