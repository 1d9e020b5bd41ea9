from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from copy import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    Media,
    Message,
    OutputSchema,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Untranslatable,
)
from kongai.llm.events import (
    Counted,
    Ended,
    Event,
    Failed,
    Started,
    Stopped,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolDelta,
    ToolStart,
    assemble,
)
from kongai.llm.formats import AnswerReader, Dialect, along, ollama
from kongai.llm.usage import Usage
from kongai.testing import chop

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
AT = "2025-07-06T21:00:45.123456Z"
STAMP = "20250706210045123456"
HEAD = {"model": "qwen3:8b", "created_at": AT}
COUNTS = {"total_duration": 1, "prompt_eval_count": 15, "eval_count": 9}


def line(
    content: str | None = "",
    *,
    done: bool = False,
    rest: dict[str, Any] | None = None,
    **m: Any,
) -> bytes:
    """A line of a stream; `m` are further members of its message."""
    message = {"role": "assistant", "content": content, **m}
    told = {**HEAD, "message": message, "done": done, **(rest or {})}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def last(reason: str = "stop") -> bytes:
    return line(done=True, rest={"done_reason": reason, **COUNTS})


def call(name: str, arguments: Any, **rest: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **rest}


USAGE = Usage(15, 9, counted=True)
STARTED = Started(None, "qwen3:8b")
CLOSING = [Counted(USAGE), Ended()]


def decoded(*pieces: bytes) -> list[Event]:
    decoder = ollama.stream_decoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


def read(
    pieces: Iterable[bytes], reader: AnswerReader | None = None, *, end: bool = True
) -> AnswerReader:
    reader = reader or ollama.stream_reader()
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    return reader


def read_whole(*pieces: bytes) -> AnswerReader:
    return read(pieces, ollama.whole_reader())


def facts(reader: AnswerReader) -> tuple[Any, ...]:
    return (
        copy(reader.usage),
        reader.model,
        reader.started,
        reader.finished,
        reader.broken,
    )


def beginning(value: bytes) -> str:
    return ascii(value[:20])


def encoded(*messages: Message, losses: list[str] | None = None, **fields: Any) -> Any:
    """What is written of a request, having lost just these."""
    fields.setdefault("model", "qwen3:8b")
    chat = ChatRequest(messages=list(messages), **fields)
    body = ollama.encode_request(chat, Dialect())
    assert chat.losses.names() == (losses or [])
    return json.loads(body)


def written(*messages: Message, losses: list[str] | None = None) -> Any:
    return encoded(*messages, losses=losses)["messages"]


# Requests


def test_where_a_chat_is_posted() -> None:
    assert ollama.ENDPOINTS == {"llm/v1/chat": "/api/chat"}


def test_the_smallest_request_asks_for_no_stream() -> None:
    assert encoded(Message("user", [Text("hi")])) == {
        "model": "qwen3:8b",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }


def test_a_request_with_all_that_can_be_said() -> None:
    body = encoded(
        Message("user", [Text("hi")]),
        tools=[Tool("look", "Looks.", '{"type":"object"}'), Tool("wait")],
        tool_choice=ToolChoice("auto"),
        parallel_tools=True,
        max_tokens=100,
        temperature=0.5,
        top_p=0.25,
        top_k=40,
        seed=0,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        stop=["a", "b", "c", "d", "e"],
        stream=True,
        usage_in_stream=True,
        reasoning=Reasoning(),
        output=OutputSchema('{"type":"object"}', "name", strict=True),
    )
    assert body == {
        "model": "qwen3:8b",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object", "properties": {}},
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "wait",
                    "parameters": {"type": "object", "properties": {}},
                },
            },
        ],
        "format": {"type": "object"},
        "options": {
            "temperature": 0.5,
            "top_p": 0.25,
            "top_k": 40,
            "seed": 0,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "stop": ["a", "b", "c", "d", "e"],
            "num_predict": 100,
        },
        "think": True,
    }


