"""What a row must satisfy before a ledger admits it: pure rules, the same for every ledger.

Each rule raises LedgerCorrupt: nothing was written, and going on would lose or repeat evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, TypeVar

from posterior.snapshot import (
    MERGED,
    NAMES,
    REWOUND,
    Blobs,
    Chain,
    Erasure,
    LedgerCorrupt,
    LedgerError,
    PlanRow,
    Snapshot,
    Span,
    made_one,
    stand_in,
)
from stream.plan import Counts, canonical_json

T = TypeVar("T")

MIN_PREFIX: Final = 6
FIRST: Final = ("root", "branch")
WINDOWED: Final = ("learned", "quarantined")  # rows that close a window, hence need a plan
UNMOVED: Final = ("quarantined", "progress", "erased", "relabelled")  # rows that keep the parent's tensors
STILL: Final = ("erased", "relabelled")  # rows that read nothing


def check_commit(
    snapshot: Snapshot,
    *,
    chain: Chain,
    head: Snapshot | None,
    origin: Snapshot | None,
    past: Snapshot | None = None,
) -> None:
    """Check a row against the row it stands on.

    That is the chain's head; for the first row of a branch it is `origin`, a row of another
    chain; a root stands on nothing. `past` is the row that `rewound` names.
    """
    parent = head if head is not None else origin
    _lineage(snapshot, chain, head, parent)
    _content(snapshot, parent)
    if rewound(snapshot) is None:
        _spans(snapshot, parent)
    else:
        _past(snapshot, head, past)
    _counts(snapshot)


def rewound(snapshot: Snapshot) -> str | None:
    """Return the row whose positions a branch takes up again; None for all others."""
    return snapshot.report.get(REWOUND) if snapshot.kind == "branch" else None


def check_plan(snapshot: Snapshot, open_plan: PlanRow | None) -> None:
    """Check that a row which closes a window has the open plan, and that others have none."""
    planned = open_plan.sha if open_plan is not None else None
    wanted = snapshot.plan if snapshot.kind in WINDOWED else None
    if snapshot.kind in WINDOWED and snapshot.plan is None:
        raise _corrupt(snapshot, "closes a window without a plan; begin the plan first")
    if snapshot.kind not in WINDOWED and snapshot.plan is not None:
        raise _corrupt(snapshot, "names a plan, but its kind closes no window")
    if planned != wanted:
        raise _corrupt(snapshot, f"its plan is {wanted}, the open plan is {planned}")
    if open_plan is not None and open_plan.parent != snapshot.parent:
        raise _corrupt(snapshot, f"its plan was made on top of {open_plan.parent}")


def check_begin(plan: PlanRow, chain: str, head: str | None, open_plan: PlanRow | None) -> None:
    """Check that a new plan is this chain's, stands on its head, and that no other is open."""
    if plan.chain != chain:
        raise _unfit(plan, f"begun on chain {chain}")
    if open_plan is not None:
        raise _unfit(plan, f"plan {open_plan.sha} is still open; finish or supersede that first")
    if plan.parent != head:
        raise _unfit(plan, f"it stands on {plan.parent}, but the head is {head}")
    if plan.status != "open":
        raise _unfit(plan, f"it begins as {plan.status}")


def check_same(wanted: Chain, known: Chain) -> None:
    """Check that a chain created again is the one that exists."""
    if canonical_json(asdict(wanted)) != canonical_json(asdict(known)):
        message = (
            f"chain {known.name} exists with another seed, origin or settings; "
            "go on with those, or choose a new chain name"
        )
        raise LedgerError(message)


def check_prefix(name: str) -> None:
    """Refuse a name too short to mean one snapshot."""
    if len(name) < MIN_PREFIX:
        message = f"{name!r} is too short a name; give at least {MIN_PREFIX} characters"
        raise LedgerError(message)


def the_one(prefix: str, found: Sequence[T]) -> T | None:
    """Return the only row that a prefix means, or None; LedgerError if it means several."""
    if len(found) > 1:
        message = f"{prefix} is the beginning of several snapshots; give more of it"
        raise LedgerError(message)
    return found[0] if found else None


def check_lineage(line: Sequence[Snapshot]) -> None:
    """Check that rows, from the first on, each stand on the one before."""
    for seq, (row, parent) in enumerate(zip(line, (None, *line), strict=False)):
        if row.seq != seq or (parent is not None and row.parent != parent.sha):
            raise _corrupt(row, f"row {seq} was expected here, on top of {_sha(parent)}")


