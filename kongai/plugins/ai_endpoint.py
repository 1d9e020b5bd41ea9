"""Where a target of `ai-proxy` is, and how its requests look: address, key, path."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
from werkzeug.datastructures import Headers

from kongai import forwarding, redact, registry
from kongai.balancer import Address, forward
from kongai.content_coding import accepts_gzip
from kongai.entities.types import DEFAULT_PORTS
from kongai.errors import RequestRejected
from kongai.exchange import Attempt, Exchange, UpstreamRequest
from kongai.header_list import HeaderList
from kongai.incoming import query_arguments, query_without
from kongai.llm.call import Call
from kongai.llm.json_fields import with_fields
from kongai.llm.request_body import TOO_DEEP
from kongai.plugins.ai_proxy_config import Target
from kongai.plugins.ai_templates import is_template
from kongai.plugins.body_fields import members

_BEARER = re.compile(r"bearer +(.+)", re.IGNORECASE)
# In which vendors take their keys.
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_KEY_ARGUMENTS = ("key", "api-key", "api_key", "access_token")
_GZIP = ("Accept-Encoding", "gzip, identity")
_IDENTITY = ("Accept-Encoding", "identity")
_JSON = ("Content-Type", "application/json")


class _Own(NamedTuple):
    """What clients of a format send that means something to its vendor alone."""

    headers: re.Pattern[str]
    credentials: tuple[str, ...]
    """Headers in which they send the vendor's key, the usual one first."""
    arguments: tuple[str, ...] = ()


_OWN = {
    "anthropic": _Own(
        re.compile("anthropic-.*", re.IGNORECASE),
        ("x-api-key", "authorization", "api-key"),
        ("beta",),
    ),
    "openai": _Own(
        re.compile("openai-(?:organization|project|beta)", re.IGNORECASE),
        ("authorization", "api-key"),
    ),
}


class Endpoint:
    """A provider's API, as one target of the configuration reaches it.

    The address is the provider's own, or that of `upstream_url`, which names the
    endpoint of the route type; the API's other paths are found below its root.

    Args:
        target: the target; its templates have to be filled in before it is asked.
        llm_format: the name of the format that clients speak. If it is not the
            provider's, what they send for their vendor's eyes stays here.
    """

    def __init__(self, target: Target, *, llm_format: str) -> None:
        self._target = target
        self._provider = target.provider
        translates = llm_format != target.provider_format
        self._foreign = _OWN[llm_format] if translates else None
        options = target.model.options
        own = urlsplit(self._provider.url(options))
        given, self._unknown = own, None
        if is_template(options.upstream_url):
            # Nobody knows yet; whoever asks without a request is shown the template.
            self._unknown = options.upstream_url
        elif options.upstream_url is not None:
            given = urlsplit(options.upstream_url)
        scheme, host = given.scheme or "http", given.hostname or ""
        self._address = Address(
            scheme,
            host,
            given.port or DEFAULT_PORTS[scheme],
            # As Kong sends it: without the port, whatever that is.
            forwarding.host_header(scheme, host, DEFAULT_PORTS[scheme]),
        )
        endpoint = registry.provider_format(target.provider_format).ENDPOINTS[
            target.route_type
        ]
        whole = options.upstream_path or ""
        if given is not own and given.path.strip("/"):
            whole = given.path
        whole = "/" + whole.lstrip("/") if whole else own.path + endpoint
        self.own_path = whole
        """The path of the route type's endpoint."""
        self._root = whole.rstrip("/").removesuffix(endpoint).rstrip("/")
        self._own_headers = {
            name.lower(): (name, value) for name, value in self._flags()
        }
        self._chat_headers = {**self._own_headers, "accept-encoding": _IDENTITY}
        auth = target.auth
        self._changes_query = (
            self._foreign is not None
            or self._provider.version_argument is not None
            or auth.param_location == "query"
        )
        self._credential, self._tokens = None, frozenset[str]()
        if auth.header_name is not None and auth.header_value is not None:
            self._credential = (auth.header_name, auth.header_value)
            self._tokens = _with_token(auth.header_value)

    def path(self, api_path: str | None) -> str:
        """The path of an endpoint.

        Args:
            api_path: where below the API's root; None for that of the route type.
        """
        return self.own_path if api_path is None else self._root + api_path

    def url(self, path: str) -> str:
        """Where a path of the API is, for people."""
        if self._unknown is not None:
            return self._unknown
        scheme, host, port, _ = self._address
        return f"{scheme}://{forwarding.bracketed(host)}:{port}{path}"

    def send(
        self, exchange: Exchange, call: Call
    ) -> Generator[UpstreamRequest, Attempt, None]:
        """A balancer for this endpoint alone, by the rules of the route's service."""
        path, query, body = call.path, exchange.query, call.body
        if self._changes_query:
            query = self._query(exchange)
        if self._target.auth.param_location == "body":
            body = self._body(exchange, call)
        return forward(
            exchange,
            self._address,
            path if query is None else f"{path}?{query}",
            headers=self._headers(exchange, call, body),
            body=body,
        )

    def _headers(
        self, exchange: Exchange, call: Call, body: bytes | None
    ) -> HeaderList:
        """The client's headers as the provider gets them."""
        headers: Headers = exchange.headers
        if self._foreign is not None:
            headers = HeaderList.of(headers)
            self._hold_back(headers, self._foreign)
        # Whoever reads along needs the plain bytes; br and zstd can't be undone.
        ours = (self._chat_headers if call.chat else self._own_headers).copy()
        if body is not None and body is not exchange.body:
            ours["content-type"] = _JSON
        if self._credential is not None:
            name = self._credential[0].lower()
            exchange.secret_names |= {name}
            exchange.secret_values |= self._tokens
            may_stay = self._target.auth.allow_override
            if not (may_stay and (name in headers or name in ours)):
                ours[name] = self._credential
        return _with_fields(headers, ours, may_gzip=not call.streaming)

    def _flags(self) -> Iterator[tuple[str, str]]:
        """What the provider is told in headers by the settings, but for its key."""
        options = self._target.model.options
        if self._provider.version_header and options.anthropic_version is not None:
            yield self._provider.version_header, options.anthropic_version
        if self._provider.name == "huggingface":
            told = options.huggingface
            for name, value in (
                ("x-use-cache", told.use_cache),
                ("x-wait-for-model", told.wait_for_model),
            ):
                if value is not None:
                    yield name, "true" if value else "false"

    def _hold_back(self, headers: Headers, own: _Own) -> None:
        """Leave out what is for the client's vendor: this is another one.

        With a key of the configuration, the client's was for the gateway or for the
        vendor. Without, it must be the provider's, in the form that the client knows.
        """
        auth, wanted = self._target.auth, self._provider.credential
        for name in {name for name, _ in headers if own.headers.fullmatch(name)}:
            del headers[name]
        configured = auth.header_name is not None or auth.param_name is not None
        kept = (auth.header_name if configured else wanted) or ""
        if not configured and wanted not in headers:
            key = _key(headers, own)
            if key is not None:
                bearer = "Bearer " if wanted == "authorization" else ""
                headers[wanted] = bearer + key
        for name in _KEY_HEADERS:
            if name != kept.lower():
                headers.pop(name, None)

    def _query(self, exchange: Exchange) -> str | None:
        """The client's query as the provider gets it."""
        auth, query = self._target.auth, exchange.query
        name, value = auth.param_name, auth.param_value
        given = auth.param_location == "query" and name is not None
        if self._foreign is not None:
            for other in (*self._foreign.arguments, *_KEY_ARGUMENTS):
                if not (given and other == name):
                    query = query_without(query or "", other) or None
        if self._provider.version_argument is not None:
            version = self._target.model.options.azure_api_version
            query = _with_argument(
                query, self._provider.version_argument, version, keeps=True
            )
        if not given or name is None or value is None:
            return query
        exchange.secret_names |= {name.lower()}
        exchange.secret_values |= {value, quote(value, safe="")}
        return _with_argument(query, name, value, keeps=auth.allow_override)

    def _body(self, exchange: Exchange, call: Call) -> bytes | None:
        """The body as the provider gets it; None for one that nobody has read."""
        auth, body = self._target.auth, call.body
        name, value = auth.param_name, auth.param_value
        if auth.param_location != "body" or name is None or value is None:
            return body
        if body is None:
            return None
        written = msgspec.json.encode(value).decode()[1:-1]
        exchange.secret_names |= {name.lower()}
        exchange.secret_values |= {value, written}
        given = _member(exchange.body or b"", name)
        if given is None or not auth.allow_override:
            return _with_member(body, name, value)
        written = bytes(given).decode()
        # What a client calls a key may be a word: that stays in the record.
        if written.startswith('"') and len(written) > redact.SHORTEST:
            exchange.secret_values |= {written[1:-1]}
        return body if self._foreign is None else _with_member(body, name, given)


