"""Answers of providers through every cut: the same bytes, the same counts.

A case is a directory of corpus/FORMAT with request.json, response.sse (a stream) or
response.json (a whole answer), and expected.json, the facts of its usage. Where the
client gets other bytes than the provider sent, they are client.sse. To make a bug
report a test, save its files as one more directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from werkzeug.test import Client

from kongai import Proxy, registry
from kongai.llm.formats import AnswerReader
from kongai.testing import ListSink, MockTransport, answer, chop, events

CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(path.parent for path in CORPUS.glob("*/*/expected.json"))
STREAMS = [case for case in CASES if (case / "response.sse").exists()]
CUTS = 61
"""At so many places an answer is cut that goes through the whole gateway; the shortest
ones of each format are cut at every place."""
PATHS = {"anthropic": "/v1/messages?beta=true", "openai": "/v1/chat/completions"}
DONE = b"data: [DONE]\n\n"
FILES = {"request.json", "response.sse", "response.json", "client.sse", "expected.json"}


def name_of(case: Path) -> str:
    return f"{case.parent.name}-{case.name}"


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
every_stream = pytest.mark.parametrize("case", STREAMS, ids=name_of)


def response(case: Path) -> bytes:
    (file,) = case.glob("response.*")
    return file.read_bytes()


def expected(case: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((case / "expected.json").read_text("utf-8"))
    return {
        "reasoning_tokens": 0,
        "service_tier": None,
        "prompt_details": {},
        "completion_details": {},
        **facts,
    }


def read_facts(case: Path) -> dict[str, Any]:
    """The facts that a reader finds; the prompt's words are not in the answer."""
    facts = expected(case)
    facts.pop("estimated_prompt_tokens", None)
    return facts


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def read(case: Path, pieces: Iterable[bytes]) -> dict[str, Any]:
    """What the format's reader makes of an answer."""
    format = registry.format(case.parent.name)
    streamed = case in STREAMS
    reader = format.stream_reader() if streamed else format.whole_reader()
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    assert not reader.broken
    return facts(reader)


def facts(reader: AnswerReader) -> dict[str, Any]:
    usage = reader.usage
    return {
        "model": reader.model,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_writes": usage.cache_writes,
        "reasoning_tokens": usage.reasoning_tokens,
        "service_tier": usage.service_tier,
        "prompt_details": usage.given_prompt_details,
        "completion_details": usage.given_completion_details,
        "finished": reader.finished,
        "estimated": usage.estimated,
    }


def test_there_is_a_corpus() -> None:
    assert {case.parent.name for case in CASES} == set(registry.format_names())
    assert len(CASES) >= 34
    assert 0 < len(STREAMS) < len(CASES)


@every_case
def test_no_file_of_a_case_is_unused(case: Path) -> None:
    names = {path.name for path in case.iterdir()}
    assert names <= FILES
    assert {"request.json", "expected.json"} < names
    assert ("response.sse" in names) != ("response.json" in names)


@every_case
def test_the_request_is_one(case: Path) -> None:
    request = (case / "request.json").read_bytes()
    found = registry.format(case.parent.name).read_request(request)
    assert found.model == json.loads(request)["model"]
    assert found.has_prompt
    assert found.streaming == (case in STREAMS)


@every_case
def test_the_reader_at_every_cut(case: Path) -> None:
    data, wanted = response(case), read_facts(case)
    for cut in range(len(data) + 1):
        assert read(case, chop(data, cut)) == wanted
    assert read(case, one_by_one(data)) == wanted


@every_stream
def test_an_independent_decoder_finds_the_same_events(case: Path) -> None:
    """A fixture with a slip in it would test nothing."""
    data = response(case).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    done = data.endswith(DONE)
    spoken = [fields for _, fields in events([data.removesuffix(DONE)])]
    if case.parent.name == "openai":
        assert done or spoken[-1].get("error") or finish_reason(spoken[-1])
        assert all("choices" in fields for fields in spoken[:-1])
        return
    assert spoken[0]["type"] == "message_start"
    assert spoken[-1]["type"] in ("message_stop", "error")
    assert all("type" in fields for fields in spoken)


def finish_reason(chunk: dict[str, Any]) -> Any:
    return chunk["choices"][0]["finish_reason"]


