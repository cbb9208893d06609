"""Small drawings for one page: scales, axes and marks as inline SVG.

Colours are names of CSS classes, so that a drawing follows the page into dark mode; text stays text.
A unit is about a pixel where a drawing is shown, so that text keeps its size on a phone and on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring


@dataclass(frozen=True, slots=True)
class Scale:
    """A map from values to units of the drawing: linear, or logarithmic where `log`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Frame:
    """The field in which values are drawn, in units of the drawing."""

    left: float
    right: float
    top: float
    bottom: float


def drawing(width: float, height: float, name: str) -> Element:
    """Return an empty drawing; `name` is what a screen reader says."""
    svg = Element("svg", {"viewBox": f"0 0 {number(width)} {number(height)}", "role": "img"})
    svg.set("aria-label", name)
    return svg


def mark(parent: Element, tag: str, text: str | None = None, **said: str | float) -> Element:
    """Add an element: `class_` is its class, an underscore in a name a hyphen."""
    attributes = {
        key.rstrip("_").replace("_", "-"): value if isinstance(value, str) else number(value)
        for key, value in said.items()
    }
    made = SubElement(parent, tag, attributes)
    made.text = text
    return made


def box(parent: Element, frame: Frame, class_: str, *, corner: float = 0) -> Element:
    """Fill a field; its corners are round as far as it is wide enough."""
    wide, tall = frame.right - frame.left, frame.bottom - frame.top
    made = mark(parent, "rect", x=frame.left, y=frame.top, class_=class_)
    for name, value in (("width", wide), ("height", tall), ("rx", min(corner, wide / 6))):
        made.set(name, number(value))
    return made


def hint(parent: Element, text: str) -> None:
    """Say what a mark stands for when it is pointed at."""
    mark(parent, "title", text)


def markup(svg: Element) -> str:
    """Return the drawing as text for a page."""
    return tostring(svg, encoding="unicode")


def number(value: float) -> str:
    """Write a coordinate in hundredths, without a tail of zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the path through points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def every(count: int, most: int) -> range:
    """Return the positions of `count` that get a label when there is room for `most`."""
    return range(0, count, max(1, math.ceil(count / most)))


def steps(low: float, high: float, most: int = 5) -> list[float]:
    """Return round values from low to high, at most `most` and one."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def doublings(low: float, high: float) -> list[float]:
    """Return powers of two from low to high, for a logarithmic axis."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    return [2.0**k for k in range(first, last + 1)]
