"""What can still be proven of a chain from which something was erased.

A window that learned from an erased event cannot be learned again: its text is gone. Every other one can,
and must come out the same in tensors, labels, positions and plan, bit for bit. Its accounts say `erased`
where they said that the event was waiting, so states are compared without the event and without their
accounts. And forecasts are computed in batches: one event less may round another's in the last digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, final

from posterior.snapshot import Blobs, Ledger, Snapshot, forgotten
from stream.erasure import LeftOut, without
from stream.relabelling import renamed
from trainers.erasing import EVENTS, LEARNED, erased_row
from trainers.line import renamed_by, state_behind
from trainers.relabelling import relabelled_row

_COMPARED: Final = ("posterior", "plan", "index", "kind", "settings", "labels", "spans", "spans_before")
_ROUNDING: Final = 1e-5
_TOLD_APART: Final = ("arrivals",)  # in a report: one event less may have arrived


@final
class Past:
    """The erasures of one chain, and the rows they left behind."""

    def __init__(self, ledger: Ledger, blobs: Blobs, chain: str) -> None:
        """Look at them once."""
        self._blobs = blobs
        self._erasures = ledger.erasures(chain)
        self._gone = LeftOut(forgotten(self._erasures))
        rows = ledger.history(chain) if self._erasures else ()
        self._learned = {
            sha: row.seq for row in rows for shas in row.report.get(LEARNED, {}).values() for sha in shas
        }

    def learned_from_erased(self, child: Snapshot) -> int | None:
        """Return the row that erased what a window had learned from; None if nothing was."""
        return self._learned.get(child.sha)

    def same_but_for_erased(self, made: Snapshot, content: bytes, child: Snapshot) -> bool:
        """Tell whether a row that was derived again is the one that was, but for what was erased since.

        `content` is the state of the stream that was derived with it.
        """
        if not self._gone:
            return False
        one, two = _manifest(made), _manifest(child)
        if any(one[name] != two[name] for name in _COMPARED) or not _alike(one["report"], two["report"]):
            return False
        now = _uncounted(without(content, self._gone))
        return _alike(now, self._state(child)) and set(made.rejected) <= set(child.rejected)

    def forgotten_again(self, parent: Snapshot, child: Snapshot) -> bool:
        """Tell whether a row that forgets is what its parent and its own report make of it.

        What was erased later is out of both.
        """
        out = LeftOut(frozenset(child.report[EVENTS]))
        content = without(self._content(parent), out)
        made = replace(erased_row(parent, child.stream_state, content, child.report), counts=child.counts)
        return made.sha == child.sha and _uncounted(content) == self._state(child)

    def renamed_again(self, parent: Snapshot, child: Snapshot) -> bool:
        """Tell whether a row that renames is what its parent and its own report make of it."""
        content = self._content(parent)
        for old, new in renamed_by(child.report):
            content = renamed(content, old, new)
        made = replace(relabelled_row(parent, child.stream_state, child.report), counts=child.counts)
        return made.sha == child.sha and _uncounted(content) == self._state(child)

    def _content(self, row: Snapshot) -> bytes:
        return state_behind(self._blobs, self._erasures, row)

    def _state(self, row: Snapshot) -> Mapping[str, Any]:
        return _uncounted(self._content(row))


def _uncounted(content: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(content).items() if name != "counts"}


def _alike(one: Any, two: Any) -> bool:
    """Tell whether two JSON values are equal but for the rounding of numbers that are not whole."""
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_alike(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_alike, one, two))
    return bool(one == two)


def _manifest(row: Snapshot) -> dict[str, Any]:
    told = row.manifest()
    told["report"] = {name: value for name, value in told["report"].items() if name not in _TOLD_APART}
    return told
