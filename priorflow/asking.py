"""Ask a snapshot about events as it would have been asked when they came, and compare two that were asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from posterior.panel import NEW
from posterior.snapshot import Blobs, Snapshot
from posterior.tensors import from_bytes
from priorflow.scores import best_guess, chance, shared
from stream.plan import Forecast, Member
from stream.relabelling import AS_THEY_CAME, Names, told_by_name
from trainers.parts import Rules
from trainers.planning import tasks_of
from trainers.showing import Answered
from trainers.window import Order, Updater


@final
@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks snapshots of one chain."""

    blobs: Blobs
    updater: Updater
    rules: Rules
    names: Names = AS_THEY_CAME
    """What classes are called now: labels are told under these, and an older snapshot knows older ones."""

    def today(self, events: Sequence[Member]) -> list[Member]:
        """Return events under what classes are called now: they may have been learned under older names."""
        return [self._today(member) for member in events] if self.names else list(events)

    def _today(self, member: Member) -> Member:
        said = None if member.forecast is None else self.names.told(member.forecast)
        return replace(member, label=self.names.of(member.label), forecast=said)

    def forecasts(self, snapshot: Snapshot, events: Sequence[Member]) -> list[Forecast]:
        """Return what a snapshot says of events, with the draws it would have been asked with."""
        if not events:
            return []
        outcome = self.updater.carry_out(
            Order(
                window=snapshot.index,
                family=self.rules.family,
                learn=self.rules.learn,
                chain_seed=self.rules.chain.seed,
                seed=0,
                parent=from_bytes(self.blobs.get(snapshot.posterior)),
                labels_before=snapshot.labels,
                labels=snapshot.labels,
                arrivals=tuple(m.text for m in events),
                members=(),
                arrival_tasks=tasks_of(events),
            )
        )
        columns = outcome.columns or snapshot.labels
        now = [self.names.of(label) for label in columns]
        return [told_by_name(now, row) for row in outcome.forecasts]


def losses(label: str, one: Forecast, other: Forecast, *, pi_new: float) -> tuple[float, float]:
    """Return -log p(label) of two forecasts in nats, on the classes that either of them tells apart."""
    return (
        _loss(label, shared(one, _classes(other)), pi_new),
        _loss(label, shared(other, _classes(one)), pi_new),
    )


def answered(member: Member, forecast: Forecast, *, pi_new: float) -> Answered:
    """Return an event as a forecast answered it."""
    guess = best_guess(forecast)
    return Answered(
        label=member.label,
        guess=guess,
        confidence=min(chance(forecast, guess, pi_new=pi_new), 1.0),
        known=member.label in forecast,
    )


def _loss(label: str, forecast: Forecast, pi_new: float) -> float:
    return -math.log(min(chance(forecast, label, pi_new=pi_new), 1.0))  # rounding may lift a sure one over 1


def _classes(forecast: Forecast) -> tuple[str, ...]:
    return tuple(label for label in forecast if label != NEW)
