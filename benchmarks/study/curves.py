"""A run window by window and coverage by coverage, for figures; seeds beside the first are left out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks.study.measures import cost, knew, risks, surety
from benchmarks.study.methods import JOINT, LORA, PRIORFLOW
from benchmarks.study.readings import SCALED, Traces, is_ours
from benchmarks.study.walk import Told, Trace

DRAWN: Final = (PRIORFLOW, LORA, "frozen_panel", JOINT)  # accuracy over windows
BESIDE: Final = (PRIORFLOW, LORA, f"{LORA}{SCALED}")  # and the best of the others: costs and risks
POINTS: Final = 20  # of a curve of risk over coverage: 5 %, 10 %, ... of texts

Curves = Mapping[str, Mapping[str, Any]]  # by measure and method


def curves(traces: Traces, stream: str, pi_new: float) -> Curves:
    """Return accuracy on all held-out texts so far, costs by window, and risk over coverage."""
    found = _first(traces, stream)
    told = {method: trace.told for method, trace in found.items() if trace.told}
    kinds: Mapping[str, Callable[[Told], bool]] = {
        "prequential_nll": lambda _: True,
        "prequential_nll_seen": knew,
        "prequential_nll_unseen": lambda one: not knew(one),
    }
    return {
        "accuracy": {m: [_mean(row) for row in found[m].matrix] for m in DRAWN if m in found},
        **{
            name: {method: _costs([o for o in ones if of_kind(o)], pi_new) for method, ones in told.items()}
            for name, of_kind in kinds.items()
        },
        "risk_coverage": {method: risk_coverage(ones, pi_new) for method, ones in told.items()},
    }


def drawn_beside(measure: Mapping[str, float]) -> tuple[str, ...]:
    """Return whose curves are drawn: the default, LoRA as it is and scaled, and whoever else has the least.

    None of ours is whoever else, nor is LoRA.
    """
    others = {method: value for method, value in measure.items() if not is_ours(method)}
    best = sorted((method for method in others if method not in BESIDE), key=others.__getitem__)[:1]
    return (*BESIDE, *best)


def risk_coverage(told: Sequence[Told], pi_new: float) -> list[float]:
    """Return the error among the surest 1/POINTS of foretold texts, 2/POINTS, and so on to all of them."""
    all_risks = risks(surety(told, pi_new))
    places = (math.ceil(k * len(all_risks) / POINTS) for k in range(1, POINTS + 1))
    return [round(all_risks[place - 1], 4) for place in places] if all_risks else []


def _first(traces: Traces, stream: str) -> dict[str, Trace]:
    """Return each method's trace of its first seed."""
    ranked = sorted(traces.items(), key=lambda item: -item[0][2])
    return {method: trace for (name, method, _), trace in ranked if name == stream}


def _costs(told: Sequence[Told], pi_new: float) -> dict[str, float]:
    """Return what a text of each window cost beforehand, nats; windows count from 1."""
    paid: dict[int, list[float]] = {}
    for one in told:
        if one.forecast is not None:
            paid.setdefault(one.window, []).append(cost(one, pi_new))
    return {str(window + 1): round(statistics.fmean(costs), 4) for window, costs in sorted(paid.items())}


def _mean(row: Sequence[float | None]) -> float:
    known = [a for a in row if a is not None]
    return round(statistics.fmean(known), 4)
