"""Figures made of cells: which classes appeared when, what sites were taught, and what is remembered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final
from xml.etree.ElementTree import Element

from priorflow.report_axes import CROWDED, MANY, cell, columns, month, percent, window_numbers
from priorflow.report_svg import Frame, Scale, drawing, every, hint, mark, markup
from priorflow.story import Story, WindowRow

SHOWN_CLASSES: Final = 14
SHOWN_SITES: Final = 14
_WIDE: Final = 420
_NAME: Final = 14  # characters of a class name that fit beside its row


def class_chart(story: Story) -> str:
    """Draw mails by class and window; a ring marks the first mails of a class."""
    rows = shown_classes(story)
    tall, top = 24, 4
    frame = Frame(92, _WIDE - 8, top, top + tall * len(rows))
    svg = drawing(_WIDE, frame.bottom + 36, "mails by class and window")
    x, wide = columns(story, frame)
    peak = max((n for row in story.windows for n in row.classes.values()), default=1)
    for r, (name, labels) in enumerate(rows.items()):
        y = top + tall * r
        mark(svg, "text", _short(name), x=frame.left - 8, y=y + 16, class_="label end")
        for k, row in enumerate(story.windows):
            count = sum(row.classes.get(label, 0) for label in labels)
            new = any(label in row.new_classes for label in labels)
            text = str(count) if count and len(story.windows) <= CROWDED else ""
            said = f"{name}, window {row.index}: {count} mails{', its first' * new}"
            field = Frame(x(k) - wide / 2, x(k) + wide / 2, y, y + tall)
            cell(svg, field, min(1.0, math.sqrt(count / peak)), text, said, ring=new)
    _windows_below(svg, story, x, frame)
    return markup(svg)


def site_chart(story: Story) -> str:
    """Draw the nats that each window taught each site; what lies between sites may be below 0."""
    rows = shown_sites(story)
    tall, top = 24, 4
    frame = Frame(92, _WIDE - 8, top, top + tall * len(rows))
    svg = drawing(_WIDE, frame.bottom + 36, "nats by site and window")
    x, wide = columns(story, frame)
    given = {name: [_given(row, sites) for row in story.windows] for name, sites in rows.items()}
    peak = max((n for nats in given.values() for n in nats), default=0.0) or 1.0
    for r, (name, nats) in enumerate(given.items()):
        y = top + tall * r
        hint(
            mark(svg, "text", _short(name), x=frame.left - 8, y=y + 16, class_="label end"),
            ", ".join(rows[name]),
        )
        for k, (row, n) in enumerate(zip(story.windows, nats, strict=True)):
            text = f"{n:,.0f}" if row.taught and len(story.windows) <= CROWDED else ""
            field = Frame(x(k) - wide / 2, x(k) + wide / 2, y, y + tall)
            said = f"{name}, window {row.index}: {n:,.1f} nats"
            cell(svg, field, math.sqrt(max(0.0, n) / peak), text, said)
    _windows_below(svg, story, x, frame)
    return markup(svg)


def shown_sites(story: Story) -> dict[str, tuple[str, ...]]:
    """Return the rows of the site chart: those taught most, the others as one."""
    totals: dict[str, float] = {}
    for row in story.windows:
        for site, nats in row.taught.by_site.items() if row.taught else ():
            totals[site] = totals.get(site, 0.0) + nats
    names = _brief(totals)
    if len(totals) <= SHOWN_SITES:
        return {names[site]: (site,) for site in totals}
    most = sorted(totals, key=lambda site: (-totals[site], site))[: SHOWN_SITES - 1]
    rest = tuple(site for site in totals if site not in most)
    return {**{names[site]: (site,) for site in totals if site in most}, f"{len(rest)} others": rest}


def _given(row: WindowRow, sites: tuple[str, ...]) -> float:
    return math.fsum(row.taught.by_site.get(site, 0.0) for site in sites) if row.taught else 0.0


def _brief(sites: Iterable[str]) -> dict[str, str]:
    """Return names of modules by their numbers and their ends; whole, where two would be one."""
    said = {
        site: " ".join([*filter(str.isdigit, site.split(".")), site.rpartition(".")[2]]) for site in sites
    }
    alone = Counter(said.values())
    return {site: name if alone[name] == 1 else site for site, name in said.items()}


def _windows_below(svg: Element, story: Story, x: Scale, frame: Frame) -> None:
    """Write numbers and months of windows below a figure of columns."""
    mark(svg, "text", "window", x=frame.left - 8, y=frame.bottom + 15, class_="tick end")
    window_numbers(svg, story, x, frame.bottom + 15)
    for k in every(len(story.windows), 6):
        said = month(story.windows[k].end_ms)
        mark(svg, "text", said, x=x(k), y=frame.bottom + 31, class_="tick mid")


def matrix_chart(story: Story) -> str:
    """Draw accuracy on each window (columns) after learning each window (rows)."""
    count, left, top = len(story.matrix), 56, 32
    size = min(34.0, (_WIDE - 8 - left) / max(1, count))
    name = "accuracy on each window after learning each window"
    svg = drawing(_WIDE, top + size * count + 4, name)
    fade = _fade([a for row in story.matrix for a in row if a is not None])
    mark(svg, "text", "accuracy on window …", x=left, y=11, class_="tick")
    for k in every(count, 12):
        said, at = str(story.measured[k]), size * (k + 0.5)
        mark(svg, "text", said, x=left + at, y=top - 6, class_="tick mid")
        mark(svg, "text", f"after {said}", x=left - 6, y=top + at + 3.5, class_="tick end")
    for i, row in enumerate(story.matrix):
        for j, accuracy in enumerate(row):
            if accuracy is not None:
                x, y = left + size * j, top + size * i
                on, after = story.measured[j], story.measured[i]
                said = (
                    ""
                    if count > MANY
                    else f"window {on} after learning window {after}: {percent(accuracy)} right"
                )
                text = f"{100 * accuracy:.0f}" if count <= CROWDED else ""
                cell(svg, Frame(x, x + size, y, y + size), fade(accuracy), text, said)
    return markup(svg)


def shown_classes(story: Story) -> dict[str, tuple[str, ...]]:
    """Return the rows of the class chart: the largest classes by first sight, then all others as one."""
    totals: dict[str, int] = {}
    for row in story.windows:
        for label, count in row.classes.items():
            totals[label] = totals.get(label, 0) + count
    if len(totals) <= SHOWN_CLASSES:
        return {label: (label,) for label in totals}
    large = sorted(totals, key=lambda label: (-totals[label], label))[: SHOWN_CLASSES - 1]
    rest = tuple(label for label in totals if label not in large)
    return {**{n: (n,) for n in totals if n in large}, f"{len(rest)} others": rest}


def _fade(shown: list[float]) -> Scale:
    """Return how strongly accuracies are shown, over the range that occurs."""
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    return Scale(low, high, 0.08, 1) if high > low else Scale(0, 1, 0.08, 1)


def _short(text: str) -> str:
    return text if len(text) <= _NAME else text[: _NAME - 1] + "…"
