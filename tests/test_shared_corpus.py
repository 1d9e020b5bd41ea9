"""What providers really answered, and what they were really asked, translated.

The exchanges lie beside the project, in shared/corpus, as lines of JSON: what is asked
of one vendor is translated for the other, and so are the answers. Without them there is
nothing to test here.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kongai import registry
from kongai.llm.chat import Untranslatable
from kongai.llm.formats import Envelope
from kongai.llm.translate import StreamTranslator, Translation
from kongai.providers import PROVIDERS
from kongai.providers.options import Options
from kongai.testing import chop, events

SHARED = Path(__file__).parents[2] / "shared" / "corpus"
if not SHARED.is_dir():
    pytest.skip("there is no shared corpus", allow_module_level=True)

anthropic = pytest.importorskip("anthropic")
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")


class Exchanged(NamedTuple):
    """One request to a vendor, and its answer."""

    format: str
    name: str
    request: bytes
    status: int
    response: Any

    @property
    def body(self) -> bytes:
        if isinstance(self.response, str):
            return self.response.encode()
        return json.dumps(self.response).encode()


FILES = {"anthropic.jsonl": "anthropic", "openai_chat.jsonl": "openai"}
OTHER = {"anthropic": "openai", "openai": "anthropic"}
MODELS = {
    "anthropic": (
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-8"),
    ),
    "ollama": (("ollama", "gpt-oss:20b"),),
    "openai": (
        ("openai", "gpt-4.1"),
        ("openai", "gpt-5-mini"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-reasoner"),
    ),
}
"""By format, providers of it that differ in what they take, and a model of each."""
REFUSED = {
    "expected a JSON object": "the request is a form, with a file in it",
    "*a file by its id is known to *": "files have ids with one vendor only",
    "*content of type input_audio can't be carried over": "only OpenAI hears voices",
    "*content of type video_url can't be carried over": "only some see films",
    "a document by its address can't be sent to this provider": (
        "OpenAI's format takes documents by their bytes only"
    ),
    "a document can't be sent to Ollama": "it takes texts and images",
    "an image by its address can't be sent to Ollama": "it fetches nothing",
}
"""Why requests are refused, with what it means."""
LEFT_OUT_OF_REQUESTS = (
    "cache_control",
    "container",
    "context_management",
    "frequency_penalty",
    "mcp_servers",
    "messages[].content[*]",
    "messages[].content[].content[tool_reference]",
    "messages[].content[].prompt_cache_breakpoint",
    "messages[].reasoning_details[*]",
    "models",
    "moderation",
    "output.description",
    "output.name",
    "output.strict",
    "output_config.task_budget",
    "parallel_tool_calls",
    "prefill",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "provider",
    "reasoning",
    "reasoning.budget",
    "reasoning.effort",
    "reasoning_format",
    "response_format[json_object]",
    "seed",
    "service_tier",
    "stop",
    "temperature",
    "thinking",
    "thinking.display",
    "thinking.signature",
    "tool_choice",
    "tool_result.is_error",
    "tools[*]",
    "tools[].defer_loading",
    "tools[].strict",
    "top_p",
    "transforms",
    "web_search_options",
)
LEFT_OUT_OF_ANSWERS = (
    "choices[].delta.executed_tools",
    "choices[].delta.reasoning_details",
    "choices[].logprobs",
    "choices[].message.annotations",
    "choices[].message.audio",
    "choices[].message.reasoning_details[*]",
    "container",
    "content[*]",
    "content[].citations",
    "context_management",
    "metadata",
    "moderation",
)
SAMPLING = {"temperature", "top_k", "top_p"}
"""Parameters of Anthropic's API that newer versions of its SDK no longer name."""
DONE = b"data: [DONE]\n\n"
CUTS = 40


def rows() -> Iterable[Exchanged]:
    for file, format in FILES.items():
        for line in (SHARED / file).read_text("utf-8").splitlines():
            found = json.loads(line)
            request = json.dumps(found["request"]).encode()
            name = f"{format}-{found['name']}"
            yield Exchanged(format, name, request, found["status"], found["response"])


ROWS = list(rows())
STREAMS = [row for row in ROWS if row.status == 200 and isinstance(row.response, str)]
WHOLE = [row for row in ROWS if row.status == 200 and row not in STREAMS]
ERRORS = [row for row in ROWS if row.status != 200]


