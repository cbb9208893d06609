"""How a policy has answered of late, as sums: what the guards ask about, kept from window to window.

A measure is taken over the newest windows that together hold enough labels for it, a class's recall over
those that hold enough of that class: what was missed when a class was new, and is found since, is no reason
to refuse. Counting is a fold in the order of the ledger, so going on from stored sums gives the same bits as
counting from the start.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from posterior.calibration import ReliabilityBin
from trainers.guards import ClassCount

T = TypeVar("T")

BINS: Final = 15
Bin = tuple[int, float, int]  # count, summed confidence, right
_EMPTY: Final[Bin] = (0, 0.0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A labelled event as it was answered: the likeliest class, its probability, what it turned out to be.

    `known`: whether the label was a class when the event came. One that nobody had seen cannot be lost, so
    it is not counted for recall; for calibration it is, as wrong.
    """

    label: str
    guess: str
    confidence: float
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A class: labels in all, and (labels, found) of its newest windows, oldest first."""

    labels: int = 0
    newest: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """Bins of confidence of the newest windows, oldest first, and what is known of each class."""

    windows: tuple[tuple[Bin, ...], ...] = ()
    classes: Mapping[str, Seen] = field(default_factory=dict)


def shown(showing: Showing, told: Sequence[Answered], *, enough: int, enough_of_a_class: int) -> Showing:
    """Count a window, and let go of windows that are not needed any more for so many labels.

    ValueError for a confidence that is no probability.
    """
    bins, came, found = [_EMPTY] * BINS, defaultdict[str, int](int), defaultdict[str, int](int)
    for one in told:
        right = one.guess == one.label
        count, sure, hits = bins[at := _bin(one)]
        bins[at] = (count + 1, sure + one.confidence, hits + right)
        if one.known:
            came[one.label] += 1
            found[one.label] += right
    windows = (*showing.windows, *([tuple(bins)] if told else []))
    classes = dict(showing.classes)
    for label in came:
        before = classes.get(label, Seen())
        newest = (*before.newest, (came[label], found[label]))
        kept = _kept(newest, enough_of_a_class, lambda row: row[0])
        classes[label] = Seen(labels=before.labels + came[label], newest=kept)
    return Showing(windows=_kept(windows, enough, _count), classes=classes)


def without(showing: Showing, former: Container[str]) -> Showing:
    """Return what is known of the classes that still bear their name.

    No event comes under a former one any more: what was missed there could never be made good.
    """
    return replace(showing, classes={k: seen for k, seen in showing.classes.items() if k not in former})


def reliability(showing: Showing) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram of the newest windows; empty bins are left out."""
    return tuple(
        ReliabilityBin(
            at / BINS,
            (at + 1) / BINS,
            count,
            math.fsum(b[1] for b in column) / count,
            sum(b[2] for b in column) / count,
        )
        for at, column in enumerate(zip(*showing.windows, strict=True))
        if (count := sum(b[0] for b in column))
    )


def class_counts(showing: Showing) -> tuple[ClassCount, ...]:
    """Return how often each class came and was found in its newest windows, by name."""
    whole = sum(seen.labels for seen in showing.classes.values())
    return tuple(
        ClassCount(
            name, sum(n for n, _ in seen.newest), sum(hits for _, hits in seen.newest), seen.labels / whole
        )
        for name, seen in sorted(showing.classes.items())
    )


def dump(showing: Showing) -> dict[str, Any]:
    """Return the sums as JSON values."""
    return {
        "windows": [[list(b) for b in bins] for bins in showing.windows],
        "classes": {
            name: {"labels": seen.labels, "newest": [list(row) for row in seen.newest]}
            for name, seen in sorted(showing.classes.items())
        },
    }


def load(told: Mapping[str, Any]) -> Showing:
    """Return the sums that `dump` told of; ValueError if they are damaged."""
    windows = tuple(tuple((int(n), float(s), int(h)) for n, s, h in bins) for bins in told["windows"])
    classes = {
        str(name): Seen(labels=int(row["labels"]), newest=tuple((int(n), int(h)) for n, h in row["newest"]))
        for name, row in told["classes"].items()
    }
    sound = all(
        len(bins) == BINS and all(0 <= h <= n and 0 <= s <= n + 1e-6 for n, s, h in bins) for bins in windows
    )
    whole = all(sum(n for n, _ in seen.newest) <= seen.labels for seen in classes.values())
    if not (sound and whole):
        msg = "what was counted of a policy's answers is damaged; count again"
        raise ValueError(msg)
    return Showing(windows=windows, classes=classes)


def _bin(one: Answered) -> int:
    if not 0 <= one.confidence <= 1:  # NaN fails here too
        msg = f"an answer {one.guess!r} has confidence {one.confidence}, which is no probability"
        raise ValueError(msg)
    return min(BINS, max(1, math.ceil(one.confidence * BINS))) - 1


def _count(bins: Iterable[Bin]) -> int:
    return sum(b[0] for b in bins)


def _kept(rows: tuple[T, ...], enough: int, size: Callable[[T], int]) -> tuple[T, ...]:
    """Return the newest rows, as few as hold enough; all of them if they do not."""
    held = 0
    for back, row in enumerate(reversed(rows), start=1):
        held += size(row)
        if held >= enough:
            return rows[-back:]
    return rows
