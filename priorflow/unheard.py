"""Windows that were committed and not heard by the gate: a run died between the two, or had no gate.

Their members are read from the log again and foretold again by the same snapshots, which gives the same
forecasts. What cannot be had is passed over, and the next line of the decision log names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from posterior.snapshot import Decision, Snapshot
from priorflow.promotion import Gatekeeper
from stream.plan import Member
from stream.source import SourceLost

MOST_WINDOWS: Final = 3  # a crash leaves one; a gate that was off for months is not made up for

Again = Callable[[Snapshot, Snapshot], Sequence[Member] | None]
"""The members of the window between a row and the next, as they were foretold; None if they are gone."""


def catch_up(gate: Gatekeeper, again: Again, now_ms: Callable[[], int]) -> Iterator[Decision]:
    """Hear what was left unheard, oldest first; yield the decisions that came of it."""
    for parent, child in gate.unheard(gate.ledger.decisions(gate.chain))[-MOST_WINDOWS:]:
        members = _members(again, parent, child)
        decision = None if members is None else gate.consider(child, members, at_ms=now_ms())
        if decision is not None:
            yield decision


def _members(again: Again, parent: Snapshot, child: Snapshot) -> Sequence[Member] | None:
    try:
        return again(parent, child)
    except SourceLost:
        return None
