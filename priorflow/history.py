"""The decision log as a person reads it: who put whom in charge, when, why, and by which numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from posterior.snapshot import Decision, Ledger, Snapshot
from priorflow.deciding import GATES
from priorflow.opening import MLFLOW
from priorflow.quantities import format_instant
from priorflow.story_ledger import reasons
from trainers.branching import AGAIN, CONTINUE, DECISION, RELEARN, SKIPPED, goes_back

_CONTINUES: Final = {"champion": "continues from it", RELEARN: "goes back to it"}


def told(line: Decision, ledger: Ledger, history: Sequence[Snapshot]) -> dict[str, Any]:
    """Return a line for a person."""
    rows = {s.sha: s for s in history}
    row = rows.get(line.snapshot)
    why = "; ".join(reasons(line))
    if line.evidence.get(CONTINUE, "head") != "head":
        why += f"; learning {_CONTINUES[line.evidence[CONTINUE]]}{onward(line, history)}"
    return {
        "line": line.seq,
        "at": format_instant(line.at_ms),
        "action": line.action,
        "snapshot": line.snapshot,
        "window": None if row is None else row.index,
        "version": ledger.reference(line.snapshot, MLFLOW),
        "by": line.actor,
        "why": why.removeprefix("; "),
    }


def in_full(line: Decision, ledger: Ledger, history: Sequence[Snapshot]) -> dict[str, Any]:
    """Return a line for a tool: with the gates' numbers, the champion before, and its place in the chain."""
    gates: Sequence[Mapping[str, Any]] = line.evidence.get(GATES, ())
    return {
        **told(line, ledger, history),
        "previous": line.previous,
        "gates": [{name: gate[name] for name in ("gate", "verdict", "numbers")} for gate in gates],
        "before": line.before,
        "hash": line.hash,
    }


def onward(line: Decision, history: Sequence[Snapshot]) -> str:
    """Say which windows' evidence a belief that goes on from an older one does without, or reads again."""
    row = next((s for s in history if s.report.get(DECISION) == line.hash), None)
    if row is None:
        return ", as soon as it runs" if goes_back(line, history) else ", at the next window"
    without, again = (row.report.get(name, ()) for name in (SKIPPED, AGAIN))
    if again:
        return f", and reads window {', '.join(map(str, again))} again"
    return f", without window {', '.join(map(str, without))}" if without else ""
