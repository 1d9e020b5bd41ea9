"""Where to look for a request's route, so that many routes cost little more than few.

A set of candidates is a number here: bit *n* stands for the *n*-th of them by rank.
What fits a request by its host, its path, its method and so on is then an intersection,
`&`, and takes about as long for thousands of routes as for ten. It may still hold some
that do not fit, such as a regex whose beginning fits; each is tried before it wins.

The order is Kong's: category by category, each by rank, with the exception that Kong
makes within a category. It looks first at those that share the most telling value with
the request: the first header that any route names and the request has, or else
whichever of host, path, method and SNI the fewest of the category share.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kongai.candidates import Asked, Candidate

_LITERAL = re.compile(r"[\w/~-]*", re.A)
_NOT_LITERAL = re.compile(r"\||\(\?[a-z-]")

_SNI_LATER = "it has SNIs, and for plain HTTP a route without them comes first"


class _Kind:
    """One kind of criteria: who asks for which value, and who asks for none."""

    def __init__(self) -> None:
        self.values: defaultdict[object, int] = defaultdict(int)
        self._free = 0

    def add(self, bit: int, values: Iterable[object]) -> None:
        free = True
        for value in values:
            self.values[value] |= bit
            free = False
        if free:
            self._free |= bit

    def fitting(self, values: Iterable[object]) -> int:
        found = self._free
        for value in values:
            found |= self.values.get(value, 0)
        return found


class _Category:
    """The candidates that use the same kinds of criteria."""

    def __init__(self) -> None:
        self.members = 0
        self._headers: defaultdict[str, int] = defaultdict(int)
        self._others: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, bit: int, member: Candidate) -> None:
        self.members |= bit
        for header in member.headers:
            self._headers[header.name] |= bit
        values = [("host", host) for host in member.hosts_as_written]
        values += [("path", member.text)] if member.text is not None else []
        values += [("method", method) for method in member.methods]
        values += [("sni", sni) for sni in member.snis]
        for value in values:
            self._others[value] |= bit

    def first_look(self, hits: _Hits) -> int:
        """Those that are looked at before the others; 0 if that is none."""
        named = self._headers.get(hits.header or "", 0)
        sharing = (self._others.get(value, 0) for value in hits.others)
        return named or min(filter(None, sharing), key=int.bit_count, default=0)


class _Hits(NamedTuple):
    """The values of a request that some route asks for, whatever else it asks."""

    kinds: tuple[bool, ...]
    """As `Candidate.kinds`: which kinds of criteria could be met."""
    header: str | None
    """The first header that any route names and the request has."""
    others: Sequence[tuple[str, str]]
    """Host, path, method, SNI: the one to look for first, and its name."""


class Index:
    """The candidates by what they ask for.

    Args:
        candidates: in the order of their ranks.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._hosts, self._headers, self._paths = _Kind(), _Kind(), _Kind()
        self._methods, self._snis = _Kind(), _Kind()
        self._wildcards: dict[str, re.Pattern[str]] = {}
        self._names: dict[str, None] = {}
        self._lengths: set[int] = set()
        self._prefixes: set[str] = set()
        self._regexes = 0
        categories: defaultdict[tuple[bool, ...], _Category] = defaultdict(_Category)
        for number, found in enumerate(candidates):
            categories[found.kinds].add(1 << number, found)
            self._add(1 << number, found)
        self._categories = sorted(
            categories.items(), key=lambda item: (sum(item[0]), item[0]), reverse=True
        )
        self._positions = {kinds: n for n, (kinds, _) in enumerate(self._categories)}

    def _add(self, bit: int, found: Candidate) -> None:
        self._hosts.add(bit, found.hosts_as_written)
        self._wildcards.update(found.wildcards)
        for header in found.headers:
            self._names[header.name] = None
        # It is enough to look for one of the headers: any other is tried later.
        for header in found.headers[:1]:
            values = (None,) if header.pattern else header.values
            self._headers.add(bit, [(header.name, value) for value in values])
        if not found.headers:
            self._headers.add(bit, ())
        beginning = found.prefix
        if found.pattern is not None:
            self._regexes |= bit
            beginning = _beginning(found.text or "")
        elif beginning is not None:
            self._prefixes.add(beginning)
        self._paths.add(bit, () if beginning is None else (beginning,))
        if beginning is not None:
            self._lengths.add(len(beginning))
        self._methods.add(bit, found.methods)
        self._snis.add(bit, found.snis)

    @property
    def asks_for_headers(self) -> bool:
        """Whether any route does; else a request's need not be looked at."""
        return bool(self._names)

    def plausible(self, request: Asked) -> Iterator[int]:
        """The numbers of the candidates that may fit, in the order to try them."""
        wildcards, beginnings = self._wildcards_of(request), self._beginnings(request)
        paths = self._paths.fitting(beginnings)
        hits = self._hits(request, wildcards, beginnings, paths)
        among = (
            paths
            & self._hosts.fitting((request.host, request.names[0], *wildcards))
            & self._headers.fitting(self._header_values(request))
            & self._methods.fitting((request.method,))
        )
        if request.sni is not None:
            among &= self._snis.fitting((request.sni,))
        for _, category in self._categories[self._start(hits) :]:
            members = category.members & among
            if members & (members - 1):
                yield from _by_rank(members, category.first_look(hits))
            elif members:
                # Of one alone, it is quicker not to ask for the order.
                yield members.bit_length() - 1

    def in_order(self, request: Asked) -> Iterator[tuple[int, str | None]]:
        """All numbers in that order, some with a reason why they have no turn."""
        wildcards, beginnings = self._wildcards_of(request), self._beginnings(request)
        paths = self._paths.fitting(beginnings)
        hits = self._hits(request, wildcards, beginnings, paths)
        start = self._start(hits)
        for position, (_, category) in enumerate(self._categories):
            skipped = _SNI_LATER if position < start else None
            for number in _by_rank(category.members, category.first_look(hits)):
                yield number, skipped

    def _start(self, hits: _Hits) -> int:
        """The first category to look at; one that fits exactly is better than all."""
        if not any(hits.kinds):
            return len(self._categories)
        return self._positions.get(hits.kinds, 0)

    def _hits(
        self,
        request: Asked,
        wildcards: Sequence[str],
        beginnings: Sequence[str],
        paths: int,
    ) -> _Hits:
        host: str | None = None
        if any(name in self._hosts.values for name in request.names):
            host = request.host
        elif wildcards:
            host = wildcards[0]
        header = next((name for name in self._names if name in request.headers), None)
        path = self._path_hit(request, beginnings, paths)
        method, sni = request.method, request.sni or ""
        kinds = (
            host is not None,
            header is not None,
            path is not None,
            method in self._methods.values,
            sni in self._snis.values,
        )
        others = [("host", host or request.host), ("path", path or "")]
        return _Hits(kinds, header, [*others, ("method", method), ("sni", sni)])

    def _path_hit(
        self, request: Asked, beginnings: Sequence[str], paths: int
    ) -> str | None:
        """The first regex that fits, or else the longest prefix."""
        for number in _by_rank(paths & self._regexes):
            found = self._candidates[number]
            if found.path_fits(request.path):
                return found.text
        return next((text for text in beginnings if text in self._prefixes), None)

    def _wildcards_of(self, request: Asked) -> list[str]:
        with_port = request.names[1]
        return [text for text, p in self._wildcards.items() if p.match(with_port)]

    def _beginnings(self, request: Asked) -> list[str]:
        """What of the path a route may begin with, the longest first."""
        path = request.path
        sizes = [size for size in self._lengths if size <= len(path)]
        found = (path[:size] for size in sorted(sizes, reverse=True))
        return [text for text in found if text in self._paths.values]

    def _header_values(self, request: Asked) -> Iterator[tuple[str, str | None]]:
        for name in self._names.keys() & request.headers.keys():
            yield name, None
            for value in request.headers[name]:
                yield name, value


def _by_rank(members: int, first: int = 0) -> Iterator[int]:
    """The numbers of the members, those of `first` before the others."""
    for part in (members & first, members & ~first):
        left = part
        while left:
            lowest = left & -left
            yield lowest.bit_length() - 1
            left ^= lowest


def _beginning(regex: str) -> str:
    """What every path that fits a regex begins with; empty if that is hard to say."""
    if _NOT_LITERAL.search(regex):
        return ""
    found = _LITERAL.match(regex)
    assert found is not None
    text, following = found.group(), regex[found.end() : found.end() + 1]
    return text[:-1] if following in ("*", "?", "{", "+") else text