def test_a_conversation() -> None:
    messages = written(
        Message("system", [Text("Be brief."), Text("Be kind.")]),
        Message(
            "user", [Text("What is"), Media("image", "image/png", "aWk="), Text("?")]
        ),
        Message("assistant", [Thinking("A "), Thinking("cat."), Text("Let me look.")]),
        Message(
            "assistant",
            [ToolCall("a", "look", '{"at": 1.0}'), ToolCall("b", "wait")],
        ),
        Message(
            "user",
            [
                ToolResult("b", [Text("waited")]),
                ToolResult(
                    "a", [Text("1"), Media("image", "image/png", "eA=="), Text("2")]
                ),
                Text("go on"),
            ],
        ),
        Message("assistant"),
    )
    assert messages == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "What is\n?", "images": ["aWk="]},
        {"role": "assistant", "content": "Let me look.", "thinking": "A \ncat."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call("look", {"at": 1.0}), call("wait", {})],
        },
        {"role": "tool", "content": "waited", "tool_name": "wait"},
        {"role": "tool", "content": "1\n2", "images": ["eA=="], "tool_name": "look"},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": ""},
    ]


def test_what_was_said_before_a_result_stays_before_it() -> None:
    result = ToolResult("a", [Text("1")])
    assert written(Message("user", [Text("here"), result])) == [
        {"role": "user", "content": "here"},
        {"role": "tool", "content": "1"},
    ]


def test_a_result_is_of_the_last_call_with_its_id() -> None:
    messages = written(
        Message("assistant", [ToolCall("call_0", "look")]),
        Message("user", [ToolResult("call_0")]),
        Message("assistant", [ToolCall("call_0", "wait")]),
        Message("user", [ToolResult("call_0")]),
    )
    assert [message.get("tool_name") for message in messages] == [
        *(None, "look", None, "wait"),
    ]


def test_a_sentence_in_pieces_is_one_line() -> None:
    parts = [Text("First."), Text("It is "), Text("so", cited=True), Text(".")]
    (message,) = written(Message("assistant", [*parts, Text("Last.")]))
    assert message["content"] == "First.\nIt is so.\nLast."


def test_json_is_written_as_it_came() -> None:
    number = '{"n": 1.50, "big": 123456789012345678901234567890}'
    chat = ChatRequest(
        model="m",
        messages=[Message("assistant", [ToolCall("a", "look", number)])],
        tools=[Tool("look", parameters=number)],
        output=OutputSchema(number),
    )
    body = ollama.encode_request(chat, Dialect())
    assert body.count(number.encode()) == 2
    members = '"n":1.50,"big":123456789012345678901234567890,"type":"object"'
    assert body.count(b'{%b,"properties":{}}' % members.encode()) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"{}"', "{}x", "[" * 100_000])
def test_json_that_is_no_object(text: str) -> None:
    body = encoded(
        Message("assistant", [ToolCall("a", "look", text)]),
        tools=[Tool("look", parameters=text or "x")],
        output=OutputSchema(text),
    )
    (made,) = body["messages"][0]["tool_calls"]
    assert made["function"]["arguments"] == {"INVALID_JSON": text}
    empty = {"type": "object", "properties": {}}
    assert body["tools"][0]["function"]["parameters"] == empty
    assert body["format"] == {}


@pytest.mark.parametrize(
    ("media", "said"),
    [
        (
            Media("image", url="https://a/secret.png"),
            "an image by its address can't be sent to Ollama",
        ),
        (
            Media("document", "application/pdf", "eA==", name="secret"),
            "a document can't be sent to Ollama",
        ),
        (
            Media("document", url="https://a/secret"),
            "a document can't be sent to Ollama",
        ),
    ],
)
def test_what_cannot_be_sent(media: Media, said: str) -> None:
    for part in (media, ToolResult("a", [media])):
        with pytest.raises(Untranslatable) as caught:
            written(Message("user", [Text("hi"), part]))
        assert str(caught.value) == said