def _with_member(body: bytes, name: str, value: Any) -> bytes:
    try:
        return with_fields(body, {name: value})
    except RecursionError:
        # Where the stack is deeper than it was when the body was read first.
        raise RequestRejected(TOO_DEEP) from None


def _key(headers: Headers, own: _Own) -> str | None:
    """The client's key, in whichever of its vendor's forms."""
    for name in own.credentials:
        value = headers.get(name)
        if value is not None and name != "authorization":
            return value
        bearer = _BEARER.fullmatch(value or "")
        if bearer is not None:
            return bearer.group(1)
    return None


def _with_token(value: str) -> frozenset[str]:
    """A header's credential, and its token alone: that may be quoted without scheme."""
    token = value.partition(" ")[2].strip()
    return frozenset({value, token} if len(token) >= redact.SHORTEST else {value})


def _with_fields(
    headers: Headers, ours: Mapping[str, tuple[str, str]], *, may_gzip: bool
) -> HeaderList:
    """Headers with fields set: each in the place of the first one of its name.

    All in one pass: there are few headers, but each request has them.

    Args:
        headers: the headers.
        ours: by names in lower case, names and values.
        may_gzip: whether one that asks for the plain bytes may ask for gzip too, if
            the client does.
    """
    left = dict(ours)
    fields: list[tuple[str, str]] = []
    for field in headers:
        name = field[0].lower()
        if name not in ours:
            fields.append(field)
        elif name in left:
            mine = left.pop(name)
            if mine is _IDENTITY and may_gzip and accepts_gzip(field[1]):
                mine = _GZIP
            fields.append(mine)
    fields += left.values()
    return HeaderList.of(fields)


def _with_argument(query: str | None, name: str, value: str, *, keeps: bool) -> str:
    """A query with an argument set.

    Args:
        query: the query.
        name: the argument's name.
        value: its value.
        keeps: whether one that is there already stays as it is.
    """
    given = query or ""
    if keeps and name in query_arguments(given):
        return given
    others = filter(None, query_without(given, name).split("&"))
    return "&".join([*others, f"{quote(name, safe='')}={quote(value, safe='')}"])


def _member(body: bytes, name: str) -> msgspec.Raw | None:
    """A member of a JSON object as it is written; None if it is null or missing."""
    found = members(body).get(name, msgspec.Raw(b"null"))
    return None if bytes(found) == b"null" else found
