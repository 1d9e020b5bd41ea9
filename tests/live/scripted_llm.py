"""One model behind two APIs: it says what its script says, in the format it is asked.

Like the real ones it refuses what breaks its API's rules, and a key it doesn't know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from . import openai_api
from .anthropic_api import Answer, ToolUse, Usage, message, message_events
from .api_rules import anthropic_complaints, openai_complaints
from .openai_api import Tokens, completion, completion_events
from .upstream import Connection, Request

Provider = Literal["openai", "anthropic"]

KEYS = {"openai": "sk-proj-provider-5d1e77", "anthropic": "sk-ant-provider-9c20b4"}
"""The keys that the APIs take."""
COUNTED = 25_003
"""What Anthropic's API counts in any prompt."""
VECTOR = [0.5, -0.25, 2.0]

_PATHS = (
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
)
_FINISH = {
    "end": ("end_turn", "stop"),
    "length": ("max_tokens", "length"),
    "sequence": ("stop_sequence", "stop"),
    "refusal": ("refusal", "content_filter"),
}
_ERROR_KINDS = {
    400: ("invalid_request_error", "invalid_request_error"),
    401: ("authentication_error", "invalid_request_error"),
    403: ("permission_error", "invalid_request_error"),
    404: ("not_found_error", "invalid_request_error"),
    429: ("rate_limit_error", "tokens"),
    500: ("api_error", "server_error"),
    503: ("api_error", "server_error"),
    529: ("overloaded_error", "server_error"),
}


@dataclass(frozen=True)
class Said:
    """What the model says, in no API's words."""

    answer: Answer
    prompt: int = 119
    completion: int = 29
    cached: int = 11
    """How many of the prompt's tokens came from a cache."""
    reasoning: int = 0
    ends: Literal["end", "length", "sequence", "refusal"] = "end"
    """Why it says no more; ``end`` of an answer with wishes for tools is for them."""
    sequence: str | None = None
    interleaved: bool = False
    """Whether the pieces of a stream's calls take turns, where the API has that."""


def provider_of(request: Request) -> Provider:
    """Whose API is asked, by the path."""
    return "anthropic" if "/v1/messages" in request.target else "openai"


def whole(request: Request, said: Said) -> bytes:
    """The answer in one piece, in the format of the request."""
    if provider_of(request) == "anthropic":
        body = message(said.answer, _usage(said), **_stop(said), **_by(request))
    else:
        body = completion(said.answer, _tokens(said), **_finish(said), **_by(request))
    return json.dumps(body, ensure_ascii=False).encode()


def events(request: Request, said: Said) -> list[bytes]:
    """The answer as the events of a stream, in the format of the request."""
    if provider_of(request) == "anthropic":
        stream = message_events(
            said.answer, _usage(said), **_stop(said), **_by(request)
        )
    else:
        options = request.json().get("stream_options") or {}
        stream = completion_events(
            said.answer,
            _tokens(said),
            include_usage=bool(options.get("include_usage")),
            interleaved=said.interleaved,
            **_finish(said),
            **_by(request),
        )
    return list(stream)


def error(provider: Provider, status: int, text: str) -> bytes:
    """The body of an error, as the provider says it."""
    kind, openai_kind = _ERROR_KINDS[status]
    if provider == "openai":
        return openai_api.error(text, kind=openai_kind)
    fields = {"type": kind, "message": text}
    body = {"type": "error", "error": fields, "request_id": "req_011KongaiLiveTest"}
    return json.dumps(body).encode()


