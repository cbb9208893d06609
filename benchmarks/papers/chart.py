"""Line charts side by side as one SVG that a page shows as a picture: no script, no font of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from priorflow.report_svg import Frame, Scale, drawing, every, mark, markup, path, steps

_WIDE, _TALL = 330, 250
_COLOURS: Final = ("#0b6e99", "#c2410c", "#4d7c0f", "#7c3aed")
_DASHES: Final = ("none", "6 3", "2 2", "8 3 2 3")
_STYLE: Final = (
    "text{font:11px sans-serif;fill:#555}.rule{stroke:#ddd}.back{fill:#fff}.title{font-weight:bold}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A named series, one value for every label of its panel."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: its title, what stands under it, its lines (up to four keep their looks apart)."""

    title: str
    labels: Sequence[str]
    lines: Sequence[Line]


def panels(*charts: Panel) -> str:
    """Return the charts in one drawing, from left to right."""
    svg = drawing(_WIDE * len(charts), _TALL, "; ".join(chart.title for chart in charts))
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    mark(svg, "style", _STYLE)
    mark(svg, "rect", x=0, y=0, width=_WIDE * len(charts), height=_TALL, class_="back")
    for place, chart in enumerate(charts):
        _draw(svg, chart, Frame(_WIDE * place + 40, _WIDE * (place + 1) - 12, 24, _TALL - 62))
    return markup(svg)


def _draw(svg: Element, chart: Panel, frame: Frame) -> None:
    values = [value for line in chart.lines for value in line.values]
    y = Scale(min(values), max(values), frame.bottom, frame.top)
    x = Scale(0, len(chart.labels) - 1, frame.left, frame.right)
    mark(svg, "text", chart.title, x=frame.left, y=14, class_="title")
    for tick in steps(min(values), max(values)):
        mark(svg, "line", x1=frame.left, x2=frame.right, y1=y(tick), y2=y(tick), class_="rule")
        mark(svg, "text", f"{tick:g}", x=frame.left - 6, y=y(tick) + 4, text_anchor="end")
    for k in every(len(chart.labels), 6):
        mark(svg, "text", chart.labels[k], x=x(k), y=frame.bottom + 16, text_anchor="middle")
    for number, line in enumerate(chart.lines):
        _line(svg, line, number, frame, [(x(k), y(value)) for k, value in enumerate(line.values)])


def _line(svg: Element, line: Line, number: int, frame: Frame, points: list[tuple[float, float]]) -> None:
    look = {"stroke": _COLOURS[number], "stroke_dasharray": _DASHES[number], "fill": "none"}
    mark(svg, "path", d=path(points), stroke_width=1.8, **look)
    left = frame.left + 150 * (number % 2)
    top = frame.bottom + 36 + 16 * (number // 2)
    mark(svg, "path", d=path([(left, top - 4), (left + 24, top - 4)]), stroke_width=1.8, **look)
    mark(svg, "text", line.name, x=left + 30, y=top)
