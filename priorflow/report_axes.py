"""What several figures of a report share: the axis of windows, rules, lines with marks, cells, alarms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Element

from priorflow.report_svg import Frame, Scale, box, every, hint, mark, number, path
from priorflow.story import Story

CROWDED: Final = 16  # windows from which numbers no longer fit into cells
MANY: Final = 40  # windows from which points run into one line
_DARK: Final = 0.55  # strength from which text on a cell turns light
_FAINT: Final = 0.04  # strength of a cell that says nothing
_SHAPES: Final = {
    1: [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    2: [(0, -1.15), (1.05, 0.8), (-1.05, 0.8)],
    3: [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
}


def percent(share: float, digits: int = 1) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:.{digits}f}%"


def day(ms: int) -> str:
    """Write a time as a day."""
    at = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return f"{at.day} {at:%b %Y}"


def month(ms: int) -> str:
    """Write a time as a month, shortly."""
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%b %y}"


def across(story: Story, frame: Frame) -> Scale:
    """Return where windows lie when the first and the last touch the edges."""
    return Scale(0, len(story.windows) - 1, frame.left, frame.right)


def columns(story: Story, frame: Frame) -> tuple[Scale, float]:
    """Return where the middles of windows lie when each has a column, and a column's width."""
    wide = (frame.right - frame.left) / len(story.windows)
    middle = Scale(0, len(story.windows) - 1, frame.left + wide / 2, frame.right - wide / 2)
    return middle, wide


def rule(svg: Element, frame: Frame, y: float, text: str) -> None:
    """Draw a thin line across with its value at the left."""
    mark(svg, "line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="rule")
    mark(svg, "text", text, x=frame.left - 6, y=y + 3.5, class_="tick end")


def window_numbers(svg: Element, story: Story, x: Scale, y: float) -> None:
    """Write the numbers of windows, as many as there is room for."""
    for k in every(len(story.windows), 12):
        mark(svg, "text", str(story.windows[k].index), x=x(k), y=y, class_="tick mid")


def window_axis(svg: Element, story: Story, frame: Frame, x: Scale) -> None:
    """Draw the axis of windows with its numbers and its name."""
    low = frame.bottom
    mark(svg, "line", x1=frame.left, x2=frame.right, y1=low, y2=low, class_="axis")
    window_numbers(svg, story, x, low + 15)
    middle = (frame.left + frame.right) / 2
    mark(svg, "text", "window", x=middle, y=low + 31, class_="tick mid")


def shade_alarms(svg: Element, story: Story, frame: Frame, x: Scale, wide: float) -> None:
    """Shade the windows in which drift was flagged."""
    for k, row in enumerate(story.windows):
        if row.drift:
            start = max(frame.left, x(k) - wide / 2)
            stop = min(frame.right, x(k) + wide / 2)
            band = box(svg, Frame(start, stop, frame.top, frame.bottom), "alarm-band")
            hint(band, f"window {row.index}: drift")


def alarm(svg: Element, x: float, y: float, text: str) -> None:
    """Draw a warning triangle."""
    corners = [(x, y - 5), (x - 5, y + 4), (x + 5, y + 4)]
    hint(mark(svg, "path", d=path(corners) + "Z", class_="alarm"), text)


def line(svg: Element, points: Sequence[tuple[float, float]], style: int) -> None:
    """Draw a line through points, in the style of a method."""
    if points:
        mark(svg, "path", d=path(points), class_=f"line m{style}")


def dot(svg: Element, x: float, y: float, size: float, style: int, said: str) -> None:
    """Draw circle, square, triangle or diamond: methods differ in shape as well as in colour."""
    name = f"dot m{style}"
    if style == 0:
        made = mark(svg, "circle", cx=x, cy=y, r=size, class_=name)
    else:
        corners = [(x + dx * size, y + dy * size) for dx, dy in _SHAPES[style]]
        made = mark(svg, "path", d=path(corners) + "Z", class_=name)
    hint(made, said)


def cell(svg: Element, frame: Frame, strength: float, text: str, said: str, *, ring: bool = False) -> None:
    """Fill a field of a heat map as strongly as said, with a text where there is room."""
    gap = min(1.0, (frame.right - frame.left) / 10)
    inner = Frame(frame.left + gap, frame.right - gap, frame.top + gap, frame.bottom - gap)
    made = box(svg, inner, "cell ring" if ring else "cell", corner=3)
    made.set("fill-opacity", number(max(_FAINT, strength)))
    if said:
        hint(made, said)
    if text:
        tone = "on" if strength > _DARK else "off"
        middle, base = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2 + 3.5
        mark(svg, "text", text, x=middle, y=base, class_=f"in mid {tone}")
