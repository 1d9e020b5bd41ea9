"""Reading a JSON object so that nothing of it is overlooked.

`Fields` hands out the members of an object by name and type. What nobody took is left
over, and has a name: who reads a format need not list what is not known of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from kongai.llm.chat import Losses, Untranslatable
from kongai.llm.request_body import BadBody, NoRequest, exact_members

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for what is no JSON, or not of the type that is asked for."""

MAX_OBJECTS = 100_000
"""The most objects in arrays that are read of one body. Each takes some 15 us, and of
messages Anthropic takes so many."""

_NOTHING = (b"null", b"false", b"[]", b"{}", b'""')
_KINDS: dict[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list[str]: "an array of strings",
    list[msgspec.Raw]: "an array",
    dict[str, msgspec.Raw]: "an object",
    dict[str, Any]: "an object",
}
_T = TypeVar("_T")


class Fields:
    """The members of a JSON object, taken one by one.

    Args:
        members: the object, its values as they are written.
        path: where it is, for errors: ``messages[2].content[0]``.
        label: what it is called in losses: ``messages[].content[]``.
    """

    def __init__(
        self, members: Mapping[str, msgspec.Raw], path: str = "", label: str = ""
    ) -> None:
        self._members = dict(members)
        self._path = path
        self._label = label
        self._children: list[Fields] = []
        self._objects = [0]

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """The object that a body is.

        Raises:
            Untranslatable: it is not JSON, or no object.
        """
        try:
            body.decode()
            return cls(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
        except UNREADABLE:
            raise Untranslatable("expected a JSON object") from None

    @classmethod
    def of_request(cls, body: bytes) -> Fields:
        """The object that a request's body is, which can be read in one way only.

        Raises:
            Untranslatable: it is not JSON, or no object, or can be read in several.
        """
        try:
            return cls(exact_members(body))
        except NoRequest:
            raise Untranslatable("expected a JSON object") from None
        except BadBody as error:
            raise Untranslatable(str(error)) from None

    def has(self, name: str, *, empty: bool = True) -> bool:
        """Whether there is such a member that is not null and was not taken.

        Args:
            name: the member.
            empty: whether one that says nothing, such as an empty string, is one.
        """
        value = bytes(self._members.get(name, b"null"))
        return value != b"null" and (empty or value not in _NOTHING)

    def starts(self, name: str) -> bytes:
        """The first byte of a member, which tells its type; empty without one."""
        return bytes(self._members.get(name, b""))[:1]

    def text(self, name: str) -> str | None:
        """Take a string."""
        return self._take(name, str)

    def integer(self, name: str) -> int | None:
        """Take an integer."""
        return self._take(name, int)

    def number(self, name: str) -> float | None:
        """Take a number."""
        return self._take(name, float)

    def flag(self, name: str) -> bool | None:
        """Take a boolean."""
        return self._take(name, bool)

    def texts(self, name: str) -> list[str]:
        """Take an array of strings; empty without one."""
        return self._take(name, list[str]) or []

    def value(self, name: str) -> dict[str, Any] | None:
        """Take an object as it is, with all it holds."""
        return self._take(name, dict[str, Any])

    def json(self, name: str) -> str | None:
        """Take whatever it is, as it is written."""
        if not self.has(name):
            return None
        return bytes(self._members.pop(name)).decode()

    def drop(self, name: str) -> None:
        """Take a member that has no meaning of its own, whatever it is."""
        self._members.pop(name, None)

    def drop_if(self, name: str, *values: str) -> None:
        """Take a string that has no meaning when it is one of these."""
        raw = bytes(self._members.get(name, b""))
        if raw in [f'"{value}"'.encode() for value in values]:
            del self._members[name]

    def object(self, name: str) -> Fields | None:
        """Take an object, to be read in its turn."""
        members = self._take(name, dict[str, msgspec.Raw])
        if members is None:
            return None
        return self._child(members, _joined(self._path, name), f"{self._label}{name}.")

    def objects(self, name: str) -> Iterator[Fields]:
        """Take an array of objects, to be read in their turn."""
        given = self._take(name, list[msgspec.Raw]) or []
        self._objects[0] += len(given)
        if self._objects[0] > MAX_OBJECTS:
            raise Untranslatable(f"more than {MAX_OBJECTS} messages and other objects")
        for index, raw in enumerate(given):
            path = f"{_joined(self._path, name)}[{index}]"
            members = _decoded(raw, dict[str, msgspec.Raw], path)
            yield self._child(members, path, f"{self._label}{name}[].")

    def lose(self, name: str) -> None:
        """Leave out all that is left of this object, as one loss of this name.

        Args:
            name: what it is, put behind what the object is called: ``[web_search]``.
        """
        self._children.clear()
        self._members = {name: msgspec.Raw(b"true")}
        self._label = self._label.removesuffix(".").removesuffix("[]")

    def refusal(self, what: str) -> Untranslatable:
        """An error about this very object."""
        return Untranslatable(f"{self._path}: {what}" if self._path else what)

    def report(self, losses: Losses) -> None:
        """Name what was left over, here and in all objects that were taken."""
        for name, value in self._members.items():
            if bytes(value) not in _NOTHING:
                losses.add(self._label + name)
        for child in self._children:
            child.report(losses)

    def _child(
        self, members: Mapping[str, msgspec.Raw], path: str, label: str
    ) -> Fields:
        child = Fields(members, path, label)
        child._objects = self._objects
        self._children.append(child)
        return child

    def _take(self, name: str, kind: type[_T]) -> _T | None:
        raw = self._members.pop(name, None)
        if raw is None or bytes(raw) == b"null":
            return None
        return _decoded(raw, kind, _joined(self._path, name))


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """A JSON object with top-level members set; None takes one out.

    Every other value keeps its very bytes, and the members their order.
    """
    given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    merged = {**given, **fields}
    return msgspec.json.encode(
        {name: value for name, value in merged.items() if value is not None}
    )


def object_text(text: str) -> msgspec.Raw | None:
    """The text of a JSON object, to be written as it is; None if it is none."""
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (*UNREADABLE, UnicodeEncodeError):
        return None
    return msgspec.Raw(text.encode())


def _decoded(raw: msgspec.Raw, kind: type[_T], path: str) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE:
        raise Untranslatable(f"{path}: expected {_KINDS[kind]}") from None


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
