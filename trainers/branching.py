"""Go on from an older belief at the head's positions: what `rollback --continue-from champion` asks for.

    ... champion ── learned ── learned = head ── branch ── learned ...
           └────────── its tensors ────────────────┘

A `branch` row has the head's positions, labels and state of the stream, and the champion's tensors. What was
learned in between is evidence that the belief does without; it is not learned again, and the row names the
windows. Classes that came in between keep their place among the labels though the tensors do not know them
yet: `known` says which they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from posterior.snapshot import IN_CHARGE, Circumstance, Decision, Fence, Ledger, Snapshot

CONTINUE: Final = "continue_from"  # in a decision: "head" or "champion"
DECISION: Final = "decision"  # in a row: hash of the line that asked for it
OF: Final = "tensors_of"  # in a row: the snapshot whose tensors it has
SKIPPED: Final = "skipped"  # in a row: the windows it does without
KNOWN: Final = "known_classes"  # in a row: how many of its labels its tensors know, if not all


def known(row: Snapshot) -> tuple[str, ...]:
    """Return the labels that a row's tensors know."""
    return row.labels[: row.report.get(KNOWN, len(row.labels))]


def kept(row: Snapshot, posterior: str) -> Mapping[str, Any]:
    """Return what the report of a row's child has to say if it keeps the tensors."""
    same = KNOWN in row.report and posterior == row.posterior
    return {KNOWN: row.report[KNOWN]} if same else {}


def branch_of(head: Snapshot, champion: Snapshot, history: Sequence[Snapshot], decision: str) -> Snapshot:
    """Return the row that goes on from `champion` on top of `head`: a function of the ledger alone."""
    between = [s.index for s in history if champion.seq < s.seq <= head.seq and s.kind == "learned"]
    fewer = {} if len(champion.labels) == len(head.labels) else {KNOWN: len(champion.labels)}
    return replace(
        head,
        seq=head.seq + 1,
        kind="branch",
        parent=head.sha,
        plan=None,
        posterior=champion.posterior,
        spans_before=head.spans,
        report={DECISION: decision, OF: champion.sha, SKIPPED: between, **fewer},
        rejected=(),
    )


def asked_for(log: Sequence[Decision], history: Sequence[Snapshot]) -> Decision | None:
    """Return the decision that learning go on from the champion, if it is in force and not carried out."""
    line = next((one for one in reversed(log) if one.action in IN_CHARGE), None)
    if line is None or line.evidence.get(CONTINUE) != "champion":
        return None
    done = any(row.report.get(DECISION) == line.hash for row in history)
    return None if done else line


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Branching:
    """Carries such decisions out between two closings, under the run's fence."""

    ledger: Ledger
    fence: Fence
    circumstance: Callable[[Mapping[str, float]], Circumstance]

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
        unfinished = self.ledger.open_plan(chain)
        if unfinished is not None:
            self.ledger.supersede(self.fence, unfinished.sha, "learning goes on from another belief")
        child = branch_of(head, found[0], history, line.hash)
        self.ledger.commit(self.fence, child, self.circumstance({}))
        return child
