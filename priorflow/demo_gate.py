"""The demo's bad candidate: a head whose class rows are moved on by one, which the gate has to refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from torch import Tensor

from posterior.family import Tensors
from posterior.snapshot import Blobs, Chain, Decision, Ledger, Snapshot
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
    ledger: Ledger,
    blobs: Blobs,
    updater: Updater,
    rules: Rules,
    windows: Windows,
    console: Console,
) -> bool:
    """Hand the gate a candidate that confuses the queues; return whether it refused it, which it has to.

    Where it was tried before, the line that was written then is shown.
    """
    if not windows:
        console.warn("no window was kept, so no bad candidate was tried", event="planted", refused=False)
        return False
    chain = settings.chain.name
    bad = ledger.head(PLANTED) if ledger.chain(PLANTED) is not None else None
    if bad is None:
        bad = _planted(ledger, blobs, next(s for s in reversed(ledger.history(chain)) if s.kind == "learned"))
    said = [line for line in ledger.decisions(chain) if line.snapshot == bad.sha]
    if not said:
        gate = gatekeeper(settings, ledger, blobs, updater, rules)
        assert gate is not None, "the demo is judged"
        events = spread(windows[max(windows)], MOST_EVENTS)
        said = [gate.try_out(bad, events, at_ms=now_ms(), actor="demo")]
    return _shown(said[0], console)


def _shown(line: Decision, console: Console) -> bool:
    refused = line.action == "refuse"
    told = f"a planted candidate that confuses the queues (line {line.seq} of the decision log)"
    why = "; ".join(reasons(line))
    if refused:
        console.say(f"{told}: {line.action}; {why}", event=line.action, snapshot=line.snapshot)
    else:
        text = f"{told} was NOT REFUSED by the gate: {line.action}; {why}"
        console.warn(text, event="planted", refused=False, snapshot=line.snapshot)
    return refused


# What a snapshot holds class by class, and along which dimensions.
CLASSES: Final[Mapping[str, tuple[int, ...]]] = {
    "mean/head": (0,),
    "log_sd/head": (0,),
    "generative/count": (0,),
    "generative/mean": (0,),
    "words/counts": (0,),
    "regression/mean": (1,),
    "regression/curvature": (1, 2),
}


def confused(tensors: Tensors) -> Tensors:
    """Return a posterior that takes each class for its neighbour, whichever of its heads is asked.

    All that is known of a class moves, how firmly too: else it would be another belief, and not only a
    wrong one.
    """
    return {name: _moved_on(tensor, CLASSES.get(name, ())) for name, tensor in tensors.items()}


def _moved_on(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return tensor.roll([1] * len(dims), dims=dims) if dims else tensor


def _planted(ledger: Ledger, blobs: Blobs, head: Snapshot) -> Snapshot:
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
    finally:
        ledger.release(fence)
    return bad
