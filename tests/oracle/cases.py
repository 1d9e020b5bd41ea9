"""Kong's decisions as data, and the bookkeeping of where ours are different."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ORACLE = ROOT.parent / "shared" / "reference" / "oracle"
DIFFERENCES = Path(__file__).parent / "differences"

ABSENT = "(absent)"


def load(name: str, folder: Path = ORACLE) -> Any:
    """A file of cases; the test that asks for one that is not there is skipped."""
    path = folder / name
    if not path.exists():
        pytest.skip(f"Kong's decisions are not here: {name}", allow_module_level=True)
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass
class Area:
    """One area of cases, compared one by one with what is different on purpose.

    `differences/<name>.yml` is a list of entries: ``cases`` and ``fields`` (each a
    glob or a list of globs; without ``fields`` all), and the ``reason``. A difference
    that no entry explains fails its test, and so does an entry that explains nothing.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        path = DIFFERENCES / f"{self.name}.yml"
        self.entries: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))
        AREAS.append(self)

    def unexplained(
        self, case: str, kong: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> list[str]:
        """Compare one case: a line for each difference that nothing explains."""
        different = [
            name
            for name in sorted({*kong, *ours})
            if kong.get(name, ABSENT) != ours.get(name, ABSENT)
        ]
        lines = [
            f"{case}: {name}: Kong {kong.get(name, ABSENT)!r}, "
            f"kongai {ours.get(name, ABSENT)!r}"
            for name in different
            if not self._explained(case, name)
        ]
        kind = (
            "agree" if not different else "on purpose" if not lines else "unexplained"
        )
        self.counts[kind] += 1
        return lines

    def _explained(self, case: str, field: str) -> bool:
        for index, entry in enumerate(self.entries):
            if _fits(entry["cases"], case) and _fits(entry.get("fields", "*"), field):
                self.used.add(index)
                return True
        return False

    def idle(self) -> list[str]:
        """The entries that have explained nothing."""
        return [
            str(entry)
            for index, entry in enumerate(self.entries)
            if index not in self.used
        ]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: {self.counts['agree']} agree, "
            f"{self.counts['on purpose']} differ on purpose "
            f"({len(self.used)} reasons), {self.counts['unexplained']} unexplained"
        )


AREAS: list[Area] = []


def _fits(globs: str | list[str], text: str) -> bool:
    given = [globs] if isinstance(globs, str) else globs
    return any(fnmatchcase(text, glob) for glob in given)
