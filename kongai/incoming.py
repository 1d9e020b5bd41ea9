"""The client's request as the WSGI environment has it: its target, headers and body."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Set
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_plus

from werkzeug.sansio.utils import get_content_length
from werkzeug.wrappers import Request

from kongai.errors import RequestRejected
from kongai.header_list import HeaderList

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_BAD_ESCAPE = re.compile("%(?:00|(?![0-9a-fA-F]{2}))")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)


class ClientRequest(Request):
    """A Werkzeug request that takes its environment apart once somebody asks for it.

    A request that only passes needs little of what Werkzeug gets ready.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.shallow = False

    def __getattr__(self, name: str) -> Any:
        # Asked for what is not there, so once: Werkzeug's constructor sets all of it.
        if "headers" in self.__dict__ or name.startswith("__"):
            raise AttributeError(name)
        super().__init__(self.environ)
        return getattr(self, name)


def content_length(environ: WSGIEnvironment) -> int | None:
    """The length of the body that is announced; None if none is, or it is chunked."""
    given = environ.get("CONTENT_LENGTH")
    if given is None:
        return None
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is None and given.isascii() and given.isdecimal():
        # As nearly always; Werkzeug takes longer to say the same.
        return int(given)
    return get_content_length(given, coding)


def body_stream(request: Request, length: int | None) -> IO[bytes]:
    """The raw input: Werkzeug's limited stream ends early without saying so.

    What a Flask application read before its view ran, Werkzeug has kept.

    Args:
        request: the request.
        length: the body's, as `content_length` has it.
    """
    cached = request.__dict__.get("_cached_data")
    if cached is not None:
        return io.BytesIO(cached)
    environ = request.environ
    if length is None and not _says_its_end(environ):
        return io.BytesIO()
    stream: IO[bytes] = environ["wsgi.input"]
    return stream


def _says_its_end(environ: WSGIEnvironment) -> bool:
    """Whether a body without a length has an end that its reader is told of."""
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    return chunked or bool(environ.get("wsgi.input_terminated"))


def origin_form(target: str) -> str:
    """A request target without scheme and authority (RFC 9112, section 3.2)."""
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def objection(method: str, target: str) -> RequestRejected | None:
    """What is wrong with a request line, as nginx sees it; None if nothing is.

    Args:
        method: as the client sent it.
        target: below the mount point, as the client wrote it.
    """
    if method == "TRACE":
        return RequestRejected("Method not allowed", status=405)
    path = target.partition("?")[0].partition("#")[0]
    if "%" not in path and ".." not in path:
        return None
    if _BAD_ESCAPE.search(path) or _climbs(unquote(path, "latin-1")):
        return RequestRejected("Bad request", status=400)
    return None


def _climbs(path: str) -> bool:
    """Whether a path leaves its root on the way."""
    depth = 0
    for segment in path.split("/"):
        if segment == "..":
            depth -= 1
        elif segment not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def raw_target(environ: dict[str, Any]) -> str:
    """The request target as it came, below the mount point.

    Servers that keep it say so in `REQUEST_URI` (uWSGI, waitress, Werkzeug, kongai) or
    `RAW_URI` (gunicorn); elsewhere it is built again from the decoded path (PEP 3333).
    """
    raw: str = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if not raw.startswith("/"):
        raw = origin_form(raw)
    if raw.startswith("/"):
        if not environ.get("SCRIPT_NAME"):
            return raw
        quoted = mount_point(environ)
        if raw.startswith(quoted) and raw[len(quoted) : len(quoted) + 1] in "/?":
            below = raw[len(quoted) :]
            return below if below.startswith("/") else "/" + below
    path = _quote(environ.get("PATH_INFO", "")) or "/"
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def mount_point(environ: dict[str, Any]) -> str:
    """Where in an application the gateway is mounted, as URIs have it; may be empty."""
    mount: str = environ.get("SCRIPT_NAME", "")
    return _quote(mount) if mount else mount


def _quote(path: str) -> str:
    return quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~-._")


def scheme_of(request: Request) -> str:
    """How the request came: ``http`` or ``https``."""
    scheme: str = request.environ.get("wsgi.url_scheme", "http")
    return scheme


def tls_name(request: Request) -> str | None:
    """The name of the TLS handshake, empty if unknown; None for plain HTTP."""
    if request.environ.get("wsgi.url_scheme") != "https":
        return None
    name: str = request.environ.get("SSL_TLS_SNI", "")
    return name


def client_headers(request: Request) -> HeaderList:
    """The request's headers, for plugins to change and for the upstream.

    What the client's `Connection` header names was for the gateway alone (RFC 9110,
    section 7.6.1). It goes before a plugin adds a header that may have the same name.
    """
    received = received_headers(request)
    headers = HeaderList.of(received)
    if "HTTP_CONNECTION" not in request.environ:
        return headers
    for name in named_by_connection(received) - _NEEDED:
        headers.pop(name, None)
    return headers


def received_headers(request: Request) -> list[tuple[str, str]]:
    """All of a request's headers, in the order and spelling the server tells of."""
    raw: list[tuple[str, str]] | None = request.environ.get("kongai.headers")
    return list(request.headers) if raw is None else raw


def named_by_connection(headers: Iterable[tuple[str, str]]) -> Set[str]:
    """The headers that `Connection` declares to be for the next hop, in lower case."""
    values = [value for name, value in headers if name.lower() == "connection"]
    if not values:
        return _NOTHING
    return {name.strip().lower() for value in values for name in value.split(",")}


def query_arguments(query: str) -> dict[str, list[str | bool]]:
    """The arguments of a query string, decoded; one without a value is True."""
    found: dict[str, list[str | bool]] = {}
    for part in filter(None, query.split("&")):
        name, value = argument(part)
        found.setdefault(name, []).append(value)
    return found


def query_without(query: str, name: str) -> str:
    """A query or a form without the arguments of a name; the others stay as is."""
    return "&".join(part for part in query.split("&") if argument(part)[0] != name)


def argument(part: str) -> tuple[str, str | bool]:
    """The name and the value of one argument of a query or a form, decoded."""
    name, equals, value = part.partition("=")
    return unquote_plus(name), unquote_plus(value) if equals else True


_NOTHING: frozenset[str] = frozenset()
# They say where a request goes and where it ends, and have no sense in `Connection`.
_NEEDED = {"host", "content-length", "transfer-encoding", "te", "connection"}
