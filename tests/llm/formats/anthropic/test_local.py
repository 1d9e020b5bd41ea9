from __future__ import annotations

import json
from typing import Any

import pytest

from kongai.llm.chat import Untranslatable
from kongai.llm.formats import anthropic

COUNT = "/v1/messages/count_tokens"


def counted(**members: Any) -> int:
    body = json.dumps({"model": "m", "messages": [], **members}).encode()
    answer = anthropic.answer_locally(COUNT, body)
    (told,) = json.loads(answer).items()
    assert told[0] == "input_tokens"
    return int(told[1])


def test_tokens_are_estimated() -> None:
    """Claude Code counts a prompt before it sends it."""
    user = {"role": "user", "content": "12345678"}
    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}
    tool = {"name": "1234", "description": "1234", "input_schema": {"a": 1}}
    assert counted(messages=[user]) == 2
    assert counted(messages=[user], system="1234") == 3
    assert counted(messages=[{"role": "user", "content": [image]}]) == 1600
    assert counted(messages=[user], tools=[tool]) == 6


def test_all_else_only_a_provider_can_answer() -> None:
    assert list(anthropic.LOCAL_PATHS) == [COUNT]


def test_without_a_message_there_is_nothing_to_count() -> None:
    with pytest.raises(Untranslatable, match="^messages: expected at least one"):
        anthropic.answer_locally(COUNT, b'{"model":"m","messages":[]}')


def test_a_request_that_is_none_is_refused() -> None:
    with pytest.raises(Untranslatable, match="^messages: expected an array$"):
        anthropic.answer_locally(COUNT, b'{"messages":"secret"}')


def test_a_stream_is_logged_as_it_is() -> None:
    assert anthropic.whole_of(b"event: ping\ndata: {}\n\n") is None
