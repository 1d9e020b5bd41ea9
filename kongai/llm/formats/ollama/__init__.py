"""Ollama's own chat API, as its reference describes it (docs.ollama.com/api/chat).

A streamed answer is one JSON object a line, each as a whole answer has it but with only
the next piece of the message; the last one is done, and counts. An error is an object
with nothing but `error`, in the middle of a stream too. Calls of tools have no id that
one may count on, so they are given one.

The modules of this package: `reading` for what is read along, `requests`, and `answers`
for what is translated, whole, streamed and failed.
"""

from kongai.llm.formats.ollama.answers import (
    decode_answer,
    decode_error,
    stream_decoder,
)
from kongai.llm.formats.ollama.reading import ENDPOINTS, stream_reader, whole_reader
from kongai.llm.formats.ollama.requests import encode_request

__all__ = [
    "ENDPOINTS",
    "decode_answer",
    "decode_error",
    "encode_request",
    "stream_decoder",
    "stream_reader",
    "whole_reader",
]
