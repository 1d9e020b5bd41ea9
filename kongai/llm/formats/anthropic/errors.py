"""Errors of Anthropic's API: the envelope, and the event of a stream."""

from __future__ import annotations

import json

import msgspec

from kongai.llm.errors import plain_message
from kongai.llm.events import Failed
from kongai.llm.json_fields import UNREADABLE
from kongai.sse import ServerSentEvent, encode

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {kind: status for status, kind in reversed(_ERROR_TYPES.items())}


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Envelope(msgspec.Struct):
    error: _Error


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The error envelope of Anthropic's API."""
    error = {
        "type": "error",
        "error": {
            "type": _ERROR_TYPES.get(status, _default(status)),
            "message": message,
        },
        "request_id": request_id,
    }
    return json.dumps(error, separators=(",", ":")).encode()


def error_event(status: int, message: str, request_id: str) -> bytes:
    """The `error` event of Anthropic's streams.

    It starts with a blank line, which ends an event that was cut in the middle.
    """
    data = error_body(status, message, request_id)
    return b"\n\n" + encode(ServerSentEvent(b"error", data))


def decode_error(status: int, body: bytes) -> Failed:
    """Read an error of the API, or whatever came in place of one.

    Args:
        status: the HTTP status; below 400 for an error inside a stream, whose own type
            says the status then.
        body: the error's body, or the data of the event.
    """
    try:
        error = msgspec.json.decode(body, type=_Envelope).error
    except UNREADABLE:
        status = status if status >= 400 else 500
        return Failed(status, plain_message(status, body))
    if status < 400:
        status = _STATUSES.get(error.type, 500)
    return Failed(status, error.message or plain_message(status, b""))


def _default(status: int) -> str:
    return "invalid_request_error" if status < 500 else "api_error"
