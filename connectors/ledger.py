"""The ledger on SQLite or PostgreSQL: the one place where a window becomes learned.

Every write opens a transaction, takes the chain's row, compares the fence's epoch with the row's,
and only then writes; the head moves by UPDATE ... WHERE head = parent AND epoch = ours. A call that
ended in LedgerUnavailable may have been carried out or not: made again with the same arguments, it
finds its own row and returns (only `decide` would append a second line).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, final

from sqlalchemy import Connection, Engine, RowMapping, select

from connectors import ledger_rows as rows
from connectors import ledger_writes as writes
from connectors.admission import (
    check_begin,
    check_blobs,
    check_erased,
    check_lineage,
    check_prefix,
    check_same,
    damaged,
)
from connectors.crash import Crash, live
from connectors.decision_log import next_decision
from connectors.lease import held, is_gone, shown
from connectors.ledger_engine import WRITES, clock, insert_new, open_engine, translated
from connectors.ledger_schema import chains, outbox
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
    LedgerUnavailable,
    OutboxRow,
    PlanRow,
    Snapshot,
)

IDLE_S: Final = 10.0
BUSY_S: Final = 20.0


def open_ledger(
    url: str,
    blobs: Blobs,
    *,
    idle_s: float = IDLE_S,
    busy_s: float = BUSY_S,
    read_only: bool = False,
    migrates: bool = True,
    crash: Crash = live,
) -> SqlLedger:
    """Open the ledger at `url` (sqlite:///FILE or postgresql://...), creating its tables if new.

    `idle_s` bounds a session asleep inside a transaction (PostgreSQL), `busy_s` waiting for a lock. One
    that is only read, or not to be migrated, is left as it is: LedgerError if it is of an older release.
    """
    engine = open_engine(url, idle_s=idle_s, busy_s=busy_s, read_only=read_only, migrates=migrates)
    return SqlLedger(engine, blobs, read_only=read_only, crash=crash)


@final
class SqlLedger:
    """A `Ledger` in a database that SQLAlchemy reaches; safe to share between threads.

    Steps for `crash`: before-plan, after-plan, before-ledger-commit (no lock is held yet),
    in-ledger-commit (all is written, nothing committed), after-ledger-commit.
    """

    def __init__(self, engine: Engine, blobs: Blobs, *, read_only: bool = False, crash: Crash = live) -> None:
        self._engine = engine
        self._read_only = read_only
        self._blobs = blobs
        self._crash = crash
        self._store = engine.url.render_as_string(hide_password=True)

    def create(self, chain: Chain) -> None:
        """Create the chain; the same again is a no-op, another seed or settings is LedgerError."""
        with self._write() as connection:
            insert_new(
                connection,
                chains,
                name=chain.name,
                seed=chain.seed,
                settings=rows.as_text(chain.settings),
                origin=chain.origin,
                epoch=0,
            )
            check_same(chain, rows.as_chain(rows.locked_chain(connection, chain.name)))

    def chain(self, name: str) -> Chain | None:
        """Return the chain, or None."""
        with self._read() as connection:
            return next(iter(rows.all_chains(connection, name)), None)

    def chains(self) -> Sequence[Chain]:
        """Return all chains by name."""
        with self._read() as connection:
            return rows.all_chains(connection)

    def acquire(self, chain: str, *, owner: str, ttl_s: float, takeover: bool = False) -> Fence:
        """Take the chain by a lease on the database's clock; LeaseHeld names the live owner.

        The lease of an owner that has certainly died (see `lease.is_gone`) is free at once.
        """
        try:
            return self._take(chain, owner, ttl_s, takeover=takeover)
        except LedgerUnavailable as locked:
            raise self._blocked(chain, locked) from locked

    def renew(self, fence: Fence, *, ttl_s: float) -> None:
        """Prolong the lease; Fenced if it has passed to another."""
        end = clock(self._engine) + round(ttl_s * 1000)
        with self._fenced(fence) as (connection, _):
            connection.execute(writes.held_by(fence).values(expires_ms=end))

    def release(self, fence: Fence) -> None:
        """Let go at once and end our epoch; a no-op when already fenced."""
        nobody = {"epoch": fence.epoch + 1, "owner": None, "expires_ms": None}
        with self._write() as connection:
            connection.execute(writes.held_by(fence).values(nobody))

    def begin(self, fence: Fence, plan: PlanRow) -> None:
        """Write an open plan on top of the head; at most one is open per chain."""
        self._crash("before-plan")
        with self._fenced(fence) as (connection, chain):
            open_plan = rows.find_open_plan(connection, fence.chain)
            if open_plan is None or open_plan.sha != plan.sha:
                check_begin(plan, fence.chain, chain["head"], open_plan)
                writes.insert_plan(connection, fence, plan)
        self._crash("after-plan")

    def open_plan(self, chain: str) -> PlanRow | None:
        """Return the unfinished plan, or None."""
        with self._read() as connection:
            return rows.find_open_plan(connection, chain)

    def plan(self, chain: str, sha: str) -> PlanRow | None:
        """Return a plan of a chain by its sha, whatever became of it."""
        with self._read() as connection:
            return rows.find_plan(connection, chain, sha)

    def supersede(self, fence: Fence, plan: str, reason: str) -> None:
        """Close an open plan unlearned, with the reason; one already superseded stays so."""
        with self._fenced(fence) as (connection, _):
            if not writes.close_plan(connection, fence.chain, plan, "superseded", reason):
                status = rows.plan_status(connection, fence.chain, plan)
                if status != "superseded":
                    message = f"chain {fence.chain}: plan {plan} is {status or 'unknown'}, not open"
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
        """Advance the head by one row in one transaction: row, head, plan done, outbox, erasures."""
        check_blobs(snapshot, self._blobs)
        check_erased(snapshot, erased, self._blobs)
        self._crash("before-ledger-commit")
        with self._fenced(fence) as (connection, chain):
            if chain["head"] == snapshot.sha:
                return  # this very call was carried out, and its answer lost
            writes.admit(connection, chain, snapshot)
            writes.advance(connection, fence, snapshot.sha, chain["head"])
            writes.insert_snapshot(connection, fence, snapshot, circumstance)
            if snapshot.plan is not None:
                writes.close_plan(connection, fence.chain, snapshot.plan, "done")
            writes.post(connection, snapshot.sha, publish)
            writes.insert_erasures(connection, erased)
            self._crash("in-ledger-commit")
        self._crash("after-ledger-commit")

    def head(self, chain: str) -> Snapshot | None:
        """Return the newest snapshot, or None; LedgerCorrupt, with the way out, if it is damaged."""
        with self._read() as connection:
            row = rows.newest_row(connection, chain)
            erased = rows.all_erasures(connection, chain) if row else ()
        try:
            return self._verified(row, erased) if row else None
        except LedgerCorrupt as broken:
            raise damaged(chain, broken) from broken

    def truncate(self, fence: Fence, reason: str) -> Sequence[str]:
        """Set aside, newest first, the rows above the newest one that verifies; name them."""
        with self._fenced(fence) as (connection, chain):
            bad: list[RowMapping] = []
            erased = rows.all_erasures(connection, fence.chain)
            for row in connection.execute(rows.live_rows(fence.chain, newest_first=True)).mappings():
                if self._verifies(row, erased):
                    break
                bad.append(row)
            if bad:
                self._discard(connection, fence, chain, bad, reason)
        return [row["sha"] for row in bad]

    def snapshot(self, sha: str) -> tuple[Snapshot, Circumstance] | None:
        """Return a snapshot by sha (or unique prefix of at least 6 characters)."""
        check_prefix(sha)
        with self._read() as connection:
            row = rows.named_row(connection, sha)
        return (rows.as_snapshot(row), rows.as_circumstance(row)) if row else None

    def history(self, chain: str) -> Sequence[Snapshot]:
        """Return the chain from root to head; LedgerCorrupt if a row was altered or removed."""
        with self._read() as connection:
            found = connection.execute(rows.live_rows(chain)).mappings().all()
        line = [rows.as_snapshot(row) for row in found]
        check_lineage(line)
        return line

    def erasures(self, chain: str) -> Sequence[Erasure]:
        """Return what was erased from a chain, oldest first."""
        with self._read() as connection:
            return rows.all_erasures(connection, chain)

    def add_floors(self, fence: Fence, floors: Sequence[tuple[str, int, int, int]]) -> None:
        """Record floors (topic, partition, at_offset, floor_ms) before they take effect."""
        with self._fenced(fence) as (connection, _):
            writes.insert_floors(connection, fence, floors)

    def floors(self, chain: str) -> Sequence[FloorRow]:
        """Return all floors of a chain, oldest first."""
        with self._read() as connection:
            return rows.all_floors(connection, chain)

    def backlog(self, target: str, *, limit: int = 100) -> Sequence[OutboxRow]:
        """Return unpublished outbox rows, oldest first."""
        with self._read() as connection:
            return rows.unpublished(connection, target, limit)

    def published(self, sha: str, target: str, reference: str) -> None:
        """Mark as published (idempotent)."""
        with self._write() as connection:
            writes.mark_published(connection, sha, target, reference)

    def reached(self, name: str, target: str, place: int) -> None:
        """Note how far `target` is with something, by number; never moves back, whoever comes late."""
        with self._write() as connection:
            writes.mark_reached(connection, name, target, place)

    def publish_failed(self, sha: str, target: str, error: str) -> None:
        """Count a failed attempt and keep its error."""
        with self._write() as connection:
            writes.mark_failed(connection, sha, target, error)

    def posted(self, sha: str, target: str) -> OutboxRow | None:
        """Return the outbox row of this name for `target`, published or not; None if there is none."""
        with self._read() as connection:
            return rows.outbox_row(connection, sha, target)

    def posts(self, sha: str) -> Sequence[OutboxRow]:
        """Return all outbox rows of this name, whatever their target, oldest first."""
        with self._read() as connection:
            return rows.outbox_rows(connection, sha)

    def reference(self, sha: str, target: str) -> str | None:
        """Return what a snapshot is called in `target`, or None when not yet published."""
        one = select(outbox.c.reference).where(outbox.c.sha == sha, outbox.c.target == target)
        with self._read() as connection:
            return connection.execute(one).scalar()

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
        with self._write() as connection:
            rows.locked_chain(connection, chain)
            if not writes.knows(connection, snapshot):
                message = f"chain {chain}: cannot {action} {snapshot}: there is no such snapshot"
                raise LedgerError(message)
            line = next_decision(
                rows.decision_log(connection, chain),
                chain=chain,
                at_ms=at_ms,
                actor=actor,
                action=action,
                snapshot=snapshot,
                evidence=evidence,
                after=after,
            )
            writes.insert_decision(connection, line)
        return line

    def decided(self, chain: str) -> int:
        """Return how many lines the decision log has."""
        with self._read() as connection:
            return rows.decision_count(connection, chain)

    def decisions(self, chain: str, *, since: int = 0) -> Sequence[Decision]:
        """Return the decision log from a line on, oldest first; raises LedgerCorrupt if it does not chain."""
        with self._read() as connection:
            return rows.decision_log(connection, chain, since)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _take(self, chain: str, owner: str, ttl_s: float, *, takeover: bool) -> Fence:
        now = clock(self._engine)
        with self._write() as connection:
            row = rows.locked_chain(connection, chain)
            before = Fence(chain, row["epoch"], row["owner"] or "")
            left = (row["expires_ms"] or 0) - connection.execute(select(now)).scalar_one()
            if before.owner and left > 0 and not takeover and not is_gone(before.owner):
                raise held(chain, before.owner, left)
            fence = Fence(chain, before.epoch + 1, owner)
            ours = {"epoch": fence.epoch, "owner": owner, "expires_ms": now + round(ttl_s * 1000)}
            connection.execute(writes.held_by(before).values(ours))
        return fence

    def _blocked(self, chain: str, locked: LedgerUnavailable) -> LedgerUnavailable:
        """Name the owner that may be holding a lock; in a WAL its lease can still be read."""
        with self._read() as connection:
            owner = rows.owner_of(connection, chain)
        suspect = f"{shown(owner)} owns the chain: if it is frozen, end it" if owner else "try again"
        return LedgerUnavailable(f"{locked}; {suspect}")

    def _verified(self, row: RowMapping, erased: Sequence[Erasure]) -> Snapshot:
        snapshot = rows.as_snapshot(row)
        check_blobs(snapshot, self._blobs, erased)
        return snapshot

    def _verifies(self, row: RowMapping, erased: Sequence[Erasure]) -> bool:
        try:
            self._verified(row, erased)
        except LedgerCorrupt:
            return False
        return True

    def _discard(
        self,
        connection: Connection,
        fence: Fence,
        chain: RowMapping,
        bad: Sequence[RowMapping],
        reason: str,
    ) -> None:
        writes.discard(connection, bad, reason)
        kept = rows.newest_row(connection, fence.chain)
        writes.advance(connection, fence, kept["sha"] if kept else None, chain["head"])
        open_plan = rows.find_open_plan(connection, fence.chain)
        if open_plan is not None:
            writes.close_plan(connection, fence.chain, open_plan.sha, "superseded", reason)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with translated(self._store), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if self._read_only:
            message = f"ledger {self._store} was opened to be read; nothing was written"
            raise LedgerError(message)
        writer = self._engine.execution_options(**{WRITES: True})
        with translated(self._store), writer.begin() as connection:
            yield connection

    @contextmanager
    def _fenced(self, fence: Fence) -> Iterator[tuple[Connection, RowMapping]]:
        """Open a write that holds the chain's row and has found our epoch on it."""
        with self._write() as connection:
            row = rows.locked_chain(connection, fence.chain)
            writes.check_fence(fence, row)
            yield connection, row
