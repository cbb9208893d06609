"""Other readings of a run: the same forecasts, each window at the temperature best for those before it.

Methods that are tempered already have none: the default and its variants, whose panel hears how windows went,
and heads that choose a temperature by earlier windows. What is tempered, by itself or here, is a rival in
foretelling: beside it the default owes nothing to being less sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.study.measures import scaled
from benchmarks.study.methods import ABLATIONS, EACH_WINDOW, PRIORFLOW
from benchmarks.study.walk import Trace

SCALED: Final = "_scaled"  # ends the name of such a reading
OWN_TEMPERATURES: Final = ("frozen_lda", "ranpac", "first_window_lda")

Traces = Mapping[tuple[str, str, int], Trace]  # by stream, method and seed


def is_ours(method: str) -> bool:
    """Return whether a method is the default, a variant of it or a part of it."""
    return method.startswith(PRIORFLOW) or method in ABLATIONS


def is_rival(method: str) -> bool:
    """Return whether it is another method whose forecasts are at temperatures, as ours are.

    Retraining after each window is none: it keeps every text, and is there to be approached.
    """
    tempered = method.endswith(SCALED) or method in OWN_TEMPERATURES
    return tempered and source(method) != EACH_WINDOW


def source(method: str) -> str:
    """Return the method whose run is read."""
    return method.removesuffix(SCALED)


def with_scaled(traces: Traces, *, pi_new: float) -> dict[tuple[str, str, int], Trace]:
    """Return the traces, and beside each that foretells untempered the same at prequential temperatures."""
    more = {
        (stream, f"{method}{SCALED}", seed): scaled(trace, pi_new=pi_new)
        for (stream, method, seed), trace in traces.items()
        if trace.told and not is_ours(method) and method not in OWN_TEMPERATURES
    }
    return {**traces, **more}
