"""Give a class another name: a row that keeps belief and positions, under the fence of the chain.

    head ── relabelled ── learned ...        labels (a, b, c) -> (a, B, c): the row of the head is the same

What is yet to come under the old name is taken under the new one, so replay meets the same windows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

from posterior.snapshot import Blobs, Circumstance, Fence, Ledger, LedgerError, Snapshot
from stream.relabelling import Names, renamed
from trainers.line import NEW, OLD, kept, names_along, on_top, state_behind

MAX_CHARS: Final = 512


class CannotRename(LedgerError):
    """There is no such class, or the new name cannot be one; nothing was written."""


def relabelled_row(head: Snapshot, state: str, report: Mapping[str, Any]) -> Snapshot:
    """Return the row that renames, on top of `head`; `report` says what, `state` is the new state's sha."""
    names = {report[OLD]: report[NEW]}
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
        head, names = self.ledger.head(fence.chain), names_along(self.ledger.history(fence.chain))
        labels = () if head is None else head.labels
        if head is None or old not in labels:
            if new in labels and names.of(old) == new:
                return None
            known = ", ".join(map(repr, labels)) or "none yet"
            msg = f"chain {fence.chain} has no class {old!r}; it has: {known}"
            raise CannotRename(msg)
        require_name(old, new, labels, names)
        self.crash("before-renaming")
        content = renamed(state_behind(self.blobs, self.ledger.erasures(fence.chain), head), old, new)
        report = {OLD: old, NEW: new, "by": self.actor, "at_ms": self.at_ms, "reason": self.reason}
        row = relabelled_row(head, self.blobs.put(content), report)
        row = replace(row, counts=dict(json.loads(content)["counts"]))
        self.crash("after-state")
        unfinished = self.ledger.open_plan(fence.chain)
        if unfinished is not None:
            self.ledger.supersede(fence, unfinished.sha, "a class was renamed")
        self.ledger.commit(fence, row, self.circumstance({}))
        self.crash("after-renaming")
        return row


def require_name(old: str, new: str, labels: Sequence[str], names: Names) -> None:
    """Raise CannotRename unless `new` can be a name, and is no other class's, present or former."""
    if not new or len(new) > MAX_CHARS or "\0" in new:
        msg = f"{new!r} cannot be a label: it needs 1 to {MAX_CHARS} characters, none of them null"
        raise CannotRename(msg)
    if new in labels:
        msg = f"{new!r} is a class already; two classes cannot be made one, only renamed to a free name"
        raise CannotRename(msg)
    if names.of(new) not in {new, old}:
        msg = f"{new!r} is a former name of {names.of(new)!r}, under which its labels may still come"
        raise CannotRename(msg)
