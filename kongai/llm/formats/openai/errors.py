"""Errors of OpenAI's API: the envelope, and the event in which a stream tells one."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from kongai.llm.errors import TOO_LONG, plain_message
from kongai.llm.events import Failed
from kongai.llm.json_fields import UNREADABLE
from kongai.sse import ServerSentEvent, encode

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_STATUSES = {kind: status for status, kind in _TYPES.items()}
_STATUSES["invalid_request_error"] = 400
# OpenAI and most others; xAI; Gemini.
_LIMIT = re.compile("maximum (?:context|prompt) length|input token count", re.I)
_TOO_LONG_CODE = "context_length_exceeded"


def error_body(status: int, message: str, request_id: str) -> bytes:
    """The error envelope of OpenAI's API, which has no place for the request's id."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {
        "message": message,
        "type": _TYPES.get(status, kind),
        "param": None,
        "code": _TOO_LONG_CODE if TOO_LONG in message.lower() else None,
    }
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def error_event(status: int, message: str, request_id: str) -> bytes:
    """The last event of a stream that can't be finished.

    It starts with a blank line, which ends an event that was cut in the middle.
    """
    data = error_body(status, message, request_id)
    return b"\n\n" + encode(ServerSentEvent(b"", data))


def decode_error(status: int, body: bytes) -> Failed:
    """Read an error of the API, or whatever came in place of one."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except UNREADABLE:
        return Failed(status, plain_message(status, body))
    return read_error(status, found)


def read_error(status: int, found: dict[str, Any]) -> Failed:
    """Read the error out of the object that holds it; kin of the API vary it."""
    given = found.get("error")
    error: dict[str, Any] = given if isinstance(given, dict) else found
    code = error.get("code")
    if status < 400:
        # An error in a stream, which says its status itself, or at least its type.
        status = _STATUSES.get(str(error.get("type")), 500)
        if isinstance(code, int) and 400 <= code < 600:
            status = code
    texts = (error.get("message"), found.get("message"), given, error.get("detail"))
    message = next((text for text in texts if text and isinstance(text, str)), None)
    if message is None:
        return Failed(status, plain_message(status, b""))
    if code == _TOO_LONG_CODE or _LIMIT.search(message):
        message = f"{TOO_LONG}: {message}"
    return Failed(status, message)
