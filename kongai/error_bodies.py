"""The bodies of the gateway's own errors: Kong's texts, in a form clients accept."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape

from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from kongai.errors import BodyIncomplete, GatewayError, Refused, UpstreamError

JSON = "application/json; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"


def accepted(headers: Headers, error: GatewayError) -> str | None:
    """What decides the form of an error's body: the client's `Accept`.

    Without one, errors that come from nginx in Kong take the form of the request's own
    body, or else plain text.
    """
    accept = headers.get("accept")
    if accept is None and _is_nginxs(error):
        return headers.get("content-type", "text/plain")
    return accept


def _is_nginxs(error: GatewayError) -> bool:
    if isinstance(error, UpstreamError):
        return error.status in (502, 504)
    bug = type(error) is GatewayError and error.message == GatewayError.message
    return bug or isinstance(error, (Refused, BodyIncomplete))


def error_body(
    message: str, request_id: str, accept: str | None
) -> tuple[str | None, bytes]:
    """The content type and the body of an error.

    Args:
        message: Kong's text.
        request_id: the id of the request.
        accept: the client's `Accept`; None for JSON.

    Returns:
        For gRPC, whose errors have no body, no type and nothing.
    """
    kind, text = _FORMS[_preferred(accept or "*/*")]
    return kind, text(message, request_id).encode()


def _preferred(accept: str) -> str:
    """Of the types of the highest quality the first one; JSON if it is unknown here."""
    best, preferred = 0.0, "*/*"
    for part in accept.split(","):
        kind, options = parse_options_header(part.strip())
        quality = _quality(options.get("q", "1"))
        if "/" in kind and quality > best:
            best, preferred = quality, kind.lower()
    return preferred if preferred in _FORMS else "*/*"


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _json(message: str, request_id: str) -> str:
    said = json.dumps(message, ensure_ascii=False)
    return f'{{\n  "message":{said},\n  "request_id":"{request_id}"\n}}'


def _plain(message: str, request_id: str) -> str:
    return f"{message}\nrequest_id: {request_id}\n"


def _html(message: str, request_id: str) -> str:
    return (
        '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8">\n'
        "    <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n"
        f"    <p>{escape(message, quote=False)}.</p>\n"
        f"    <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
    )


def _xml(message: str, request_id: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<error>\n'
        f"  <message>{escape(message, quote=False)}</message>\n"
        f"  <requestid>{request_id}</requestid>\n</error>\n"
    )


def _nothing(message: str, request_id: str) -> str:
    return ""


_FORMS: dict[str, tuple[str | None, Callable[[str, str], str]]] = {
    "*/*": (JSON, _json),
    "application/*": (JSON, _json),
    "application/json": (JSON, _json),
    "application/grpc": (None, _nothing),
    "application/xml": ("application/xml; charset=utf-8", _xml),
    "text/*": (_PLAIN, _plain),
    "text/html": ("text/html; charset=utf-8", _html),
    "text/plain": (_PLAIN, _plain),
}