TOOL = Tool("look", parameters="{}")
HI = Message("user", [Text("hi")])
MARK = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"tool_choice": ToolChoice("required")}, "tool_choice"),
        ({"tool_choice": ToolChoice("one", "look")}, "tool_choice"),
        ({"parallel_tools": False}, "parallel_tool_calls"),
        ({"user": "someone"}, "user"),
        ({"tools": [Tool("look", parameters="{}", strict=True)]}, "tools[].strict"),
        ({"tools": [Tool("look", parameters="{}", cache=MARK)]}, "cache_control"),
    ],
)
def test_what_a_request_loses(fields: dict[str, Any], lost: str) -> None:
    fields = {"tools": [TOOL], **fields}
    assert encoded(HI, losses=[lost], **fields) == encoded(HI, tools=[TOOL])


def test_what_is_said_of_the_output_is_lost_but_the_schema() -> None:
    output = OutputSchema("{}", "name", "What it is.", strict=True)
    body = encoded(HI, losses=["output.description"], output=output)
    assert body == encoded(HI, output=OutputSchema("{}"))


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        (Thinking("so", signature="seal"), ["thinking.signature"]),
        (Thinking(redacted="x"), ["thinking.redacted"]),
        (Thinking("so"), []),
        (ToolResult("a", is_error=True), ["tool_result.is_error"]),
        (ToolResult("a", cache=MARK), ["cache_control"]),
        (ToolResult("a", [Text("b", MARK)]), ["cache_control"]),
        (Text("a", MARK), ["cache_control"]),
        (Text("a", {}), ["cache_control"]),
        (Media("image", "image/png", "eA==", cache=MARK), ["cache_control"]),
        (ToolCall("a", "look", cache=MARK), ["cache_control"]),
    ],
)
def test_what_a_message_loses(part: Any, lost: list[str]) -> None:
    written(Message("user", [part]), losses=lost)


def test_a_thought_that_only_its_vendor_can_read_says_nothing() -> None:
    thoughts = [Thinking(redacted="x"), Thinking("so", signature="seal")]
    (message,) = written(
        Message("assistant", [*thoughts, Text("a")]),
        losses=["thinking.signature", "thinking.redacted"],
    )
    assert message == {"role": "assistant", "content": "a", "thinking": "so"}


def test_a_model_that_may_call_no_tool_is_told_of_none() -> None:
    body = encoded(HI, tools=[TOOL], tool_choice=ToolChoice("none"))
    assert body == encoded(HI)


@pytest.mark.parametrize(
    ("reasoning", "word", "lost"),
    [
        (Reasoning(), True, []),
        (Reasoning(False), False, []),
        (Reasoning(False, "high", 5), False, []),
        (Reasoning(effort="low"), "low", []),
        (Reasoning(effort="medium"), "medium", []),
        (Reasoning(effort="high"), "high", []),
        (Reasoning(effort="minimal"), "low", []),
        (Reasoning(effort="xhigh"), "high", []),
        (Reasoning(effort="max"), "high", []),
        (Reasoning(effort="utmost"), True, []),
        (Reasoning(budget=1024), True, ["reasoning.budget"]),
        (Reasoning(effort="low", budget=1024), "low", ["reasoning.budget"]),
    ],
)
def test_how_much_to_think(
    reasoning: Reasoning, word: bool | str, lost: list[str]
) -> None:
    def think(model: str | None) -> Any:
        return encoded(HI, model=model, reasoning=reasoning, losses=lost)["think"]

    assert think("gpt-oss:20b") == think("someone/GPT-OSS") == word
    assert think("qwen3:8b") == think(None) == bool(word)


# Answers

