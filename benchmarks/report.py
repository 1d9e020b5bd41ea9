"""What a run has found, as text: pure.

The same tables are printed and written as Markdown, to be pasted into
docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.chart import short
from benchmarks.figures import Curve, Figure, Results, Row

_NOT_SHOWN = ("python configured with",)


def markdown(results: Results) -> str:
    """All of it."""
    parts = []
    if results.rows:
        parts.append(_section("CPU per request", comparison_table(results.rows)))
    for heading, figures in results.figures.items():
        notes = "".join(f"\n{f.name}: {f.note}.\n" for f in figures if f.note)
        parts.append(_section(heading, figure_table(figures) + notes))
    parts += [_section(c.title, curve_table(c)) for c in results.curves]
    parts.append(_section("Measured with", machine_table(results)))
    if results.notes:
        parts.append(_section("Notes", "".join(f"- {n}\n" for n in results.notes)))
    return "\n".join(parts)


def comparison_table(rows: Sequence[Row]) -> str:
    """Each workload with the cost of each gateway, kongai's ratio and its budget."""
    gateways = list(dict.fromkeys(name for row in rows for name in row.costs))
    peers = [name for name in gateways if name not in ("nginx", "kongai")]
    head = ["us of CPU per request", "nginx", "kongai", "ratio", "rounds", "budget", ""]
    body = []
    for row in rows:
        low, high = row.spread("kongai")
        budget = "" if row.budget is None else f"under {row.budget:g} x"
        body.append(
            [
                row.title,
                _cost(row, "nginx"),
                _cost(row, "kongai"),
                f"{row.ratio('kongai'):.2f} x",
                f"{low:.2f} to {high:.2f}",
                budget,
                row.verdict,
                *(_peer(row, name) for name in peers),
            ]
        )
    return table([*head, *peers], body, left=1)


def figure_table(figures: Sequence[Figure]) -> str:
    """Single numbers with their limits."""
    body = [
        [
            figure.name,
            f"{number(figure.value)} {figure.unit}",
            figure.limit,
            figure.verdict,
        ]
        for figure in figures
    ]
    return table(["", "found", "budget", ""], body, left=1)


def curve_table(curve: Curve) -> str:
    """The points of a curve, and what each step of it costs."""
    names = list(curve.lines)
    points: dict[float, dict[str, float]] = {}
    for name, line in curve.lines.items():
        for x, y in line:
            points.setdefault(x, {})[name] = y
    body = [
        [short(x), *(number(found.get(name, math.nan)) for name in names)]
        for x, found in points.items()
    ]
    return table([curve.x, *(f"{name}, us" for name in names)], body, left=0)


def machine_table(results: Results) -> str:
    """What a reader has to know to compare."""
    shown = [[k, v] for k, v in results.machine.items() if k not in _NOT_SHOWN]
    options = ", ".join(f"{name} {value}" for name, value in results.options.items())
    checked = f"{results.records:,}, all of them right"
    return table(
        ["", ""], [*shown, ["options", options], ["records checked", checked]], left=2
    )


def table(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int) -> str:
    """A table that is read as it stands, and is Markdown as well.

    Args:
        head: the names of the columns.
        body: the rows.
        left: how many columns are aligned at their left; the others at their right.
    """
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (head, *body)]
    widths = [max(3, *(len(row[n]) for row in rows)) for n in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |\n"

    rule = "|".join(
        "-" * (width + 2) if at < left else "-" * (width + 1) + ":"
        for at, width in enumerate(widths)
    )
    return line(rows[0]) + f"|{rule}|\n" + "".join(line(row) for row in rows[1:])


def number(value: float) -> str:
    """A number with as many digits as can be trusted."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _section(heading: str, text: str) -> str:
    return f"## {heading}\n\n{text}"


def _cost(row: Row, gateway: str) -> str:
    return number(row.microseconds(gateway))


def _peer(row: Row, gateway: str) -> str:
    cost = row.costs.get(gateway)
    if cost is None or cost.problem is not None:
        return "fails"
    return f"{_cost(row, gateway)} ({row.ratio(gateway):.1f} x)"
