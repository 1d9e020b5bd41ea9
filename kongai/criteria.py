"""What a route asks of requests, and where a service is: how Kong has it written.

Kong checks hosts, paths and header names one by one when it reads a configuration, and
compares paths in one spelling. Each check here yields the texts of what is wrong.
"""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote, unquote

_URI = "!#$%&'()*+,/:;=?@[]~"
_NOT_URI = re.compile(rf"[^\w.\-{re.escape(_URI)}]", re.A)
_SERVICE_PATH = re.compile(r"[\w.\-~!$&'()*+,;=:@/%]*", re.A)
_UNRESERVED = re.compile(
    r"%(?:4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae]|3[0-9]|2[de])", re.I
)
_ENCODED = re.compile(r"%[0-9a-f]{2}", re.I)
_ENCODED_RESERVED = re.compile("%(?=2[1346-9ABCF5]|3[ABDF]|40|5[BD])")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9a-f]{2}).{0,2}", re.I | re.S)

_PLAIN_PATH = re.compile(r"[a-zA-Z0-9._~/%-]*")

_NAME_AND_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(?::([0-9]+))?")
_HOST = re.compile(r"[\w.-]+", re.A)
_WILDCARD = re.compile(r"\*\.[^*]+|[^*]+\.\*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PCRE_GROUP = re.compile(r"(?<!\\)\(\?<(?![=!])")
_PCRE_FLAGS = re.compile(r"\(\?[imsx]+\)")
_PCRE_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|\(\?(?P<flags>[imsx]+)\)|.", re.S
)
_NOT_RESERVED = re.compile("%(?!2[1346-9ABCF5]|3[ABDF]|40|5[BD])[0-9A-F]{2}")

REST = "uri_postfix"
"""The group of `compile_path_regex` for what follows."""


def normalize(path: str) -> str:
    """The spelling in which paths are compared (RFC 3986, section 6.2.2).

    Unreserved characters are decoded, other escapes put in upper case, what a URI can't
    hold is escaped, dot segments are resolved and runs of slashes made one.

    Args:
        path: without the query; bytes read as Latin-1, which is how WSGI has it.
    """
    if _NOT_URI.search(path):
        path = quote(path.encode("latin-1"), safe=_URI)
    if "%" in path:
        path = _UNRESERVED.sub(lambda found: chr(int(found.group()[1:], 16)), path)
        path = _ENCODED.sub(lambda found: found.group().upper(), path)
    if "//" not in path and "/." not in path:
        return path
    segments: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del segments[-1:]
        elif part not in ("", "."):
            segments.append(part)
    trailing = "/" if segments and parts[-1] in ("", ".", "..") else ""
    return "/" + "/".join(segments) + trailing


def normalize_prefix(prefix: str) -> str:
    """The spelling in which a prefix is compared with paths."""
    return normalize(prefix.encode().decode("latin-1"))


def decoded(path: str) -> str:
    """The spelling that a regex sees: only what has a meaning in URIs stays escaped.

    Args:
        path: normalised.
    """
    if "%" not in path:
        return path
    return _NOT_RESERVED.sub(lambda found: chr(int(found.group()[1:], 16)), path)


def encoded(path: str) -> str:
    """The normalised spelling of a path, or a piece of one, that was `decoded`."""
    return quote(path.encode("latin-1"), safe=_URI)


def compile_regex(pattern: str) -> re.Pattern[str]:
    """Compile a regex written for PCRE: named groups, and flags at any place.

    Like Kong's, it works on bytes: a letter beyond ASCII is as many as UTF-8 takes,
    each read as Latin-1, which is how WSGI has a request's text.
    """
    pattern = _PCRE_GROUP.sub("(?P<", pattern).encode().decode("latin-1")
    return re.compile(_with_scoped_flags(pattern), re.ASCII)


def compile_path_regex(pattern: str) -> re.Pattern[str]:
    """Compile a route's regex; the group `REST` holds what follows, as Kong has it."""
    return compile_regex(f"{pattern}(?<{REST}>.*)")


def _with_scoped_flags(pattern: str) -> str:
    """Write `a(?i)b|c` as `a(?i:b)|(?i:c)`: Python wants flags to have a scope."""
    if not _PCRE_FLAGS.search(pattern):
        return pattern
    pieces: list[str] = []
    groups: list[list[str]] = [[]]
    for found in _PCRE_TOKEN.finditer(pattern):
        piece = found.group()
        if found["flags"]:
            piece = f"(?{found['flags']}:"
            groups[-1].append(piece)
        elif piece == "|":
            piece = ")" * len(groups[-1]) + "|" + "".join(groups[-1])
        elif piece == "(":
            groups.append([])
        elif piece == ")" and len(groups) > 1:
            piece += ")" * len(groups.pop())
        pieces.append(piece)
    return "".join(pieces) + ")" * len(groups[0])


def split_port(host: str) -> tuple[str, str | None]:
    """A host's name, with the brackets of an IPv6 address, and its port if any."""
    found = _NAME_AND_PORT.fullmatch(host)
    return (host, None) if found is None else (found.group(1), found.group(2))


def is_regex_value(values: Sequence[str]) -> bool:
    """Whether a header is matched by a regex: its only value starts with ``~*``."""
    return len(values) == 1 and values[0].startswith("~*")


def check_route_path(path: str) -> Iterator[str]:
    """Check a route's path: a prefix, or a regex after ``~``."""
    if "//" in path:
        yield "must not have empty segments"
    elif path.startswith("~"):
        yield from _pattern(path[1:], compile_path_regex)
    elif broken := _BROKEN_ESCAPE.search(path):
        yield f"invalid url-encoded value: '{broken.group()}'"
    elif path != (normal := _as_kong_writes_it(path)):
        yield f"non-normalized path, consider use '{normal}' instead"


def check_route_host(host: str) -> Iterator[str]:
    """Check a route's host: a name or a wildcard, with a port if need be."""
    name, port = split_port(host)
    if port is not None and (len(port) > 5 or int(port) > 65535):
        yield "invalid port number"
    elif "*" in name and not _WILDCARD.fullmatch(name):
        yield "invalid wildcard: must be placed at leftmost or rightmost label"
    elif not is_host(name.replace("*", "x")):
        yield f"invalid hostname: {host}"


def check_route_header(name: str, values: Sequence[str]) -> Iterator[str]:
    """Check a header that a route asks for."""
    if name.lower() == "host":
        yield (
            "cannot contain 'host' header, which must be specified in the 'hosts' "
            "attribute"
        )
    else:
        yield from check_header_name(name)
    if is_regex_value(values):
        yield from _pattern(values[0][2:], compile_regex)


def check_header_name(name: str) -> Iterator[str]:
    """Check the name of a header."""
    if not _HEADER_NAME.fullmatch(name):
        yield (
            f"bad header name '{name}', allowed characters are A-Z, a-z, 0-9, '_', "
            "and '-'"
        )


def check_cookie_name(name: str) -> Iterator[str]:
    """Check the name of a cookie."""
    if not _HEADER_NAME.fullmatch(name):
        yield (
            f"bad cookie name '{name}', allowed characters are A-Z, a-z, 0-9, '_', "
            "and '-'"
        )


def check_route_sni(sni: str) -> Iterator[str]:
    """Check a name of the TLS handshake that a route asks for."""
    name, port = split_port(sni)
    if ":" in name or name.replace(".", "").isdecimal():
        yield "must not be an IP"
    elif port is not None:
        yield "must not have a port"
    elif not _HOST.fullmatch(sni):
        yield f"invalid value: {sni}"


def check_service_host(host: str) -> Iterator[str]:
    """Check a service's host: a name or an address."""
    name, port = split_port(host)
    if port is not None and is_host(name):
        yield "must not have a port"
    elif not is_host(host) or host.startswith("["):
        # What precedes an @ is a password, if anything.
        yield f"invalid value: {host.rpartition('@')[2]}"


def check_service_path(path: str) -> Iterator[str]:
    """Check a service's path, which goes upstream as it is."""
    if "//" in path:
        yield "must not have empty segments"
    elif broken := _BROKEN_ESCAPE.search(path):
        yield f"invalid url-encoded value: '{broken.group()}'"
    elif not _SERVICE_PATH.fullmatch(path):
        yield (
            f"invalid path: '{path}' (characters outside of the reserved list of "
            "RFC 3986 found)"
        )


def migrated_path(path: str) -> str:
    """A route's path of a file before format 3.0, which did not mark its regexes.

    As Kong does it when it loads such a file: what has none but the plainest characters
    is a prefix, everything else a regex.
    """
    if _PLAIN_PATH.fullmatch(path):
        return _as_kong_writes_it(path) if path.startswith("/") else path
    return f"~{path}"


def is_host(name: str) -> bool:
    """Whether a text is a host's name or address."""
    if ":" in name or name.replace(".", "").isdecimal():
        return is_address(name)
    return _HOST.fullmatch(name) is not None


def is_address(text: str) -> bool:
    """Whether a text is an IP address; one of version 6 may be in brackets."""
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        found = ipaddress.ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        return False
    return found.version == 6 or not bracketed


def _as_kong_writes_it(path: str) -> str:
    """A prefix as it has to stand in a file: only reserved characters are escaped."""
    return unquote(_ENCODED_RESERVED.sub("%25", normalize_prefix(path)))


def _pattern(pattern: str, compiled: Callable[[str], re.Pattern[str]]) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # Python warns of what it reads in another way than PCRE.
            warnings.simplefilter("error")
            compiled(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        yield f"invalid regex: '{pattern}' ({error})"