def check_blobs(snapshot: Snapshot, blobs: Blobs, erasures: Sequence[Erasure] = ()) -> None:
    """Read both blobs back and compare their hashes with their names.

    Of a state that was erased, what stands in its place is read.
    """
    found = stand_in(erasures, snapshot.stream_state)
    try:
        blobs.get(snapshot.posterior)
        blobs.get(snapshot.stream_state if found is None else str(found.instead))
    except LedgerCorrupt as broken:
        message = f"{_name(snapshot)}: {broken}"
        raise LedgerCorrupt(message) from broken


def check_erased(snapshot: Snapshot, erased: Sequence[Erasure], blobs: Blobs) -> None:
    """Check what a row does away with: only an `erased` one may, and what stands instead must be there."""
    if erased and snapshot.kind != "erased":
        raise _corrupt(snapshot, "does away with something, but is no erasure")
    for one in erased:
        if (one.chain, one.row, one.seq) != (snapshot.chain, snapshot.sha, snapshot.seq):
            raise _corrupt(snapshot, f"what it does away with names row {one.seq} of {one.chain}")
        if one.instead is not None:
            blobs.get(one.instead)


def damaged(chain: str, why: LedgerCorrupt) -> LedgerCorrupt:
    """Say that a head does not verify, and what an operator can do."""
    return LedgerCorrupt(
        f"the head of chain {chain} is damaged: {why}. Put the blob back from a backup, or repair "
        "the chain: rows above the newest one that verifies are set aside and learned again"
    )


def _lineage(snapshot: Snapshot, chain: Chain, head: Snapshot | None, parent: Snapshot | None) -> None:
    if snapshot.chain != chain.name:
        raise _corrupt(snapshot, f"committed to chain {chain.name}")
    if (head is None) != (snapshot.kind in FIRST) and not (head and snapshot.kind == "branch"):
        raise _corrupt(snapshot, "a chain starts with a root or a branch, and has one root")
    if head is None and snapshot.parent != chain.origin:
        raise _corrupt(snapshot, f"its parent is {snapshot.parent}, the origin {chain.origin}")
    if snapshot.parent != (parent.sha if parent else None):
        raise _corrupt(snapshot, f"its parent is {snapshot.parent}, the head {_sha(parent)}")
    if (snapshot.kind == "root") != (parent is None):
        raise _corrupt(snapshot, "a root has no parent and every other row has one")
    if snapshot.seq != (head.seq + 1 if head else 0):
        raise _corrupt(snapshot, f"follows row {head.seq if head else 'none'}")
    index = (parent.index if parent else 0) + (snapshot.kind in WINDOWED)
    if snapshot.index != index:
        raise _corrupt(snapshot, f"its window index is {snapshot.index} where {index} is next")


def _content(snapshot: Snapshot, parent: Snapshot | None) -> None:
    """Check what a row inherits: tensors it did not learn, settings, the order of known labels."""
    if parent is None:
        return
    if snapshot.kind in UNMOVED and snapshot.posterior != parent.posterior:
        raise _corrupt(snapshot, "learned nothing, but its posterior is not its parent's")
    if snapshot.kind == "branch":
        return
    if snapshot.settings != parent.settings:
        raise _corrupt(snapshot, "other settings than its parent's; start a new chain for those")
    if snapshot.kind == "relabelled":
        _one_name(snapshot, parent)
    elif snapshot.labels[: len(parent.labels)] != parent.labels:
        raise _corrupt(snapshot, "its label map does not begin with its parent's")


def _past(snapshot: Snapshot, head: Snapshot | None, past: Snapshot | None) -> None:
    """Check that a row which goes back is, but for its place in the chain, the row it goes back to."""
    if head is None or past is None or past.chain != snapshot.chain or past.seq > head.seq:
        raise _corrupt(snapshot, f"goes back to {rewound(snapshot)}, which is no row of this chain before it")
    if snapshot.spans_before != head.spans:
        raise _corrupt(snapshot, "its first positions are not its parent's last: a gap or an overlap")
    names = snapshot.report.get(NAMES, {})
    labels = tuple(names.get(label, label) for label in past.labels)
    if snapshot.labels != labels or made_one(past.labels, labels) != snapshot.report.get(MERGED, []):
        raise _corrupt(snapshot, f"goes back to {past.sha}, but its labels are other ones")
    if _settled(snapshot) != _settled(past):
        raise _corrupt(snapshot, f"goes back to {past.sha}, but its counts are other ones")
    for name in ("posterior", "settings", "spans"):
        if getattr(snapshot, name) != getattr(past, name):
            raise _corrupt(snapshot, f"goes back to {past.sha}, but its {name} are other ones")


