"""Figures with lines and bars: scores over time, reliability, how far the belief moved, accounting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from posterior.calibration import ReliabilityBin
from priorflow.report_axes import (
    CROWDED,
    MANY,
    across,
    alarm,
    cell,
    columns,
    dot,
    line,
    percent,
    rule,
    shade_alarms,
    window_axis,
)
from priorflow.report_svg import Frame, Scale, box, doublings, drawing, hint, mark, markup, path, steps
from priorflow.report_words import accounts
from priorflow.scores import Score
from priorflow.story import Story, WindowRow

STYLES: Final = 4  # methods beyond the fourth look like the first again
_NARROW: Final = 320  # for figures that stand three in a row
_WIDE: Final = 420
_RATIO: Final = 6  # ratio of largest to smallest from which an axis is logarithmic
_FEW: Final = 10  # mails under which a bin is too uncertain for the line


@dataclass(frozen=True, slots=True)
class Metric:
    """One score over time: how it is called, read from a score, and written."""

    name: str
    of: Callable[[Score], float]
    write: Callable[[float], str]
    tick: Callable[[float], str]
    scale: Callable[[Sequence[float], Frame], tuple[Scale, list[float]]]


def curve_chart(story: Story, metric: Metric) -> str:
    """Draw a score by window, a line for each method; windows with an alarm are shaded."""
    svg = drawing(_NARROW, 220, f"{metric.name} by window for {', '.join(story.methods)}")
    frame = Frame(40, _NARROW - 8, 8, 182)
    x = across(story, frame)
    y, ticks = metric.scale([metric.of(s) for c in story.curves.values() for s in c.values()], frame)
    shade_alarms(svg, story, frame, x, x(1) - x(0) if len(story.windows) > 1 else _NARROW)
    for tick in ticks:
        rule(svg, frame, y(tick), metric.tick(tick))
    window_axis(svg, story, frame, x)
    for style, (name, scores) in enumerate(story.curves.items()):
        known = [(k, row) for k, row in enumerate(story.windows) if row.index in scores]
        values = [metric.of(scores[row.index]) for _, row in known]
        points = [(x(k), y(value)) for (k, _), value in zip(known, values, strict=True)]
        line(svg, points, style % STYLES)
        if len(story.windows) <= MANY:
            for at, (_, row), value in zip(points, known, values, strict=True):
                said = f"{name}, window {row.index}: {metric.write(value)}"
                dot(svg, *at, 3.0, style % STYLES, said)
    return markup(svg)


def reliability_chart(story: Story) -> str:
    """Draw accuracy over stated confidence; honest forecasts lie on the diagonal."""
    svg = drawing(_WIDE, 352, "accuracy over stated confidence")
    frame = Frame(44, _WIDE - 14, 8, 312)
    x, y = Scale(0, 1, frame.left, frame.right), Scale(0, 1, frame.bottom, frame.top)
    for tick in steps(0, 1):
        rule(svg, frame, y(tick), percent(tick, 0))
        mark(svg, "text", percent(tick, 0), x=x(tick), y=frame.bottom + 16, class_="tick mid")
    middle = (frame.left + frame.right) / 2
    mark(svg, "text", "stated confidence", x=middle, y=frame.bottom + 34, class_="tick mid")
    mark(svg, "path", d=path([(x(0), y(0)), (x(1), y(1))]), class_="diagonal")
    for style, (name, bins) in enumerate(story.reliability.items()):
        firm = [(x(b.confidence), y(b.accuracy)) for b in bins if b.count >= _FEW]
        line(svg, firm, style % STYLES)
        whole = max((b.count for b in bins), default=1)
        for b in bins:
            size = 2 + 5 * math.sqrt(b.count / whole)
            dot(svg, x(b.confidence), y(b.accuracy), size, style % STYLES, _bin_said(name, b))
    return markup(svg)


def movement_chart(story: Story) -> str:
    """Draw how far each window moved the belief in nats, alarms above and beta beneath."""
    svg = drawing(_WIDE, 262, "KL in nats, beta and drift alarms by window")
    frame = Frame(46, _WIDE - 8, 24, 182)
    x, wide = columns(story, frame)
    peak = max(row.kl_nats for row in story.windows) or 1.0
    y = Scale(0, peak, frame.bottom, frame.top)
    shade_alarms(svg, story, Frame(frame.left, frame.right, 8, frame.bottom), x, wide)
    for tick in steps(0, peak, 4):
        rule(svg, frame, y(tick), f"{tick:g}")
    window_axis(svg, story, frame, x)
    for k, row in enumerate(story.windows):
        field = Frame(x(k) - wide * 0.34, x(k) + wide * 0.34, y(row.kl_nats), frame.bottom)
        bar = box(svg, field, "bar", corner=2)
        hint(bar, f"window {row.index}: {row.kl_nats:,.1f} nats")
        if row.drift:
            alarm(svg, x(k), 15, f"window {row.index}: {', '.join(row.alarms) or 'drift'}")
        lane = Frame(x(k) - wide / 2, x(k) + wide / 2, 232, 256)
        text = beta_text(row.beta) if len(story.windows) <= CROWDED else ""
        cell(svg, lane, _given_up(row), text, f"window {row.index}: beta {row.beta:g}")
    mark(svg, "text", "beta", x=frame.left - 8, y=248, class_="label end")
    return markup(svg)


def accounting_chart(counts: Mapping[str, int]) -> str:
    """Draw where every consumed record is, as one bar."""
    wide, tall = 1000.0, 18.0
    svg = drawing(wide, tall, "where every record is")
    consumed, at = max(1, counts.get("consumed", 0)), 0.0
    for style, (name, count) in enumerate(accounts(counts)):
        share = wide * count / consumed
        if count:
            part = box(svg, Frame(at, at + share, 0, tall), f"part part{style}")
            hint(part, f"{name}: {count:,} records")
        at += share
    return markup(svg)


def beta_text(beta: float) -> str:
    """Write beta so that it fits a cell."""
    return f"{beta:g}".replace("0.", ".", 1) if 0 < beta < 1 else f"{beta:g}"


def _shares(values: Sequence[float], frame: Frame) -> tuple[Scale, list[float]]:
    """Return an axis of shares that shows the range that occurs, in tenths."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = max(0.0, math.floor(low * 10 - 1e-9) / 10)
    high = min(1.0, math.ceil(high * 10 + 1e-9) / 10)
    return Scale(low, high, frame.bottom, frame.top), steps(low, high)


