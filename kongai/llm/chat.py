"""A conversation with an LLM, in no vendor's words.

Every wire format is read into these types and written from them, so that a format knows
nothing of another. They hold what at least two formats can say; what only one can is a
loss (`Losses`), and is named when it is left out.

In all of them None stands for what was not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kongai.llm.usage import Usage

Role: TypeAlias = Literal["system", "user", "assistant"]
StopReason: TypeAlias = Literal["end", "length", "tool", "sequence", "refusal", "pause"]
"""Why an answer ended: at its end, at the limit of tokens, with calls of tools, at a
stop sequence, refused, or in the middle of a vendor's own tool."""

NO_PARAMETERS = '{"type":"object","properties":{}}'
"""The JSON Schema of a tool without parameters."""
INVALID_JSON = "INVALID_JSON"
"""Under which Anthropic asks to be given arguments that are no JSON object (its guide
to fine-grained tool streaming)."""

_MOST_LOSSES = 50
_LONGEST_LOSS = 100


class Untranslatable(Exception):
    """Something can't be carried over, and leaving it out would change the meaning.

    Its text names places and kinds, and never holds what a user wrote.
    """


class GaveUp(Exception):
    """The provider says, in the place of an answer, that there is none.

    Args:
        status: the HTTP status that fits.
        message: the provider's own words, for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Losses:
    """What was left out on the way, by names such as ``tools[].defer_loading``."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Note a loss; one that is known already counts once."""
        if len(self._names) < _MOST_LOSSES:
            self._names[name[:_LONGEST_LOSS]] = None

    def names(self) -> list[str]:
        """The names, in the order in which they were noted."""
        return list(self._names)

    def __repr__(self) -> str:
        return f"Losses({self.names()})"


@dataclass(slots=True)
class Text:
    """A piece of text.

    `cache` is a point up to which the prompt is to be cached, as Anthropic's
    `cache_control` says it.
    """

    text: str
    cache: dict[str, Any] | None = None
    cited: bool = False
    """Whether it is a piece of a sentence, cut out because a source is given for it."""


@dataclass(slots=True)
class Media:
    """An image or a document, by its bytes in base64 or by its address."""

    kind: Literal["image", "document"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    cache: dict[str, Any] | None = None


@dataclass(slots=True)
class Thinking:
    """What the model thought before it answered.

    `signature` is the vendor's seal on exactly this text; `redacted` is a thought that
    only the vendor can read.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


@dataclass(slots=True)
class ToolCall:
    """The model's call of a tool; the arguments are the text of a JSON object."""

    id: str
    name: str
    arguments: str = "{}"
    cache: dict[str, Any] | None = None


@dataclass(slots=True)
class ToolResult:
    """What a tool gave back for a call."""

    call_id: str
    parts: list[Text | Media] = field(default_factory=list)
    is_error: bool = False
    cache: dict[str, Any] | None = None


Part: TypeAlias = Text | Media | Thinking | ToolCall | ToolResult


@dataclass(slots=True)
class Message:
    """One turn; results of tools belong to the user's."""

    role: Role
    parts: list[Part] = field(default_factory=list)


@dataclass(slots=True)
class Tool:
    """A tool that the model may call; `parameters` is the text of a JSON Schema."""

    name: str
    description: str | None = None
    parameters: str | None = None
    strict: bool | None = None
    cache: dict[str, Any] | None = None


@dataclass(slots=True)
class ToolChoice:
    """Whether the model must call a tool: `one` names which."""

    mode: Literal["auto", "required", "none", "one"]
    name: str | None = None


@dataclass(slots=True)
class Reasoning:
    """How much the model should think: a word, or a number of tokens, or neither."""

    enabled: bool = True
    effort: str | None = None
    budget: int | None = None


@dataclass(slots=True)
class OutputSchema:
    """The JSON Schema, as text, that the answer must keep to."""

    schema: str
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


@dataclass(slots=True)
class ChatRequest:
    """What a client asks for."""

    model: str | None = None
    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: list[str] = field(default_factory=list)
    stream: bool = False
    usage_in_stream: bool = False
    """Whether a stream is to end with the usage, where a format leaves it out."""
    reasoning: Reasoning | None = None
    output: OutputSchema | None = None
    user: str | None = None
    """The client's name for the person behind the request."""
    losses: Losses = field(default_factory=Losses, compare=False)


def choice_of(chat: ChatRequest) -> ToolChoice | None:
    """The choice of a tool, if there still is one to choose; else it is a loss."""
    choice = chat.tool_choice
    if choice is None:
        return None
    names = {tool.name for tool in chat.tools}
    if choice.mode == "one" and choice.name not in names:
        chat.losses.add("tool_choice")
        return None
    if not names:
        if choice.mode == "required":
            chat.losses.add("tool_choice")
        return None
    return choice


def joined(texts: Sequence[Text]) -> str:
    """Several texts as one, a line for each; pieces of one sentence stay together."""
    pieces: list[str] = []
    for index, text in enumerate(texts):
        if index and not (text.cited or texts[index - 1].cited):
            pieces.append("\n")
        pieces.append(text.text)
    return "".join(pieces)


@dataclass(slots=True)
class ChatAnswer:
    """What a model answered."""

    id: str | None = None
    model: str | None = None
    parts: list[Text | Thinking | ToolCall] = field(default_factory=list)
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    """None when the answer says nothing of it."""
    losses: Losses = field(default_factory=Losses, compare=False)
