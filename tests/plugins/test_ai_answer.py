"""What `ai-proxy` makes of answers in another format than the client's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kongai.errors import UpstreamTruncated
from kongai.plugins import ai_answer
from kongai.testing import answer, chop

from .ai_gateway import (
    CHUNKS,
    DONE,
    JSON,
    MESSAGE,
    STREAM,
    USAGE,
    Gateway,
    asked,
    chunk,
    completion,
)

CORPUS = Path(__file__).parents[1] / "corpus" / "anthropic"
CLAUDES = (CORPUS / "text" / "response.sse").read_bytes()
TEXT_STREAM = asked(stream=True)


def said(got: Any) -> str:
    """The text that a stream of Anthropic's format tells."""
    deltas = (data.get("delta", {}) for _, data in got.events())
    return "".join(delta.get("text", "") for delta in deltas)


@pytest.mark.parametrize(
    ("headers", "streamed", "measured", "coded"),
    [
        ([], False, False, False),
        ([("Content-Type", "Text/Event-Stream ; charset=utf-8")], True, False, False),
        ([("content-type", "application/x-ndjson")], True, False, False),
        ([("content-type", "text/event-stream-2")], False, False, False),
        ([("Content-Length", "0")], False, True, False),
        ([("Transfer-Encoding", "chunked")], False, True, False),
        ([("Content-Encoding", " Identity ")], False, False, False),
        ([("content-encoding", "")], False, False, False),
        ([("Content-Encoding", "gzip")], False, False, True),
        # Of repeated ones the first counts.
        (
            [
                *(("content-type", "text/event-stream"), ("content-encoding", "gzip")),
                *(("Content-Type", "application/json"), ("Content-Encoding", "")),
            ],
            True,
            False,
            True,
        ),
    ],
)
def test_how_a_body_comes(
    headers: list[tuple[str, str]], streamed: bool, measured: bool, coded: bool
) -> None:
    framing = ai_answer.framing_of(answer(headers=headers))
    assert (framing.streamed, framing.measured) == (streamed, measured)
    assert (framing.decoder is not None) is coded


def test_a_whole_answer_is_the_clients() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    got = gateway.ask()
    assert got.json() == {
        **MESSAGE,
        "id": "chatcmpl-1",
        "usage": {
            "input_tokens": 20,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 5,
        },
    }
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["Content-Length"] == str(len(got.body))
    assert gateway.usage["total_tokens"] == 25
    assert gateway.record["response"]["status"] == 200


def test_a_stream_is_the_clients_and_its_head_too() -> None:
    gateway = Gateway("anthropic", "openai", CHUNKS)
    got = gateway.ask(TEXT_STREAM)
    kinds = [kind for kind, _ in got.events()]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert said(got) == "Four."
    assert got.headers["Content-Type"] == "text/event-stream"
    assert "Content-Length" not in got.headers
    assert gateway.record["kongai"]["ended"] == "ok"
    assert gateway.record["ai"]["proxy"]["meta"]["request_mode"] == "stream"
    assert gateway.record["ai"]["proxy"]["meta"]["response_model"] == "m-1"


def test_events_go_on_as_they_come() -> None:
    """A chunk of the provider's is a chunk of the client's, at once."""
    gateway = Gateway("anthropic", "openai", CHUNKS)
    got = gateway.ask(TEXT_STREAM)
    texts = [piece for piece in got.pieces if b"text_delta" in piece]
    assert len(texts) == 2


@pytest.mark.parametrize("cut", range(1, 240, 7))
def test_cuts_make_no_difference(cut: int) -> None:
    stream = b"".join(CHUNKS)
    whole = Gateway("anthropic", "openai", [stream]).ask(TEXT_STREAM)
    pieces = chop(stream, cut, cut + 300)
    assert Gateway("anthropic", "openai", pieces).ask(TEXT_STREAM).body == whole.body


