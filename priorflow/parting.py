"""How two lines of snapshots that learned from different records came apart, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from posterior import panel
from posterior.families import make_family
from posterior.family import ONE_TASK
from posterior.snapshot import Blobs, Ledger, Snapshot
from posterior.tensors import from_bytes

WINDOWED: Final = ("learned", "quarantined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One window, by its index on the old line; None where the new one has not closed it, or was not asked.

    `left_out` counts old members that no window of the new line holds, `moved` those that another one does.
    `kl_nats` is KL(new || old) as the family counts it; None where the two know other classes.
    """

    window: int
    before: str
    after: str | None
    members_before: int
    members_after: int | None
    left_out: int
    moved: int
    kl_nats: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    nll_before: float | None
    nll_after: float | None


def changes(ledger: Ledger, blobs: Blobs, old: Sequence[Snapshot], new: Sequence[Snapshot]) -> list[Change]:
    """Compare the windows that both lines closed since they parted, and those that only the old one did.

    Rows are those in force, paired in order: a line that went back has numbers that the other has not.
    """
    ours = [row for row in new if row.kind in WINDOWED]
    theirs = [row for row in old if row.kind in WINDOWED and row.index > new[0].index]
    held = [_members(ledger, row) for row in ours]
    everywhere = frozenset[str]().union(*held)
    out = []
    for place, row in enumerate(theirs):
        other, before = (ours[place] if place < len(ours) else None), _members(ledger, row)
        after = held[place] if place < len(ours) else frozenset[str]()
        lost = len(before - everywhere)
        out.append(
            Change(
                window=row.index,
                before=row.sha,
                after=None if other is None else other.sha,
                members_before=len(before),
                members_after=None if other is None else len(after),
                left_out=lost,
                moved=len(before - after) - lost,
                kl_nats=None if other is None else _kl(ledger, blobs, other, row),
                **_scores("before", row),
                **_scores("after", other),
            )
        )
    return out


def _scores(when: str, row: Snapshot | None) -> dict[str, Any]:
    report = {} if row is None else row.report
    return {f"{name}_{when}": report.get(name) for name in ("accuracy", "nll")}


def _members(ledger: Ledger, row: Snapshot) -> frozenset[str]:
    """Return where the events of a window lie."""
    plan = None if row.plan is None else ledger.plan(row.chain, row.plan)
    return frozenset() if plan is None else frozenset(member[0] for member in plan.content["members"])


def _kl(ledger: Ledger, blobs: Blobs, new: Snapshot, old: Snapshot) -> float | None:
    """Return KL(new || old) in nats, without the panel's; None where weights are not the same ones."""
    chain = ledger.chain(new.chain)
    if chain is None or new.labels != old.labels:
        return None
    family = make_family(chain.settings["family"]["name"], chain.settings["family"]["options"])
    ours, theirs = (panel.restore(from_bytes(blobs.get(row.posterior)))[1] for row in (new, old))
    if {name: t.shape for name, t in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        return None
    one, two = (family.open(family.restore(tensors), (ONE_TASK,)) for tensors in (ours, theirs))
    nats = float(family.kl(one, two))
    return nats if math.isfinite(nats) else None
