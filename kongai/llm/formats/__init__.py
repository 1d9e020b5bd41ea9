"""Wire formats: how a vendor's API writes requests, answers, streams and errors.

A format is a module with the functions of `Format`. It turns bytes into the facts that
the gateway needs and says the gateway's own errors as the vendor would. The name that
`llm_format` gives leads to it by way of `kongai.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from kongai.llm.usage import Usage


class RequestFacts(NamedTuple):
    """What the gateway reads out of a request's body."""

    model: str | None = None
    """None when there is none, or it is not a non-empty string."""
    streaming: bool = False
    has_prompt: bool = False
    """Whether there is something to answer; false for what is not JSON at all."""
    ambiguous: bool = False
    """Whether it is a request of another kind as well: a chat and a completion."""


class AnswerReader(Protocol):
    """Reads along while an answer passes, whole or streamed, in any cuts.

    A reader never fails: what it can't make sense of, it leaves out.
    """

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

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body, its content-coding undone."""

    def end(self) -> None:
        """There is no more; what was read is all there is."""


class ErrorFormat(Protocol):
    """How a client's format says an error, whole and inside a stream."""

    def error_body(self, status: int, message: str, request_id: str) -> bytes:
        """The gateway's error, as an answer of this API."""

    def error_event(self, status: int, message: str, request_id: str) -> bytes:
        """The gateway's error, as the last event of a stream that can't be finished."""


class Format(ErrorFormat, Protocol):
    """The functions that a format's module has."""

    def read_request(self, body: bytes) -> RequestFacts:
        """Read a request; a body that is none gives the defaults."""

    def with_fields(self, body: bytes, fields: Mapping[str, Any]) -> bytes:
        """The body with top-level fields set, every other byte of a value kept."""

    def whole_reader(self) -> AnswerReader:
        """A reader for an answer in one piece."""

    def stream_reader(self) -> AnswerReader:
        """A reader for a streamed answer."""
