"""What `ai-proxy` sends up: whose model, whose options, in whose format."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from kongai.testing import answer, chop

from .ai_gateway import CHUNKS, DONE, MESSAGE, Gateway, asked, chunk, completion

URL = {"upstream_url": "http://llm.test/v1/chat/completions"}


def openai(**options: Any) -> Gateway:
    model = options.pop("model", {})
    return Gateway("openai", "openai", completion(), model=model, **options)


@pytest.mark.parametrize(
    ("model", "body", "sent"),
    [
        ({}, {"model": "a"}, "a"),
        ({"name": "a"}, {"model": "a"}, "a"),
        ({"name": "a"}, {"model": ...}, "a"),
        ({"name": "a"}, {"model": None}, "a"),
        ({"name": "a"}, {"model": ""}, "a"),
        ({"name": "a", "model_alias": "fast"}, {"model": "fast"}, "a"),
        ({"name": "a", "model_alias": "fast"}, {"model": "a"}, "a"),
        ({"name": "a", "model_alias": "*"}, {"model": "claude-haiku-4-5"}, "a"),
        ({"model_alias": "*"}, {"model": "b"}, "b"),
    ],
)
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_which_model_is_asked(
    client: str, model: dict[str, Any], body: dict[str, Any], sent: str
) -> None:
    gateway = Gateway(client, "openai", completion(), model=model)
    got = gateway.ask(asked(**body))
    assert got.status == 200
    assert gateway.sent["model"] == sent
    assert got.headers["X-Kong-LLM-Model"] == f"openai/{sent}"
    assert gateway.record["ai"]["proxy"]["meta"]["request_model"] == sent


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_long_name_goes_up_whole_and_is_cut_for_the_record(
    client: str, status: int
) -> None:
    name = "m" * 100_000
    upstream = answer(completion(model="n" * 100_000), status)
    gateway = Gateway(client, "openai", upstream)
    got = gateway.ask(asked(model=name))
    assert gateway.sent["model"] == name
    assert len(str(got.headers)) < 2_000
    meta = gateway.record["ai"]["proxy"]["meta"]
    assert meta["request_model"] == "m" * 256
    assert meta["response_model"] == ("n" if status == 200 else "m") * 256


def test_names_are_compared_whole() -> None:
    long = "a" * 300
    gateway = openai(model={"name": "b", "model_alias": long})
    assert gateway.ask(asked(model=long)).status == 200
    assert gateway.ask(asked(model=long + "c")).status == 400


def test_a_long_name_that_is_refused_is_cut_too() -> None:
    gateway = openai(model={"name": "b"})
    assert gateway.ask(asked(model="a" * 100_000)).status == 400
    assert gateway.record["ai"]["proxy"]["meta"]["request_model"] == "a" * 256


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        ({"name": "a"}, {"model": "b"}, "cannot use own model - must be: a"),
        (
            {},
            {"model": ...},
            "model parameter not found in request, nor in gateway configuration",
        ),
        ({"name": "a", "model_alias": "f"}, {"model": "b"}, "model not configured"),
        (
            {},
            {"prompt": "and this"},
            "request matches multiple LLM request formats",
        ),
        ({}, {"messages": []}, "request body doesn't contain valid prompts"),
        (
            {},
            {"messages": ..., "prompt": "x"},
            (
                "[llm/v1/completions] message format is not compatible with "
                "[llm/v1/chat] route type"
            ),
        ),
        (
            {},
            {"messages": ..., "input": "x"},
            "request body doesn't contain valid prompts",
        ),
    ],
)
def test_what_is_refused(
    model: dict[str, Any], body: dict[str, Any], text: str
) -> None:
    gateway = openai(model=model)
    got = gateway.ask(asked(**body))
    assert (got.status, got.error()) == (400, text)
    assert gateway.upstream.requests == []
    assert gateway.record["source"] == "kong"


def test_a_body_between_equal_formats_is_untouched() -> None:
    """Odd spacing, unknown members and their order reach the provider."""
    body = (
        b'{ "zzz": 1.10, "model" :"a",\n"messages":[ {"role":"user","content":"h"} ]}'
    )
    gateway = openai()
    got = gateway.ask(body)
    assert gateway.seen.body == body
    assert got.body == completion()


def test_configured_options_win_and_nothing_else_changes() -> None:
    options = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 3}
    gateway = openai(model={"options": options})
    body = (
        b'{"model":"a","temperature":1.5,"messages":[{"role": "user","content":"h"}]}'
    )
    gateway.ask(body)
    assert gateway.sent == {**json.loads(body), **options}
    assert b'[{"role": "user","content":"h"}]' in gateway.seen.body  # type: ignore[operator]


@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
def test_a_configured_limit_goes_where_the_model_takes_it(given: str) -> None:
    gateway = openai(model={"options": {"max_tokens": 7}})
    gateway.ask(asked(model="gpt-5-mini", max_tokens=...) | {given: 100})
    assert gateway.sent["max_completion_tokens"] == 7
    assert "max_tokens" not in gateway.sent


def test_configured_options_win_in_a_translation_too() -> None:
    options = {"max_tokens": 7, "temperature": 0.5}
    gateway = Gateway("anthropic", "openai", completion(), model={"options": options})
    gateway.ask(asked(temperature=1))
    assert (gateway.sent["max_tokens"], gateway.sent["temperature"]) == (7, 0.5)


def test_a_stream_that_must_be_is_asked_for() -> None:
    gateway = Gateway("openai", "openai", CHUNKS, response_streaming="always")
    got = gateway.ask()
    assert gateway.sent["stream"] is True
    assert got.body.endswith(DONE)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_stream_that_may_not_be_is_refused(client: str) -> None:
    gateway = Gateway(client, "openai", CHUNKS, response_streaming="deny")
    got = gateway.ask(asked(stream=True))
    text = "response streaming is not enabled for this LLM"
    assert (got.status, got.error()) == (400, text)


def test_the_usage_of_a_stream_is_asked_for_and_kept_from_who_did_not_ask() -> None:
    gateway = Gateway("openai", "openai", CHUNKS)
    got = gateway.ask(asked(stream=True))
    assert gateway.sent["stream_options"] == {"include_usage": True}
    assert got.body == b"".join(CHUNKS[:4]) + DONE
    assert (gateway.usage["prompt_tokens"], gateway.usage["completion_tokens"]) == (
        20,
        5,
    )


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_usage_in_a_coding_is_kept_back_where_it_can_be_read(coding: str) -> None:
    """A provider may compress although it was asked not to."""
    stream = b"".join(CHUNKS)
    body = gzip.compress(stream) if coding == "gzip" else stream
    head = [("content-type", "text/event-stream"), ("content-encoding", coding)]
    gateway = Gateway("openai", "openai", answer(chop(body, 5, 90), headers=head))
    got = gateway.ask(asked(stream=True))
    if coding == "gzip":
        assert got.body == b"".join(CHUNKS[:4]) + DONE
        assert "Content-Encoding" not in got.headers
        assert gateway.usage["total_tokens"] == 25
    else:
        assert got.body == body
        assert got.headers["Content-Encoding"] == "br"
        assert gateway.record["kongai"]["usage_unread"] is True


def test_a_stream_of_which_something_is_taken_out_has_no_length() -> None:
    stream = b"".join(CHUNKS)
    head = [("content-type", "text/event-stream"), ("content-length", str(len(stream)))]
    gateway = Gateway("openai", "openai", answer([stream], headers=head))
    got = gateway.ask(asked(stream=True))
    assert len(got.body) < len(stream)
    assert "Content-Length" not in got.headers


@pytest.mark.parametrize("status", [200, 400])
def test_what_comes_in_place_of_a_stream_goes_on_as_it_is(status: int) -> None:
    packed = gzip.compress(completion())
    head = [
        *(("content-type", "application/json"), ("content-encoding", "gzip")),
        ("content-length", str(len(packed))),
    ]
    gateway = Gateway("openai", "openai", answer(packed, status, headers=head))
    got = gateway.ask(asked(stream=True))
    assert (got.status, got.body) == (status, packed)
    assert got.headers["Content-Encoding"] == "gzip"
    assert got.headers["Content-Length"] == str(len(packed))


@pytest.mark.parametrize("statistics", [True, False])
def test_who_asks_for_the_usage_gets_it(*, statistics: bool) -> None:
    logging = {"log_statistics": statistics}
    gateway = Gateway("openai", "openai", CHUNKS, logging=logging)
    options = {"include_usage": True, "include_obfuscation": False}
    body = json.dumps(asked(stream=True, stream_options=options)).encode()
    got = gateway.ask(body)
    assert gateway.seen.body == body
    assert got.body == b"".join(CHUNKS)


def test_without_statistics_a_stream_is_asked_for_as_it_was() -> None:
    gateway = Gateway("openai", "openai", CHUNKS, logging={"log_statistics": False})
    body = json.dumps(asked(stream=True)).encode()
    gateway.ask(body)
    assert gateway.seen.body == body


def test_a_usage_that_nobody_tells_is_estimated_as_by_kong() -> None:
    """Words by 1.8, and a token for four characters."""
    stream = [
        chunk({"content": "x" * 25}),
        chunk({}, finish_reason="stop"),
        DONE,
    ]
    gateway = Gateway("openai", "mistral", stream, model={"options": MISTRAL})
    gateway.ask(asked(stream=True))
    assert gateway.usage["completion_tokens"] == 7
    assert gateway.usage["prompt_tokens"] == round(6 * 1.8)
    assert gateway.record["kongai"]["usage_estimated"] is True
    assert "stream_options" not in gateway.sent


MISTRAL = {"mistral_format": "openai"}


@pytest.mark.parametrize(
    ("route_type", "path", "body"),
    [
        ("llm/v1/completions", "/v1/completions", {"model": "m", "prompt": "Hello"}),
        ("llm/v1/completions", "/completions", {"model": "m", "prompt": ["a", "b"]}),
        ("llm/v1/embeddings", "/v1/embeddings", {"model": "m", "input": ["a", "b"]}),
    ],
)
def test_completions_and_embeddings_pass(
    route_type: str, path: str, body: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    answer = json.dumps({"object": "list", "model": "m-1", "usage": usage}).encode()
    gateway = Gateway("openai", "openai", answer, route_type=route_type)
    got = gateway.ask(body, path=path)
    assert got.body == answer
    assert gateway.seen.target == f"/v1/{path.rpartition('/')[2]}"
    assert gateway.sent == body
    assert gateway.usage["prompt_tokens"] == gateway.usage["total_tokens"] == 2
    assert gateway.record["ai"]["proxy"]["meta"]["response_model"] == "m-1"


def test_a_chat_is_no_embedding() -> None:
    gateway = Gateway("openai", "openai", b"", route_type="llm/v1/embeddings")
    got = gateway.ask(path="/v1/embeddings")
    assert got.error() == (
        "[llm/v1/chat] message format is not compatible with [llm/v1/embeddings] "
        "route type"
    )


def test_dimensions_of_embeddings_may_be_configured() -> None:
    gateway = Gateway(
        "openai",
        "openai",
        b"{}",
        route_type="llm/v1/embeddings",
        model={"options": {"embeddings_dimensions": 8}},
    )
    gateway.ask({"model": "m", "input": "x"}, path="/v1/embeddings")
    assert gateway.sent["dimensions"] == 8


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models", "/v1/models"),
        ("/models/gpt-5", "/v1/models/gpt-5"),
        ("/v1/files?limit=3", "/v1/files?limit=3"),
    ],
)
def test_other_paths_of_the_api_reach_a_provider_of_the_same_format(
    path: str, target: str
) -> None:
    gateway = openai()
    gateway.ask(path=path, method="GET")
    assert gateway.seen.target == target


@pytest.mark.parametrize("path", ["/", "/chat/completions", "/whatever/this/is"])
def test_a_path_that_is_none_of_the_apis_is_for_what_the_route_is_for(
    path: str,
) -> None:
    """In Kong the path below the route is of no interest."""
    gateway = openai()
    assert gateway.ask(path=path).status == 200
    assert gateway.seen.target == "/v1/chat/completions"


def test_what_cannot_be_carried_over_is_refused_and_says_where() -> None:
    voice = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    gateway = Gateway("openai", "anthropic", json.dumps(MESSAGE).encode())
    got = gateway.ask(asked(messages=[{"role": "user", "content": [voice]}]))
    assert got.status == 400
    assert got.error() == (
        "error transforming to anthropic://llm/v1/chat: messages[0].content[0]: "
        "content of type input_audio can't be carried over"
    )
    assert gateway.upstream.requests == []


def test_tokens_are_counted_for_a_provider_that_counts_none() -> None:
    gateway = Gateway("anthropic", "openai")
    got = gateway.ask(path="/v1/messages/count_tokens")
    assert got.json() == {"input_tokens": 7}
    assert got.headers["X-Kongai-Estimated"] == "input_tokens"
    assert gateway.upstream.requests == []
    assert gateway.record["kongai"]["usage_estimated"] is True


@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages/batches"])
def test_what_the_provider_has_nothing_like_is_not_found(path: str) -> None:
    got = Gateway("anthropic", "openai").ask(path=path)
    assert got.status == 404
    assert "another format" in got.error()


@pytest.mark.parametrize(
    ("client", "provider", "path"),
    [
        ("anthropic", "openai", "/v1/files"),
        ("openai", "anthropic", "/v1/files"),
        ("anthropic", "openai", "/v1/messages/count_tokens/more"),
    ],
)
def test_whatever_is_sent_to_what_is_not_there(
    client: str, provider: str, path: str
) -> None:
    """Such as a file, which is no JSON, and longer than a request may be."""
    gateway = Gateway(client, provider, max_request_body_size=10)
    headers = [("content-type", "multipart/form-data; boundary=b")]
    got = gateway.ask(b"--b" * 100, path=path, headers=headers)
    assert got.status == 404
    assert gateway.record["kongai"]["ended"] == "no_such_path"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 400),
        (b"[]", "application/json", 400),
        (b"{" * 100, "application/json", 413),
    ],
)
def test_what_is_counted_here_is_checked(body: bytes, kind: str, status: int) -> None:
    gateway = Gateway("anthropic", "openai", max_request_body_size=10)
    path = "/v1/messages/count_tokens"
    assert gateway.ask(body, [("content-type", kind)], path).status == status


def test_a_member_that_may_be_a_key_is_not_named_in_the_record() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    body = asked(**{"xai-CLIENTKEY12345": 1, "caf\xe9": 2, "sk-0123456789": 3})
    gateway.ask({**body, "betas": ["b"]})
    assert gateway.record["kongai"]["dropped"] == ["...", "REDACTED", "betas"]
    assert "CLIENTKEY" not in str(gateway.record)


def test_what_was_left_out_is_in_the_record() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    tools = [
        {"type": "web_search_20250305", "name": "web_search"},
        {"name": "f", "input_schema": {"type": "object"}, "defer_loading": True},
    ]
    gateway.ask(asked(context_management={"edits": [{}]}, tools=tools, top_k=5))
    assert gateway.record["kongai"]["dropped"] == [
        "context_management",
        "tools[web_search_20250305]",
        "tools[].defer_loading",
        "top_k",
    ]
    assert [tool["function"]["name"] for tool in gateway.sent["tools"]] == ["f"]


def test_nothing_left_out_is_nothing_in_the_record() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    gateway.ask()
    assert "dropped" not in gateway.record["kongai"]


@pytest.mark.parametrize(
    ("headers", "upstream"),
    [
        ([("x-team", "search")], "https://search.openai.azure.com:443/openai/"),
        ([], "none: 400 headers key x-team was not provided"),
        ([("x-team", "evil.com/")], "none: 400 "),
    ],
)
def test_templates_are_filled_in_for_each_request(
    headers: list[tuple[str, str]], upstream: str
) -> None:
    options = {"azure_instance": "$(headers.x-team)", "azure_deployment_id": "d"}
    gateway = Gateway("openai", "azure", completion(), model={"options": options})
    got = gateway.ask(headers=headers)
    builder = EnvironBuilder(path="/v1/chat/completions", headers=headers)
    told = dict(explained(gateway, builder))
    assert told["upstream"].startswith(upstream)
    assert got.status == (400 if upstream.startswith("none") else 200)
    if got.status == 200:
        assert gateway.seen.host == "search.openai.azure.com"
        assert gateway.record["ai"]["proxy"]["meta"]["azure_instance_id"] == "search"
    else:
        assert gateway.upstream.requests == []


def explained(gateway: Gateway, builder: EnvironBuilder) -> Iterable[tuple[str, str]]:
    (plugin,) = gateway.proxy.plugins
    return plugin.explain(gateway.proxy.routed(builder.get_request()))
