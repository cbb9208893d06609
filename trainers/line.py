"""A chain as a line of rows: which are in force, what their classes are called, and a row on top.

root ── 1 ── 2 ── 3 ── 4 ── branch ── 5 ── 6 = head       in force: root, 1, 2, branch, 5, 6
             └─────────────── (back to 2)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from posterior.snapshot import (
    MERGED,
    NAMES,
    REWOUND,
    Blobs,
    Erasure,
    Kind,
    Snapshot,
    Span,
    forgotten,
    stand_in,
)
from stream.erasure import LeftOut, without
from stream.relabelling import AS_THEY_CAME, Names

KNOWN: Final = "known_classes"  # in a row's report: how many of its labels its tensors know, if not all
OLD: Final = "renamed"  # in a row's report: what a class was called; two that become one stand at `MERGED`
NEW: Final = "to"  # in a row's report: what it is called from there on
BY_SITE: Final = "nats_by_site"  # in a window's report: KL to the prior; adds up to `kl_nats`
BY_CLASS: Final = "nats_by_class"  # in a window's report: [members, mean nats before, after] by label
MOVED: Final = "moved_most"  # in a window's report: [place, nats before, after], the largest fall first
EFFECTIVE: Final = "effective_examples"  # in a row's report: what its belief is worth; none is 0


def on_top(head: Snapshot, kind: Kind, **changes: Any) -> Snapshot:
    """Return a row that stands on the head and is the head's, but for `changes`."""
    return replace(
        head,
        seq=head.seq + 1,
        kind=kind,
        parent=head.sha,
        plan=None,
        spans_before=head.spans,
        rejected=(),
        **changes,
    )


def known(row: Snapshot) -> tuple[str, ...]:
    """Return the labels that a row's tensors know."""
    return row.labels[: row.report.get(KNOWN, len(row.labels))]


def kept(row: Snapshot, posterior: str) -> Mapping[str, Any]:
    """Return what the report of a row's child has to say if it keeps the tensors."""
    told = (KNOWN, EFFECTIVE) if posterior == row.posterior else ()
    return {name: row.report[name] for name in told if name in row.report}


def sha_before(row: Snapshot) -> str | None:
    """Return the sha of the row that comes before this one in force: its parent, or what it goes back to."""
    return row.report.get(REWOUND) or row.parent


def in_force(history: Sequence[Snapshot], head: Snapshot) -> list[Snapshot]:
    """Return the rows whose evidence lies behind the head's positions, oldest first.

    That is the chain without the stretches that were gone back over: along it each record counts once.
    """
    known_rows, line = {row.sha: row for row in history}, list[Snapshot]()
    row: Snapshot | None = head
    while row is not None:
        line.append(row)
        row = known_rows.get(sha_before(row) or "")
    return line[::-1]


def beyond(row: Snapshot, other: Snapshot) -> bool:
    """Tell whether every record that lies behind `other` lies behind a row too."""
    there = {(span.topic, span.partition): span for span in row.spans}
    return all(_holds(there.get((span.topic, span.partition)), span) for span in other.spans)


def _holds(span: Span | None, other: Span) -> bool:
    if span is None:
        return other.consumed == 0
    return span.low >= other.low and all(o < span.low or o in span.beyond for o in other.beyond)


def between(history: Sequence[Snapshot], champion: Snapshot, head: Snapshot) -> list[Snapshot]:
    """Return the rows in force at the head that are not so at the champion."""
    there = {row.sha for row in in_force(history, champion)}
    return [row for row in in_force(history, head) if row.sha not in there]


def taken(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes that a row gives a name to: one that is renamed, or two that are merged."""
    return tuple(report[MERGED]) if MERGED in report else (report[OLD],)


def renamed_by(report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return old and new name of each class that a row calls otherwise."""
    return tuple((old, report[NEW]) for old in taken(report) if old != report[NEW])


def renamings(rows: Sequence[Snapshot]) -> Iterator[tuple[str, str]]:
    """Yield old and new name of each renaming, in order; a merger is one of two classes to one name.

    Going back undoes none: a name is a person's word, not evidence. What was renamed before a derived chain
    began is told by its first row.
    """
    for row in rows:
        if row.seq == 0:
            yield from row.report.get(NAMES, {}).items()
        if row.kind == "relabelled":
            yield from renamed_by(row.report)


def called_now(labels: Sequence[str], rows: Sequence[Snapshot]) -> tuple[str, ...] | None:
    """Return a label map under what its classes are called after these rows.

    None where a new name is another class's here, which nobody said to be one with it: a class that was gone
    back over may be unknown when its name is given away.
    """
    now = tuple(labels)
    for report in (row.report for row in rows if row.kind == "relabelled"):
        given, name = taken(report), report[NEW]
        if name in now and name not in given and not set(given).isdisjoint(now):
            return None
        now = tuple(name if label in given else label for label in now)
    return now


def names_along(rows: Sequence[Snapshot]) -> Names:
    """Return what old names have become by the end of these rows of a chain's history."""
    names = AS_THEY_CAME
    for old, new in renamings(rows):
        names = names.then(old, new)
    return names


def state_behind(blobs: Blobs, erasures: Sequence[Erasure], row: Snapshot) -> bytes:
    """Return the state of the stream behind a row, without what was erased since."""
    found = stand_in(erasures, row.stream_state)
    state = blobs.get(row.stream_state if found is None else str(found.instead))
    gone = forgotten(erasures)
    return without(state, LeftOut(gone)) if gone else state
