"""What can stand in the address of a provider's API, and what can't."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from kongai.entities.types import DEFAULT_PORTS
from kongai.providers import Provider, option
from kongai.providers.options import Options

_NO_SPACES = re.compile(r"[^\x00-\x20\x7f]+")
_PATH = re.compile(r"[^\x00-\x20\x7f?#]+")
# A label of a host's name or a segment of a path, and nothing that leads elsewhere.
_PART = re.compile(r"(?!.*\.\.)(?!\.\Z)[A-Za-z0-9._~-]+")
# Several segments, as a client may choose them.
_PIECE = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]+")


def is_url(text: str) -> bool:
    """Whether a text is the URL of an HTTP server."""
    try:
        parts = urlsplit(text)
        return (
            _NO_SPACES.fullmatch(text) is not None
            and parts.scheme in DEFAULT_PORTS
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:
        return False


def is_part(text: str) -> bool:
    """Whether a text is safe as a part of a host's name, or as a segment of a path."""
    return _PART.fullmatch(text) is not None


def is_piece(text: str) -> bool:
    """Whether a text is safe as a piece of a path: it does not lead upwards."""
    segments = unquote(text).split("/")
    return _PIECE.fullmatch(text) is not None and not {".", ".."} & {*segments}


def objections(provider: Provider, options: Options) -> Iterator[tuple[str, str]]:
    """What is no address, or can't be part of one: pairs of an option and a text."""
    for name in provider.placed():
        value = option(options, name)
        if value is not None and not is_part(value):
            yield name, "expected letters, digits and any of - . _ ~"
    if options.upstream_url is not None and not is_url(options.upstream_url):
        yield "upstream_url", "expected an http or https URL"
    path = options.upstream_path
    if path is not None and not path.startswith("/"):
        yield "upstream_path", "should start with: /"
    elif path is not None and not _PATH.fullmatch(path):
        yield "upstream_path", "expected a path without spaces, '?' and '#'"
