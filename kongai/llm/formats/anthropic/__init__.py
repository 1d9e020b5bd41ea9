"""Anthropic's Messages API, as its reference describes it (docs.anthropic.com).

The modules of this package: `reading` for what passes through, `requests`, `answers`
and `streams` for what is translated, `errors`.
"""

from kongai.llm.formats.anthropic.answers import decode_answer, encode_answer
from kongai.llm.formats.anthropic.errors import decode_error, error_body, error_event
from kongai.llm.formats.anthropic.local import LOCAL_PATHS, answer_locally, whole_of
from kongai.llm.formats.anthropic.reading import (
    ENDPOINTS,
    api_path,
    ask_for_usage,
    read_request,
    stream_reader,
    usage_hider,
    whole_reader,
)
from kongai.llm.formats.anthropic.requests import decode_request, encode_request
from kongai.llm.formats.anthropic.streams import stream_decoder, stream_encoder

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
