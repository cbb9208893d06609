"""Where a chain stands: its head, its positions, what waits, who is champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from connectors.admission import WINDOWED
from connectors.decision_log import champion, previous
from connectors.herald import heard
from posterior.folding import once
from posterior.snapshot import Ledger, Snapshot
from priorflow.masking import without_passwords
from priorflow.opening import MLFLOW
from priorflow.quantities import format_instant
from trainers.line import in_force

_BACKLOG: Final = 1_000  # more than this is told as this many

Ends = Mapping[tuple[str, int], int]  # (topic, partition) -> offset after the last record


def standing(
    ledger: Ledger, chain: str, history: Sequence[Snapshot], ends: Ends | None, *, webhook: bool = False
) -> dict[str, Any]:
    """Return one chain's state as JSON values; lag is None where the log cannot be asked.

    `history` holds its rows, at least one. Windows are those in force, with what a derived chain shares.
    `webhook`: whether somebody is to hear of decisions; how far that receiver is stands in the ledger.
    """
    head, shared = history[-1], history[0].index
    windowed = [row for row in in_force(history, head) if row.kind in WINDOWED]
    found = ledger.snapshot(head.sha)
    plan = ledger.open_plan(chain)
    waiting = ledger.backlog(MLFLOW, limit=_BACKLOG)
    log = ledger.decisions(chain)
    receiver = heard(ledger, chain) if webhook else None
    return {
        "chain": chain,
        "head": head.sha,
        "kind": head.kind,
        "windows": shared + len(windowed),
        "committed": None if found is None else format_instant(found[1].at_ms),
        "classes": list(once(head.labels)),
        "counts": dict(head.counts),
        "open_plan": None if plan is None else {"sha": plan.sha, "window": plan.index},
        "champion": champion(log),
        "previous": previous(log),
        "version": ledger.reference(head.sha, MLFLOW),
        "waiting_to_publish": len(waiting),
        "publish_error": next((without_passwords(row.error) for row in waiting if row.error), None),
        "waiting_to_tell": None if receiver is None else receiver.waiting,
        "tell_error": None if receiver is None else receiver.error,
        "positions": [
            {
                "partition": f"{span.topic}[{span.partition}]",
                "next": span.low,
                "watermark": None if span.watermark_ms is None else format_instant(span.watermark_ms),
                "records": span.consumed,
                "lag": _lag(span.topic, span.partition, span.low, ends),
            }
            for span in head.spans
        ],
    }


def _lag(topic: str, partition: int, low: int, ends: Ends | None) -> int | None:
    if ends is None or (topic, partition) not in ends:
        return None
    return max(0, ends[topic, partition] - low)
