from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.events import Failed
from kongai.llm.formats import anthropic, openai
from kongai.sse import Decoder
from kongai.testing import events


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_that_are_written(status: int, kind: str) -> None:
    envelope = {
        "type": "error",
        "error": {"type": kind, "message": 'no "way" é'},
        "request_id": "r1",
    }
    assert json.loads(anthropic.error_body(status, 'no "way" é', "r1")) == envelope
    spoken = anthropic.error_event(status, 'no "way" é', "r1")
    assert events([spoken]) == [("error", envelope)]
    # After an event that was cut in the middle, it is an event of its own all the same.
    *_, last = Decoder().feed(b'event: content_block_delta\ndata: {"cut' + spoken)
    assert (last.event, json.loads(last.data)) == (b"error", envelope)


def body(kind: Any, message: Any) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message}}
    ).encode()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (body("x", "no"), "no"),
        (b'{"error":{"message":"no"}}', "no"),
        (body("x", ""), "the provider answered with status 418"),
        (body("x", None), "the provider answered with status 418"),
        (b'{"error":"secret"}', "the provider answered with status 418"),
        (b'{"message":"secret"}', "the provider answered with status 418"),
        (b"<html>", "the provider answered with status 418"),
        (b"", "the provider answered with status 418"),
        (b"no healthy upstream", "no healthy upstream"),
    ],
)
def test_errors_that_are_read(answer: bytes, message: str) -> None:
    assert anthropic.decode_error(418, answer) == Failed(418, message)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("overloaded_error", 503),
        ("timeout_error", 504),
        ("new_error", 500),
        (None, 500),
    ],
)
def test_within_a_stream_the_type_says_the_status(kind: Any, status: int) -> None:
    stream = b"event: error\ndata: " + body(kind, "no") + b"\n\n"
    (failed,) = anthropic.stream_decoder().feed(stream)
    assert isinstance(failed, Failed)
    assert failed.status == status


def test_a_prompt_that_is_too_long_is_told_across_formats() -> None:
    """Claude Code shortens the conversation when it reads Anthropic's words; OpenAI's
    clients look for the code."""
    said = "This model's maximum context length is 10 tokens. However, you sent 11."
    theirs = openai.error_body(400, said, "r")
    failed = openai.decode_error(400, theirs)
    ours = json.loads(anthropic.error_body(400, failed.message, "r"))
    assert ours["error"]["message"] == f"prompt is too long: {said}"
    failed = anthropic.decode_error(400, json.dumps(ours).encode())
    back = json.loads(openai.error_body(failed.status, failed.message, "r"))
    assert back["error"]["code"] == "context_length_exceeded"
