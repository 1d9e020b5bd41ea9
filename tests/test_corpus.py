"""Answers of providers through every cut: the same bytes, the same counts.

A case is a directory of corpus/FORMAT with request.json, response.sse (a stream) or
response.json (a whole answer), and expected.json, the facts of its usage. To make a
bug report a test, save its files as one more directory.
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
SHORT = 1300
"""Streams of up to so many bytes go through the whole gateway at every cut."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_stream = pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)


def response(case: Path) -> bytes:
    (file,) = case.glob("response.*")
    return file.read_bytes()


def expected(case: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((case / "expected.json").read_text("utf-8"))
    return {"reasoning_tokens": 0, "service_tier": None, **facts}


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
        "finished": reader.finished,
        "estimated": usage.estimated,
    }


def test_there_is_a_corpus() -> None:
    assert len(CASES) >= 13
    assert 0 < len(STREAMS) < len(CASES)


@every_case
def test_the_request_is_one(case: Path) -> None:
    request = (case / "request.json").read_bytes()
    found = registry.format(case.parent.name).read_request(request)
    assert found.model == json.loads(request)["model"]
    assert found.has_prompt
    assert found.streaming == (case in STREAMS)


@every_case
def test_the_reader_at_every_cut(case: Path) -> None:
    data, wanted = response(case), expected(case)
    for cut in range(len(data) + 1):
        assert read(case, chop(data, cut)) == wanted
    assert read(case, one_by_one(data)) == wanted


@every_stream
def test_an_independent_decoder_finds_the_same_events(case: Path) -> None:
    """A fixture with a slip in it would test nothing."""
    data = response(case).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    spoken = [fields for _, fields in events([data])]
    assert spoken[0]["type"] == "message_start"
    assert spoken[-1]["type"] in ("message_stop", "error")
    assert all("type" in fields for fields in spoken)


def gateway(transport: MockTransport, sink: ListSink) -> Proxy:
    """The gateway of Kong's how-to, whose file-log writes to nowhere."""
    text = resources.files("kongai").joinpath("howto.yml").read_text("utf-8")
    config = yaml.safe_load(text)
    (file_log,) = [
        plugin
        for plugin in config["services"][0]["plugins"]
        if plugin["name"] == "file-log"
    ]
    file_log["config"]["path"] = "/dev/null"
    return Proxy.from_config(config, sinks=[sink], transport=transport)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_gateway_at_every_cut(case: Path) -> None:
    data, request = response(case), (case / "request.json").read_bytes()
    step = 1 if len(data) <= SHORT else len(data) // 97
    cuts = [chop(data, cut) for cut in range(0, len(data) + 1, step)]
    todo = [*cuts, one_by_one(data)]
    kind = "text/event-stream" if case in STREAMS else "application/json"
    remaining = iter(todo)
    upstream = MockTransport(
        lambda _: answer(next(remaining), headers=[("content-type", kind)])
    )
    sink = ListSink()
    client = Client(gateway(upstream, sink))
    for _ in todo:
        with client.post("/anything/v1/messages?beta=true", data=request) as got:
            assert got.status_code == 200
            assert got.content_type == kind
            assert got.get_data() == data
    assert all(sent.body == request for sent in upstream.requests)
    wanted = recorded(expected(case), request, streamed=case in STREAMS)
    assert [usage_of(record) for record in sink] == [wanted] * len(todo)


def usage_of(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of a record that no clock decides."""
    timed = ("time_per_token", "time_to_first_token", "cost")
    proxied = record["ai"]["proxy"]
    usage = {k: v for k, v in proxied["usage"].items() if k not in timed}
    meta = {k: proxied["meta"][k] for k in MODELS}
    assert proxied["usage"]["cost"] > 0
    return {**usage, **meta, "kongai": record["kongai"]}


MODELS = ("provider_name", "request_model", "response_model", "request_mode")


def recorded(
    expected: dict[str, Any], request: bytes, *, streamed: bool
) -> dict[str, Any]:
    """The facts of a fixture, in the words of Kong's record."""
    prompt = {
        "cached_tokens": expected["cached_tokens"],
        "cache_creation_tokens": sum(expected["cache_writes"].values()),
    }
    completion = {"reasoning_tokens": expected["reasoning_tokens"]}
    kongai: dict[str, Any] = {"ended": "ok", "price": "table"}
    if expected["estimated"]:
        kongai["usage_estimated"] = True
    return {
        "prompt_tokens": expected["prompt_tokens"],
        "prompt_tokens_details": {k: v for k, v in prompt.items() if v},
        "completion_tokens": expected["completion_tokens"],
        "completion_tokens_details": {k: v for k, v in completion.items() if v},
        "total_tokens": expected["prompt_tokens"] + expected["completion_tokens"],
        "provider_name": "anthropic",
        "request_model": json.loads(request)["model"],
        "response_model": expected["model"],
        "request_mode": "stream" if streamed else "oneshot",
        "kongai": kongai,
    }
