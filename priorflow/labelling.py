"""What a chain's classes look like to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posterior.folding import once
from posterior.snapshot import Snapshot
from trainers.line import in_force, names_along


def classes(history: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """Return a row per class of the head: examples learned, the window that met it first, former names.

    Windows are those in force: what is read again counts once.
    """
    names = names_along(history)
    learned, first = dict[str, int](), dict[str, int]()
    for row in in_force(history, history[-1]):
        told = row.report.get("classes", {}) if row.kind == "learned" else {}
        for label, count in told.items():
            now = names.of(label)
            learned[now] = learned.get(now, 0) + count
            first.setdefault(now, row.index)
    former = [(now, old) for old, now in names.present.items()]
    return [
        {
            "label": label,
            "learned": learned.get(label, 0),
            "first_window": first.get(label),
            "formerly": [old for now, old in former if now == label],
        }
        for label in once(history[-1].labels)
    ]
