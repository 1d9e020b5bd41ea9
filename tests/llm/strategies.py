"""Conversations, answers and streams for Hypothesis, as real clients and models make
them: in an order that both APIs allow, with unique ids and results after their calls.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, get_args

from hypothesis import strategies as st

from kongai.llm.chat import (
    ChatAnswer,
    ChatRequest,
    Media,
    Message,
    OutputSchema,
    Part,
    Reasoning,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kongai.llm.events import (
    Counted,
    Ended,
    Event,
    Started,
    StillThere,
    Stopped,
    TextDelta,
    ToolDelta,
    ToolStart,
    replay,
)
from kongai.llm.usage import Usage

DrawFn = st.DrawFn

some_text = st.text(st.characters(codec="utf-8"), max_size=12)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | some_text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(some_text, inner),
    max_leaves=5,
)
objects = st.dictionaries(some_text, values, max_size=3)
object_texts = st.builds(
    lambda value, spaced: json.dumps(value, separators=None if spaced else (",", ":")),
    objects,
    st.booleans(),
)
plain_schemas = st.builds(
    lambda value, more: json.dumps({**value, **more}),
    objects,
    st.sampled_from([{"type": "object"}, {}, {"type": "object", "properties": {}}]),
)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
properties = st.recursive(
    st.sampled_from([{"type": "string"}, {"enum": [{"type": "object"}]}]),
    lambda inner: st.builds(
        lambda members, missing, more: {
            "type": "object",
            "properties": members,
            "required": sorted(members)[missing:],
            **more,
        },
        st.dictionaries(names, inner, max_size=3),
        st.sampled_from([0, 0, 1]),
        st.sampled_from([*[{"additionalProperties": False}] * 3, {}]),
    ),
    max_leaves=4,
)
schemas = plain_schemas | properties.map(json.dumps)
marks = st.none() | st.sampled_from([{"type": "ephemeral"}, {"type": "x", "ttl": "1h"}])
base64s = st.binary(min_size=1, max_size=6).map(lambda data: b64encode(data).decode())
urls = names.map("https://example.com/{}".format)

texts = st.builds(Text, words, marks)
images = st.builds(
    Media,
    kind=st.just("image"),
    media_type=st.sampled_from(["image/png", "image/jpeg"]),
    data=base64s,
    cache=marks,
) | st.builds(Media, kind=st.just("image"), url=urls, cache=marks)
documents = st.builds(
    Media,
    kind=st.just("document"),
    media_type=st.just("application/pdf"),
    data=base64s,
    name=st.none() | words,
    cache=marks,
)
shown = texts | images | documents
sealed = st.builds(Thinking, some_text, words) | st.builds(Thinking, redacted=words)
thoughts = st.lists(sealed, max_size=3) | st.lists(
    st.builds(Thinking, words), max_size=1
)


@st.composite
def conversations(draw: DrawFn, *, thinks: bool = False) -> list[Message]:
    """What was said so far; with `thinks`, calls of tools follow a sealed thought."""
    messages = [
        Message("system", list(parts))
        for parts in draw(st.lists(st.lists(texts, min_size=1, max_size=2), max_size=2))
    ]
    ids = iter(draw(st.lists(names, min_size=9, max_size=9, unique=True)))
    results: list[Part] = []
    for _ in range(draw(st.integers(1, 3))):
        least = 0 if results else 1
        said = draw(st.lists(shown, min_size=least, max_size=3))
        if len(results) > 1 and draw(st.booleans()):
            # Some clients give them back in turns of their own.
            messages.append(Message("user", [results.pop(0)]))
        messages.append(Message("user", [*results, *said]))
        if draw(st.booleans()):
            break
        answer = draw(st.lists(texts, max_size=2))
        least = 0 if answer else 1
        calls = [
            ToolCall(next(ids), name, arguments, mark)
            for name, arguments, mark in draw(
                st.lists(
                    st.tuples(names, object_texts, marks), min_size=least, max_size=3
                )
            )
        ]
        past = draw(st.lists(sealed, min_size=1, max_size=2) if thinks else thoughts)
        messages.append(Message("assistant", [*past, *answer, *calls]))
        results = [draw(results_of(call)) for call in calls]
    if results and messages[-1].role == "assistant":
        messages.append(Message("user", results))
    return messages


def results_of(call: ToolCall) -> st.SearchStrategy[ToolResult]:
    parts = st.lists(shown, max_size=3)
    return st.builds(ToolResult, st.just(call.id), parts, st.booleans(), marks)


@st.composite
def requests(draw: DrawFn) -> ChatRequest:
    """A request; one that asks for thinking says nothing that would forbid it."""
    thinks = draw(st.booleans())
    tools = draw(st.lists(tool, max_size=3, unique_by=lambda tool: tool.name))
    chat = ChatRequest(
        model=draw(words),
        messages=draw(conversations(thinks=thinks)),
        tools=tools,
        tool_choice=draw(choices(tools, forced=not thinks)),
        parallel_tools=draw(st.none() | st.booleans()),
        max_tokens=draw(st.none() | st.integers(1, 100_000)),
        seed=draw(st.none() | st.integers(0, 2**31)),
        frequency_penalty=draw(st.none() | st.floats(-2, 2)),
        presence_penalty=draw(st.none() | st.floats(-2, 2)),
        stop=draw(st.lists(words, max_size=6)),
        stream=draw(st.booleans()),
        output=draw(st.none() | outputs),
        user=draw(st.none() | words | st.just("u" * 65)),
    )
    if thinks:
        chat.reasoning = draw(reasonings)
    else:
        chat.temperature = draw(st.none() | st.floats(0, 2))
        chat.top_p = draw(st.none() | st.floats(0, 1))
        chat.top_k = draw(st.none() | st.integers(1, 100))
    return chat


tool = st.builds(
    Tool,
    names,
    st.none() | some_text,
    st.none() | schemas,
    st.none() | st.booleans(),
    marks,
)
outputs = st.builds(
    OutputSchema,
    schemas,
    st.none() | names,
    st.none() | words,
    st.none() | st.booleans(),
)
efforts = st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"])
reasonings = (
    st.just(Reasoning(False))
    | st.builds(Reasoning, effort=st.none() | efforts)
    | st.builds(Reasoning, budget=st.integers(1024, 50_000))
)


def choices(tools: list[Tool], *, forced: bool) -> st.SearchStrategy[ToolChoice | None]:
    possible: list[ToolChoice | None] = [None, ToolChoice("auto"), ToolChoice("none")]
    if forced:
        possible.append(ToolChoice("required"))
        possible.append(ToolChoice("one", "a_tool_that_is_offered_no_more"))
        possible += [ToolChoice("one", tool.name) for tool in tools]
    return st.sampled_from(possible)


@st.composite
def usages(draw: DrawFn) -> Usage:
    fresh, cached, written, answer, thought = draw(
        st.tuples(*[st.integers(0, 1000)] * 5)
    )
    return Usage(
        fresh + cached + written,
        answer + thought,
        cached_tokens=cached,
        cache_writes={"5m": written} if written else {},
        reasoning_tokens=thought,
        counted=True,
    )


@st.composite
def answers(draw: DrawFn) -> ChatAnswer:
    """An answer: thoughts, texts and calls, in this order."""
    said = st.builds(Text, some_text, cited=st.booleans())
    called = st.lists(
        st.builds(ToolCall, names, names, object_texts),
        max_size=3,
        unique_by=lambda call: call.id,
    )
    reason: StopReason | None = draw(st.none() | st.sampled_from(get_args(StopReason)))
    return ChatAnswer(
        id=draw(names),
        model=draw(names),
        parts=[*draw(thoughts), *draw(st.lists(said, max_size=3)), *draw(called)],
        stop_reason=reason,
        stop_sequence=draw(words) if reason == "sequence" else None,
        usage=draw(st.none() | usages()),
    )


@st.composite
def streams_of(draw: DrawFn, answer: ChatAnswer) -> list[Event]:
    """A stream that tells an answer: in small pieces, calls in turns, pings between."""
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    rest = [part for part in answer.parts if not isinstance(part, ToolCall)]
    events: list[Event] = [Started(answer.id, answer.model)]
    for event in replay(ChatAnswer(parts=[*rest])):
        if isinstance(event, TextDelta):
            events += [TextDelta(piece) for piece in draw(pieces_of(event.text))]
        elif not isinstance(event, (Started, Ended)):
            events.append(event)
    events += draw(turns([list(told(n, call)) for n, call in enumerate(calls)]))
    if answer.stop_reason is not None:
        events.append(Stopped(answer.stop_reason, answer.stop_sequence))
    if answer.usage is not None:
        events.insert(draw(st.integers(1, len(events))), Counted(answer.usage))
    for _ in range(draw(st.integers(0, 2))):
        events.insert(draw(st.integers(1, len(events))), StillThere())
    return [*events, Ended()]


def told(number: int, call: ToolCall) -> Iterator[Event]:
    half = len(call.arguments) // 2
    yield ToolStart(number, call.id, call.name)
    yield ToolDelta(number, call.arguments[:half])
    yield ToolDelta(number, call.arguments[half:])


def pieces_of(text: str) -> st.SearchStrategy[list[str]]:
    edges = st.lists(st.integers(0, len(text)), max_size=3).map(sorted)
    return edges.map(
        lambda cuts: [
            text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)
        ]
    )


@st.composite
def turns(draw: DrawFn, lines: list[list[Event]]) -> list[Event]:
    """The events of several lines in turns; the lines begin in their order."""
    begun, merged = 0, list[Event]()
    while any(lines):
        open_ones = [n for n in range(begun) if lines[n]]
        if begun < len(lines):
            open_ones.append(begun)
        number = draw(st.sampled_from(open_ones))
        begun = max(begun, number + 1)
        merged.append(lines[number].pop(0))
    return merged


# What looks like a request, an answer or an event, and is none.

_KEYS = """
    arguments budget_tokens cache_control choices citations content content_block data
    delta description done effort enabled error event file file_data finish_reason
    format function id image_url include_usage index input input_schema is_error
    json_schema max_completion_tokens max_tokens media_type message messages metadata
    model n name output_config parameters partial_json reasoning reasoning_content
    reasoning_details reasoning_effort redacted_thinking response_format role schema
    signature source stop stop_reason stop_sequences stream stream_options strict
    system temperature text thinking tool_calls tool_call_id tool_choice tool_use_id
    tools type url usage user user_id prompt_tokens completion_tokens input_tokens
    output_tokens prompt_tokens_details completion_tokens_details iterations
