"""Wire formats: how a vendor's API writes requests, answers, streams and errors.

A format is a module with the functions of `Format`, or of `ProviderFormat` alone if no
client speaks it. It turns bytes into the facts that the gateway needs, into the types
of `kongai.llm.chat` and back, and says the gateway's own errors as the vendor would.
The name that `llm_format` gives leads to it by way of `kongai.registry`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from kongai.llm.chat import ChatAnswer, ChatRequest, Losses
from kongai.llm.events import Event, Failed
from kongai.llm.usage import Usage


class RequestFacts(msgspec.Struct, frozen=True):
    """What the gateway reads out of a request's body."""

    model: str | None = None
    """None when there is none, or it is not a non-empty string."""
    streaming: bool = False
    has_prompt: bool = False
    """Whether there is something to answer."""
    ambiguous: bool = False
    """Whether it is a request of another kind as well: a chat and a completion."""
    kind: str = "llm/v1/chat"
    """The route type that the body is for."""
    usage_in_stream: bool = True
    """Whether the answer, if it is streamed, will tell its usage."""
    exact: bool = True
    """Whether the body can be changed; see `kongai.llm.request_body.RequestBody`."""


class Dialect(NamedTuple):
    """What one API of a format takes of what the format can say.

    The defaults are what any API of the format should take.
    """

    max_tokens: str = "max_tokens"
    """The member that holds the most tokens to write."""
    default_max_tokens: int | None = None
    """What to ask for where the client says nothing and the API insists."""
    sampling: bool = True
    """Whether it takes temperature, top_p and stop sequences at all."""
    top_k: bool = False
    one_sampler: bool = False
    """Whether it takes either temperature or top_p, but not both."""
    reasoning: Literal["effort", "openrouter", "budget", "adaptive"] | None = None
    """In which way it is told how much to think, if it is."""
    past_reasoning: str | None = None
    """The member of a message that takes what the model thought before."""
    cache_points: bool = False
    """Whether parts of a message may be marked for the provider's cache."""
    plain_text: bool = False
    """Whether the content of a message must be one string where it is only text."""
    stream_usage: bool = True
    """Whether a stream tells its usage when `stream_options` ask for it."""
    short_call_ids: bool = False
    """Whether ids of calls must be nine letters and digits, as with Mistral."""
    user: bool = True
    """Whether it takes the client's name for the user."""
    stop: bool = True
    """Whether it takes stop sequences, where it takes sampling at all."""
    user_after_tool: bool = True
    """Whether a user's message may follow a tool's."""
    tools_with_reasoning: bool = True
    """Whether it thinks while tools are offered; otherwise it must be told not to."""
    longest_tool_name: int = 64
    """The most characters of a tool's name."""


class Envelope(NamedTuple):
    """What an answer needs that the provider's may not have."""

    id: str
    """The id, if the provider gave none."""
    model: str
    """The model, if the provider named none."""
    created: int
    """Seconds since the epoch."""
    prompt_estimate: int = 0
    """About how many tokens the prompt has, until the provider counts them."""
    usage_in_stream: bool = False
    """Whether the client wants a stream to end with its usage."""


class AnswerFacts(Protocol):
    """What is known of an answer that passes, or is translated on the way."""

    usage: Usage
    model: str | None
    """The model that answered, as the answer names it."""
    started: bool
    """Whether the first piece of the answer proper has come."""
    finished: bool
    """Whether the answer has said that it is complete."""
    broken: bool
    """Whether there was something that could not be read."""
    lost: bool
    """Whether the reader has given up, so that `finished` says nothing."""


class AnswerReader(AnswerFacts, Protocol):
    """Reads along while an answer passes, whole or streamed, in any cuts.

    A reader never fails: what it can't make sense of, it leaves out.
    """

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body, its content-coding undone."""

    def end(self) -> None:
        """There is no more; what was read is all there is."""


class StreamDecoder(Protocol):
    """Turns a provider's stream into events, whatever the cuts."""

    losses: Losses
    """What of the stream no event can say."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete.

        Raises:
            Untranslatable: the stream is not what it should be, and can't be read on.
            ValueError: an event of it is too large.
        """

    def end(self) -> list[Event]:
        """There is no more; the events that were held back."""


class StreamEncoder(Protocol):
    """Writes events as a client's format has them."""

    losses: Losses
    """What of the events the format can't say."""

    def encode(self, events: Iterable[Event]) -> bytes:
        """The bytes for the client; empty where the events say nothing to it."""

    def still_there(self) -> bytes:
        """What keeps a client waiting that hears nothing for long."""


class StreamFilter(Protocol):
    """Takes something out of a stream as it passes, whatever the cuts."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return those that may go on."""

    def end(self) -> bytes:
        """There is no more: the bytes that were held back."""


class ErrorFormat(Protocol):
    """How a client's format says an error, whole and inside a stream."""

    def error_body(self, status: int, message: str, request_id: str) -> bytes:
        """The gateway's error, as an answer of this API."""

    def error_event(self, status: int, message: str, request_id: str) -> bytes:
        """The gateway's error, as the last event of a stream that can't be finished."""


class ProviderFormat(Protocol):
    """The functions of a format that providers speak."""

    ENDPOINTS: Mapping[str, str]
    """By route type, the path below the root of the API."""

    def whole_reader(self) -> AnswerReader:
        """A reader for an answer in one piece."""

    def stream_reader(self) -> AnswerReader:
        """A reader for a streamed answer."""

    def encode_request(self, chat: ChatRequest, dialect: Dialect) -> bytes:
        """Write a request; what can't be said is added to its losses.

        Raises:
            Untranslatable: it can't be left out either.
        """

    def decode_answer(self, body: bytes) -> ChatAnswer:
        """Read a whole answer.

        Raises:
            Untranslatable: it is none; the text says what is missing.
        """

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for a streamed answer."""

    def decode_error(self, status: int, body: bytes) -> Failed:
        """Read an error of the API, or whatever came in place of one."""


class Format(ProviderFormat, ErrorFormat, Protocol):
    """The functions of a format that clients speak too."""

    LOCAL_PATHS: Collection[str]
    """The paths of the API that can be answered without a provider."""

    def api_path(self, path: str) -> str | None:
        """The path below the API's root that a client means.

        Args:
            path: what follows the route's path in the request.

        Returns:
            None for a path that is none of the API's, and for the route itself.
        """

    def read_request(self, body: bytes) -> RequestFacts:
        """Read a request.

        Raises:
            BadBody: it can't be read, or in more than one way.
        """

    def ask_for_usage(self, body: bytes) -> Mapping[str, Any]:
        """The top-level fields to set in a request so that its stream tells its usage.

        Args:
            body: a request that `read_request` could read.
        """

    def usage_hider(self) -> StreamFilter:
        """Takes out of a stream the usage that the client did not ask for."""

    def answer_locally(self, path: str, body: bytes) -> bytes:
        """Answer without a provider, by estimating.

        Args:
            path: one of `LOCAL_PATHS`.
            body: the request's.

        Raises:
            Untranslatable: the request is not as the format demands.
        """

    def whole_of(self, stream: bytes) -> bytes | None:
        """A whole answer that says what a stream said, for logs; None to log it as
        it is."""

    def decode_request(self, body: bytes) -> ChatRequest:
        """Read a request whole; what is not known is among its losses.

        Raises:
            Untranslatable: it is not as the format demands.
        """

    def encode_answer(self, answer: ChatAnswer, envelope: Envelope) -> bytes:
        """Write a whole answer; what can't be said is added to its losses."""

    def stream_encoder(self, envelope: Envelope) -> StreamEncoder:
        """An encoder for a streamed answer."""
