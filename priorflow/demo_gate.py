"""The demo's bad candidate: a head whose class rows are moved on by one, which the gate has to refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from connectors.ledger import SqlLedger
from posterior.family import Tensors
from posterior.snapshot import Blobs, Chain, Snapshot
from posterior.tensors import from_bytes, to_bytes
from priorflow.attending import gatekeeper, now_ms
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.demo_baselines import Windows
from priorflow.promotion import MOST_EVENTS
from priorflow.run import circumstance
from priorflow.scores import spread
from priorflow.story_ledger import reasons
from trainers.parts import Rules
from trainers.window import Updater

PLANTED: Final = "demo-planted"


def plant(
    settings: Settings,
    ledger: SqlLedger,
    blobs: Blobs,
    updater: Updater,
    rules: Rules,
    windows: Windows,
    console: Console,
) -> None:
    """Hand the gate a candidate that confuses the queues; it has to refuse it."""
    chain = settings.chain.name
    if ledger.chain(PLANTED) is not None or not windows:
        return
    head = next(s for s in reversed(ledger.history(chain)) if s.kind == "learned")
    with _planted(ledger, blobs, head) as bad:
        last = windows[max(windows)]
        gate = gatekeeper(settings, ledger, blobs, updater, rules)
        assert gate is not None, "the demo is judged"
        decision = gate.try_out(bad, spread(last, MOST_EVENTS), at_ms=now_ms(), actor="demo")
    console.say(
        f"a planted candidate that confuses the queues: {decision.action}; " + "; ".join(reasons(decision)),
        event=decision.action,
        snapshot=bad.sha,
    )


CLASSES: Final = ("mean/head", "generative/mean", "words/counts")  # what a snapshot holds row by class


def confused(tensors: Tensors) -> Tensors:
    """Return a posterior that takes each class for its neighbour, by its rows, views and pieces alike."""
    return {k: v.roll(1, dims=0) if k in CLASSES else v for k, v in tensors.items()}


@contextmanager
def _planted(ledger: SqlLedger, blobs: Blobs, head: Snapshot) -> Iterator[Snapshot]:
    """Commit a branch of the head that takes every class for its neighbour."""
    rolled = confused(from_bytes(blobs.get(head.posterior)))
    known = ledger.chain(head.chain)
    assert known is not None
    ledger.create(Chain(name=PLANTED, seed=known.seed, settings=known.settings, origin=head.sha))
    bad = replace(
        head,
        chain=PLANTED,
        seq=0,
        kind="branch",
        parent=head.sha,
        plan=None,
        posterior=blobs.put(to_bytes(rolled)),
        spans_before=head.spans,
    )
    fence = ledger.acquire(PLANTED, owner="demo", ttl_s=30)
    try:
        ledger.commit(fence, bad, circumstance({}))
        yield bad
    finally:
        ledger.release(fence)
