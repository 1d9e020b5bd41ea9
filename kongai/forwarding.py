"""The heads that cross the gateway: what is passed on, dropped and added.

Hop-by-hop fields stop here in both directions (RFC 9110, section 7.6.1); everything
else passes unchanged, in its order and spelling. What is added is Kong's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from operator import itemgetter

from werkzeug.datastructures import Headers

from kongai._version import __version__
from kongai.entities.types import DEFAULT_PORTS
from kongai.exchange import Exchange
from kongai.header_list import HeaderList
from kongai.incoming import mount_point, named_by_connection
from kongai.router import upstream_path

SERVER = f"kongai/{__version__}"
VIA = f"1.1 {SERVER}"

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SET_BY_US = frozenset(
    {
        "content-length",
        "expect",
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-path",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-kong-request-id",
        "x-real-ip",
    }
)
# What upstreams tell an nginx is for that one; another nginx in front of the gateway
# would let any upstream hand out its internal files (X-Accel-Redirect).
_TO_NGINX = frozenset(
    {
        "x-accel-buffering",
        "x-accel-charset",
        "x-accel-expires",
        "x-accel-limit-rate",
        "x-accel-redirect",
        "x-pad",
    }
)
# Where nginx has other words than the standard, which has changed them meanwhile.
_PHRASES = {
    405: "Not Allowed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
_NOT_PASSED_ON = _HOP_BY_HOP | _SET_BY_US
_LOOKED_AT = frozenset({"te", "via", "x-forwarded-for"})
_FOR_THIS_HOP = _HOP_BY_HOP | _TO_NGINX
_value_of = itemgetter(1)
_unsendable = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_NOTHING: frozenset[str] = frozenset()


def request_headers(
    exchange: Exchange, client: Headers, host: str
) -> list[tuple[str, str]]:
    """The head of the request to an upstream.

    Args:
        exchange: the exchange.
        client: the client's headers, as this upstream is to get them.
        host: the Host header's value.
    """
    environ = exchange.request.environ
    protocol = environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2]
    mount = mount_point(environ) if environ.get("SCRIPT_NAME") else ""
    headers = [("Host", host), ("Connection", "keep-alive")]
    # The client's values of what is ours to set, under names in lower case.
    given: dict[str, list[str]] = {}
    for pair in client:
        name = pair[0].lower()
        if name not in _NOT_PASSED_ON:
            headers.append(pair)
        elif name in _LOOKED_AT:
            given.setdefault(name, []).append(pair[1])
    via, client_ip = f"{protocol} {SERVER}", exchange.client_ip
    forwarded_for = client_ip
    if "via" in given:
        via = _appended(", ".join(given["via"]), via)
    if "x-forwarded-for" in given:
        forwarded_for = _forwarded_for(exchange, given["x-forwarded-for"])
    headers.append(("Via", via))
    headers.append(("X-Real-IP", client_ip))
    headers.append(("X-Forwarded-For", forwarded_for))
    match, prefix = exchange.match, mount
    if match and match.route.strip_path and match.prefix != "/":
        prefix += match.prefix
    told = [
        ("X-Forwarded-Proto", environ.get("wsgi.url_scheme", "http")),
        ("X-Forwarded-Host", exchange.host_name),
        ("X-Forwarded-Port", environ.get("SERVER_PORT", "")),
        ("X-Forwarded-Path", mount + exchange.target.partition("?")[0]),
        ("X-Forwarded-Prefix", prefix),
    ]
    if exchange.trusted:
        told = [(name, exchange.forwarded(name, own)) for name, own in told]
    headers += filter(_value_of, told)
    headers.append(("X-Kong-Request-Id", exchange.id))
    if "te" in given and "trailers" in given["te"][0].lower():
        headers.append(("TE", "trailers"))
    return headers


def service_target(exchange: Exchange) -> str | None:
    """The request target at the route's service; None if there is no service."""
    match = exchange.match
    if match is None or match.service is None:
        return None
    path, query = upstream_path(match, exchange.path), exchange.query
    return path if query is None else f"{path}?{query}"


def framed_body(
    exchange: Exchange, body: bytes | None, headers: list[tuple[str, str]]
) -> bytes | Iterator[bytes] | None:
    """The body for the upstream: as read, or else as it comes; frames it in `headers`.

    A body that was read is sent with its length. One that was not (None) is passed on
    as it arrives, framed as the client framed it.
    """
    if body is not None:
        if body or "content-length" in exchange.headers:
            headers.append(("Content-Length", str(len(body))))
        return body or None
    if exchange.content_length is not None:
        headers.append(("Content-Length", str(exchange.content_length)))
        return exchange.stream_body() if exchange.content_length else None
    if "chunked" in exchange.headers.get("transfer-encoding", "").lower():
        headers.append(("Transfer-Encoding", "chunked"))
        return exchange.stream_body()
    return None


def response_headers(
    upstream: Iterable[tuple[str, str]], *ours: tuple[str, str]
) -> HeaderList:
    """The upstream's answer head as the client gets it.

    A value that HTTP can't carry (a control character) is left out with its field.

    Args:
        upstream: the head as it came.
        ours: fields to add, each in the place of the upstream's own, if it has one.
            `Via` and `Server` need not be among them.
    """
    kept, names, for_this_hop = [], set(), _NOTHING
    for field in upstream:
        name = field[0].lower()
        if name == "connection":
            for_this_hop |= named_by_connection((field,))
        elif name not in _FOR_THIS_HOP and not _unsendable(field[1]):
            kept.append(field)
            names.add(name)
    if for_this_hop:
        kept = [field for field in kept if field[0].lower() not in for_this_hop]
        names -= for_this_hop
    headers, via = HeaderList.of(kept), VIA
    if "via" in names:
        via = _appended(", ".join(headers.getlist("via")), VIA)
    if "server" in names:
        headers.put(*ours, ("Via", via), known=names)
    else:
        headers.put(*ours, ("Via", via), ("Server", SERVER), known=names)
    return headers


def host_header(scheme: str, host: str, port: int) -> str:
    """A Host value; the scheme's own port is left out."""
    return with_port(bracketed(host), scheme, port)


def with_port(name: str, scheme: str, port: int) -> str:
    """A name with a port behind it, unless that is the scheme's own."""
    return name if DEFAULT_PORTS[scheme] == port else f"{name}:{port}"


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def reason_phrase(status: int) -> str:
    """The reason phrase of a status: nginx's, the standard one, or `Unknown`."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _forwarded_for(exchange: Exchange, fields: Iterable[str]) -> str:
    # One list (RFC 9110, section 5.3), though some proxies add a field of their own.
    given = ", ".join(filter(None, fields))
    return f"{given}, {exchange.peer_ip}" if given else exchange.client_ip


def _appended(value: str | None, more: str) -> str:
    return f"{value}, {more}" if value else more
