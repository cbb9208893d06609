"""Give a class another name, or two classes one: a row that keeps belief and positions, under the fence.

    head ── relabelled ── learned ...        labels (a, b, c) -> (a, B, c): the row of the head is the same
                                             labels (a, b, c) -> (D, D, c): a and b are one, in two rows

What is yet to come under an old name is taken under the new one, so replay meets the same windows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

from posterior.folding import once
from posterior.snapshot import MERGED, Blobs, Circumstance, Fence, Ledger, LedgerError, Snapshot
from stream.relabelling import Names, renamed
from trainers.line import NEW, OLD, kept, names_along, on_top, renamed_by, state_behind

MAX_CHARS: Final = 512


class CannotRename(LedgerError):
    """There is no such class, or the new name cannot be one; nothing was written."""


def relabelled_row(head: Snapshot, state: str, report: Mapping[str, Any]) -> Snapshot:
    """Return the row that renames, on top of `head`; `report` says what, `state` is the new state's sha."""
    names = dict(renamed_by(report))
    return on_top(
        head,
        "relabelled",
        stream_state=state,
        labels=tuple(names.get(label, label) for label in head.labels),
        report={**report, **kept(head, head.posterior)},
    )


@final
@dataclass(frozen=True, kw_only=True)
class Renamer:
    """Renames in somebody's name. Steps for `crash`: before-renaming, after-state, after-renaming."""

    ledger: Ledger
    blobs: Blobs
    circumstance: Callable[[Mapping[str, float]], Circumstance]
    actor: str
    at_ms: int
    reason: str | None = None
    crash: Callable[[str], None] = field(default=lambda _step: None)

    def rename(self, fence: Fence, old: str, new: str) -> Snapshot | None:
        """Commit the row; None if this very renaming was the last that happened to the class."""
        return self._call(fence, (old,), new, {OLD: old})

    def merge(self, fence: Fence, one: str, other: str, into: str) -> Snapshot | None:
        """Commit the row by which two classes are one of the name `into`; None if they are that already."""
        if one == other:
            msg = f"{one!r} is one class; name the two that are to be merged"
            raise CannotRename(msg)
        return self._call(fence, (one, other), into, {MERGED: [one, other]})

    def _call(self, fence: Fence, given: Sequence[str], new: str, what: Mapping[str, Any]) -> Snapshot | None:
        """Commit the row that gives classes a name."""
        head, names = self.ledger.head(fence.chain), names_along(self.ledger.history(fence.chain))
        labels = () if head is None else once(head.labels)
        missing = [old for old in given if old not in labels]
        if head is None or missing:
            if new in labels and all(names.of(old) == new for old in given):
                return None
            known = ", ".join(map(repr, labels)) or "none yet"
            msg = f"chain {fence.chain} has no class {missing[0]!r}; it has: {known}"
            raise CannotRename(msg)
        require_name(given, new, labels, names)
        self.crash("before-renaming")
        report = {**what, NEW: new, "by": self.actor, "at_ms": self.at_ms, "reason": self.reason}
        content = state_behind(self.blobs, self.ledger.erasures(fence.chain), head)
        for old, name in renamed_by(report):
            content = renamed(content, old, name)
        row = relabelled_row(head, self.blobs.put(content), report)
        self._commit(fence, replace(row, counts=dict(json.loads(content)["counts"])))
        return row

    def _commit(self, fence: Fence, row: Snapshot) -> None:
        self.crash("after-state")
        unfinished = self.ledger.open_plan(fence.chain)
        if unfinished is not None:
            self.ledger.supersede(fence, unfinished.sha, "a class was renamed")
        self.ledger.commit(fence, row, self.circumstance({}))
        self.crash("after-renaming")


def require_name(given: Sequence[str], new: str, labels: Sequence[str], names: Names) -> None:
    """Raise CannotRename unless `new` can be a name, and is no other class's, present or former."""
    if not new or len(new) > MAX_CHARS or "\0" in new:
        msg = f"{new!r} cannot be a label: it needs 1 to {MAX_CHARS} characters, none of them null"
        raise CannotRename(msg)
    if new in labels and (new not in given or len(given) == 1):
        msg = f"{new!r} is a class already; two classes become one by `labels merge`, two at a time"
        raise CannotRename(msg)
    if names.of(new) not in {new, *given}:
        msg = f"{new!r} is a former name of {names.of(new)!r}, under which its labels may still come"
        raise CannotRename(msg)
