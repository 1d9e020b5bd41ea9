"""One call to an LLM: what is known of it, from the request to the last token."""

from __future__ import annotations

import msgspec

from kongai.llm.formats import AnswerFacts, StreamFilter
from kongai.llm.translate import StreamTranslator, Translation

LONGEST_NAME = 256
"""Characters of a name, such as a model's, that are kept for records and headers."""


def cut(name: str | None) -> str | None:
    """As much of a name that a client or a provider has written as is kept."""
    return name if name is None else name[:LONGEST_NAME]


class Call(msgspec.Struct):
    """What an AI plugin knows of an exchange; others find it in `exchange.llm`.

    Points in time are seconds of the clock of `Timings`.
    """

    provider: str
    path: str
    """The provider's path, without the query."""
    chat: bool
    """Whether it is what the route is for: one that is read and counted."""
    body: bytes | None = None
    """The request's body as the provider gets it, if it was read, and while something
    needs it."""
    prompt_estimate: int | None = None
    """Tokens of the prompt, where they were estimated before the body was dropped."""
    request_model: str | None = None
    """The model that is asked, `LONGEST_NAME` characters of it at most."""
    response_model: str | None = None
    """The model that answered, likewise."""
    streaming: bool = False
    reader: AnswerFacts | None = None
    """What is known of the answer; there once a chat answer with status 200 is."""
    translation: Translation | None = None
    """Between the client and a provider of another format; None between equals."""
    answer: bytes | None = None
    """The whole answer, where it was translated."""
    events: StreamTranslator | None = None
    """Translates the answer, where it is a stream."""
    compressed: bool = False
    """Whether the answer goes to the client in gzip, and comes otherwise."""
    usage_hider: StreamFilter | None = None
    """Takes out of the stream the usage that only the gateway has asked for."""
    dropped: dict[str, None] = msgspec.field(default_factory=dict)
    """What could not be said in the other's format, by name."""
    asked: float | None = None
    """When the request was read."""
    first_token: float | None = None
    received: float | None = None
    """When the answer had come to its end."""
    payload: list[bytes] | None = None
    """The answer's body, where payloads are logged."""
