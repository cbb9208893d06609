"""Paired bootstrap: two methods met the same texts, so texts are drawn again, not methods.

Texts count as independent. Mails of one thread are not, so intervals are somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from benchmarks.study.measures import cost
from benchmarks.study.walk import Trace, is_right

RESAMPLES: Final = 2_000
_LEVELS: Final = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of ours minus theirs over so many texts, and the interval that holds it at 95 %."""

    value: float
    low: float
    high: float
    texts: int


def difference(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Difference:
    """Return the mean difference of values of the same texts; ValueError if they are not as many."""
    gaps = torch.tensor([a - b for a, b in zip(ours, theirs, strict=True)], dtype=torch.float64)
    if not len(gaps):
        msg = "there is no text that both methods met, so there is nothing to compare"
        raise ValueError(msg)
    noise = torch.Generator().manual_seed(seed)
    chosen = (torch.randint(len(gaps), (len(gaps),), generator=noise) for _ in range(RESAMPLES))
    means = torch.stack([gaps[rows].mean() for rows in chosen])
    low, high = torch.quantile(means, torch.tensor(_LEVELS, dtype=torch.float64)).tolist()
    return Difference(float(gaps.mean()), low, high, len(gaps))


def final_rights(trace: Trace) -> list[float]:
    """Return 1 for every held-out text that is recognised at the end, else 0."""
    return [float(is_right(one)) for one in trace.final]


def costs(trace: Trace, pi_new: float) -> list[float | None]:
    """Return what each text cost before it was learned, nats; None where nothing could be said."""
    return [None if one.forecast is None else cost(one, pi_new) for one in trace.told]


def both(ours: Sequence[float | None], theirs: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Return the values of texts that have one on both sides."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def over_seeds(values: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Return each text's mean over seeds; None where a seed has none."""
    return [
        None if None in column else sum(v for v in column if v is not None) / len(column)
        for column in zip(*values, strict=True)
    ]
