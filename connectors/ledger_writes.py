"""What the ledger writes, one function per change; all on the caller's open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, Integer, RowMapping, Update, cast, func, select, update

from connectors.admission import check_commit, check_plan, rewound
from connectors.lease import fenced
from connectors.ledger_engine import insert_new
from connectors.ledger_rows import (
    LIVE,
    as_chain,
    as_snapshot,
    as_text,
    find_open_plan,
    named_row,
    newest_row,
)
from connectors.ledger_schema import chains, decisions, erasures, floors, outbox, plans, snapshots
from posterior.snapshot import (
    Circumstance,
    Decision,
    Erasure,
    Fence,
    LedgerCorrupt,
    PlanRow,
    Snapshot,
)


def held_by(fence: Fence) -> Update:
    """Update the chain's row if the fence's epoch is still its newest."""
    return update(chains).where(chains.c.name == fence.chain, chains.c.epoch == fence.epoch)


def check_fence(fence: Fence, row: RowMapping) -> None:
    """Raise Fenced unless the fence's epoch is the row's."""
    if row["epoch"] != fence.epoch:
        raise fenced(fence, row["epoch"], row["owner"])


def insert_plan(connection: Connection, fence: Fence, plan: PlanRow) -> None:
    """Write an open plan."""
    connection.execute(
        plans.insert().values(
            sha=plan.sha,
            chain=plan.chain,
            idx=plan.index,
            parent=plan.parent,
            content=as_text(plan.content),
            status="open",
            epoch=fence.epoch,
        )
    )


def close_plan(connection: Connection, chain: str, sha: str, status: str, reason: str | None = None) -> bool:
    """Close the open plan of that sha; False if there is none."""
    one = update(plans).where(plans.c.chain == chain, plans.c.sha == sha, plans.c.status == "open")
    return bool(connection.execute(one.values(status=status, reason=reason)).rowcount)


def admit(connection: Connection, chain: RowMapping, snapshot: Snapshot) -> None:
    """Check a new row against the row it stands on and the open plan."""
    known = as_chain(chain)
    newest = newest_row(connection, known.name)
    found = named_row(connection, known.origin) if known.origin and not newest else None
    back = rewound(snapshot)
    past = named_row(connection, back) if back else None
    check_commit(
        snapshot,
        chain=known,
        head=as_snapshot(newest) if newest else None,
        origin=as_snapshot(found) if found else None,
        past=as_snapshot(past) if past else None,
    )
    check_plan(snapshot, find_open_plan(connection, known.name))


def advance(connection: Connection, fence: Fence, head: str | None, before: str | None) -> None:
    """Move the head, if it is where we found it and the chain is still ours."""
    moved = held_by(fence).where(chains.c.head.is_not_distinct_from(before)).values(head=head)
    if connection.execute(moved).rowcount != 1:
        message = f"chain {fence.chain}: the head moved away from {before} under our lock"
        raise LedgerCorrupt(message)


def insert_snapshot(
    connection: Connection, fence: Fence, snapshot: Snapshot, circumstance: Circumstance
) -> None:
    """Write the row itself."""
    connection.execute(
        snapshots.insert().values(
            sha=snapshot.sha,
            chain=snapshot.chain,
            seq=snapshot.seq,
            manifest=as_text(snapshot.manifest()),
            circumstance=as_text(asdict(circumstance)),
            epoch=fence.epoch,
        )
    )


def discard(connection: Connection, rows: Sequence[RowMapping], reason: str) -> None:
    """Set rows aside, newest first; they stay in the table with the reason."""
    for row in rows:
        one = update(snapshots).where(snapshots.c.id == row["id"])
        connection.execute(one.values(discarded=reason))


def insert_floors(connection: Connection, fence: Fence, rows: Sequence[tuple[str, int, int, int]]) -> None:
    """Write the floors that are new."""
    names = ("topic", "partition", "at_offset", "floor_ms")
    for row in rows:
        values = dict(zip(names, row, strict=True))
        insert_new(connection, floors, chain=fence.chain, epoch=fence.epoch, **values)


def insert_erasures(connection: Connection, rows: Sequence[Erasure]) -> None:
    """Write what a row does away with; what was before is not written again."""
    for row in rows:
        insert_new(connection, erasures, **asdict(row))


def post(connection: Connection, sha: str, targets: Sequence[str]) -> None:
    """Put a snapshot into the outbox for each target where it is not yet."""
    for target in targets:
        insert_new(connection, outbox, sha=sha, target=target, attempts=0)


def mark_published(connection: Connection, sha: str, target: str, reference: str) -> None:
    """Keep what the snapshot is called in the target."""
    post(connection, sha, (target,))
    connection.execute(_posted(sha, target).values(reference=reference, error=None))


def mark_reached(connection: Connection, name: str, target: str, place: int) -> None:
    """Keep how far the target is, unless it is there already: one statement, so that two at once agree."""
    post(connection, name, (target,))
    behind = outbox.c.reference.is_(None) | (cast(outbox.c.reference, Integer) < place)
    connection.execute(_posted(name, target).where(behind).values(reference=str(place), error=None))


def mark_failed(connection: Connection, sha: str, target: str, error: str) -> None:
    """Count an attempt and keep why it failed."""
    failed = _posted(sha, target).values(attempts=outbox.c.attempts + 1, error=error)
    connection.execute(failed)


def knows(connection: Connection, sha: str) -> bool:
    """Tell whether a row that stands has this sha."""
    rows = select(func.count()).select_from(snapshots).where(LIVE, snapshots.c.sha == sha)
    return bool(connection.execute(rows).scalar())


def insert_decision(connection: Connection, line: Decision) -> None:
    """Append a line to the decision log."""
    values = {**asdict(line), "evidence": as_text(line.evidence)}
    connection.execute(decisions.insert().values(values))


def _posted(sha: str, target: str) -> Update:
    return update(outbox).where(outbox.c.sha == sha, outbox.c.target == target)
