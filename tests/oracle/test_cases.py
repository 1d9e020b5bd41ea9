"""The bookkeeping itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import cases


@pytest.fixture
def area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "some.yml").write_text(
        "- {cases: 'a*', fields: status, reason: better}\n"
        "- {cases: never, reason: gone}\n"
    )
    monkeypatch.setattr(cases, "DIFFERENCES", tmp_path)
    monkeypatch.setattr(cases, "AREAS", [])
    return cases.Area("some")


def test_a_difference_is_explained_unexplained_or_not_there(area: cases.Area) -> None:
    assert area.unexplained("a1", {"status": 400}, {"status": 413}) == []
    assert area.unexplained("b1", {"status": 400}, {"status": 413}) == [
        "b1: status: Kong 400, kongai 413"
    ]
    assert area.unexplained("a2", {"body": "x"}, {}) == [
        "a2: body: Kong 'x', kongai '(absent)'"
    ]
    assert area.unexplained("c1", {"body": "x"}, {"body": "x"}) == []
    assert area.summary() == (
        "some: 1 agree, 1 differ on purpose (1 reasons), 2 unexplained"
    )


def test_an_entry_that_explains_nothing_shows(area: cases.Area) -> None:
    area.unexplained("a1", {"status": 400}, {"status": 413})
    assert [entry for entry in area.idle() if "gone" in entry] == area.idle() != []
