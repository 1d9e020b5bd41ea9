"""OpenAI's Chat Completions API, as its reference describes it, and its many kin.

Providers that speak it differ in what they take (`Dialect`) and add members of their
own, of which those for thinking are read under each of their names. The modules of this
package: `reading` for what passes through, `requests`, `answers` and `streams` for what
is translated, `errors`.
"""

from kongai.llm.formats.openai.answers import decode_answer, encode_answer
from kongai.llm.formats.openai.errors import decode_error, error_body, error_event
from kongai.llm.formats.openai.reading import (
    ENDPOINTS,
    LOCAL_PATHS,
    answer_locally,
    api_path,
    read_request,
    stream_reader,
    whole_reader,
)
from kongai.llm.formats.openai.request_writing import encode_request
from kongai.llm.formats.openai.requests import decode_request
from kongai.llm.formats.openai.streams import stream_decoder, stream_encoder, whole_of
from kongai.llm.formats.openai.usage_chunk import ask_for_usage, usage_hider

__all__ = [
    "ENDPOINTS",
    "LOCAL_PATHS",
    "answer_locally",
    "api_path",
    "ask_for_usage",
    "decode_answer",
    "decode_error",
    "decode_request",
    "encode_answer",
    "encode_request",
    "error_body",
    "error_event",
    "read_request",
    "stream_decoder",
    "stream_encoder",
    "stream_reader",
    "usage_hider",
    "whole_of",
    "whole_reader",
]
