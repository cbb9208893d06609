"""Small honest chains: rows that a ledger admits, to be committed as they are or spoilt on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posterior.snapshot import (
    Blobs,
    Chain,
    Circumstance,
    Fence,
    Ledger,
    PlanRow,
    Snapshot,
    Span,
)
from stream.plan import sha256_json

OWNER = "elsewhere/1/other-place/1"
CIRCUMSTANCE = Circumstance(at_ms=1_000, host="h", code_version="0", seconds={"train": 0.25})
NO_COUNTS = {
    "consumed": 0,
    "learned": 0,
    "pending": 0,
    "late": 0,
    "duplicate": 0,
    "dead_lettered": 0,
    "expired": 0,
    "quarantined": 0,
}


def a_chain(name: str = "main", *, seed: int = 7, origin: str | None = None) -> Chain:
    return Chain(name=name, seed=seed, settings={"window": 4, "lr": 0.1}, origin=origin)


def root(blobs: Blobs, chain: str = "main") -> Snapshot:
    """The first row: a prior, and nothing consumed."""
    return Snapshot(
        chain=chain,
        seq=0,
        index=0,
        kind="root",
        parent=None,
        plan=None,
        posterior=blobs.put(b"prior of " + chain.encode()),
        stream_state=blobs.put(b"nothing yet"),
        settings=sha256_json({"window": 4, "lr": 0.1}),
        labels=(),
        spans_before=(),
        spans=(Span("events", 0, 0, None, (), 0), Span("labels", 0, 0, None, (), 0)),
        counts=NO_COUNTS,
        report={},
    )


def plan_on(head: Snapshot, tag: str = "") -> PlanRow:
    """A plan for the next window."""
    content = {"index": head.index, "parent": head.sha, "tag": tag}
    return PlanRow(
        sha=sha256_json(content),
        chain=head.chain,
        index=head.index,
        parent=head.sha,
        content=content,
    )


def learned(blobs: Blobs, head: Snapshot, plan: PlanRow, *, mails: int = 4) -> Snapshot:
    """The row that learns `mails` labelled events, two records each."""
    counts = dict(head.counts)
    counts["consumed"] += 2 * mails
    counts["learned"] += 2 * mails
    return replace(
        head,
        seq=head.seq + 1,
        index=head.index + 1,
        kind="learned",
        parent=head.sha,
        plan=plan.sha,
        posterior=blobs.put(f"posterior {head.seq + 1} of {head.chain}".encode()),
        stream_state=blobs.put(f"state {head.seq + 1} of {head.chain}".encode()),
        labels=(*head.labels, f"queue-{head.index}"),
        spans_before=head.spans,
        spans=tuple(forward(span, mails) for span in head.spans),
        counts=counts,
        report=a_report(mails),
    )


def a_report(mails: int) -> Mapping[str, Any]:
    """What a window says of itself: all that whoever shows it asks for."""
    foretold = {"foretold": mails, "accuracy": 0.5, "nll": 1.25, "ece": 0.125, "brier": 0.5}
    drift = {"drift": False, "alarms": [], "classes": 2, "end_ms": 1_000}
    return {**foretold, **drift, "members": mails, "kl_nats": 3.5, "beta": 1.0}


def progress(blobs: Blobs, head: Snapshot, *, records: int = 3) -> Snapshot:
    """The row that only moves on: all `records` of the first partition were dead letters."""
    counts = dict(head.counts)
    counts["consumed"] += records
    counts["dead_lettered"] += records
    return replace(
        head,
        seq=head.seq + 1,
        kind="progress",
        parent=head.sha,
        plan=None,
        stream_state=blobs.put(f"progress {head.seq + 1} of {head.chain}".encode()),
        spans_before=head.spans,
        spans=(forward(head.spans[0], records), *head.spans[1:]),
        counts=counts,
        report={},
    )


def forward(span: Span, records: int) -> Span:
    watermark = (span.watermark_ms or 0) + records
    return replace(span, low=span.low + records, consumed=span.consumed + records, watermark_ms=watermark)


@dataclass(slots=True)
class Writer:
    """A process's hand on one chain: takes it, and appends rows one after another."""

    ledger: Ledger
    blobs: Blobs
    fence: Fence
    head: Snapshot

    @classmethod
    def on_new_chain(cls, ledger: Ledger, blobs: Blobs, name: str = "main") -> Writer:
        ledger.create(a_chain(name))
        fence = ledger.acquire(name, owner=OWNER, ttl_s=60)
        first = root(blobs, name)
        ledger.commit(fence, first, CIRCUMSTANCE)
        return cls(ledger, blobs, fence, first)

    def begin(self, tag: str = "") -> PlanRow:
        plan = plan_on(self.head, tag)
        self.ledger.begin(self.fence, plan)
        return plan

    def learn(self, *, publish: Sequence[str] = ()) -> Snapshot:
        row = learned(self.blobs, self.head, self.begin())
        return self.commit(row, publish=publish)

    def commit(self, row: Snapshot, *, publish: Sequence[str] = ()) -> Snapshot:
        self.ledger.commit(self.fence, row, CIRCUMSTANCE, publish=publish)
        self.head = row
        return row
