"""The words of the lineage: what a row is, which records it took, what a branch does without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from posterior.snapshot import Snapshot, Span
from priorflow.descent import Fold
from priorflow.kinship import Derived
from trainers.branching import AGAIN, OF, SKIPPED

FEW: Final = 6  # partitions of a topic that are listed; more are counted
_KINDS: Final = {
    "root": "the prior",
    "progress": "positions alone",
    "erased": "events erased",
    "relabelled": "classes renamed",
}


@final
@dataclass(frozen=True, slots=True)
class Taken:
    """The records of a topic between two positions: how many, and where they lie, partition by partition."""

    topic: str
    records: int
    places: tuple[str, ...]


def name(row: Snapshot) -> str:
    """Say what a row is."""
    if row.kind in {"learned", "quarantined"}:
        return f"window {row.index}"
    return _KINDS.get(row.kind) or _branch(row)


def _branch(row: Snapshot) -> str:
    if OF not in row.report:
        return f"derived again as chain {row.chain}"
    of = row.report[OF][:12]
    if again := row.report.get(AGAIN, ()):
        return f"learning goes back to {of} and reads {windows(again)} again"
    without = row.report[SKIPPED]
    return f"learning goes on from {of}" + (f", without {windows(without)}" if without else "")


def windows(numbers: Sequence[int]) -> str:
    """Name windows by their numbers, which ascend; those that follow each other as one stretch."""
    told = ", ".join(str(a) if a == b else f"{a}\N{EN DASH}{b}" for a, b in _stretches(numbers))
    return f"window{'s' if len(numbers) > 1 else ''} {told}"


def _stretches(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if first is not None and last is not None and number > last + 1:
            yield first, last
            first = None
        first, last = number if first is None else first, number
    if first is not None and last is not None:
        yield first, last


def folded(fold: Fold) -> str:
    """Say what is not shown."""
    numbers = f"{fold.first:,}\N{EN DASH}{fold.last:,}"
    said = [f"{fold.windows:,} windows folded ({numbers})"] if fold.windows else []
    said += [f"{fold.others:,} other rows"] if fold.others else []
    said += [f"{fold.quarantined:,} quarantined"] if fold.quarantined else []
    said += [f"drift in {fold.drifted:,}"] if fold.drifted else []
    said += [left(fold.unseen)] if fold.unseen else []
    return ", ".join(said)


def left(count: int) -> str:
    """Say how many older branches are not shown."""
    return f"{count:,} older branch{'es' if count > 1 else ''} not shown"


def way_of(chain: Derived) -> str:
    """Say where a derived chain left, and how far it has come."""
    start = f"left {name(chain.left)} ({chain.sha[:12]})"
    if not chain.rows:
        return f"{start}; {'its rows are damaged' if chain.rows is None else 'it has no row yet'}"
    learned = [row.index for row in chain.rows if row.kind in {"learned", "quarantined"}]
    came = f"has {windows(learned)}" if learned else "has learned no window"
    return f"{start}, {came}, head {chain.rows[-1].sha[:12]}"


def offsets(before: Iterable[Span], after: Iterable[Span]) -> tuple[Taken, ...]:
    """Return which records lie between two positions, topics without any left out.

    Both ends are included. `+n` were taken ahead of the last one; where positions went back it says so.
    """
    lows = {(span.topic, span.partition): span.low for span in before}
    topics: dict[str, list[tuple[int, str]]] = {}
    for span in sorted(after):
        low = lows.get((span.topic, span.partition), 0)
        if low != span.low:
            topics.setdefault(span.topic, []).append((span.low - low, _place(span, low)))
    return tuple(
        Taken(topic, sum(count for count, _ in found), tuple(place for _, place in found))
        for topic, found in topics.items()
    )


def _place(span: Span, low: int) -> str:
    if span.low < low:
        return f"{span.partition}: back to {span.low:,}"
    ahead = f" +{len(span.beyond)}" if span.beyond else ""
    only = f"{low:,}" if span.low == low + 1 else f"{low:,}\N{EN DASH}{span.low - 1:,}"
    return f"{span.partition}: {only}{ahead}"
