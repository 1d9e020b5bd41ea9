"""Templates such as ``$(headers.x-model)`` in the settings of a model.

They are filled in for each request, from its headers, its query or the named groups of
its route's path: in `model.name` and in every text of `model.options` but those in
lists. What a client gives that way must not lead elsewhere than the settings say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kongai.errors import RequestRejected
from kongai.exchange import Exchange
from kongai.incoming import query_arguments
from kongai.providers import addresses, option

if TYPE_CHECKING:
    from kongai.plugins.ai_proxy_config import Target

    T = TypeVar("T", bound=Target)

_TEMPLATE = re.compile(r"\$\(([^)]*)\)")
_INVALID = "invalid value for field '{}'"
_URL, _PATH = "model.options.upstream_url", "model.options.upstream_path"
_PRINTABLE = re.compile("[ -~]+")
# A URL up to somewhere in its authority.
_UP_TO_HOST = re.compile(r"[a-z]+://[^/]*", re.IGNORECASE)


def is_template(text: Any) -> bool:
    """Whether a value of the settings has a template in it."""
    return isinstance(text, str) and _TEMPLATE.search(text) is not None


def templated(target: Target) -> bool:
    """Whether a target depends on the request, and has to be resolved for each."""
    model = target.model
    return is_template(model.name) or any(
        is_template(text) for _, text in _texts(model.options)
    )


def problems(target: Target) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings that templates may be in, as far as is known.

    Yields:
        Pairs of a field's path and the text; none for what depends on the request.
    """
    options = target.model.options
    for name, text in addresses.objections(target.provider, options):
        if not is_template(option(options, name)):
            yield f"model.options.{name}", text
    for path, text in _texts(options, lists=True):
        if any(part.isdigit() for part in path.split(".")) and is_template(text):
            yield f"model.options.{path}", "templates are not filled in here"


def resolve(target: T, exchange: Exchange) -> T:
    """The target for one request, its templates filled in.

    Raises:
        RequestRejected: the request lacks a value, or has one that can't stand there.
    """

    def fill(path: str, text: str) -> str:
        if not is_template(text):
            return text
        return _TEMPLATE.sub(lambda found: _value(found, path, exchange), text)

    model = target.model
    options = _filled(model.options, fill, "model.options")
    path = options.upstream_path
    if path is not None and not path.startswith("/"):
        # A group of the route's path often comes without its slash.
        options = msgspec.structs.replace(options, upstream_path=f"/{path}")
    for name, _ in addresses.objections(target.provider, options):
        raise RequestRejected(_INVALID.format(f"model.options.{name}"))
    if model.name is not None:
        model = msgspec.structs.replace(model, name=fill("model.name", model.name))
    return msgspec.structs.replace(
        target, model=msgspec.structs.replace(model, options=options)
    )


def _value(found: re.Match[str], path: str, exchange: Exchange) -> str:
    """What the request has for a template, checked for the place where it stands."""
    source, dot, key = found.group(1).strip().partition(".")
    if not (source and dot and key):
        raise RequestRejected(f"cannot parse expression for field '{found.group()}'")
    if source not in _SOURCES:
        raise RequestRejected(f"source '{source}' is not supported")
    value = _SOURCES[source](exchange, key)
    if not value:
        raise RequestRejected(f"{source} key {key} was not provided")
    before = found.string[: found.start()]
    safe = _PRINTABLE.fullmatch(value) is not None
    if path == _PATH or (path == _URL and before):
        in_host = path == _URL and _UP_TO_HOST.fullmatch(before)
        safe = addresses.is_part(value) if in_host else addresses.is_piece(value)
    if not safe:
        raise RequestRejected(_INVALID.format(path))
    return value


def _header(exchange: Exchange, key: str) -> str | None:
    value: str | None = exchange.headers.get(key)
    return value


def _argument(exchange: Exchange, key: str) -> str | None:
    values = query_arguments(exchange.query or "").get(key, [None])
    return values[0] if isinstance(values[0], str) else None


def _capture(exchange: Exchange, key: str) -> str | None:
    return exchange.match.captures.get(key) if exchange.match else None


_SOURCES: dict[str, Callable[[Exchange, str], str | None]] = {
    "headers": _header,
    "query_params": _argument,
    "uri_captures": _capture,
}


def _texts(
    value: Any, path: str = "", *, lists: bool = False
) -> Iterator[tuple[str, str]]:
    """The texts below a record, each with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            below = f"{path}.{name}" if path else name
            yield from _texts(getattr(value, name), below, lists=lists)
    elif isinstance(value, tuple) and lists:
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}.{index}", lists=lists)


def _filled(value: Any, fill: Callable[[str, str], str], path: str) -> Any:
    """A record with its texts filled in; the very same if that changes none."""
    if isinstance(value, str):
        return fill(path, value)
    if not isinstance(value, msgspec.Struct):
        return value
    changes = {}
    for field in value.__struct_fields__:
        old = getattr(value, field)
        new = _filled(old, fill, f"{path}.{field}")
        if new is not old:
            changes[field] = new
    return msgspec.structs.replace(value, **changes) if changes else value