def test_a_prompt_is_estimated_until_it_is_counted() -> None:
    got = Gateway("anthropic", "openai", CHUNKS).ask(TEXT_STREAM)
    (_, start), *_, (_, delta), _ = got.events()
    assert start["message"]["usage"]["input_tokens"] == 7
    assert delta["usage"]["input_tokens"] == 20


def test_a_silent_provider_is_still_there() -> None:
    """Claude Code gives up after five minutes of silence."""
    silence = iter([False, False, True, True, False])
    upstream = answer(CHUNKS, headers=STREAM)
    waited = []

    def speaks(seconds: float) -> bool:
        waited.append(seconds)
        return next(silence, True)

    upstream.speaks_within = speaks
    got = Gateway("anthropic", "openai", upstream).ask(TEXT_STREAM)
    kinds = [kind for kind, _ in got.events()]
    assert kinds.count("ping") == 3
    assert kinds[:3] == ["ping", "ping", "message_start"]
    assert said(got) == "Four."
    assert set(waited) == {ai_answer.PING_INTERVAL}


def test_a_provider_that_stays_silent_is_given_up() -> None:
    """After the service's `read_timeout`, as without pings."""
    silence = iter([True, False, False, False, False])
    upstream = answer(CHUNKS, headers=STREAM)
    upstream.speaks_within = lambda _: next(silence)
    gateway = Gateway("anthropic", "openai", upstream)
    got = gateway.ask(TEXT_STREAM)
    assert got.cut
    assert [kind for kind, _ in got.events()].count("ping") == 3
    assert gateway.record["kongai"]["ended"] == "stream_idle_timeout"


def test_clients_of_openai_are_kept_waiting_by_comments() -> None:
    """Anthropic's own pings are passed on in the same way."""
    silence = iter([True, False, True, False])
    upstream = answer([CLAUDES[:300], CLAUDES[300:]], headers=STREAM)
    upstream.speaks_within = lambda _: next(silence, True)
    got = Gateway("openai", "anthropic", upstream).ask(TEXT_STREAM)
    pings = 1 + CLAUDES.count(b"event: ping")
    assert got.body.count(b": ping\n\n") == pings
    assert got.body.endswith(DONE)


CUTS: list[Any] = [
    pytest.param(CHUNKS[:3], "no_terminal_event", id="no reason and no end"),
    pytest.param(
        [*CHUNKS[:3], UpstreamTruncated()], "upstream_cut", id="the connection breaks"
    ),
    pytest.param(
        [*CHUNKS[:2], b"data: {nonsense\n\n", *CHUNKS[2:]],
        "transformation_failed",
        id="no JSON",
    ),
]


@pytest.mark.parametrize(("stream", "ended"), CUTS)
def test_what_breaks_off_is_no_success(stream: Any, ended: str) -> None:
    gateway = Gateway("anthropic", "openai", stream)
    got = gateway.ask(TEXT_STREAM)
    assert got.cut
    assert got.events()[-1][0] == "error"
    assert gateway.record["kongai"]["ended"] == ended
    assert gateway.record["kongai"]["usage_estimated"] is True
    assert gateway.usage["completion_tokens"] > 0


def test_what_breaks_off_is_an_error_of_the_clients_format() -> None:
    stream = [CLAUDES[:700], UpstreamTruncated()]
    gateway = Gateway("openai", "anthropic", stream)
    got = gateway.ask(TEXT_STREAM)
    assert got.cut
    last = got.body.rstrip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == (
        "upstream stream ended early"
    )
    assert b"[DONE]" not in got.body


def test_an_error_inside_a_stream_is_told_in_the_clients_format() -> None:
    error = b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'
    got = Gateway("anthropic", "openai", [*CHUNKS[:2], error]).ask(TEXT_STREAM)
    kind, data = got.events()[-1]
    assert kind == "error"
    assert data["error"] == {"type": "overloaded_error", "message": "overloaded"}


