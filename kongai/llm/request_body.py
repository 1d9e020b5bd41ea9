"""A request's body as a JSON object that everybody reads in the same way.

What the gateway checks must be what the provider acts on. So a body is refused that
some readers take in another way than others: one that names a member twice, is not
UTF-8, or has what JSON does not have. The values of the members are not looked into;
each stays as it is written. All of it takes one pass over the body.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

import msgspec

MAX_MEMBERS = 1000
"""The most members of a request; no API has a tenth of that."""

NOT_UTF8 = "request body is not valid UTF-8"
WIDE = "request body is UTF-16 or UTF-32; JSON is UTF-8"
MARKED = "request body starts with a byte-order mark, which JSON does not have"
NOT_A_NUMBER = "request body has NaN or Infinity, which JSON does not have"
TOO_DEEP = "request body is nested too deeply"
TOO_MANY = f"request body has more than {MAX_MEMBERS} members"
HALF_PAIR = (
    "request body has half of a surrogate pair, such as \\ud83d, and is to be changed"
)
TWICE = "request body has a member twice"

_KNOWN = frozenset(
    {
        *("dimensions", "input", "max_completion_tokens", "max_tokens", "messages"),
        *("model", "prompt", "stream", "stream_options"),
        *("temperature", "top_k", "top_p"),
    }
)
"""The members by which the gateway decides, and those that it sets."""
_HEX = rb"[0-9a-fA-F]"
_HIGH, _LOW = rb"[dD][89abAB]" + _HEX * 2, rb"[dD][c-fC-F]" + _HEX * 2
# Begins with what is there literally: that is looked for quickly.
_HALF = re.compile(rb"\\u(?:%b(?!\\u%b)|(?<!\\u%b\\u)%b)" % (_HIGH, _LOW, _HIGH, _LOW))
_MOST_HALVES = 1000
_MOST_BACKSLASHES = 200
_REPLACEMENT = rb"\ufffd"
# A byte-order mark, or a character of ASCII beside a zero.
_WIDE = re.compile(rb"\xfe\xff|\xff\xfe|\0{1,3}[\x01-\x7f]|[\x01-\x7f]\0")
_PLACE = re.compile(r"\(byte ([0-9]+)\)")
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity)")
# What a member begins with says which type it is of.
STRING = re.compile(rb'"')
TRUE = re.compile(rb"true")
ARRAY, _OBJECT = re.compile(rb"\["), re.compile(rb"\{")
FILLED_ARRAY = re.compile(rb"\[\s*[^\s\]]")

NULL = msgspec.Raw(b"null")
decode_text = msgspec.json.Decoder(str).decode
"""Reads a member that is a string."""
_decode_utf8 = codecs.utf_8_decode
_PIECE = 8192
_SHORT = 128 * 1024
"""Bytes of a body that is read at once, however many members it may have: they take
some sixty times the room."""


class BadBody(Exception):
    """A body that can't be read, or in more than one way; its text says why.

    The text is one of the constants here, so that nothing of the body is in it.
    """


class NoRequest(BadBody):
    """A body that Kong takes for none; its text says why, for the record alone.

    It is no JSON, or no object, or there is nothing in it to answer.
    """


class RequestBody(msgspec.Struct, frozen=True):
    """A body that was read."""

    members: Mapping[str, msgspec.Raw]
    """By name, each as it is written."""
    exact: bool
    """Whether `members` is what the body says. Otherwise it has halves of surrogate
    pairs, which stand in `members` as U+FFFD: it can be passed on, but not changed."""

    def text(self, name: str) -> str | None:
        """A member that is a string; None if there is none, or it is something else."""
        value = self.members.get(name, NULL)
        return decode_text(value) if STRING.match(value) else None

    def is_text(self, name: str) -> bool:
        """Whether a member is a string."""
        return STRING.match(self.members.get(name, NULL)) is not None

    def is_true(self, name: str) -> bool:
        """Whether a member is `true`."""
        return TRUE.match(self.members.get(name, NULL)) is not None

    def is_array(self, name: str) -> bool:
        """Whether a member is an array."""
        return ARRAY.match(self.members.get(name, NULL)) is not None

    def is_filled_array(self, name: str) -> bool:
        """Whether a member is an array with something in it."""
        return FILLED_ARRAY.match(self.members.get(name, NULL)) is not None

    def object(self, name: str) -> RequestBody:
        """A member that is an object; one without members if it is none."""
        value = self.members.get(name, NULL)
        if not _OBJECT.match(value):
            return RequestBody({}, self.exact)
        inner = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        return RequestBody(inner, self.exact)


class _Name(str):
    """The name of a member, so that each can be looked at as it is decoded."""

    __slots__ = ()


class _Apart(str):
    """The name of a member that equals no other, so that a second one of it is kept."""

    __slots__ = ()
    __hash__ = object.__hash__


_decode_apart = msgspec.json.Decoder(
    dict[_Apart, msgspec.Raw], dec_hook=str.__new__
).decode


def read_body(body: bytes) -> RequestBody:
    """Read a request's body.

    Raises:
        NoRequest: it is no JSON, or no object.
        BadBody: it can be read in several ways, or is not for JSON's readers.
    """
    members = _plain_members(body) if len(body) <= _SHORT else None
    if members is not None:
        return RequestBody(members, exact=True)
    try:
        return RequestBody(_members(body), exact=True)
    except RecursionError:
        raise BadBody(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        refusal = _refusal(body, error)
    mended = without_halves(body) if isinstance(refusal, NoRequest) else body
    if mended == body:
        raise refusal
    return _mended(mended, refusal)


def without_halves(body: bytes) -> bytes:
    """JSON with U+FFFD for each half of a surrogate pair, if there are few of them.

    What is written is not looked at otherwise: it may be no JSON at all.
    """
    pieces: list[bytes] = []
    end = 0
    for count, found in enumerate(_HALF.finditer(body)):
        if count == _MOST_HALVES:
            return body
        start = found.start()
        before = body[max(0, start - _MOST_BACKSLASHES) : start]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        # A backslash counts if an even number of others stands before it; who writes
        # more than these does not mean it.
        if backslashes % 2 == 0 and backslashes < _MOST_BACKSLASHES:
            pieces += (body[end:start], _REPLACEMENT)
            end = found.end()
    return b"".join((*pieces, body[end:])) if pieces else body


def exact_members(body: bytes) -> Mapping[str, msgspec.Raw]:
    """The members of a body that is to be changed or said in another format.

    Raises:
        BadBody: as with `read_body`, and for halves of surrogate pairs.
    """
    request = read_body(body)
    if not request.exact:
        raise BadBody(HALF_PAIR)
    return request.members


def _plain_members(body: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of a body that nothing can be wrong with, as hardly ever.

    Returns:
        None for one that `_members` has to look at.
    """
    try:
        apart = _decode_apart(body)
        if not body.isascii():
            _check_utf8(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    members = dict(zip(map(str, apart), apart.values(), strict=True))
    # Each is there once, in any case, and in the case in which all are compared.
    plain = len(members) == len(apart) and members.keys() == set(
        map(str.casefold, members)
    )
    return members if plain and len(members) <= MAX_MEMBERS else None


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    seen: set[str] = set()
    misspelt: list[str] = []

    def named(kind: type[_Name], name: str) -> _Name:
        # Go's JSON, which Ollama has, takes names in any case for the same.
        folded = name.casefold()
        if folded in seen:
            known = folded in _KNOWN
            raise BadBody(f'request body has "{folded}" twice' if known else TWICE)
        if folded != name and folded in _KNOWN:
            misspelt.append(folded)
        if len(seen) == MAX_MEMBERS:
            raise BadBody(TOO_MANY)
        seen.add(folded)
        return kind(name)

    members = msgspec.json.decode(body, type=_MEMBERS, dec_hook=named)
    if not body.isascii():
        _check_utf8(body)  # msgspec does not look into what it skips
    if misspelt:
        # What is not checked here would be obeyed there.
        raise BadBody(f'request body has "{misspelt[0]}" in another spelling')
    return members


def _check_utf8(body: bytes) -> None:
    """See that a body is UTF-8, in pieces: to decode it whole, as text that is thrown
    away, takes ten times as long, for the memory alone.

    Raises:
        UnicodeDecodeError: it is not.
    """
    view, start = memoryview(body), 0
    while start < len(body):
        piece = view[start : start + _PIECE]
        is_last = start + _PIECE >= len(body)
        start += _decode_utf8(piece, "strict", is_last)[1]


_MEMBERS: type[dict[str, msgspec.Raw]] = dict[_Name, msgspec.Raw]  # type: ignore[assignment]


def _mended(body: bytes, refusal: BadBody) -> RequestBody:
    try:
        return RequestBody(_members(body), exact=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise refusal from None


def _refusal(body: bytes, error: Exception) -> BadBody:
    """Why a body can't be read: the first of the things that may be wrong with it."""
    if _WIDE.match(body):
        return BadBody(WIDE)
    if body.startswith(b"\xef\xbb\xbf"):
        return BadBody(MARKED)
    try:
        body.decode()
    except UnicodeDecodeError:
        return BadBody(NOT_UTF8)
    if isinstance(error, msgspec.ValidationError):
        return NoRequest("JSON, but no object")
    if not body.strip():
        return NoRequest("empty")
    if place := _PLACE.search(str(error)):
        at = int(place[1])
        if _CONSTANT.match(body, at) or _CONSTANT.match(body, max(0, at - 1)):
            return BadBody(NOT_A_NUMBER)
    return NoRequest("no JSON: " + str(error).removeprefix("JSON is malformed: "))
