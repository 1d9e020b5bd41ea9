from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.events import Failed
from kongai.llm.formats import openai
from kongai.sse import Decoder
from kongai.testing import events


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (529, "server_error"),
    ],
)
def test_errors_that_are_written(status: int, kind: str) -> None:
    error = {"message": 'no "way" é', "type": kind, "param": None, "code": None}
    assert json.loads(openai.error_body(status, 'no "way" é', "r")) == {"error": error}
    spoken = openai.error_event(status, 'no "way" é', "r")
    assert events([spoken]) == [("message", {"error": error})]
    # After an event that was cut in the middle, it is an event of its own all the same.
    *_, last = Decoder().feed(b'data: {"cut' + spoken)
    assert json.loads(last.data) == {"error": error}


@pytest.mark.parametrize(
    "message",
    ["prompt is too long: 210000 tokens > 200000 maximum", "Prompt is too long"],
)
def test_a_prompt_that_is_too_long_has_a_code_of_its_own(message: str) -> None:
    written = json.loads(openai.error_body(400, message, "r"))
    assert written["error"]["code"] == "context_length_exceeded"


READ: dict[str, tuple[Any, str]] = {
    "OpenAI": ({"error": {"message": "no", "type": "x", "code": None}}, "no"),
    "FastAPI": ({"detail": "no"}, "no"),
    "flat": ({"object": "error", "message": "no", "type": "x"}, "no"),
    "a string": ({"error": "no"}, "no"),
    "beside a string": ({"error": "bad_request", "message": "no"}, "no"),
    "beside null": ({"error": None, "message": "no"}, "no"),
    "message outside": ({"error": {"code": 1}, "message": "no"}, "no"),
    "empty": ({"error": {"message": ""}}, "the provider answered with status 418"),
    "a list": ({"detail": [{"msg": "x"}]}, "the provider answered with status 418"),
    "null": ({"error": None}, "the provider answered with status 418"),
    "nothing": ({}, "the provider answered with status 418"),
    "too long, by its code": (
        {"error": {"message": "no", "code": "context_length_exceeded"}},
        "prompt is too long: no",
    ),
    "too long, by its words": (
        {"error": {"message": "This model's maximum context length is 10 tokens."}},
        "prompt is too long: This model's maximum context length is 10 tokens.",
    ),
}


@pytest.mark.parametrize(("body", "message"), READ.values(), ids=READ.keys())
def test_errors_that_are_read(body: Any, message: str) -> None:
    failed = openai.decode_error(418, json.dumps(body).encode())
    assert failed == Failed(418, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream connect error", "upstream connect error"),
        (b"<html>", "the provider answered with status 502"),
        (b"", "the provider answered with status 502"),
        (b'["x"]', "the provider answered with status 502"),
        (b'{"error": ', "the provider answered with status 502"),
    ],
)
def test_what_came_in_place_of_an_error(body: bytes, message: str) -> None:
    assert openai.decode_error(502, body) == Failed(502, message)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"message": "no"}, Failed(500, "no")),
        ({"message": "no", "code": 429}, Failed(429, "no")),
        ({"message": "no", "code": "rate_limit"}, Failed(500, "no")),
        ({"message": "no", "code": 7}, Failed(500, "no")),
        ("no", Failed(500, "no")),
        ({}, Failed(500, "the provider answered with status 500")),
    ],
)
def test_an_error_within_a_stream_has_a_status_too(error: Any, failed: Failed) -> None:
    stream = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    assert openai.stream_decoder().feed(stream) == [failed]


def test_an_error_that_is_read_back_is_the_same() -> None:
    for message in ("no", "prompt is too long: x"):
        failed = openai.decode_error(400, openai.error_body(400, message, "r"))
        assert failed.status == 400
        assert failed.message.endswith(message)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 128000 tokens.",
        "This model's maximum prompt length is 131072 but the request has more.",
        "The input token count (1048577) exceeds the maximum.",
    ],
)
def test_a_prompt_that_is_too_long_is_told_by_each_in_words_of_its_own(
    message: str,
) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    assert openai.decode_error(400, body).message == f"prompt is too long: {message}"