SPOKEN: dict[str, tuple[dict[str, Any], list[bytes], list[Event]]] = {
    "text": (
        {"content": "Hé🙂llo"},
        [line("Hé🙂"), line("llo"), last()],
        [
            *(STARTED, TextStart(), TextDelta("Hé🙂"), TextDelta("llo")),
            *(Stopped("end"), *CLOSING),
        ],
    ),
    "nothing": (
        {"content": ""},
        [line(""), last()],
        [STARTED, Stopped("end"), *CLOSING],
    ),
    "thinking": (
        {"content": "Yes", "thinking": "Hm. So."},
        [line(thinking="Hm."), line(thinking=" So."), line("Yes"), last()],
        [
            *(STARTED, ThinkingStart(), ThinkingDelta("Hm."), ThinkingDelta(" So.")),
            *(TextStart(), TextDelta("Yes"), Stopped("end"), *CLOSING),
        ],
    ),
    "all in one line": (
        {"content": "Yes", "thinking": "Hm."},
        [line("Yes", thinking="Hm.", done=True, rest=COUNTS)],
        [
            *(STARTED, ThinkingStart(), ThinkingDelta("Hm.")),
            *(TextStart(), TextDelta("Yes"), Stopped("end"), *CLOSING),
        ],
    ),
    "calls": (
        {
            "content": "Look.",
            "tool_calls": [
                call("look", {"at": [1, 2]}),
                call("wait", {}),
                call("ask", {"é": "\n"}, id="call_x1"),
            ],
        },
        [
            line("Look."),
            line(tool_calls=[call("look", {"at": [1, 2]}), call("wait", {})]),
            line(tool_calls=[call("ask", {"é": "\n"}, id="call_x1")]),
            last(),
        ],
        [
            *(STARTED, TextStart(), TextDelta("Look.")),
            *(ToolStart(0, f"call_0_{STAMP}", "look"), ToolDelta(0, '{"at": [1, 2]}')),
            *(ToolStart(1, f"call_1_{STAMP}", "wait"), ToolDelta(1, "{}")),
            *(ToolStart(2, "call_x1", "ask"), ToolDelta(2, '{"é": "\\n"}')),
            *(Stopped("tool"), *CLOSING),
        ],
    ),
    "members that are null": (
        {"content": None, "thinking": None, "tool_calls": None},
        [line(None, thinking=None, tool_calls=None), last()],
        [STARTED, Stopped("end"), *CLOSING],
    ),
}


def whole_answer(message: dict[str, Any], **rest: Any) -> bytes:
    told = {**HEAD, "message": message, "done": True, "done_reason": "stop"}
    return json.dumps({**told, **COUNTS, **rest}, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", SPOKEN)
def test_a_stream_cut_anywhere(name: str) -> None:
    _, pieces, expected = SPOKEN[name]
    stream = b"".join(pieces)
    assert decoded(stream) == expected
    assert decoded(stream.replace(b"\n", b"\r\n\n  \n")) == expected
    assert decoded(stream.rstrip()) == expected
    assert decoded(*(stream[i : i + 1] for i in range(len(stream)))) == expected
    for cut in range(len(stream)):
        assert decoded(stream[:cut], stream[cut:]) == expected


@pytest.mark.parametrize("name", SPOKEN)
def test_an_answer_is_the_same_whole_and_streamed(name: str) -> None:
    message, pieces, _ = SPOKEN[name]
    answer = ollama.decode_answer(whole_answer(message))
    assert answer == assemble(decoded(*pieces))
    assert answer.model == "qwen3:8b"
    assert answer.usage == USAGE
    assert answer.losses.names() == []


def test_a_whole_answer() -> None:
    message = {
        "content": "Yes",
        "thinking": "Hm.",
        "tool_calls": [call("look", {"at": 1.0})],
    }
    assert ollama.decode_answer(whole_answer(message)) == ChatAnswer(
        model="qwen3:8b",
        parts=[
            Thinking("Hm."),
            Text("Yes"),
            ToolCall(f"call_0_{STAMP}", "look", '{"at": 1.0}'),
        ],
        stop_reason="tool",
        usage=USAGE,
    )


def test_blocks_begin_again_after_another() -> None:
    kinds = [
        type(event)
        for event in decoded(
            *(line("a"), line(thinking="b"), line("c")),
            *(line(tool_calls=[call("look", {})]), line("d"), line("e")),
        )
    ]
    assert kinds == [
        *(Started, TextStart, TextDelta, ThinkingStart, ThinkingDelta),
        *(TextStart, TextDelta, ToolStart, ToolDelta, TextStart, TextDelta, TextDelta),
    ]


@pytest.mark.parametrize(
    ("given_reason", "reason"),
    [("stop", "end"), ("length", "length"), ("load", "end"), (None, "end")],
)
def test_why_an_answer_ended(given_reason: str | None, reason: str) -> None:
    body = whole_answer({"content": "a"}, done_reason=given_reason)
    assert ollama.decode_answer(body).stop_reason == reason
    assert decoded(body)[-3:] == [Stopped(reason), *CLOSING]


def test_calls_are_why_it_ended_whatever_it_says() -> None:
    message = {"content": "", "tool_calls": [call("look", {})]}
    answer = ollama.decode_answer(whole_answer(message, done_reason="length"))
    assert answer.stop_reason == "tool"


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({}, USAGE),
        ({"prompt_eval_count": None}, Usage(0, 9, counted=True)),
        ({"eval_count": None}, Usage(15, 0, counted=True)),
        ({"eval_count": 0, "prompt_eval_count": -3}, Usage(counted=True)),
        ({"eval_count": None, "prompt_eval_count": None}, None),
    ],
)
def test_what_is_counted(counts: dict[str, Any], usage: Usage | None) -> None:
    body = whole_answer({"content": ""}, **counts)
    assert ollama.decode_answer(body).usage == usage
    assert [event for event in decoded(body) if isinstance(event, Counted)] == (
        [Counted(usage)] if usage else []
    )
    assert read_whole(body).usage == (usage or Usage())
    assert read([body]).usage == (usage or Usage())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{}", "{}"),
        ('{"a" : 1.50}', '{"a" : 1.50}'),
        ("null", "{}"),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('""', "{}"),
        ("[1]", "[1]"),
    ],
)
def test_arguments(arguments: str, text: str) -> None:
    made = '{"message":{"tool_calls":[{"function":{"name":"f","arguments":%s}}]}}'
    (part,) = ollama.decode_answer((made % arguments).encode()).parts
    assert part == ToolCall("call_0", "f", text)


