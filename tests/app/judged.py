"""A chain whose snapshots are right with a probability that is written in them, and the gate before it.

The gatekeeper, its case and the ledger are the real ones; the model is replaced by an updater that reads
two numbers. So hundreds of windows can be judged in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch

from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from posterior.snapshot import REWOUND, Blobs, Chain, Decision, Ledger, Snapshot
from posterior.tensors import to_bytes
from priorflow.asking import Asker
from priorflow.promotion import Gatekeeper
from stream.intake import IntakeRules
from stream.labels import Horizons
from stream.plan import Member
from stream.record import Position
from stream.relabelling import AS_THEY_CAME, Names
from tests.connectors.chain_builder import Writer, a_chain, learned
from trainers.bounds import Bounds
from trainers.branching import OF
from trainers.line import on_top
from trainers.parts import Rules
from trainers.window import FamilySpec, LearnSpec, Order, Outcome

CLASSES = ("bill", "ham")
BOUNDS = Bounds(min_labels=20, min_labels_per_class=5, max_ece=0.5)


@final
class Oracle:
    """Gives the right class, with which a text begins, the probability that the tensors name."""

    def __init__(self) -> None:
        self.asked = 0

    def carry_out(self, order: Order) -> Outcome:
        self.asked += len(order.arrivals)
        p = float(order.parent["p"])
        rows = [tuple(p if text.startswith(c) else 1 - p for c in CLASSES) for text in order.arrivals]
        return said_alone(order, rows)

    def close(self) -> None:
        """Hold nothing."""


def said_alone(order: Order, rows: Sequence[tuple[float, ...]]) -> Outcome:
    """Return an outcome that foretells and learns nothing; columns are `CLASSES`."""
    return Outcome(
        tensors=order.parent,
        forecasts=tuple(rows),
        beta=1.0,
        beta_nll={},
        kl=0.0,
        nll=0.0,
        steps=0,
        seconds={},
        columns=CLASSES,
    )


def forecast(label: str, p: float) -> dict[str, float]:
    return {c: p if c == label else 1 - p for c in CLASSES}


def member(window: int, place: int, arrived: int, p: float | None) -> Member:
    label = CLASSES[place % 2]
    at = Position("events", 0, 1000 * window + place)
    return Member(
        event_id=f"w{window}e{place}",
        text=f"{label} {window} {place}",
        label=label,
        task=None,
        event=at,
        event_sha256="0" * 64,
        event_ms=at.offset,
        label_at=replace(at, topic="labels"),
        label_sha256="0" * 64,
        accepted_ms=at.offset,
        arrived=arrived,
        forecast=None if p is None else forecast(label, p),
    )


def rules(chain: Chain) -> Rules:
    horizons = Horizons(label_ms=1, dedup_ms=1, capacity=1)
    intake = IntakeRules(horizons=horizons)
    return Rules(chain=chain, intake=intake, family=FamilySpec(), learn=LearnSpec(), runtime={})


@dataclass
class Court:
    """A chain being written, and what each of its windows held."""

    ledger: Ledger
    blobs: Blobs
    writer: Writer
    bounds: Bounds = BOUNDS
    per_window: int = 40
    oracle: Oracle = field(default_factory=Oracle)
    right: dict[int, float] = field(default_factory=dict)  # by index of the snapshot
    rows: list[tuple[Snapshot, tuple[Member, ...]]] = field(default_factory=list)

    @classmethod
    def opened(cls, ledger: Ledger | None = None, blobs: Blobs | None = None) -> Court:
        blobs = blobs or MemoryBlobs()
        ledger = ledger or MemoryLedger(blobs)
        return cls(ledger, blobs, Writer.on_new_chain(ledger, blobs))

    def gate(self, bounds: Bounds | None = None, names: Names = AS_THEY_CAME) -> Gatekeeper:
        """Return a gatekeeper that knows nothing but the ledger, and what classes are called."""
        asker = Asker(blobs=self.blobs, updater=self.oracle, rules=rules(a_chain()), names=names)
        return Gatekeeper(ledger=self.ledger, asker=asker, bounds=bounds or self.bounds, pi_new=0.01)

    def learn(self, p: float, *, count: int | None = None) -> tuple[Snapshot, tuple[Member, ...]]:
        """Commit a window, foretold by the head, that makes a snapshot right with probability p."""
        head = self.writer.head
        told = self.right.get(head.index)
        row = learned(self.blobs, head, self.writer.begin())
        posterior = self.blobs.put(to_bytes({"p": torch.tensor(p, dtype=torch.float64)}))
        row = self.writer.commit(replace(row, posterior=posterior, labels=CLASSES), publish=("mlflow",))
        self.right[row.index] = p
        held = self.per_window if count is None else count
        members = tuple(member(row.index, i, head.index, told) for i in range(held))
        self.rows.append((row, members))
        return row, members

    def step(self, p: float, *, gate: Gatekeeper | None = None, count: int | None = None) -> Decision | None:
        """Commit a window and have it heard."""
        row, members = self.learn(p, count=count)
        return (gate or self.gate()).consider(row, members, at_ms=1)

    def go_back(self, to: Snapshot) -> Snapshot:
        """Commit the row that goes back to an older one, whose positions it takes up again."""
        head = self.writer.head
        branch = on_top(
            head,
            "branch",
            posterior=to.posterior,
            labels=to.labels,
            spans=to.spans,
            counts=to.counts,
            report={OF: to.sha, REWOUND: to.sha},
        )
        self.right[head.index] = self.right[to.index]
        return self.writer.commit(branch)

    def again(self, _parent: Snapshot, child: Snapshot) -> Sequence[Member] | None:
        """Give a window's members again."""
        return next(members for row, members in self.rows if row.sha == child.sha)

    def log(self) -> Sequence[Decision]:
        return self.ledger.decisions("main")

    def actions(self) -> list[str]:
        return [line.action for line in self.log()]