def _settled(snapshot: Snapshot) -> Mapping[str, int]:
    """Return the accounts that nothing leaves any more; what was pending may have been erased since."""
    return {name: count for name, count in snapshot.counts.items() if name not in {"pending", "erased"}}


def _one_name(snapshot: Snapshot, parent: Snapshot) -> None:
    """Check that one class bears a free name, or two bear one, in all their rows; a merger says which."""
    one = snapshot.report.get(MERGED)
    pairs = set(zip(parent.labels, snapshot.labels, strict=False))
    names = {after for before, after in pairs if before != after}
    whole = len(snapshot.labels) == len(parent.labels) and len(pairs) == len(set(parent.labels))
    wanted = {before for before, after in pairs if {after} == names}
    said = len(wanted) == 1 if one is None else wanted == set(one)
    if not whole or len(names) != 1 or not said:
        raise _corrupt(snapshot, "renames a class, but its label map is not its parent's with one other name")


def _spans(snapshot: Snapshot, parent: Snapshot | None) -> None:
    if snapshot.spans_before != (parent.spans if parent else ()):
        raise _corrupt(snapshot, "its first positions are not its parent's last: a gap or an overlap")
    before = _by_partition(snapshot, snapshot.spans_before)
    after = _by_partition(snapshot, snapshot.spans)
    for partition in before.keys() - after.keys():
        raise _corrupt(snapshot, f"partition {partition[0]}[{partition[1]}] has vanished")
    if snapshot.kind in STILL and snapshot.spans != snapshot.spans_before:
        raise _corrupt(snapshot, "reads nothing, but its positions have moved")
    for partition, span in after.items():
        _forward(snapshot, before.get(partition), span)


def _forward(snapshot: Snapshot, before: Span | None, span: Span) -> None:
    """Check that a partition gains at most one record per offset and its watermark never falls."""
    start = before or Span(span.topic, span.partition, 0, None, (), 0)
    where = f"{span.topic}[{span.partition}]"
    kept = set(span.beyond)
    if span.low < start.low or any(o >= span.low and o not in kept for o in start.beyond):
        raise _corrupt(snapshot, f"{where} has moved back from {start.low} to {span.low}")
    if list(span.beyond) != sorted(kept) or any(o <= span.low for o in kept):
        raise _corrupt(snapshot, f"{where}: offsets beyond {span.low} are not in order")
    if start.watermark_ms is not None and (
        span.watermark_ms is None or span.watermark_ms < start.watermark_ms
    ):
        raise _corrupt(snapshot, f"{where}: its watermark fell below {start.watermark_ms}")
    gained = span.low - start.low + len(kept) - len(start.beyond)
    if not 0 <= span.consumed - start.consumed <= gained:
        raise _corrupt(
            snapshot,
            f"{where}: {span.consumed - start.consumed} records consumed over {gained} offsets",
        )


def _counts(snapshot: Snapshot) -> None:
    """Every released record is somewhere, and the counts speak of the records of the spans."""
    try:
        counts = Counts(**snapshot.counts)
    except TypeError as unknown:
        raise _corrupt(snapshot, f"counts cannot be read: {unknown}") from unknown
    if min(snapshot.counts.values(), default=0) < 0:
        raise _corrupt(snapshot, f"a count is negative: {dict(snapshot.counts)}")
    if counts.balance() != 0:
        raise _corrupt(snapshot, f"{counts.balance()} records unaccounted for in {dict(snapshot.counts)}")
    consumed = sum(span.consumed for span in snapshot.spans)
    if counts.consumed != consumed:
        raise _corrupt(snapshot, f"counts {counts.consumed} records consumed, its positions {consumed}")


def _by_partition(snapshot: Snapshot, spans: Sequence[Span]) -> Mapping[tuple[str, int], Span]:
    known = {(span.topic, span.partition): span for span in spans}
    if len(known) != len(spans):
        raise _corrupt(snapshot, "names a partition twice")
    return known


def _sha(snapshot: Snapshot | None) -> str | None:
    return snapshot.sha if snapshot else None


def _name(snapshot: Snapshot) -> str:
    return f"chain {snapshot.chain}, row {snapshot.seq} ({snapshot.kind}, window {snapshot.index})"


def _unfit(plan: PlanRow, why: str) -> LedgerCorrupt:
    return LedgerCorrupt(f"chain {plan.chain}: plan {plan.sha} refused: {why}")


def _corrupt(snapshot: Snapshot, why: str) -> LedgerCorrupt:
    return LedgerCorrupt(f"{_name(snapshot)} refused: {why}")