@pytest.mark.parametrize(
    ("client", "provider", "body", "kind", "text"),
    [
        (
            "anthropic",
            "openai",
            b'{"error":{"message":"too fast","type":"requests","code":null}}',
            "rate_limit_error",
            "too fast",
        ),
        (
            "openai",
            "anthropic",
            b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}',
            "rate_limit_error",
            "slow",
        ),
        (
            "anthropic",
            "openai",
            b"<html>Too Many Requests</html>",
            "rate_limit_error",
            "the provider answered with status 429",
        ),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_errors_are_the_clients_and_keep_status_and_head(
    client: str, provider: str, body: bytes, kind: str, text: str, *, streaming: bool
) -> None:
    headers = [*JSON, ("retry-after", "7"), ("x-request-id", "req_1")]
    upstream = answer(body, status=429, headers=headers)
    gateway = Gateway(client, provider, upstream)
    got = gateway.ask(asked(stream=streaming))
    assert got.status == 429
    error = got.json()["error"]
    assert (error["type"], error["message"]) == (kind, text)
    assert got.headers["retry-after"] == "7"
    assert got.headers["request-id"] == "req_1"
    assert got.headers["Content-Type"] == "application/json"
    assert "X-Kong-LLM-Model" not in got.headers
    assert gateway.record["upstream_status"] == "429"
    assert gateway.usage["total_tokens"] == 0


@pytest.mark.parametrize(
    "quoted", ["xai-SECRETSECRET1234", "Bearer xai-SECRETSECRET1234"]
)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_key_that_a_provider_quotes_is_shown_to_nobody(
    quoted: str, *, streaming: bool
) -> None:
    error = {"error": {"message": f"Incorrect API key provided: {quoted}. Get one."}}
    gateway = Gateway(
        "anthropic",
        "openai",
        answer(json.dumps(error).encode(), status=401, headers=JSON),
        auth={
            "header_name": "Authorization",
            "header_value": "Bearer xai-SECRETSECRET1234",
        },
        logging=PAYLOADS,
    )
    got = gateway.ask(asked(stream=streaming))
    assert got.status == 401
    assert got.error() == "Incorrect API key provided: REDACTED. Get one."
    assert "SECRETSECRET" not in str(gateway.record)
    assert "REDACTED" in payload(gateway)["response"]


def test_a_key_that_is_a_word_stays_readable() -> None:
    error = b'{"error":{"message":"the key is wrong"}}'
    gateway = Gateway(
        "anthropic",
        "openai",
        answer(error, status=401),
        auth={"header_name": "Authorization", "header_value": "key"},
    )
    assert gateway.ask().error() == "the key is wrong"


def test_a_quoted_key_is_in_no_record_between_equals_either() -> None:
    error = b'{"error":{"message":"Incorrect API key: xai-SECRETSECRET1234"}}'
    gateway = Gateway(
        "openai",
        "xai",
        answer(error, status=401, headers=JSON),
        auth={
            "header_name": "Authorization",
            "header_value": "Bearer xai-SECRETSECRET1234",
        },
        logging=PAYLOADS,
    )
    gateway.ask()
    assert "SECRETSECRET" not in str(gateway.record)
    assert "REDACTED" in payload(gateway)["response"]


def test_claude_code_learns_that_its_prompt_is_too_long() -> None:
    error = {"message": "maximum context length", "code": "context_length_exceeded"}
    upstream = answer(json.dumps({"error": error}).encode(), status=400)
    got = Gateway("anthropic", "openai", upstream).ask()
    assert got.error().startswith("prompt is too long")


def test_a_whole_answer_is_told_as_the_stream_that_was_asked_for() -> None:
    got = Gateway("anthropic", "openai", completion()).ask(TEXT_STREAM)
    assert got.headers["Content-Type"] == "text/event-stream"
    assert said(got) == "Four."
    assert got.events()[-1][0] == "message_stop"


def test_a_stream_that_nobody_asked_for_is_put_together() -> None:
    got = Gateway("anthropic", "openai", CHUNKS).ask()
    assert got.json()["content"] == [{"type": "text", "text": "Four."}]
    assert got.headers["Content-Length"] == str(len(got.body))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"foo": 1}', "'choices' not in llm/v1/chat response"),
        (b"not JSON", "failed to decode openai response"),
    ],
)
def test_an_answer_that_is_none_is_an_error(body: bytes, reason: str) -> None:
    gateway = Gateway("anthropic", "openai", body)
    got = gateway.ask()
    assert got.status == 500
    text = f"transformation failed from type openai://llm/v1/chat: {reason}"
    assert got.error() == text
    assert gateway.record["kongai"]["ended"] == "transformation_failed"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", completion()),
        ("gzip", completion()),
        ("gzip", gzip.compress(completion(), mtime=0)[:-9]),
    ],
)
def test_an_answer_whose_coding_can_not_be_undone_is_an_error(
    coding: str, body: bytes
) -> None:
    headers = [*JSON, ("content-encoding", coding)]
    gateway = Gateway("anthropic", "openai", answer(body, headers=headers))
    got = gateway.ask()
    assert got.status == 500
    assert got.error().endswith(": not in a content-coding that can be undone")
    assert gateway.record["kongai"]["ended"] == "transformation_failed"