def _from_zero(values: Sequence[float], frame: Frame) -> tuple[Scale, list[float]]:
    high = max(values, default=1.0) * 1.04 or 1.0
    return Scale(0, high, frame.bottom, frame.top), steps(0, high, 4)


def _by_ratio(values: Sequence[float], frame: Frame) -> tuple[Scale, list[float]]:
    """Return an axis that is logarithmic where methods are worlds apart."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low <= 0 or high / low < _RATIO:
        return _from_zero(values, frame)
    low, high = 2.0 ** math.floor(math.log2(low)), 2.0 ** math.ceil(math.log2(high))
    return Scale(low, high, frame.bottom, frame.top, log=True), doublings(low, high)


def _bin_said(name: str, b: ReliabilityBin) -> str:
    sure, right = percent(b.confidence), percent(b.accuracy)
    return f"{name}: {b.count} mails, {sure} sure, {right} right"


def _given_up(row: WindowRow) -> float:
    """Return how strongly a beta is shown: nothing for 1, more for each power of ten it gives up."""
    lost = 1 - row.beta
    return 0.0 if lost <= 0 else min(1.0, max(0.12, (math.log10(lost) + 4) / 4))


ACCURACY: Final = Metric("accuracy", lambda s: s.accuracy, percent, lambda v: percent(v, 0), _shares)
NLL: Final = Metric("nats per mail", lambda s: s.nll, "{:.2f}".format, "{:g}".format, _by_ratio)
ECE: Final = Metric("calibration error", lambda s: s.ece, "{:.3f}".format, "{:g}".format, _from_zero)
