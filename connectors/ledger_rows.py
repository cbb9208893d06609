"""Rows of the ledger's tables, found and turned into values; all on the caller's connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, func, select

from connectors.admission import the_one
from connectors.decision_log import check_log
from connectors.ledger_schema import chains, decisions, erasures, floors, outbox, plans, snapshots
from connectors.manifest import read_manifest
from posterior.snapshot import (
    Chain,
    Circumstance,
    Decision,
    Erasure,
    FloorRow,
    LedgerCorrupt,
    LedgerError,
    OutboxRow,
    PlanRow,
    Snapshot,
)
from stream.plan import canonical_json

WHOLE: Final = 64  # characters of a sha
LIVE: Final = snapshots.c.discarded.is_(None)


def as_text(value: object) -> str:
    """Write JSON the one way that the ledger keeps it."""
    return canonical_json(value).decode()


def locked_chain(connection: Connection, name: str) -> RowMapping:
    """Return the chain's row and hold it for this transaction (SQLite already holds the file)."""
    row = connection.execute(select(chains).where(chains.c.name == name).with_for_update()).mappings()
    found = row.first()
    if found is None:
        message = f"there is no chain {name} in this ledger; create it first"
        raise LedgerError(message)
    return found


def owner_of(connection: Connection, chain: str) -> str | None:
    """Return who holds the chain's lease, live or expired."""
    return connection.execute(select(chains.c.owner).where(chains.c.name == chain)).scalar()


def all_chains(connection: Connection, *only: str) -> Sequence[Chain]:
    """Return all chains by name, or only those named."""
    rows = select(chains).order_by(chains.c.name)
    if only:
        rows = rows.where(chains.c.name.in_(only))
    return [as_chain(row) for row in connection.execute(rows).mappings()]


def as_chain(row: RowMapping) -> Chain:
    """Read a chain."""
    return Chain(
        name=row["name"],
        seed=row["seed"],
        settings=json.loads(row["settings"]),
        origin=row["origin"],
    )


def find_open_plan(connection: Connection, chain: str) -> PlanRow | None:
    """Return the one open plan of a chain, if any."""
    one = select(plans).where(plans.c.chain == chain, plans.c.status == "open")
    row = connection.execute(one).mappings().first()
    return _plan(row) if row else None


def find_plan(connection: Connection, chain: str, sha: str) -> PlanRow | None:
    """Return the newest plan of that sha."""
    known = select(plans).where(plans.c.chain == chain, plans.c.sha == sha)
    row = connection.execute(known.order_by(plans.c.id.desc())).mappings().first()
    return _plan(row) if row else None


def plan_status(connection: Connection, chain: str, sha: str) -> str | None:
    """Return the status of the newest plan of that sha."""
    known = select(plans.c.status).where(plans.c.chain == chain, plans.c.sha == sha)
    return connection.execute(known.order_by(plans.c.id.desc())).scalars().first()


def _plan(row: RowMapping) -> PlanRow:
    return PlanRow(
        sha=row["sha"],
        chain=row["chain"],
        index=row["idx"],
        parent=row["parent"],
        content=json.loads(row["content"]),
        status=row["status"],
        reason=row["reason"],
    )


def live_rows(chain: str, *, newest_first: bool = False) -> Select[Any]:
    """Select a chain's rows that were not set aside."""
    order = snapshots.c.seq.desc() if newest_first else snapshots.c.seq
    return select(snapshots).where(snapshots.c.chain == chain, LIVE).order_by(order)


def newest_row(connection: Connection, chain: str) -> RowMapping | None:
    """Return the row that is head."""
    return connection.execute(live_rows(chain, newest_first=True).limit(1)).mappings().first()


def named_row(connection: Connection, prefix: str) -> RowMapping | None:
    """Return the row whose sha begins so; LedgerError if there are several."""
    sha = snapshots.c.sha  # a whole one is found by its index; a prefix is looked for in every row
    same = sha == prefix if len(prefix) == WHOLE else sha.startswith(prefix, autoescape=True)
    named = select(snapshots).where(LIVE, same)
    return the_one(prefix, connection.execute(named.limit(2)).mappings().all())


def as_snapshot(row: RowMapping) -> Snapshot:
    """Read a snapshot, checked against its sha."""
    return read_manifest(row["manifest"], row["sha"])


def as_circumstance(row: RowMapping) -> Circumstance:
    """Read what was true of the run."""
    return Circumstance(**json.loads(row["circumstance"]))


def all_floors(connection: Connection, chain: str) -> Sequence[FloorRow]:
    """Return a chain's floors in the order in which they were written."""
    rows = connection.execute(
        select(floors.c.topic, floors.c.partition, floors.c.at_offset, floors.c.floor_ms)
        .where(floors.c.chain == chain)
        .order_by(floors.c.id)
    )
    return [FloorRow(seq, *row) for seq, row in enumerate(rows)]


def all_erasures(connection: Connection, chain: str) -> Sequence[Erasure]:
    """Return what was erased from a chain, oldest first."""
    names = ("chain", "what", "instead", "row", "seq")
    rows = select(erasures).where(erasures.c.chain == chain).order_by(erasures.c.id)
    found = connection.execute(rows).mappings()
    return [Erasure(**{name: row[name] for name in names}) for row in found]


def unpublished(connection: Connection, target: str, limit: int) -> Sequence[OutboxRow]:
    """Return outbox rows without a reference whose snapshot still stands, oldest first."""
    rows = (
        select(outbox)
        .join(snapshots, snapshots.c.sha == outbox.c.sha)
        .where(outbox.c.target == target, outbox.c.reference.is_(None), LIVE)
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [_outbox(row) for row in connection.execute(rows).mappings()]


def outbox_row(connection: Connection, sha: str, target: str) -> OutboxRow | None:
    """Return the outbox row of this name and target."""
    one = select(outbox).where(outbox.c.sha == sha, outbox.c.target == target)
    row = connection.execute(one).mappings().first()
    return _outbox(row) if row else None


def outbox_rows(connection: Connection, sha: str) -> Sequence[OutboxRow]:
    """Return the outbox rows of this name for any target, oldest first."""
    rows = select(outbox).where(outbox.c.sha == sha).order_by(outbox.c.id)
    return [_outbox(row) for row in connection.execute(rows).mappings()]


def _outbox(row: RowMapping) -> OutboxRow:
    names = ("sha", "target", "attempts", "reference", "error")
    return OutboxRow(**{name: row[name] for name in names})


def decision_log(connection: Connection, chain: str, since: int = 0) -> Sequence[Decision]:
    """Return the decision log from a line on, checked from there."""
    behind = decisions.c.chain == chain, decisions.c.seq >= since
    lines = select(decisions).where(*behind).order_by(decisions.c.seq)
    log = [_decision(row) for row in connection.execute(lines).mappings()]
    check_log(log, since)
    return log


def decision_count(connection: Connection, chain: str) -> int:
    """Return how many lines the decision log has."""
    lines = select(func.count()).select_from(decisions).where(decisions.c.chain == chain)
    return int(connection.execute(lines).scalar_one())


def _decision(row: RowMapping) -> Decision:
    try:
        evidence = json.loads(row["evidence"])
    except ValueError as broken:
        message = f"chain {row['chain']}: decision {row['seq']} cannot be read: {broken}"
        raise LedgerCorrupt(message) from broken
    return Decision(**{**row, "evidence": evidence})
