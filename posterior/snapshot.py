"""A snapshot: what is believed, and exactly which evidence made it; and the ledger that keeps them.

The sha covers deterministic content only. Time, host, epoch and transport lie beside it, in `Circumstance`.

    LedgerError
    ├── LedgerUnavailable    retry: the database or blob store cannot be reached
    ├── LeaseHeld            stop: another process owns the chain (or take it over)
    ├── Fenced               stop: another owner has taken the chain; nothing of ours was written
    ├── LogMoved             look again: somebody else has decided since we looked; nothing was written
    └── LedgerCorrupt        stop: a row or blob does not verify, or positions leave a gap or overlap
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

Kind = Literal["root", "learned", "quarantined", "progress", "branch", "erased", "relabelled"]
Action = Literal["promote", "rollback", "refuse", "wait"]
IN_CHARGE: Final[tuple[Action, ...]] = ("promote", "rollback")
"""Actions that put a snapshot in charge; other lines say why nothing changed."""
REWOUND: Final = "rewound_to"
"""In a branch's report: the sha of the row of its chain whose positions it takes up again."""
NAMES: Final = "names"
"""Beside it: what that row's classes have been renamed to since, if any was. In the first row of a derived
chain: every renaming before it."""
MERGED: Final = "merged"
"""In the report of a row that makes classes one: their names, sorted in a branch, as said in `relabelled`."""
Json = Mapping[str, Any]
FORMAT = 1


class LedgerError(Exception):
    """Something about the ledger; the message says which chain and row, and what to do."""


class LedgerUnavailable(LedgerError):
    """The store cannot be reached; the same call may succeed later."""


class LeaseHeld(LedgerError):
    """Another live process owns the chain."""


class Fenced(LedgerError):
    """Our epoch is over: a newer owner writes this chain, and this write was refused."""


class LogMoved(LedgerError):
    """The decision log has a line more than whoever decided had seen."""


class LedgerCorrupt(LedgerError):
    """A row or blob does not verify; nothing was written on top of it."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Positions of one partition on one side of a snapshot (see `stream.plan.Reach`)."""

    topic: str
    partition: int
    low: int
    watermark_ms: int | None
    beyond: tuple[int, ...]
    consumed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One row of a chain. Frozen, content-addressed by `sha`.

    `seq` numbers rows, `index` the windows closed so far (quarantined ones included). `posterior` and
    `stream_state` are blob shas; `labels` is the label map in order of first sight, a row of the head
    each: a class that was merged has several. `report` holds only numbers that replay gives again bit for
    bit.
    """

    chain: str
    seq: int
    index: int
    kind: Kind
    parent: str | None
    plan: str | None
    posterior: str
    stream_state: str
    settings: str
    labels: tuple[str, ...]
    spans_before: tuple[Span, ...]
    spans: tuple[Span, ...]
    counts: Mapping[str, int]
    report: Json
    rejected: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """Return the deterministic content, as JSON values."""
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self), allow_nan=False))}

    @property
    def sha(self) -> str:
        """Hash the canonical JSON of the manifest."""
        text = json.dumps(
            self.manifest(),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """What was true of the run but not of the belief: never hashed."""

    at_ms: int
    host: str
    code_version: str
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A named line of snapshots with one seed and one set of learning settings."""

    name: str
    seed: int
    settings: Json
    origin: str | None = None  # the snapshot of another chain that this one branched from


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write a chain: valid while `epoch` is the chain's newest."""

    chain: str
    epoch: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """A plan as the ledger keeps it; `content` is canonical JSON values without any text."""

    sha: str
    chain: str
    index: int
    parent: str
    content: Json
    status: Literal["open", "done", "superseded"] = "open"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A snapshot still to be published to `target`, or published as `reference`."""

    sha: str
    target: str
    attempts: int
    reference: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of the append-only, hash-chained decision log."""

    seq: int
    chain: str
    at_ms: int
    actor: str
    action: Action
    snapshot: str
    previous: str | None  # the champion before
    evidence: Json
    before: str  # hash of the line before, "" for the first
    hash: str


@dataclass(frozen=True, slots=True, order=True)
class FloorRow:
    """A recorded floor (see `stream.source.Floor`) in the order it was written."""

    seq: int
    topic: str
    partition: int
    at_offset: int
    floor_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What an `erased` row did away with: an event by the sha256 of its id, or a stored state of the stream.

    `instead` is the sha of the state without it, None for an event; `row` and `seq` are the row's.
    Unlike the row it is never set aside: what was forgotten stays forgotten when a chain is repaired.
    """

    chain: str
    what: str
    instead: str | None
    row: str
    seq: int


def stand_in(erasures: Sequence[Erasure], state: str) -> Erasure | None:
    """Return the newest erasure that put another state in the place of this one; None if it stands."""
    by_state = {e.what: e for e in erasures if e.instead is not None}
    found = None
    while (found_next := by_state.get(state)) is not None:
        found, state = found_next, str(found_next.instead)
    return found


def made_one(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the names, sorted, that several classes of a label map have in what became of it."""
    became = set(zip(before, after, strict=True))
    return sorted(name for name, count in Counter(now for _, now in became).items() if count > 1)


def forgotten(erasures: Sequence[Erasure]) -> frozenset[str]:
    """Return the events that were erased, by the sha256 of their ids."""
    return frozenset(e.what for e in erasures if e.instead is None)


