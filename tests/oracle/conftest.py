"""The count of what agrees with Kong and what does not, after the run."""

from __future__ import annotations

from typing import Any

from .cases import AREAS


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counted = [area for area in AREAS if area.counts]
    if counted:
        terminalreporter.section("decisions compared with Kong's")
    for area in counted:
        terminalreporter.write_line(area.summary())