def test_an_answer_that_is_too_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ai_answer, "MAX_WHOLE_ANSWER", 10)
    assert (
        Gateway("anthropic", "openai", completion())
        .ask()
        .error()
        .endswith(": too long")
    )


def test_an_answer_that_breaks_off_before_it_is_passed_on_is_a_bad_gateway() -> None:
    upstream = answer([completion()[:50], UpstreamTruncated()])
    gateway = Gateway("anthropic", "openai", upstream)
    assert gateway.ask().status == 502
    assert upstream.closed == 1
    assert gateway.record["kongai"]["ended"] == "upstream_cut"


@pytest.mark.parametrize("accept", ["gzip", "br, gzip;q=0.5", "deflate, GZIP"])
def test_answers_go_in_gzip_to_who_takes_it(accept: str) -> None:
    gateway = Gateway("anthropic", "openai", completion())
    got = gateway.ask(headers=[("accept-encoding", accept)])
    assert got.headers["Content-Encoding"] == "gzip"
    assert "Content-Length" not in got.headers
    assert json.loads(gzip.decompress(got.body))["content"][0]["text"] == "Four."


@pytest.mark.parametrize("accept", ["identity", "br, zstd", "gzip;q=0"])
def test_answers_go_plain_to_who_takes_no_gzip(accept: str) -> None:
    gateway = Gateway("anthropic", "openai", completion())
    got = gateway.ask(headers=[("accept-encoding", accept)])
    assert "Content-Encoding" not in got.headers
    assert got.json()["content"][0]["text"] == "Four."


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_is_not_in_gzip(status: int) -> None:
    upstream = answer(b"", status=status, headers=JSON)
    got = Gateway("anthropic", "openai", upstream).ask(
        headers=[("accept-encoding", "gzip")]
    )
    assert got.status == status
    assert "Content-Encoding" not in got.headers
    assert got.body == b""


def test_an_answer_to_head_is_not_in_gzip() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    got = gateway.ask(asked(), [("accept-encoding", "gzip")], method="HEAD")
    assert gateway.seen.method == "HEAD"
    assert "Content-Encoding" not in got.headers
    assert got.body == b""


def test_streams_are_never_in_gzip() -> None:
    gateway = Gateway("anthropic", "openai", CHUNKS)
    got = gateway.ask(TEXT_STREAM, headers=[("accept-encoding", "gzip")])
    assert "Content-Encoding" not in got.headers
    assert said(got) == "Four."


def test_a_providers_cookies_are_not_the_clients() -> None:
    headers = [*JSON, ("set-cookie", "__cf_bm=x"), ("etag", '"1"')]
    upstream = answer(completion(), headers=headers)
    got = Gateway("anthropic", "openai", upstream).ask()
    assert "Set-Cookie" not in got.headers
    assert "ETag" not in got.headers


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_whose_cookies_reach_a_client_of_the_same_format(provider: str) -> None:
    """Kong takes away those of OpenAI, Azure and Mistral."""
    headers = [*JSON, ("set-cookie", "__cf_bm=x")]
    upstream = answer(completion(), headers=headers)
    got = Gateway(provider, provider, upstream).ask()
    assert ("Set-Cookie" in got.headers) is (provider == "anthropic")