class Blobs(Protocol):
    """Immutable bytes named by their sha256."""

    def put(self, data: bytes) -> str:
        """Store durably (temp file, fsync, rename, fsync of the folder) and return the sha."""
        ...

    def get(self, sha: str) -> bytes:
        """Return the bytes; raises LedgerCorrupt if missing or altered."""
        ...


class ErasableBlobs(Blobs, Protocol):
    """Blobs that can be done away with, which nobody does but an erasure that holds every chain."""

    def names(self) -> Sequence[str]:
        """Return the shas of everything that is stored, sorted."""
        ...

    def remove(self, sha: str) -> None:
        """Do away with the bytes for good; a no-op where there are none."""
        ...

    def sweep(self, before_s: float) -> int:
        """Remove what dead writers left before `before_s` (seconds since the epoch); count it."""
        ...


class Ledger(Protocol):
    """The one authority: which snapshots exist, which is head, who may write."""

    def create(self, chain: Chain) -> None:
        """Create the chain; the same again is a no-op, another seed or settings is LedgerError."""
        ...

    def chain(self, name: str) -> Chain | None:
        """Return the chain, or None."""
        ...

    def chains(self) -> Sequence[Chain]:
        """Return all chains by name."""
        ...

    def acquire(self, chain: str, *, owner: str, ttl_s: float, takeover: bool = False) -> Fence:
        """Take the chain by a lease on the database's clock; LeaseHeld names the live owner."""
        ...

    def renew(self, fence: Fence, *, ttl_s: float) -> None:
        """Prolong the lease; Fenced if it has passed to another."""
        ...

    def release(self, fence: Fence) -> None:
        """Let go at once; a no-op when already fenced."""
        ...

    def begin(self, fence: Fence, plan: PlanRow) -> None:
        """Write an open plan; at most one is open per chain."""
        ...

    def open_plan(self, chain: str) -> PlanRow | None:
        """Return the unfinished plan, or None."""
        ...

    def plan(self, chain: str, sha: str) -> PlanRow | None:
        """Return a plan of a chain by its sha, whatever became of it."""
        ...

    def supersede(self, fence: Fence, plan: str, reason: str) -> None:
        """Close an open plan unlearned, with the reason."""
        ...

    def commit(
        self,
        fence: Fence,
        snapshot: Snapshot,
        circumstance: Circumstance,
        *,
        publish: Sequence[str] = (),
        erased: Sequence[Erasure] = (),
    ) -> None:
        """Advance the head by one row in one transaction: row, head, plan done, outbox, erasures.

        Refuses: a wrong epoch (Fenced); a parent that is not head, spans_before that differ from the
        parent's spans, spans that move backwards, counts that do not balance, a blob that does not
        verify (LedgerCorrupt).
        """
        ...

    def head(self, chain: str) -> Snapshot | None:
        """Return the newest snapshot; None for an empty chain.

        Raises LedgerCorrupt if its blobs do not verify: an operator must know, and `truncate`.
        """
        ...

    def truncate(self, fence: Fence, reason: str) -> Sequence[str]:
        """Set aside, newest first, the rows above the newest one that verifies; return their shas.

        Their windows are then planned and learned again, to the same shas.
        """
        ...

    def snapshot(self, sha: str) -> tuple[Snapshot, Circumstance] | None:
        """Return a snapshot by sha (or unique prefix of at least 6 characters)."""
        ...

    def history(self, chain: str) -> Sequence[Snapshot]:
        """Return the chain from root to head."""
        ...

    def erasures(self, chain: str) -> Sequence[Erasure]:
        """Return what was erased from a chain, oldest first, whatever became of the rows that say so."""
        ...

    def add_floors(self, fence: Fence, floors: Sequence[tuple[str, int, int, int]]) -> None:
        """Record floors (topic, partition, at_offset, floor_ms) before they take effect."""
        ...

    def floors(self, chain: str) -> Sequence[FloorRow]:
        """Return all floors of a chain, oldest first."""
        ...

    def backlog(self, target: str, *, limit: int = 100) -> Sequence[OutboxRow]:
        """Return unpublished outbox rows, oldest first."""
        ...

    def published(self, sha: str, target: str, reference: str) -> None:
        """Mark as published (idempotent)."""
        ...

    def reached(self, name: str, target: str, place: int) -> None:
        """Note how far `target` is with something, by number; never moves back, whoever comes late."""
        ...

    def publish_failed(self, sha: str, target: str, error: str) -> None:
        """Count a failed attempt and keep its error."""
        ...

    def posted(self, sha: str, target: str) -> OutboxRow | None:
        """Return the outbox row of this name for `target`, published or not; None if there is none."""
        ...

    def posts(self, sha: str) -> Sequence[OutboxRow]:
        """Return all outbox rows of this name, whatever their target, oldest first."""
        ...

    def reference(self, sha: str, target: str) -> str | None:
        """Return what a snapshot is called in `target`, or None when not yet published."""
        ...

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
        """Append to the decision log, chained to the line before; needs no fence.

        `after` is the hash of the last line that was looked at ("": the log was empty); if the log has
        moved on since, LogMoved. None appends whatever is there.
        """
        ...

    def decided(self, chain: str) -> int:
        """Return how many lines the decision log has; 0 for a chain that is not there. Cheap to ask often."""
        ...

    def decisions(self, chain: str, *, since: int = 0) -> Sequence[Decision]:
        """Return the decision log, oldest first; raises LedgerCorrupt if its hashes do not chain.

        Only lines from the number `since` on are read and verified: whoever asks knows those before, and
        should know that first line's hash, for it chains to them.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...
