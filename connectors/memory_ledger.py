"""The ledger in memory: the same laws as the durable one, gone with the process.

A real implementation for fast tests and what-if runs, not a mock: it is held to the contract suite of
the SQL ledger. Time is a parameter, so leases can be tested without waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Literal, final

from connectors.admission import (
    check_begin,
    check_blobs,
    check_commit,
    check_erased,
    check_lineage,
    check_plan,
    check_prefix,
    check_same,
    damaged,
    rewound,
    the_one,
)
from connectors.crash import Crash, live
from connectors.decision_log import next_decision
from connectors.lease import fenced, held, is_gone
from posterior.snapshot import (
    Action,
    Blobs,
    Chain,
    Circumstance,
    Decision,
    Erasure,
    Fence,
    FloorRow,
    Json,
    LedgerCorrupt,
    LedgerError,
    OutboxRow,
    PlanRow,
    Snapshot,
)


@dataclass(slots=True)
class _Line:
    """Everything about one chain."""

    chain: Chain
    epoch: int = 0
    owner: str | None = None
    expires_s: float = 0.0
    rows: list[Snapshot] = field(default_factory=list)
    plans: list[PlanRow] = field(default_factory=list)
    floors: list[tuple[str, int, int, int]] = field(default_factory=list)
    log: list[Decision] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)

    def head(self) -> Snapshot | None:
        return self.rows[-1] if self.rows else None

    def open_plan(self) -> PlanRow | None:
        return next((plan for plan in self.plans if plan.status == "open"), None)

    def close(self, sha: str, status: Literal["done", "superseded"], reason: str | None = None) -> bool:
        """Close the open plan of that sha; False if there is none."""
        for place, plan in enumerate(self.plans):
            if plan.sha == sha and plan.status == "open":
                self.plans[place] = replace(plan, status=status, reason=reason)
                return True
        return False


@final
class MemoryLedger:
    """A `Ledger` in this process; safe to share between threads. Steps for `crash` as in SQL."""

    def __init__(
        self,
        blobs: Blobs,
        *,
        now_s: Callable[[], float] = time.monotonic,
        crash: Crash = live,
    ) -> None:
        self._blobs = blobs
        self._now_s = now_s
        self._crash = crash
        self._lock = RLock()
        self._lines: dict[str, _Line] = {}
        self._standing: dict[str, tuple[Snapshot, Circumstance]] = {}
        self._outbox: dict[tuple[str, str], OutboxRow] = {}

    def create(self, chain: Chain) -> None:
        """Create the chain; the same again is a no-op, another seed or settings is LedgerError."""
        with self._lock:
            check_same(chain, self._lines.setdefault(chain.name, _Line(chain)).chain)

    def chain(self, name: str) -> Chain | None:
        """Return the chain, or None."""
        line = self._lines.get(name)
        return line.chain if line else None

    def chains(self) -> Sequence[Chain]:
        """Return all chains by name."""
        return [self._lines[name].chain for name in sorted(self._lines)]

    def acquire(self, chain: str, *, owner: str, ttl_s: float, takeover: bool = False) -> Fence:
        """Take the chain by a lease; LeaseHeld names the live owner."""
        with self._lock:
            line = self._line(chain)
            left = line.expires_s - self._now_s()
            if line.owner and left > 0 and not takeover and not is_gone(line.owner):
                raise held(chain, line.owner, round(left * 1000))
            line.epoch, line.owner = line.epoch + 1, owner
            line.expires_s = self._now_s() + ttl_s
            return Fence(chain, line.epoch, owner)

    def renew(self, fence: Fence, *, ttl_s: float) -> None:
        """Prolong the lease; Fenced if it has passed to another."""
        with self._lock:
            self._fenced(fence).expires_s = self._now_s() + ttl_s

    def release(self, fence: Fence) -> None:
        """Let go at once and end our epoch; a no-op when already fenced."""
        with self._lock:
            line = self._line(fence.chain)
            if line.epoch == fence.epoch:
                line.epoch, line.owner = line.epoch + 1, None

    def begin(self, fence: Fence, plan: PlanRow) -> None:
        """Write an open plan on top of the head; at most one is open per chain."""
        self._crash("before-plan")
        with self._lock:
            line = self._fenced(fence)
            open_plan, head = line.open_plan(), line.head()
            if open_plan is None or open_plan.sha != plan.sha:
                check_begin(plan, fence.chain, head.sha if head else None, open_plan)
                line.plans.append(plan)
        self._crash("after-plan")

    def open_plan(self, chain: str) -> PlanRow | None:
        """Return the unfinished plan, or None."""
        line = self._lines.get(chain)
        return line.open_plan() if line else None

    def plan(self, chain: str, sha: str) -> PlanRow | None:
        """Return a plan of a chain by its sha, whatever became of it."""
        line = self._lines.get(chain)
        return next((p for p in reversed(line.plans) if p.sha == sha), None) if line else None

    def supersede(self, fence: Fence, plan: str, reason: str) -> None:
        """Close an open plan unlearned, with the reason; one already superseded stays so."""
        with self._lock:
            line = self._fenced(fence)
            if not line.close(plan, "superseded", reason):
                known = [p.status for p in line.plans if p.sha == plan]
                if known[-1:] != ["superseded"]:
                    message = f"chain {fence.chain}: plan {plan} is not open"
                    raise LedgerCorrupt(message)

    def commit(
        self,
        fence: Fence,
        snapshot: Snapshot,
        circumstance: Circumstance,
        *,
        publish: Sequence[str] = (),
        erased: Sequence[Erasure] = (),
    ) -> None:
        """Advance the head by one row: row, head, plan done, outbox, erasures, all or nothing."""
        check_blobs(snapshot, self._blobs)
        check_erased(snapshot, erased, self._blobs)
        self._crash("before-ledger-commit")
        with self._lock:
            line = self._fenced(fence)
            head = line.head()
            if head is not None and head.sha == snapshot.sha:
                return
            self._admit(line, snapshot)
            self._crash("in-ledger-commit")
            line.rows.append(snapshot)
            self._standing[snapshot.sha] = (snapshot, circumstance)
            if snapshot.plan is not None:
                line.close(snapshot.plan, "done")
            for target in publish:
                self._post(snapshot.sha, target)
            known = {one.what for one in line.erasures}
            line.erasures.extend(one for one in erased if one.what not in known)
        self._crash("after-ledger-commit")

    def head(self, chain: str) -> Snapshot | None:
        """Return the newest snapshot, or None; LedgerCorrupt, with the way out, if it is damaged."""
        line = self._lines.get(chain)
        head = line.head() if line else None
        try:
            if line is not None and head is not None:
                check_blobs(head, self._blobs, line.erasures)
        except LedgerCorrupt as broken:
            raise damaged(chain, broken) from broken
        return head

    def truncate(self, fence: Fence, reason: str) -> Sequence[str]:
        """Set aside, newest first, the rows above the newest one that verifies; name them."""
        discarded: list[str] = []
        with self._lock:
            line = self._fenced(fence)
            while line.rows and not self._verifies(line.rows[-1], line.erasures):
                discarded.append(line.rows.pop().sha)
                del self._standing[discarded[-1]]
            open_plan = line.open_plan()
            if discarded and open_plan is not None:
                line.close(open_plan.sha, "superseded", reason)
        return discarded

    def snapshot(self, sha: str) -> tuple[Snapshot, Circumstance] | None:
        """Return a snapshot by sha (or unique prefix of at least 6 characters)."""
        check_prefix(sha)
        found = [entry for name, entry in list(self._standing.items()) if name.startswith(sha)]
        return the_one(sha, found)

    def history(self, chain: str) -> Sequence[Snapshot]:
        """Return the chain from root to head."""
        line = self._lines.get(chain)
        rows = list(line.rows) if line else []
        check_lineage(rows)
        return rows

    def erasures(self, chain: str) -> Sequence[Erasure]:
        """Return what was erased from a chain, oldest first."""
        line = self._lines.get(chain)
        return list(line.erasures) if line else []

    def add_floors(self, fence: Fence, floors: Sequence[tuple[str, int, int, int]]) -> None:
        """Record floors (topic, partition, at_offset, floor_ms) before they take effect."""
        with self._lock:
            line = self._fenced(fence)
            line.floors.extend(dict.fromkeys(f for f in floors if f not in line.floors))

    def floors(self, chain: str) -> Sequence[FloorRow]:
        """Return all floors of a chain, oldest first."""
        line = self._lines.get(chain)
        return [FloorRow(seq, *row) for seq, row in enumerate(line.floors if line else ())]

    def backlog(self, target: str, *, limit: int = 100) -> Sequence[OutboxRow]:
        """Return unpublished outbox rows, oldest first."""
        with self._lock:
            waiting = [
                row
                for row in self._outbox.values()
                if row.target == target and row.reference is None and row.sha in self._standing
            ]
        return waiting[:limit]

    def published(self, sha: str, target: str, reference: str) -> None:
        """Mark as published (idempotent)."""
        with self._lock:
            row = self._post(sha, target)
            self._outbox[sha, target] = replace(row, reference=reference, error=None)

    def reached(self, name: str, target: str, place: int) -> None:
        """Note how far `target` is with something, by number; never moves back, whoever comes late."""
        with self._lock:
            row = self._post(name, target)
            if row.reference is None or int(row.reference) < place:
                self._outbox[name, target] = replace(row, reference=str(place), error=None)

    def publish_failed(self, sha: str, target: str, error: str) -> None:
        """Count a failed attempt and keep its error."""
        with self._lock:
            row = self._outbox.get((sha, target))
            if row is not None:
                failed = replace(row, attempts=row.attempts + 1, error=error)
                self._outbox[sha, target] = failed

    def posted(self, sha: str, target: str) -> OutboxRow | None:
        """Return the outbox row of this name for `target`, published or not; None if there is none."""
        return self._outbox.get((sha, target))

    def posts(self, sha: str) -> Sequence[OutboxRow]:
        """Return all outbox rows of this name, whatever their target, oldest first."""
        with self._lock:
            return [row for row in self._outbox.values() if row.sha == sha]

    def reference(self, sha: str, target: str) -> str | None:
        """Return what a snapshot is called in `target`, or None when not yet published."""
        row = self._outbox.get((sha, target))
        return row.reference if row else None

    def decide(
        self,
        chain: str,
        *,
        at_ms: int,
        actor: str,
        action: Action,
        snapshot: str,
        evidence: Json,
        after: str | None = None,
    ) -> Decision:
        """Append to the decision log, after the line of this hash if one is named; needs no fence."""
        with self._lock:
            log = self._line(chain).log
            if snapshot not in self._standing:
                message = f"chain {chain}: cannot {action} {snapshot}: there is no such snapshot"
                raise LedgerError(message)
            line = next_decision(
                log,
                chain=chain,
                at_ms=at_ms,
                actor=actor,
                action=action,
                snapshot=snapshot,
                evidence=evidence,
                after=after,
            )
            log.append(line)
        return line

    def decided(self, chain: str) -> int:
        """Return how many lines the decision log has."""
        return len(self.decisions(chain))

    def decisions(self, chain: str, *, since: int = 0) -> Sequence[Decision]:
        """Return the decision log from a line on, oldest first."""
        line = self._lines.get(chain)
        return line.log[since:] if line else []

    def close(self) -> None:
        """Keep everything: memory has nothing to let go of."""

    def _line(self, chain: str) -> _Line:
        line = self._lines.get(chain)
        if line is None:
            message = f"there is no chain {chain} in this ledger; create it first"
            raise LedgerError(message)
        return line

    def _fenced(self, fence: Fence) -> _Line:
        line = self._line(fence.chain)
        if line.epoch != fence.epoch:
            raise fenced(fence, line.epoch, line.owner)
        return line

    def _admit(self, line: _Line, snapshot: Snapshot) -> None:
        origin = self._standing.get(line.chain.origin or "")
        head = line.head()
        past = self._standing.get(rewound(snapshot) or "")
        check_commit(
            snapshot,
            chain=line.chain,
            head=head,
            origin=origin[0] if origin and head is None else None,
            past=past[0] if past else None,
        )
        check_plan(snapshot, line.open_plan())

    def _verifies(self, snapshot: Snapshot, erased: Sequence[Erasure]) -> bool:
        try:
            check_blobs(snapshot, self._blobs, erased)
        except LedgerCorrupt:
            return False
        return True

    def _post(self, sha: str, target: str) -> OutboxRow:
        row = OutboxRow(sha=sha, target=target, attempts=0, reference=None, error=None)
        return self._outbox.setdefault((sha, target), row)