def test_a_call_without_arguments() -> None:
    body = whole_answer({"tool_calls": [{"function": {"name": "f"}}]})
    assert ollama.decode_answer(body).parts == [ToolCall(f"call_0_{STAMP}", "f")]


@pytest.mark.parametrize("at", [AT, None, "", "٣ secret", "9" * 100])
@pytest.mark.parametrize("id", [None, "", 7, "a b", "é", "a\n", "x" * 65])
def test_ids_of_calls(at: str | None, id: Any) -> None:
    calls = [call("look", {}, id=id), call("look", {}, id=id)]
    body = whole_answer({"tool_calls": calls}, created_at=at)
    first, second = ollama.decode_answer(body).parts
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert first.id != second.id
    for part in (first, second):
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", part.id)


def test_ids_of_two_answers_differ() -> None:
    message = {"tool_calls": [call("look", {})]}
    bodies = [whole_answer(message), whole_answer(message, created_at=AT + "1")]
    parts = [ollama.decode_answer(body).parts for body in bodies]
    assert parts[0] != parts[1]


def test_the_calls_of_a_stream_share_the_time_of_its_first_line() -> None:
    later = {"created_at": "2030-01-01T00:00:00Z"}
    made = line(tool_calls=[call("look", {})], rest=later)
    ids = [
        event.id for event in decoded(line("a"), made) if isinstance(event, ToolStart)
    ]
    assert ids == [f"call_0_{STAMP}"]


GARBAGE = [
    *(b"", b"{", b"[]", b"null", b"<html>", b'{"model":1}', b'{"message":"m"}'),
    *(b'{"message":{}}x', b'{"model":"\xff"}', b'{"x":"\xff"}', b"[" * 100_000),
    b'{"message":{"tool_calls":[{}]}}',
    b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"\\ud83d"}}]}}',
    b'{"message":{"content":' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE, ids=beginning)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(Untranslatable) as caught:
        ollama.decode_answer(body)
    assert str(caught.value) == "failed to decode ollama response"
    if body:
        with pytest.raises(Untranslatable):
            decoded(line("a"), body + b"\n")