PAYLOADS = {"log_statistics": True, "log_payloads": True}


def payload(gateway: Gateway) -> dict[str, str]:
    found: dict[str, str] = gateway.record["ai"]["proxy"]["payload"]
    return found


def test_payloads_are_what_went_up_and_what_came_down() -> None:
    gateway = Gateway("anthropic", "openai", completion(), logging=PAYLOADS)
    got = gateway.ask()
    assert json.loads(payload(gateway)["request"]) == gateway.sent
    assert payload(gateway)["response"] == got.body.decode()


def test_the_payload_of_an_openai_stream_is_a_whole_answer() -> None:
    gateway = Gateway("openai", "openai", CHUNKS, logging=PAYLOADS)
    gateway.ask(TEXT_STREAM)
    logged = json.loads(payload(gateway)["response"])
    assert logged["choices"][0]["message"]["content"] == "Four."
    assert logged["object"] == "chat.completion"
    assert logged["usage"]["total_tokens"] == 25


def test_the_payload_of_an_anthropic_stream_is_the_stream() -> None:
    gateway = Gateway("anthropic", "openai", CHUNKS, logging=PAYLOADS)
    got = gateway.ask(TEXT_STREAM)
    assert payload(gateway)["response"] == got.body.decode()


def test_usage_has_the_details_that_the_provider_gave() -> None:
    prompt = {"cached_tokens": 4, "audio_tokens": 0}
    completed = {"reasoning_tokens": 3, "accepted_prediction_tokens": 0}
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 5,
        "total_tokens": 25,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completed,
    }
    stream = [*CHUNKS[:4], chunk(usage=usage), DONE]
    gateway = Gateway("anthropic", "openai", stream)
    got = gateway.ask(TEXT_STREAM)
    assert gateway.usage["prompt_tokens_details"] == prompt
    assert gateway.usage["completion_tokens_details"] == completed
    assert got.events()[-2][1]["usage"] == {
        "input_tokens": 16,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }


def test_a_client_that_leaves_is_counted_by_what_it_got() -> None:
    upstream = answer(CHUNKS, headers=STREAM)
    gateway = Gateway("anthropic", "openai", upstream)
    body = begin(gateway)
    next(body)
    next(body)
    body.close()
    assert upstream.closed == 1
    assert gateway.record["kongai"]["ended"] == "client_abort"
    assert gateway.record["kongai"]["usage_estimated"] is True
    assert gateway.usage["completion_tokens"] == 1
    assert gateway.usage["prompt_tokens"] == 7


def begin(gateway: Gateway) -> Any:
    """Ask for a stream, and leave it to the test to read it."""
    from werkzeug.test import create_environ

    environ = create_environ(
        "/v1/messages",
        method="POST",
        data=json.dumps(TEXT_STREAM),
        content_type="application/json",
    )
    start: Callable[..., Any] = lambda *head: lambda data: None  # noqa: E731
    return gateway.proxy(environ, start)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"error":{"code":429,"message":"Slow down"}}', 429, "Slow down"),
        (b'{"error":{"message":"boom"},"choices":[]}', 500, "boom"),
        (
            completion(
                choices=[{"message": {"content": "Par"}, "finish_reason": "x"}]
            ).replace(b'"x"', b'"insufficient_system_resource"'),
            502,
            "the provider gave up: insufficient_system_resource",
        ),
    ],
)
def test_an_error_with_status_200_is_an_error(
    body: bytes, status: int, text: str, *, streaming: bool
) -> None:
    """Some providers send them, and a client is to try again."""
    gateway = Gateway("anthropic", "openai", body)
    got = gateway.ask(asked(stream=streaming))
    assert (got.status, got.error()) == (status, text)
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["Content-Length"] == str(len(got.body))
    assert "X-Kong-LLM-Model" not in got.headers
    assert gateway.record["response"]["status"] == status
    assert gateway.record["upstream_status"] == "200"