"""
_WORDS = """
    any assistant auto base64 content_block_delta content_block_start developer
    disabled document enabled error file function image image_url input_json_delta
    json_schema message_delta message_start message_stop none ping reasoning.encrypted
    reasoning.text required signature_delta stop system text text_delta thinking
    thinking_delta tool tool_calls tool_result tool_use url user anthropic-claude-v1
    redacted_thinking json_object data:image/png;base64,eA== {} {"a":1}
"""
_known = st.sampled_from(_WORDS.split()) | scalars
odd_values = st.recursive(
    _known,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS.split()), inner, max_size=4)
    ),
    max_leaves=8,
)
odd_objects = st.dictionaries(st.sampled_from(_KEYS.split()), odd_values, max_size=6)


@st.composite
def damaged(draw: DrawFn, value: Any) -> Any:
    """A JSON value with something in it replaced, left out, or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 6)):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {key: value[key] for key in value if key != name}
        return {**value, name: draw(damaged(value[name]))}
    if isinstance(value, list) and value and draw(st.integers(0, 6)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(damaged(value[index])), *value[index + 1 :]]
    return draw(odd_values)


@st.composite
def damaged_items(draw: DrawFn, items: list[Any]) -> list[Any]:
    """The items of a stream, one or two of them damaged."""
    changed = list(items)
    for _ in range(draw(st.integers(1, 2))):
        index = draw(st.integers(0, len(items) - 1))
        changed[index] = draw(damaged(changed[index]))
    return changed