@pytest.mark.parametrize("body", [b"{}", b'{"message":null}', b'{"error":"secret"}'])
def test_an_answer_without_a_message(body: bytes) -> None:
    with pytest.raises(Untranslatable) as caught:
        ollama.decode_answer(body)
    assert str(caught.value) == "'message' not in ollama response"


@pytest.mark.parametrize("name", SPOKEN)
def test_a_stream_that_is_cut_off_has_not_ended(name: str) -> None:
    _, pieces, expected = SPOKEN[name]
    stream = b"".join(pieces).rstrip()
    for end in range(len(stream)):
        told = decoded(stream[:end])
        assert told == expected[: len(told)]
        assert Ended() not in told
        assert not read([stream[:end]]).finished


def test_no_event_leaves_anything_out() -> None:
    assert ollama.stream_decoder().losses.names() == []


def test_what_follows_the_end_says_nothing() -> None:
    ended = decoded(line("a"), last())
    assert decoded(line("a"), last(), line("b"), b"garbage\n", last(), b"{") == ended


def test_a_line_that_says_nothing() -> None:
    assert decoded(b"{}\n", line("a")) == [
        *(Started(None, None), TextStart(), TextDelta("a")),
    ]


def test_a_line_past_the_limit() -> None:
    decoder = ollama.stream_decoder()
    piece = b" " * (1024 * 1024)
    for _ in range(16):
        assert decoder.feed(piece) == []
    with pytest.raises(ValueError, match="a line is longer than 16777216 bytes"):
        decoder.feed(b" ")


# Errors


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"error": "out of memory"}, Failed(502, "out of memory")),
        ({"error": "full", "status": 503}, Failed(503, "full")),
        ({"error": "odd", "status": 200}, Failed(502, "odd")),
        ({"error": "odd", "status": "503"}, Failed(502, "odd")),
        ({"error": {"message": "m"}}, Failed(502, "m")),
        ({"error": 7}, Failed(502, "the provider answered with status 502")),
        ({"error": ""}, Failed(502, "the provider answered with status 502")),
    ],
)
def test_an_error_within_a_stream(error: dict[str, Any], failed: Failed) -> None:
    told = json.dumps(error).encode() + b"\n"
    stream = b"".join([line("a"), told, line("b"), last()])
    expected = [STARTED, TextStart(), TextDelta("a"), failed]
    for cut in range(len(stream)):
        assert decoded(stream[:cut], stream[cut:]) == expected
    assert decoded(told) == [failed]
    assert read([line("a"), told]).finished


@pytest.mark.parametrize(
    ("status", "body", "failed"),
    [
        (404, b'{"error":"model \'m\' not found"}', Failed(404, "model 'm' not found")),
        (500, b'{"error":{"message":"m"}}', Failed(500, "m")),
        (
            400,
            b'{"error":"the input length exceeds the context length"}',
            Failed(
                400, "prompt is too long: the input length exceeds the context length"
            ),
        ),
        (200, b'{"error":"m"}', Failed(502, "m")),
        (400, b"{}", Failed(400, "the provider answered with status 400")),
        (400, b'{"error":null}', Failed(400, "the provider answered with status 400")),
        (404, b"404 page not found", Failed(404, "404 page not found")),
        (503, b"<html>", Failed(503, "the provider answered with status 503")),
        (503, b"", Failed(503, "the provider answered with status 503")),
        (500, b'{"a":' * 20_000, Failed(500, "the provider answered with status 500")),
    ],
)
def test_an_error(status: int, body: bytes, failed: Failed) -> None:
    assert ollama.decode_error(status, body) == failed


# Reading along


def test_reading_a_stream() -> None:
    reader = ollama.stream_reader()
    seen = [facts(reader)]
    for piece in (line(), line(thinking="Hm."), line("a"), last()):
        reader.feed(piece)
        seen.append(facts(reader))
    reader.end()
    seen.append(facts(reader))
    model = "qwen3:8b"
    assert seen == [
        (Usage(), None, False, False, False),
        (Usage(), model, False, False, False),
        (Usage(), model, True, False, False),
        (Usage(), model, True, False, False),
        (USAGE, model, True, True, False),
        (USAGE, model, True, True, False),
    ]


