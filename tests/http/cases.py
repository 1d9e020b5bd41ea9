"""The corpus: raw requests as files, and what becomes of each.

``corpus/NAME.http`` has the bytes as they go over the wire, and ``corpus.yml`` a row
for each of them::

    NAME:
      answers: [200, 400]   # the status of each answer, in their order
      then: closed          # or `next`: it takes another request; or `waits`: for more
      fill: 16384           # so many `a` stand in the place of @FILL@
      nginx: [200]          # what nginx 1.22 answers; if left out: the same
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
FOLDER = HERE / "corpus"
FILL = b"@FILL@"


@dataclass(frozen=True)
class Case:
    """One raw request, or several, and what becomes of it."""

    name: str
    raw: bytes
    answers: list[int]
    then: str
    nginx: list[int]

    def __str__(self) -> str:
        return self.name


def load() -> list[Case]:
    """The whole corpus, in the order of the index."""
    text = (HERE / "corpus.yml").read_text("utf-8")
    return [_case(name, **row) for name, row in yaml.safe_load(text).items()]


def _case(
    name: str,
    answers: list[int],
    then: str,
    fill: int = 0,
    nginx: list[int] | None = None,
) -> Case:
    raw = (FOLDER / f"{name}.http").read_bytes()
    return Case(
        name,
        raw.replace(FILL, b"a" * fill),
        answers,
        then,
        answers if nginx is None else nginx,
    )


class Differences:
    """What `differences.yml` says of cases: a reason for each, and each with a case."""

    def __init__(self) -> None:
        text = (HERE / "differences.yml").read_text("utf-8")
        self._entries: list[dict[str, Any]] = yaml.safe_load(text)
        self._used: set[int] = set()

    def explain(self, name: str, kind: str) -> bool:
        """Whether a case may be different in this way."""
        found = [
            index
            for index, entry in enumerate(self._entries)
            if entry["kind"] == kind and _fits(name, entry["cases"])
        ]
        self._used.update(found)
        return bool(found)

    def idle(self) -> list[dict[str, Any]]:
        """The entries that no case needed."""
        return [e for i, e in enumerate(self._entries) if i not in self._used]


def _fits(name: str, globs: list[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
