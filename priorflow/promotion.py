"""Candidates before the gate: gather evidence, judge, write the decision down.

The candidate is the snapshot that foretold the window just learned; the champion is asked about the same
events. Aliases follow the decision log; nothing here touches the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from posterior.family import Tensors
from posterior.snapshot import Blobs, Decision, Ledger, Snapshot
from posterior.tensors import from_bytes
from priorflow.scores import Prediction, Score, nll_among, score, spread
from stream.plan import Member
from trainers.loop import Rules, tasks_of
from trainers.promote import Evidence, GateRules, Showing, as_evidence, judge
from trainers.window import Order, Updater

GATE = "gate"
MOST_EVENTS = 200  # asking the champion too costs a prediction an event; more would not decide better


@final
@dataclass(frozen=True, kw_only=True)
class Gatekeeper:
    """Judges candidates of one chain."""

    ledger: Ledger
    blobs: Blobs
    updater: Updater
    rules: Rules
    gate: GateRules
    pi_new: float

    def consider(self, candidate: Snapshot, members: Sequence[Member], *, at_ms: int) -> Decision | None:
        """Promote the candidate or refuse it; None if it foretold too little to be judged at all."""
        seen = [m for m in members if m.forecast is not None and m.arrived == candidate.index]
        if len(seen) < self.gate.min_labels or self._is_champion(candidate):
            return None
        seen = list(spread(seen, max(MOST_EVENTS, self.gate.min_labels)))
        told = [Prediction(candidate.index, m.label, m.forecast) for m in seen]
        return self.decide(candidate, seen, score(told, pi_new=self.pi_new), at_ms=at_ms)

    def decide(
        self,
        candidate: Snapshot,
        seen: Sequence[Member],
        own: Score,
        *,
        at_ms: int,
        actor: str = GATE,
    ) -> Decision:
        """Compare with the champion on the same events and append to the decision log."""
        champion = self.champion()
        evidence = Evidence(
            candidate=_showing(own),
            champion=None if champion is None else _showing(self.showing(champion, seen, candidate.labels)),
            kl_per_example=_per_example(candidate),
        )
        checks = judge(self.gate, evidence)
        return self.ledger.decide(
            candidate.chain if champion is None else champion.chain,
            at_ms=at_ms,
            actor=actor,
            action="promote" if all(c.passed for c in checks) else "refuse",
            snapshot=candidate.sha,
            evidence=as_evidence(evidence, checks),
        )

    def champion(self) -> Snapshot | None:
        """Return the champion by the decision log."""
        for line in reversed(self.ledger.decisions(self.rules.chain.name)):
            if line.action != "refuse":
                found = self.ledger.snapshot(line.snapshot)
                return None if found is None else found[0]
        return None

    def showing(self, snapshot: Snapshot, seen: Sequence[Member], among: Sequence[str] = ()) -> Score:
        """Ask a snapshot about events, with the draws it would have been asked with.

        Its nll is that of telling apart the classes `among` which a rival has to choose, too.
        """
        tensors = from_bytes(self.blobs.get(snapshot.posterior))
        told = self._told(tensors, snapshot.labels, snapshot.index, seen)
        nll = nll_among(told, among, pi_new=self.pi_new)
        return replace(score(told, pi_new=self.pi_new), nll=nll)

    def _told(
        self, tensors: Tensors, labels: tuple[str, ...], index: int, seen: Sequence[Member]
    ) -> list[Prediction]:
        outcome = self.updater.carry_out(
            Order(
                window=index,
                family=self.rules.family,
                learn=self.rules.learn,
                chain_seed=self.rules.chain.seed,
                seed=0,
                parent=tensors,
                labels_before=labels,
                labels=labels,
                arrivals=tuple(m.text for m in seen),
                members=(),
                arrival_tasks=tasks_of(seen),
            )
        )
        rows = zip(seen, outcome.forecasts, strict=True)
        return [Prediction(index, m.label, dict(zip(outcome.columns, row, strict=True))) for m, row in rows]

    def _is_champion(self, candidate: Snapshot) -> bool:
        champion = self.champion()
        return champion is not None and champion.sha == candidate.sha


def _showing(own: Score) -> Showing:
    return Showing(events=own.count, accuracy=own.accuracy, nll=own.nll, ece=own.ece)


def _per_example(snapshot: Snapshot) -> float:
    report = snapshot.report
    return float(report.get("kl_nats", 0.0)) / max(1, int(report.get("members", 0)))