def each(rows: list[Exchanged]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def is_one_of(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is among those that are known; a star stands for any text."""
    known = "|".join(re.escape(one).replace(r"\*", ".*") for one in patterns)
    return re.fullmatch(known, name) is not None


def translated(row: Exchanged, format: str, provider: str, model: str) -> Any:
    """The request for a provider, or the reason why there is none."""
    client, other = registry.format(row.format), registry.provider_format(format)
    dialect = PROVIDERS[provider].dialect(model, Options())
    try:
        chat = client.decode_request(row.request)
        chat.model = model
        return json.loads(Translation(client, other, chat).request(dialect)), chat
    except Untranslatable as error:
        return str(error), None


@each(ROWS)
def test_a_request(row: Exchanged) -> None:
    for format, models in MODELS.items():
        if format == row.format:
            continue
        for provider, model in models:
            request, chat = translated(row, format, provider, model)
            if chat is None:
                assert is_one_of(request, REFUSED)
                continue
            for name in chat.losses.names():
                assert is_one_of(name, LEFT_OUT_OF_REQUESTS), name
            ACCEPTS[format](request)


def accepts_anthropic(request: dict[str, Any]) -> None:
    kinds = anthropic.types.message_create_params
    known = kinds.MessageCreateParamsBase.__annotations__.keys() | {"stream"}
    assert request.keys() <= known | SAMPLING
    assert request["max_tokens"] > 0
    for message in request["messages"]:
        accepts(anthropic.types.MessageParam, message)
        assert message["content"]
    for tool in request.get("tools", ()):
        accepts(anthropic.types.ToolParam, tool)
        assert tool["input_schema"]["type"] == "object"
    for name, kind in {
        "thinking": anthropic.types.ThinkingConfigParam,
        "tool_choice": anthropic.types.ToolChoiceParam,
    }.items():
        if name in request:
            accepts(kind, request[name])
    if request.get("thinking", {}).get("type") == "enabled":
        assert 1024 <= request["thinking"]["budget_tokens"] < request["max_tokens"]
    answered(
        [
            {p["id"] for p in blocks(m) if p["type"] == "tool_use"}
            for m in request["messages"]
        ],
        [
            {p["tool_use_id"] for p in blocks(m) if p["type"] == "tool_result"}
            for m in request["messages"]
        ],
    )


def blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []


def answered(called: list[set[str]], given: list[set[str]]) -> None:
    """Every result is one of a call that came before it."""
    known: set[str] = set()
    for calls, results in zip(called, given, strict=True):
        assert results <= known
        known |= calls


def accepts_openai(request: dict[str, Any]) -> None:
    kinds = openai.types.chat.completion_create_params
    known = kinds.CompletionCreateParamsBase.__annotations__.keys() | {"stream"}
    assert request.keys() <= known | {"top_k", "reasoning"}
    for message in request["messages"]:
        accepts(openai.types.chat.ChatCompletionMessageParam, message)
    for tool in request.get("tools", ()):
        accepts(openai.types.chat.ChatCompletionFunctionToolParam, tool)
    if "tool_choice" in request:
        accepts(
            openai.types.chat.ChatCompletionToolChoiceOptionParam,
            request["tool_choice"],
        )
    if "response_format" in request:
        accepts(kinds.ResponseFormat, request["response_format"])
    answered(
        [
            {call["id"] for call in message.get("tool_calls", ())}
            for message in request["messages"]
        ],
        [
            {message["tool_call_id"]} if message["role"] == "tool" else set()
            for message in request["messages"]
        ],
    )


def accepts_ollama(request: dict[str, Any]) -> None:
    """https://docs.ollama.com/api/chat"""
    known = {"model", "messages", "tools", "format", "options", "stream", "think"}
    assert request.keys() <= known
    for message in request["messages"]:
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert isinstance(message["content"], str)


ACCEPTS = {
    "anthropic": accepts_anthropic,
    "ollama": accepts_ollama,
    "openai": accepts_openai,
}
_ADAPTERS: dict[Any, Any] = {}


def accepts(kind: Any, value: Any) -> None:
    """Whether a vendor's SDK takes a value for one of this type."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = pydantic.TypeAdapter(kind)
    unfold(_ADAPTERS[kind].validate_python(value))


def unfold(value: Any) -> None:
    """Look into what pydantic checks only when it is read."""
    if isinstance(value, Mapping):
        for item in value.values():
            unfold(item)
    elif not isinstance(value, (str, bytes)) and isinstance(value, Iterable):
        for item in value:
            unfold(item)


def envelope() -> Envelope:
    return Envelope("msg_given", "some-model", 1767225600, 7, usage_in_stream=True)


def translation(row: Exchanged) -> Translation:
    """The translation for a client of the other format, which asked something."""
    client = registry.format(OTHER[row.format])
    asked = b'{"max_tokens":9,"messages":[{"role":"user","content":"?"}]}'
    provider = registry.provider_format(row.format)
    return Translation(client, provider, client.decode_request(asked))


@each(WHOLE)
def test_a_whole_answer(row: Exchanged) -> None:
    written, answer = translation(row).answer(row.body, envelope())
    found = json.loads(written)
    for name in answer.losses.names():
        assert is_one_of(name, LEFT_OUT_OF_ANSWERS), name
    given = row.response.get("usage")
    if row.format == "openai":
        anthropic.types.Message.model_validate(found)
        assert adds_up(found["usage"], openais_count(given))
    else:
        openai.types.chat.ChatCompletion.model_validate(found)
        assert adds_up(found["usage"], anthropics_count(given))
    reader = registry.format(row.format).whole_reader()
    reader.feed(row.body)
    reader.end()
    assert reader.usage == answer.usage
    stream, _ = translation(row).replayed(row.body, envelope())
    accepts_stream(OTHER[row.format], stream)


def openais_count(given: dict[str, Any]) -> tuple[int, int]:
    """The tokens of the prompt, and all others: some count thoughts apart."""
    completion = given["total_tokens"] - given["prompt_tokens"]
    return given["prompt_tokens"], completion


def anthropics_count(given: dict[str, Any]) -> tuple[int, int]:
    """The tokens of the prompt, those of the cache too, and those of the answer."""
    parts = given.get("iterations") or [given]
    names = (
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    )
    prompt = sum(part.get(name) or 0 for part in parts for name in names)
    return prompt, sum(part["output_tokens"] for part in parts)


def adds_up(written: dict[str, Any], count: tuple[int, int]) -> bool:
    """Whether a client counts what the provider has counted."""
    if "input_tokens" in written:
        return anthropics_count(written) == count
    total = written["prompt_tokens"] + written["completion_tokens"]
    return written["total_tokens"] == total and openais_count(written) == count


def streamed(
    translation: Translation, pieces: Iterable[bytes]
) -> tuple[bytes, StreamTranslator]:
    translator = translation.stream(envelope())
    told = [translator.translate(piece) for piece in pieces]
    return b"".join([*told, translator.end()]), translator


@each(STREAMS)
def test_a_stream(row: Exchanged) -> None:
    written, translator = streamed(translation(row), [row.body])
    assert translator.finished
    for name in translator.losses():
        assert is_one_of(name, LEFT_OUT_OF_ANSWERS), name
    usage = accepts_stream(OTHER[row.format], written)
    count = counted(row)
    if count is not None and usage is not None:
        assert adds_up(usage, count)
    reader = registry.format(row.format).stream_reader()
    reader.feed(row.body)
    reader.end()
    assert reader.finished
    assert not reader.broken
    assert reader.model == translator.model
    if count is not None:
        assert reader.usage == translator.usage


def accepts_stream(format: str, stream: bytes) -> dict[str, Any] | None:
    """Let a vendor's SDK look at every event, and return the last usage."""
    usage: dict[str, Any] | None = None
    for name, fields in events([stream.removesuffix(DONE)]):
        if format == "openai":
            if "error" not in fields:
                openai.types.chat.ChatCompletionChunk.model_validate(fields)
        elif name not in ("error", "ping"):
            accepts(anthropic.types.RawMessageStreamEvent, fields)
        if fields.get("usage"):
            usage = fields["usage"]
    return usage


def counted(row: Exchanged) -> tuple[int, int] | None:
    """What a stream tells of its tokens in the end."""
    usage: dict[str, Any] = {}
    for _, fields in events([row.body.removesuffix(DONE)]):
        said = fields.get("message", fields).get("usage")
        said = said or (fields.get("x_groq") or {}).get("usage")
        usage |= {name: n for name, n in (said or {}).items() if n is not None}
    if row.format == "openai":
        return openais_count(usage) if usage else None
    return anthropics_count(usage)


@each(STREAMS)
def test_a_stream_at_many_cuts(row: Exchanged) -> None:
    shared = translation(row)
    whole, _ = streamed(shared, [row.body])
    size = len(row.body)
    for number in range(CUTS):
        cut = (2 * number + 1) * size // (2 * CUTS)
        assert streamed(shared, chop(row.body, cut))[0] == whole
    assert streamed(shared, chop(row.body, *range(7, size, 7)))[0] == whole


@each(ERRORS)
def test_an_error(row: Exchanged) -> None:
    body = json.loads(translation(row).error(row.status, row.body, "req_1"))
    given = row.response["error"]["message"]
    assert body["error"]["message"].endswith(given)
    if OTHER[row.format] == "anthropic":
        anthropic.types.ErrorResponse.model_validate(body)
    else:
        openai.types.ErrorObject.model_validate(body["error"])


def test_how_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Counter(
        f"{row.format} to {format}"
        for row in ROWS
        for format, ((provider, model), *_) in MODELS.items()
        if format != row.format and translated(row, format, provider, model)[1] is None
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(ROWS)} requests, {len(WHOLE)} whole answers, {len(STREAMS)} "
            f"streams, {len(ERRORS)} errors; refused: {dict(refused)}\n"
        )
    assert len(WHOLE) > 300
    assert len(STREAMS) > 30
    assert len(ERRORS) > 10
