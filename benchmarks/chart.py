"""Charts as SVG, written by hand: pure.

They are read on a light and on a dark page alike: the colours are of middling
brightness, and text and lines take the page's own where the viewer tells it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from benchmarks.figures import Curve, Row

_WIDTH = 760
_COLOURS = {"kongai": "#2f81f7", "nginx": "#8b949e"}
_OTHER_COLOURS = ("#d29922", "#bf5af2", "#3fb950")
_BUDGET = "#e5534b"
_STYLE = """\
<style>
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; }
  .axis { stroke: #8b949e; stroke-width: 1; }
  .grid { stroke: #8b949e; stroke-width: 1; opacity: 0.25; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
  }
</style>
"""


def bars(rows: Sequence[Row]) -> str:
    """The ratios to nginx, a bar for each row, with the budgets as lines."""
    shown = [row for row in rows if not math.isnan(row.ratio("kongai"))]
    left, right, top, step = 20, 90, 60, 58
    height = top + step * len(shown) + 40
    largest = max([1.0, *(max(r.ratio("kongai"), r.budget or 0) for r in shown)])
    scale = (_WIDTH - left - right) / (largest * 1.05)
    parts = [
        _text(left, 26, "CPU per request: kongai as a multiple of nginx", "title"),
        _text(left, 44, "less is better; the red line is the budget", "quiet"),
    ]
    for number, row in enumerate(shown):
        y = top + step * number
        ratio = row.ratio("kongai")
        told = (
            f"{row.microseconds('kongai'):,.0f} us and "
            f"{row.microseconds('nginx'):,.0f} us per {row.unit}"
        )
        bar = _rect(left, y + 20, ratio * scale, 18, _COLOURS["kongai"])
        parts += [
            _text(left, y + 14, f"{row.title}: {told}"),
            bar,
            _text(
                left + max(ratio, row.budget or 0) * scale + 8, y + 34, f"{ratio:.2f} x"
            ),
        ]
        if row.budget is not None:
            x = left + row.budget * scale
            parts.append(
                _line(x, y + 16, x, y + 42, f'stroke="{_BUDGET}" stroke-width="2"')
            )
    x = left + scale
    bottom = top + step * len(shown)
    parts += [
        _line(x, top, x, bottom, 'class="axis" stroke-dasharray="3 3"'),
        _text(x - 14, bottom + 16, "nginx", "quiet"),
    ]
    return _svg(height, parts)


def lines(curve: Curve) -> str:
    """How the cost grows, a line for each gateway."""
    left, right, top, bottom, height = 80, 110, 60, 56, 400
    points = [point for line in curve.lines.values() for point in line]
    across = _axis([x for x, _ in points], left, _WIDTH - right, log=curve.logarithmic)
    up = _axis([y for _, y in points], height - bottom, top, log=curve.logarithmic)
    parts = [
        _text(20, 26, curve.title, "title"),
        _text(20, 44, curve.unit, "quiet"),
        _text(_WIDTH - right, height - 12, curve.x, "quiet", "end"),
    ]
    for value in _marks([x for x, _ in points], log=curve.logarithmic):
        x = across(value)
        parts.append(_line(x, top, x, height - bottom, 'class="grid"'))
        parts.append(_text(x, height - bottom + 18, short(value), "quiet", "middle"))
    for value in _marks([y for _, y in points], log=curve.logarithmic):
        y = up(value)
        parts.append(_line(left, y, _WIDTH - right, y, 'class="grid"'))
        parts.append(_text(left - 8, y + 4, short(value), "quiet", "end"))
    others = iter(_OTHER_COLOURS)
    for name, line in curve.lines.items():
        colour = _COLOURS.get(name) or next(others)
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5" fill="{colour}"/>'
            for x, y in line
        ]
        x, y = line[-1]
        parts.append(_text(across(x) + 10, up(y) + 4, name))
    return _svg(height, parts)


def short(value: float) -> str:
    """A number in few characters: 1000 is 1k."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _axis(
    values: Sequence[float], start: float, end: float, *, log: bool
) -> Callable[[float], float]:
    """From a value to its place between two coordinates."""
    marks = _marks(values, log=log)
    low, high = min([*values, *marks]), max([*values, *marks])
    if log:
        low, high = math.log10(low), math.log10(high)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        at = math.log10(value) if log else value
        return start + (at - low) / width * (end - start)

    return place


def _marks(values: Sequence[float], *, log: bool) -> list[float]:
    """Round numbers that enclose the values."""
    high = max(values)
    if log:
        first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(high))
        return [10.0**power for power in range(first, last + 1)]
    rough = high / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)
    return [step * number for number in range(math.ceil(high / step) + 1)]


def _svg(height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img">\n'
    )
    return head + _STYLE + "\n".join(parts) + "\n</svg>\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>'
        f"{escape(text)}</text>"
    )


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" '
        f'rx="2" fill="{colour}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, attributes: str) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f"<line {place} {attributes}/>"
