"""What a chain of snapshots looks like to a person, and what is wrong with it, if anything is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from connectors.admission import check_blobs, check_commit, rewound
from posterior.snapshot import Blobs, Ledger, LedgerCorrupt, LedgerError, Snapshot
from priorflow.opening import MLFLOW
from priorflow.quantities import format_instant
from trainers.line import EFFECTIVE

_TOLD: Final = ("members", "accuracy", "nll", "kl_nats", "beta", EFFECTIVE, "drift")
_APART: Final = ("labels", "counts", "report", "spans", "settings", "index", "kind", "parent")
_INSIDE: Final = 2  # deeper values are told as a whole


def listing(ledger: Ledger, history: Sequence[Snapshot], *, progress: bool = False) -> list[dict[str, Any]]:
    """Return one row per snapshot; progress rows only if asked for."""
    told = [name for name in _TOLD if any(name in s.report for s in history)]
    rows = []
    for snapshot in history:
        if snapshot.kind == "progress" and not progress:
            continue
        rows.append(
            {
                "window": snapshot.index,
                "kind": snapshot.kind,
                "sha": snapshot.sha,
                "classes": len(set(snapshot.labels)),
                **{name: snapshot.report.get(name) for name in told},
                "version": ledger.reference(snapshot.sha, MLFLOW),
            }
        )
    return rows


def portrait(ledger: Ledger, snapshot: Snapshot) -> dict[str, Any]:
    """Return everything about one snapshot but its text and tensors, which lie in blobs."""
    found = ledger.snapshot(snapshot.sha)
    if found is None:  # it was there a moment ago: somebody cut the chain back
        msg = f"snapshot {snapshot.sha} is gone"
        raise LedgerError(msg)
    circumstance = found[1]
    return {
        "sha": snapshot.sha,
        **snapshot.manifest(),
        "version": ledger.reference(snapshot.sha, MLFLOW),
        "committed": format_instant(circumstance.at_ms),
        "host": circumstance.host,
        "code_version": circumstance.code_version,
        "seconds": dict(circumstance.seconds),
    }


def parted(one: Snapshot, two: Snapshot) -> list[dict[str, Any]]:
    """Return where two manifests differ, by dotted name."""
    first, second = one.manifest(), two.manifest()
    ours = dict(_flat({name: first[name] for name in _APART}))
    theirs = dict(_flat({name: second[name] for name in _APART}))
    return [
        {"what": name, "before": ours.get(name), "after": theirs.get(name)}
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]


def _flat(value: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if name == "spans":
            yield from ((f"{s['topic']}[{s['partition']}]", s["low"]) for s in inner)
        elif isinstance(inner, Mapping) and depth < _INSIDE:
            yield from _flat(inner, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", inner


def faults(snapshot: Snapshot, parent: Snapshot | None, ledger: Ledger, blobs: Blobs) -> Iterator[str]:
    """Yield what is wrong with one row: stored bytes, lineage, positions, accounting."""
    chain = ledger.chain(snapshot.chain)
    if chain is None:
        yield f"its chain {snapshot.chain} is not in the ledger"
        return
    origin = ledger.snapshot(chain.origin) if chain.origin and parent is None else None
    back = rewound(snapshot)
    past = ledger.snapshot(back) if back else None
    try:
        check_commit(
            snapshot,
            chain=chain,
            head=parent,
            origin=origin[0] if origin else None,
            past=past[0] if past else None,
        )
    except LedgerCorrupt as broken:
        yield str(broken)
    try:
        check_blobs(snapshot, blobs, ledger.erasures(snapshot.chain))
    except LedgerCorrupt as broken:
        yield str(broken)
