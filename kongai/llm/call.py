"""One call to an LLM: what is known of it, from the request to the last token."""

from __future__ import annotations

from dataclasses import dataclass

from kongai.llm.formats import AnswerReader


@dataclass(slots=True)
class Call:
    """What an AI plugin knows of an exchange; others find it in `exchange.llm`.

    Points in time are seconds of the clock of `Timings`.
    """

    provider: str
    path: str
    """The provider's path, without the query."""
    chat: bool
    """Whether it is a chat request, one that is read and counted."""
    body: bytes | None = None
    """The request's body as the provider gets it, if it was read."""
    request_model: str | None = None
    response_model: str | None = None
    streaming: bool = False
    reader: AnswerReader | None = None
    """Reads the answer along; there once a chat answer with status 200 is."""
    asked: float | None = None
    """When the request was read."""
    first_token: float | None = None
    received: float | None = None
    """When the answer had come to its end."""
    payload: list[bytes] | None = None
    """The answer's body, where payloads are logged."""
