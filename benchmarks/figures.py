"""What was found out, ready to be written down: pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["met", "not met", ""]


@dataclass
class Cost:
    """What a gateway needs for a workload.

    Args:
        requests: how many were counted, in all rounds.
        rounds: microseconds per request, or per event, in each round.
        busy: the share of one processor that it used meanwhile.
        problem: why there are no figures; of a peer that can't do this.
    """

    requests: int = 0
    rounds: list[float] = field(default_factory=list)
    busy: float = 0.0
    problem: str | None = None

    @property
    def microseconds(self) -> float:
        """Processor time per request, or per event: the median of all rounds."""
        return statistics.median(self.rounds) if self.rounds else math.nan


@dataclass
class Row:
    """A workload, and what each gateway needs for it.

    Args:
        name: the workload's.
        title: what it is.
        unit: what the cost is for, `request` or `event`.
        budget: how often nginx's cost kongai may need.
        costs: by the gateways' names.
    """

    name: str
    title: str
    unit: str
    budget: float | None
    costs: dict[str, Cost] = field(default_factory=dict)

    def microseconds(self, gateway: str) -> float:
        """What a gateway needs; nan if there is no figure."""
        cost = self.costs.get(gateway)
        return math.nan if cost is None else cost.microseconds

    def ratio(self, gateway: str) -> float:
        """How often nginx's processor time it needs: the median of all rounds.

        Machines are faster and slower from minute to minute, so only what was measured
        one right after the other is compared. nan if there is no figure.
        """
        ratios = self._ratios(gateway)
        return statistics.median(ratios) if ratios else math.nan

    def spread(self, gateway: str) -> tuple[float, float]:
        """The smallest and the largest ratio of one round."""
        ratios = self._ratios(gateway)
        return (min(ratios), max(ratios)) if ratios else (math.nan, math.nan)

    def _ratios(self, gateway: str) -> list[float]:
        pairs = (self.costs.get(gateway, Cost()), self.costs.get("nginx", Cost()))
        own, base = (cost.rounds for cost in pairs)
        # A peer that began to fail has fewer.
        return [mine / nginx for mine, nginx in zip(own, base, strict=False)]

    @property
    def verdict(self) -> Verdict:
        """Whether kongai meets the budget."""
        ratio = self.ratio("kongai")
        if self.budget is None or math.isnan(ratio):
            return ""
        return "met" if ratio < self.budget else "not met"


@dataclass
class Figure:
    """One number with its limit.

    Args:
        name: what it is, in a few words.
        value: the number; nan if it could not be measured.
        unit: its unit.
        budget: its limit, if there is one.
        at_least: whether the limit is a floor, not a ceiling.
        note: how to read it.
    """

    name: str
    value: float
    unit: str
    budget: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the limit is kept."""
        if self.budget is None or math.isnan(self.value):
            return ""
        kept = self.value >= self.budget if self.at_least else self.value < self.budget
        return "met" if kept else "not met"

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.budget is None:
            return ""
        words = "at least" if self.at_least else "under"
        return f"{words} {self.budget:g} {self.unit}".strip()


@dataclass
class Curve:
    """How the cost grows with something.

    Args:
        name: of the file that shows it.
        title: what is shown.
        x: what grows.
        unit: what the cost is for.
        lines: by the gateways' names, points of how much there is and microseconds.
        logarithmic: whether to draw it so, in both directions.
    """

    name: str
    title: str
    x: str
    unit: str = "us of CPU per request"
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    logarithmic: bool = True

    def add(self, gateway: str, x: float, microseconds: float) -> None:
        """Add a point."""
        self.lines.setdefault(gateway, []).append((x, microseconds))


@dataclass
class Results:
    """All of one run.

    Args:
        machine: where and with what it was.
        options: how long and how often.
        rows: of the comparison.
        figures: by the heading that they stand under.
        curves: how costs grow.
        notes: what the reader has to know of this run.
        records: how many of kongai's records were checked; all were right.
    """

    machine: dict[str, str]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, with what follows from the numbers."""
        found: dict[str, Any] = _without_nan(asdict(self))
        for row, told in zip(self.rows, found["rows"], strict=True):
            told["microseconds"] = {n: row.microseconds(n) for n in row.costs}
            told["ratio_to_nginx"] = {n: row.ratio(n) for n in row.costs}
            told["verdict"] = row.verdict
        for heading, figures in self.figures.items():
            for figure, told in zip(figures, found["figures"][heading], strict=True):
                told["verdict"] = figure.verdict
        cleaned: dict[str, Any] = _without_nan(found)
        return cleaned


def _without_nan(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, float):
        return None if math.isnan(value) or math.isinf(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