def gateway(format: str, transport: MockTransport, sink: ListSink) -> Proxy:
    """The gateway of Kong's how-to, for a provider of this format; its file-log writes
    to nowhere."""
    text = resources.files("kongai").joinpath("howto.yml").read_text("utf-8")
    config = yaml.safe_load(text)
    plugins = {p["name"]: p["config"] for p in config["services"][0]["plugins"]}
    plugins["file-log"]["path"] = "/dev/null"
    plugins["ai-proxy"]["llm_format"] = format
    model = plugins["ai-proxy"]["model"]
    model["provider"] = format
    if format == "openai":
        # The table has no prices of what its kin serve.
        model["options"] = {"input_cost": 1, "output_cost": 2}
    return Proxy.from_config(config, sinks=[sink], transport=transport)


@every_case
def test_the_gateway_at_every_cut(case: Path) -> None:
    data, request = response(case), (case / "request.json").read_bytes()
    step = 1 if is_shortest(case) else len(data) // CUTS
    cuts = [chop(data, cut) for cut in range(0, len(data) + 1, step)]
    todo = [*cuts, one_by_one(data)]
    kind = "text/event-stream" if case in STREAMS else "application/json"
    remaining = iter(todo)
    upstream = MockTransport(
        lambda _: answer(next(remaining), headers=[("content-type", kind)])
    )
    sink = ListSink()
    client = Client(gateway(case.parent.name, upstream, sink))
    wanted = shown(case)
    for _ in todo:
        with client.post(f"/anything{PATHS[case.parent.name]}", data=request) as got:
            assert got.status_code == 200
            assert got.content_type == kind
            assert got.get_data() == wanted
    if asks_for_usage(case):
        assert all(sent.body == request for sent in upstream.requests)
    else:
        asking = {**json.loads(request), "stream_options": {"include_usage": True}}
        for sent in upstream.requests:
            assert isinstance(sent.body, bytes)
            assert json.loads(sent.body) == asking
    facts = recorded(case, request)
    assert [usage_of(record) for record in sink] == [facts] * len(todo)


def is_shortest(case: Path) -> bool:
    """Whether no answer of this format and kind is shorter."""
    alike = [
        other
        for other in CASES
        if other.parent == case.parent and (other in STREAMS) == (case in STREAMS)
    ]
    return case == min(alike, key=lambda other: len(response(other)))


def shown(case: Path) -> bytes:
    """What the client gets."""
    other = case / "client.sse"
    return other.read_bytes() if other.exists() else response(case)


def asks_for_usage(case: Path) -> bool:
    """Whether the stream tells its usage without the gateway's doing."""
    request = json.loads((case / "request.json").read_bytes())
    return (
        case.parent.name == "anthropic"
        or case not in STREAMS
        or request.get("stream_options") == {"include_usage": True}
    )


def usage_of(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of a record that no clock decides."""
    timed = ("time_per_token", "time_to_first_token", "cost")
    proxied = record["ai"]["proxy"]
    usage = {k: v for k, v in proxied["usage"].items() if k not in timed}
    meta = {k: proxied["meta"][k] for k in MODELS}
    assert proxied["usage"]["cost"] > 0
    return {**usage, **meta, "kongai": record["kongai"]}


MODELS = ("provider_name", "request_model", "response_model", "request_mode")


def recorded(case: Path, request: bytes) -> dict[str, Any]:
    """The facts of a fixture, in the words of Kong's record."""
    facts = expected(case)
    prompt = {
        "cached_tokens": facts["cached_tokens"],
        "cache_creation_tokens": sum(facts["cache_writes"].values()),
    }
    completion = {"reasoning_tokens": facts["reasoning_tokens"]}
    priced = {"anthropic": "table", "openai": "config"}
    kongai: dict[str, Any] = {"ended": "ok", "price": priced[case.parent.name]}
    if facts["estimated"]:
        kongai["usage_estimated"] = True
    prompt_tokens = facts.get("estimated_prompt_tokens", facts["prompt_tokens"])
    return {
        "prompt_tokens": prompt_tokens,
        "prompt_tokens_details": {
            **{k: v for k, v in prompt.items() if v},
            **facts["prompt_details"],
        },
        "completion_tokens": facts["completion_tokens"],
        "completion_tokens_details": {
            **{k: v for k, v in completion.items() if v},
            **facts["completion_details"],
        },
        "total_tokens": prompt_tokens + facts["completion_tokens"],
        "provider_name": case.parent.name,
        "request_model": json.loads(request)["model"],
        "response_model": facts["model"],
        "request_mode": "stream" if case in STREAMS else "oneshot",
        "kongai": kongai,
    }