def test_a_key_that_the_provider_repeats_is_in_no_error() -> None:
    body = b'{"error":{"code":401,"message":"no such key: xai-SECRETSECRET1234"}}'
    auth = {
        "header_name": "Authorization",
        "header_value": "Bearer xai-SECRETSECRET1234",
    }
    for upstream in (answer(body), answer(body, status=401)):
        gateway = Gateway("anthropic", "openai", upstream, auth=auth, logging=PAYLOADS)
        got = gateway.ask()
        assert got.status == 401
        assert got.error() == "no such key: REDACTED"
        assert "SECRETSECRET" not in json.dumps(gateway.record)


def test_a_stream_that_gave_up_is_none_that_ended() -> None:
    stream = [*CHUNKS[:3], chunk({}, finish_reason="error"), DONE]
    got = Gateway("anthropic", "openai", stream).ask(TEXT_STREAM)
    assert got.events()[-1][0] == "error"
    assert "message_stop" not in [kind for kind, _ in got.events()]


def call(arguments: str, **first: Any) -> bytes:
    function = {"arguments": arguments, **first}
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    return chunk({"tool_calls": calls})


def test_a_call_that_is_no_json_ends_a_stream_with_an_error() -> None:
    """What came before it in the same read is passed on."""
    last = chunk({}, finish_reason="tool_calls")
    stream = b"".join([*CHUNKS[:3], call('{"a":', name="f"), last, DONE])
    gateway = Gateway("anthropic", "openai", [stream])
    got = gateway.ask(TEXT_STREAM)
    assert said(got) == "Four."
    assert got.events()[-1][0] == "error"
    assert got.cut
    assert gateway.record["kongai"]["ended"] == "transformation_failed"


def test_what_a_cut_stream_has_counted_counts() -> None:
    """Some providers tell the usage in every chunk."""
    usage = {"prompt_tokens": 5000, "completion_tokens": 2}
    usage["prompt_tokens_details"] = {"cached_tokens": 4000}  # type: ignore[assignment]
    stream = [chunk({"content": "Fo"}, usage=usage), UpstreamTruncated()]
    gateway = Gateway("anthropic", "xai", stream)
    gateway.ask(TEXT_STREAM)
    assert gateway.usage["prompt_tokens"] == 5000
    assert gateway.usage["completion_tokens"] == 2
    assert "usage_estimated" not in gateway.record["kongai"]


@pytest.mark.parametrize("client", ["anthropic", "openai"])
def test_a_whole_answer_without_a_usage_is_estimated(client: str) -> None:
    gateway = Gateway(client, "openai", completion(usage=None))
    gateway.ask()
    assert gateway.usage["completion_tokens"] == 2
    assert gateway.usage["prompt_tokens"] in (6, 7)
    assert gateway.record["kongai"]["usage_estimated"] is True


@pytest.mark.parametrize("client", ["anthropic", "openai"])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_tier_of_service_has_its_price(client: str, *, streaming: bool) -> None:
    options = {
        "input_cost": 10,
        "output_cost": 10,
        "service_tier_factor": [{"tier": "priority", "factor": 2}],
    }
    tier = {"service_tier": "priority"}
    upstream: Any = completion(**tier)
    if streaming:
        upstream = [*CHUNKS[:4], chunk(usage=USAGE, **tier), DONE]
    gateway = Gateway(client, "openai", upstream, model={"options": options})
    gateway.ask(asked(stream=streaming))
    assert gateway.usage["cost"] == 0.0005


def test_newer_models_are_told_not_to_think_where_there_are_tools() -> None:
    gateway = Gateway("anthropic", "openai", completion())
    thinking = {"type": "enabled", "budget_tokens": 4000}
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    gateway.ask(asked(model="gpt-5.4", thinking=thinking, tools=tools))
    assert gateway.sent["reasoning_effort"] == "none"
    assert gateway.record["kongai"]["dropped"] == ["reasoning"]
    (tool,) = gateway.sent["tools"]
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}
