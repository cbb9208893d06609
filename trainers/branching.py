"""Go on from an older belief: what `rollback --continue-from champion` and `--relearn` ask for.

    ... champion ── learned ── learned = head ── branch ── learned ...
           └──── its tensors (--relearn: its positions too) ────┘

A `branch` row has the champion's tensors. Continued, it has the head's positions, labels and state of the
stream: what was learned in between is evidence that the belief does without, and the row names the windows.
Classes that came in between keep their place among the labels though the tensors do not know them yet:
`known` says which they do. Relearned, it has all of the champion but its number: what lies behind the
champion is read again, and closed as windows with numbers and seeds of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from posterior.snapshot import IN_CHARGE, REWOUND, Blobs, Circumstance, Decision, Fence, Ledger, Snapshot
from stream.intake import at_index

CONTINUE: Final = "continue_from"  # in a decision: "head", "champion" or "relearn"
RELEARN: Final = "relearn"
DECISION: Final = "decision"  # in a row: hash of the line that asked for it
OF: Final = "tensors_of"  # in a row: the snapshot whose tensors it has
SKIPPED: Final = "skipped"  # in a row: the windows it does without
AGAIN: Final = "read_again"  # in a row: the windows whose records are read again
KNOWN: Final = "known_classes"  # in a row: how many of its labels its tensors know, if not all


def known(row: Snapshot) -> tuple[str, ...]:
    """Return the labels that a row's tensors know."""
    return row.labels[: row.report.get(KNOWN, len(row.labels))]


def kept(row: Snapshot, posterior: str) -> Mapping[str, Any]:
    """Return what the report of a row's child has to say if it keeps the tensors."""
    same = KNOWN in row.report and posterior == row.posterior
    return {KNOWN: row.report[KNOWN]} if same else {}


def in_force(history: Sequence[Snapshot], head: Snapshot) -> list[Snapshot]:
    """Return the rows whose evidence lies behind the head's positions, oldest first.

    That is the chain without the stretches that were gone back over: along it each record counts once.
    """
    known_rows, line = {row.sha: row for row in history}, list[Snapshot]()
    row: Snapshot | None = head
    while row is not None:
        line.append(row)
        row = known_rows.get(row.report.get(REWOUND) or row.parent or "")
    return line[::-1]


def between(history: Sequence[Snapshot], champion: Snapshot, head: Snapshot) -> list[Snapshot]:
    """Return the rows in force at the head that are not so at the champion."""
    before = {row.sha for row in in_force(history, champion)}
    return [row for row in in_force(history, head) if row.sha not in before]


def row_for(
    line: Decision, head: Snapshot, champion: Snapshot, history: Sequence[Snapshot], blobs: Blobs
) -> Snapshot:
    """Return the row that carries a decision out: a function of the ledger and its blobs alone."""
    if line.evidence[CONTINUE] != RELEARN:
        return branch_of(head, champion, history, line.hash)
    state = blobs.put(at_index(blobs.get(champion.stream_state), head.index))
    return rewound_to(champion, head, history, line.hash, state)


def branch_of(head: Snapshot, champion: Snapshot, history: Sequence[Snapshot], decision: str) -> Snapshot:
    """Return the row that goes on from `champion` on top of `head`."""
    skipped = [s.index for s in between(history, champion, head) if s.kind == "learned"]
    fewer = {} if len(champion.labels) == len(head.labels) else {KNOWN: len(champion.labels)}
    return replace(
        head,
        seq=head.seq + 1,
        kind="branch",
        parent=head.sha,
        plan=None,
        posterior=champion.posterior,
        spans_before=head.spans,
        report={DECISION: decision, OF: champion.sha, SKIPPED: skipped, **fewer},
        rejected=(),
    )


def rewound_to(
    champion: Snapshot, head: Snapshot, history: Sequence[Snapshot], decision: str, stream_state: str
) -> Snapshot:
    """Return the row that goes back to `champion` from `head`; its number is the head's, to be unique."""
    closed = [s.index for s in between(history, champion, head) if s.kind in {"learned", "quarantined"}]
    told = {DECISION: decision, OF: champion.sha, REWOUND: champion.sha, SKIPPED: [], AGAIN: closed}
    return replace(
        champion,
        seq=head.seq + 1,
        index=head.index,
        kind="branch",
        parent=head.sha,
        plan=None,
        stream_state=stream_state,
        spans_before=head.spans,
        report={**told, **kept(champion, champion.posterior)},
        rejected=(),
    )


def asked_for(log: Sequence[Decision], history: Sequence[Snapshot]) -> Decision | None:
    """Return the decision that learning go on from elsewhere, if it is in force and not carried out."""
    line = next((one for one in reversed(log) if one.action in IN_CHARGE), None)
    if line is None or line.evidence.get(CONTINUE, "head") == "head":
        return None
    done = any(row.report.get(DECISION) == line.hash for row in history)
    return None if done else line


@final
@dataclass(slots=True, kw_only=True)
class Branching:
    """Carries such decisions out between two closings, under the run's fence.

    `reaches` raises SourceLost unless the log can be read from behind a row: nothing is committed then.
    """

    ledger: Ledger
    blobs: Blobs
    fence: Fence
    circumstance: Callable[[Mapping[str, float]], Circumstance]
    reaches: Callable[[Snapshot], None]
    _looked: int = -1  # lines of the log when nothing was closing

    def in_silence(self) -> bool:
        """Tell whether somebody asks to go back, which waits for no window; cheap while nobody decides."""
        lines = self.ledger.decided(self.fence.chain)
        if lines == self._looked:
            return False
        self._looked = lines
        line = asked_for(self.ledger.decisions(self.fence.chain), ())
        return line is not None and line.evidence[CONTINUE] == RELEARN

    def after(self, head: Snapshot) -> Snapshot | None:
        """Commit a branch if one is asked for, and return it; None as a rule.

        A champion that is not there (a repaired chain has yet to learn it again) is waited for.
        """
        chain = self.fence.chain
        log = self.ledger.decisions(chain)
        if asked_for(log, ()) is None:  # spare the history
            return None
        history = self.ledger.history(chain)
        line = asked_for(log, history)
        found = None if line is None else self.ledger.snapshot(line.snapshot)
        if line is None or found is None:
            return None
        child = row_for(line, head, found[0], history, self.blobs)
        if REWOUND in child.report:
            self.reaches(found[0])
        unfinished = self.ledger.open_plan(chain)
        if unfinished is not None:
            self.ledger.supersede(self.fence, unfinished.sha, "learning goes on from another belief")
        self.ledger.commit(self.fence, child, self.circumstance({}))
        return child
