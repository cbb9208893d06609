"""Go on from an older belief: what `rollback --continue-from champion` and `--relearn` ask for.

    ... champion ── learned ── learned = head ── branch ── learned ...
           └──── its tensors (--relearn: its positions too) ────┘

A `branch` row has the champion's tensors. Continued, it has the head's positions, labels and state of the
stream: what was learned in between is evidence that the belief does without, and the row names the windows.
Classes that came in between keep their place among the labels though the tensors do not know them yet:
`known` says which they do. Relearned, it has all of the champion but its number and the names that classes
have been given since: what lies behind the champion is read again, and closed as windows with numbers and
seeds of their own. So it is, whatever was asked for, with a champion that learning has gone back over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from posterior.snapshot import (
    IN_CHARGE,
    MERGED,
    NAMES,
    REWOUND,
    Blobs,
    Circumstance,
    Decision,
    Erasure,
    Fence,
    Ledger,
    LedgerError,
    Snapshot,
    made_one,
)
from stream.intake import at_index
from stream.relabelling import renamed
from trainers.line import (
    KNOWN,
    between,
    called_now,
    in_force,
    kept,
    known,
    names_along,
    on_top,
    renamings,
    state_behind,
)

CONTINUE: Final = "continue_from"  # in a decision: "head", "champion" or "relearn"
RELEARN: Final = "relearn"
DECISION: Final = "decision"  # in a row: hash of the line that asked for it
OF: Final = "tensors_of"  # in a row: the snapshot whose tensors it has
SKIPPED: Final = "skipped"  # in a row: the windows it does without
AGAIN: Final = "read_again"  # in a row: the windows whose records are read again


class CannotGoBack(LedgerError):
    """Learning cannot go on from that belief; nothing was written."""


def row_for(
    line: Decision,
    head: Snapshot,
    champion: Snapshot,
    history: Sequence[Snapshot],
    blobs: Blobs,
    erasures: Sequence[Erasure],
) -> Snapshot:
    """Return the row that carries a decision out: a function of the ledger and its blobs alone."""
    if not goes_back(line, history):
        row, content = branch_of(head, champion, history, line.hash), state_behind(blobs, erasures, head)
    else:
        row = rewound_to(champion, head, history, line.hash)
        content = at_index(state_behind(blobs, erasures, champion), head.index)
        for old, new in renamings(history[champion.seq + 1 :]):
            content = renamed(content, old, new)
    return replace(row, stream_state=blobs.put(content), counts=dict(json.loads(content)["counts"]))


def branch_of(head: Snapshot, champion: Snapshot, history: Sequence[Snapshot], decision: str) -> Snapshot:
    """Return the row that goes on from `champion`, a row in force, on top of `head`."""
    labels = tuple(map(names_along(history[champion.seq + 1 :]).of, champion.labels))
    if head.labels[: len(labels)] != labels:
        msg = (
            f"chain {head.chain}: cannot go on from {champion.sha[:12]} at the head: it knows the classes "
            f"{list(labels)}, and those of the head begin otherwise: {list(head.labels)}. `priorflow "
            f"rollback --to {champion.sha[:12]} --relearn` goes back to it"
        )
        raise CannotGoBack(msg)
    skipped = [s.index for s in between(history, champion, head) if s.kind == "learned"]
    fewer = {} if len(known(champion)) == len(head.labels) else {KNOWN: len(known(champion))}
    told = {DECISION: decision, OF: champion.sha, SKIPPED: skipped}
    report = {**told, **kept(champion, champion.posterior), **fewer}
    return on_top(head, "branch", posterior=champion.posterior, report=report)


def rewound_to(champion: Snapshot, head: Snapshot, history: Sequence[Snapshot], decision: str) -> Snapshot:
    """Return the row that goes back to `champion` from `head`; its number is the head's, to be unique.

    Classes that were renamed since keep their new names.
    """
    since = history[champion.seq + 1 :]
    names, labels = names_along(since), called_now(champion.labels, since)
    if labels is None:
        msg = (
            f"chain {head.chain}: cannot go back to {champion.sha[:12]}: by what was renamed since, two of "
            f"its classes would have one name: {list(map(names.of, champion.labels))}. `priorflow rollback "
            f"--to {champion.sha[:12]} --continue-from head` has learning go on as it is"
        )
        raise CannotGoBack(msg)
    closed = [s.index for s in between(history, champion, head) if s.kind in {"learned", "quarantined"}]
    told = {DECISION: decision, OF: champion.sha, REWOUND: champion.sha, SKIPPED: [], AGAIN: closed}
    called = {NAMES: dict(names.present)} if names else {}
    one = {MERGED: merged} if (merged := made_one(champion.labels, labels)) else {}
    return on_top(
        head,
        "branch",
        posterior=champion.posterior,
        stream_state=champion.stream_state,
        labels=labels,
        spans=champion.spans,
        counts=champion.counts,
        report={**told, **called, **one, **kept(champion, champion.posterior)},
    )


def goes_back(line: Decision, history: Sequence[Snapshot]) -> bool:
    """Tell whether a decision has learning go on at its champion's positions, not at those of the last row.

    If it asks for that, and for a champion that is not in force whatever it asks for: the head's positions
    may lie before what that one has learned, which would then be learned twice.
    """
    standing = {row.sha for head in history[-1:] for row in in_force(history, head)}
    return line.evidence[CONTINUE] == RELEARN or line.snapshot not in standing


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
        log = self.ledger.decisions(self.fence.chain)
        if asked_for(log, ()) is None:  # spare the history
            return False
        history = self.ledger.history(self.fence.chain)
        line = asked_for(log, history)
        return line is not None and goes_back(line, history)

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
        child = row_for(line, head, found[0], history, self.blobs, self.ledger.erasures(chain))
        if REWOUND in child.report:
            self.reaches(found[0])
        unfinished = self.ledger.open_plan(chain)
        if unfinished is not None:
            self.ledger.supersede(self.fence, unfinished.sha, "learning goes on from another belief")
        self.ledger.commit(self.fence, child, self.circumstance({}))
        return child