def test_what_is_not_counted_is_estimated() -> None:
    made = line(tool_calls=[call("look", {})])
    reader = read([line(thinking="Hm"), line("é🙂x"), made])
    # Hm, é🙂x, look and {}: 11 characters.
    assert facts(reader) == (
        Usage(0, 3, estimated=True),
        "qwen3:8b",
        True,
        False,
        False,
    )


@pytest.mark.parametrize("odd", GARBAGE[1:], ids=beginning)
def test_a_line_that_cannot_be_read_is_left_out(odd: bytes) -> None:
    reader = read([line("a"), odd + b"\n", last()])
    assert facts(reader) == (USAGE, "qwen3:8b", True, True, True)


def test_a_line_past_the_limit_ends_the_reading_and_nothing_else() -> None:
    reader = read([line("a" * 8), *[b"x" * (1024 * 1024)] * 17, b"\n", last()])
    assert reader.broken
    assert reader.lost
    assert not reader.finished
    assert reader.usage == Usage(0, 2, estimated=True)


def test_reading_a_whole_answer() -> None:
    reader = read_whole(*whole_answer({"content": "a"}).partition(b","))
    assert facts(reader) == (USAGE, "qwen3:8b", True, True, False)


@pytest.mark.parametrize(
    "body",
    [*(b"", b"{", b"[]", b"<html>", b'{"model":"\xff"}', b'{"x":"\xff"}')],
    ids=beginning,
)
def test_reading_a_whole_answer_that_is_none(body: bytes) -> None:
    assert facts(read_whole(body)) == (Usage(), None, True, False, True)


def test_a_whole_answer_past_the_limit_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(along, "MAX_WHOLE_ANSWER", 10)
    assert read_whole(b'{"model":"m"}').lost


# Any lines

PIECES = st.one_of(
    st.builds(line, st.text(), thinking=st.text()),
    st.builds(
        lambda name, arguments: line(tool_calls=[call(name, arguments)]),
        st.text(),
        st.dictionaries(
            st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text()
        ),
    ),
    st.just(b"\n"),
    st.just(b"\r\n"),
    st.builds(last, st.sampled_from(["stop", "length", "load"])),
    st.just(b'{"error":"e"}\n'),
)


@unhurried
@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 2000), max_size=8))
def test_any_stream_in_any_cuts(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    told = decoded(stream)
    chopped = chop(stream, *(min(cut, len(stream)) for cut in cuts))
    assert decoded(*chopped) == told
    assert facts(read(chopped)) == facts(read([stream]))
    closing = [event for event in told if isinstance(event, Ended | Failed)]
    assert closing == told[len(told) - len(closing) :]
    assert len(closing) <= 1


@unhurried
@given(
    st.text(),
    st.text(),
    st.dictionaries(st.text(), st.text()),
    st.lists(st.integers(0, 100), max_size=4),
)
def test_any_answer_is_the_same_whole_and_streamed(
    thinking: str, content: str, arguments: dict[str, str], cuts: list[int]
) -> None:
    made = [call("look", arguments)]
    edges = [0, *sorted(cuts), 100]
    texts = [content[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    pieces = [
        line(thinking=thinking),
        *map(line, [*texts, content[100:]]),
        line(tool_calls=made),
        last(),
    ]
    message = {"content": content, "thinking": thinking, "tool_calls": made}
    assert assemble(decoded(*pieces)) == ollama.decode_answer(whole_answer(message))


@unhurried
@given(st.lists(st.binary(), max_size=5))
def test_reading_an_answer_raises_nothing(pieces: list[bytes]) -> None:
    assert read(pieces).usage == Usage()
    assert read_whole(*pieces).usage == Usage()


@unhurried
@given(st.lists(st.binary(), max_size=5))
def test_decoding_raises_nothing_but_what_it_may(pieces: list[bytes]) -> None:
    for decode in (decoded, lambda *given: ollama.decode_answer(b"".join(given))):
        with suppress(Untranslatable):
            decode(*pieces)
    assert ollama.decode_error(500, b"".join(pieces)).status == 500