class ScriptedLLM:
    """The handler of a `FakeUpstream`: plays both APIs, and remembers its requests.

    Args:
        answer: what to say to a request, which has kept the rules.
        wire: the bytes of a stream that are sent at a time, whatever they cut in two;
            None for an event at a time.
    """

    def __init__(
        self, answer: Callable[[Request], Said], *, wire: int | None = None
    ) -> None:
        self.answer = answer
        self.wire = wire
        self.asked: list[Request] = []

    def __call__(self, request: Request, connection: Connection) -> None:
        """Answer one request."""
        path = request.target.partition("?")[0]
        if complaint := next(_complaints(request), None):
            status, text = complaint
            body = error(provider_of(request), status, text)
            connection.respond(status, body=body)
        elif path == "/v1/messages/count_tokens":
            connection.respond(200, body=json.dumps({"input_tokens": COUNTED}).encode())
        elif path == "/v1/models":
            connection.respond(200, body=json.dumps(_models(request)).encode())
        elif path == "/v1/embeddings":
            connection.respond(200, body=json.dumps(_embeddings(request)).encode())
        else:
            self._speak(request, connection)

    def _speak(self, request: Request, connection: Connection) -> None:
        self.asked.append(request)
        said = self.answer(request)
        body = request.json()
        if request.target.partition("?")[0] == "/v1/completions":
            assert isinstance(said.answer, str)
            continued = openai_api.text_completion(
                said.answer, _tokens(said), **_by(request)
            )
            connection.respond(200, body=json.dumps(continued).encode())
        elif body.get("stream"):
            connection.start_stream()
            for piece in self._cut(events(request, said)):
                connection.chunk(piece)
            connection.end()
        else:
            connection.respond(200, body=whole(request, said))

    def _cut(self, stream: list[bytes]) -> list[bytes]:
        if self.wire is None:
            return stream
        data = b"".join(stream)
        return [data[at : at + self.wire] for at in range(0, len(data), self.wire)]


def tool_results(request: Request) -> dict[str, str]:
    """What the tools said in the conversation so far, by the ids of their calls."""
    messages = request.json()["messages"]
    if provider_of(request) == "openai":
        return {
            message["tool_call_id"]: _text(message["content"])
            for message in messages
            if message["role"] == "tool"
        }
    return {
        block["tool_use_id"]: _text(block["content"])
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    }


def tool_calls(request: Request) -> list[ToolUse]:
    """The model's own wishes for tools in the conversation so far."""
    messages = request.json()["messages"]
    if provider_of(request) == "openai":
        return [
            ToolUse(
                call["function"]["name"],
                json.loads(call["function"]["arguments"]),
                call["id"],
            )
            for message in messages
            for call in message.get("tool_calls", ())
        ]
    return [
        ToolUse(block["name"], block["input"], block["id"])
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_use"
    ]


def system_text(request: Request) -> str:
    """The system prompt before the conversation."""
    body = request.json()
    if provider_of(request) == "anthropic":
        return _text(body.get("system", ""))
    first = body["messages"][0]
    return _text(first["content"]) if first["role"] in ("system", "developer") else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _usage(said: Said) -> Usage:
    uncached = said.prompt - said.cached
    return Usage(uncached, said.completion, cache_read=said.cached)


def _tokens(said: Said) -> Tokens:
    return Tokens(said.prompt, said.completion, said.cached, said.reasoning)


def _stop(said: Said) -> dict[str, Any]:
    if said.ends == "end":
        return {}
    return {"stop_reason": _FINISH[said.ends][0], "stop_sequence": said.sequence}


def _finish(said: Said) -> dict[str, Any]:
    return {} if said.ends == "end" else {"finish_reason": _FINISH[said.ends][1]}


def _by(request: Request) -> dict[str, Any]:
    return {"model": request.json()["model"]}


def _complaints(request: Request) -> Iterator[tuple[int, str]]:
    """Why the API would refuse a request: statuses and texts, the gravest first."""
    provider, path = provider_of(request), request.target.partition("?")[0]
    keys = [value.removeprefix("Bearer ") for value in request.values("authorization")]
    if provider == "anthropic":
        keys = request.values("x-api-key") or keys
    if keys != [KEYS[provider]]:
        yield 401, "invalid key"
    if path not in _PATHS:
        yield 404, f"there is no {path}"
    version = ""
    if provider == "anthropic":
        [version] = request.values("anthropic-version") or [""]
        if version not in ("2023-06-01", "2026-10-21"):
            yield 400, "anthropic-version: header is required"
    if path == "/v1/messages":
        for text in anthropic_complaints(request.json(), version):
            yield 400, text
    elif path == "/v1/chat/completions":
        for text in openai_complaints(request.json()):
            yield 400, text


def _models(request: Request) -> dict[str, Any]:
    fields = {"object": "model", "created": openai_api.CREATED, "owned_by": "openai"}
    return {"object": "list", "data": [{"id": "gpt-4.1-mini", **fields}]}


def _embeddings(request: Request) -> dict[str, Any]:
    body = request.json()
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors = [[number + place for number in VECTOR] for place in range(len(given))]
    encoding = body.get("encoding_format", "float")
    return openai_api.embeddings(vectors, 8, model=body["model"], encoding=encoding)
