"""Doubles for testing plugins, sinks and whole gateways; kongai tests itself with them.

`EchoLLM` is also what ``kongai-serve --demo`` answers with.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sseclient import SSEClient
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from kongai.errors import UpstreamError
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.llm.formats import anthropic
from kongai.llm.usage import estimate_tokens
from kongai.sse import ServerSentEvent, encode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ListSink(list[dict[str, Any]]):
    """A sink that keeps the records: a list of them."""

    def emit(self, record: dict[str, Any]) -> None:
        """Keep the record."""
        self.append(record)

    def close(self) -> None:
        """Nothing to do."""


class MockTransport:
    """A transport without a network: a function answers.

    Args:
        handler: takes the request, returns an answer (see `answer`) or raises an
            `UpstreamError`.
    """

    def __init__(self, handler: Callable[[UpstreamRequest], UpstreamResponse]) -> None:
        self.requests: list[UpstreamRequest] = []
        """What was sent, in order."""
        self._handler = handler

    def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Note the request and let the handler answer."""
        # A copy: an exchange drops its body once it has an answer.
        self.requests.append(replace(request))
        return self._handler(request)

    def close(self) -> None:
        """Nothing to do."""


class answer(UpstreamResponse):
    """An upstream's answer for a `MockTransport`.

    Args:
        body: the body, whole or in the pieces in which it arrives. An exception in the
            pieces is raised at its place.
        status: the status.
        headers: the headers; the content type is JSON unless given.
    """

    def __init__(
        self,
        body: bytes | Iterable[bytes | UpstreamError] = b"",
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),),
    ) -> None:
        pieces = [body] if isinstance(body, bytes) else body
        self.closed = 0
        """How many times the gateway let go of the answer."""
        super().__init__(status, "", list(headers), _pieces(pieces), self._count_close)

    def _count_close(self) -> None:
        self.closed += 1


def _pieces(pieces: Iterable[bytes | UpstreamError]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        if piece:
            yield piece


def chop(data: bytes, *cuts: int) -> list[bytes]:
    """Cut bytes at the given places, to see that the cuts make no difference."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def events(chunks: Iterable[bytes]) -> list[tuple[str, Any]]:
    """Read an event stream with an independent reader: names and decoded data."""
    return [
        (event.event, json.loads(event.data))
        for event in SSEClient(iter(chunks)).events()
    ]


class EchoLLM:
    """An upstream that speaks Anthropic's Messages API and echoes what it is asked.

    It is a WSGI application, and a context manager that serves itself on a free
    loopback port::

        with EchoLLM() as upstream:
            proxy = Proxy.from_config(config_with(upstream.url))

    It answers streamed and whole, with usage, and has ``count_tokens`` and ``models``.
    """

    def __init__(self) -> None:
        self.url = ""
        """Where it is served, without a path; empty while it is not."""
        self._live: LiveServer | None = None

    def __enter__(self) -> EchoLLM:
        self._live = serve_live(self)
        self.url = self._live.url
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.close()
        self.url = ""

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and request.path == "/":
            return Response(status=200)
        if request.path == "/v1/models":
            return _json({"data": [_MODEL], "has_more": False})
        if not request.path.startswith("/v1/messages"):
            return _error(404, f"there is no {request.path} here")
        try:
            asked = json.loads(request.get_data())
            question = _question(asked)
        except (ValueError, LookupError, TypeError, AttributeError):
            return _error(
                400, "messages: expected a conversation that ends with a user's"
            )
        read = estimate_tokens(len(request.get_data()))
        if request.path == "/v1/messages/count_tokens":
            return _json({"input_tokens": read})
        message = _message(str(asked.get("model", "echo")), question, read)
        if asked.get("stream") is True:
            return Response(_stream(message), content_type="text/event-stream")
        return _json(message)


_MODEL = {
    "type": "model",
    "id": "claude-sonnet-4-5",
    "display_name": "Echo",
    "created_at": "2025-09-29T00:00:00Z",
}


def _question(asked: dict[str, Any]) -> str:
    """The last text that the user wrote; reminders that a client adds are none."""
    asking = [m["content"] for m in asked["messages"] if m["role"] == "user"]
    if not asking:
        raise LookupError("nobody asks")
    texts = [
        part["text"]
        for content in asking
        for part in _parts(content)
        if part.get("type") == "text" and not part["text"].startswith("<system-")
    ]
    return str(texts[-1]) if texts else "(no text)"


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _message(model: str, text: str, read: int) -> dict[str, Any]:
    return {
        "id": "msg_echo",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": read,
            "output_tokens": estimate_tokens(len(text)) or 1,
        },
    }


def _stream(message: dict[str, Any]) -> Iterator[bytes]:
    text, usage = message["content"][0]["text"], message["usage"]
    start = {**message, "content": [], "stop_reason": None}
    start["usage"] = {**usage, "output_tokens": 1}
    empty = {"type": "text", "text": ""}
    yield _event("message_start", message=start)
    yield _event("content_block_start", index=0, content_block=empty)
    yield _event("ping")
    for piece in re.findall(r"\S+\s*|\s+", text):
        yield _event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": piece}
        )
    yield _event("content_block_stop", index=0)
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _event(
        "message_delta", delta=delta, usage={"output_tokens": usage["output_tokens"]}
    )
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}).encode()
    return encode(ServerSentEvent(kind.encode(), data))


def _json(data: Any) -> Response:
    return Response(json.dumps(data), content_type="application/json")


def _error(status: int, message: str) -> Response:
    body = anthropic.error_body(status, message, "req_echo")
    return Response(body, status=status, content_type="application/json")


class LiveServer:
    """A WSGI application on a loopback port, served by threads until it is closed."""

    def __init__(self, application: WSGIApplication) -> None:
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=_QuietHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        """Where it is served, without a path."""
        # Looks every 10 ms whether to stop, instead of every 500.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_live(application: WSGIApplication) -> LiveServer:
    """Serve a WSGI application, for example a `Proxy`, on a free loopback port.

    Returns:
        The server; it has a `url` and is a context manager.
    """
    return LiveServer(application)


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Requests are not logged."""
