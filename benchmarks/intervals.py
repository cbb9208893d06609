"""Estimates with 95 % intervals that assume no distribution: times on a shared machine have long tails.

The k-th smallest of n values lies below the q-quantile when at least k values do, and how many do is
binomial. So order statistics bound any quantile, medians of paired ratios as well as 95th percentiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_TAIL: Final = 0.025
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def quantile(values: Sequence[float], q: float) -> Estimate:
    """Estimate a quantile, 0 < q < 1, from independent values.

    With fewer values than its interval needs, an end of it is the smallest or largest one.
    """
    if not values or not all(map(math.isfinite, values)):
        msg = f"a quantile needs finite values, and there are {list(values)[:5]}"
        raise ValueError(msg)
    ordered, below = sorted(values), _at_most(len(values), q)
    low = sum(p <= _TAIL for p in below)  # so many of the smallest would be too low an end
    high = sum(p < 1 - _TAIL for p in below) + 1
    last = len(ordered)
    return Estimate(_interpolated(ordered, q), ordered[max(low, 1) - 1], ordered[min(high, last) - 1])


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Estimate the median of ours / theirs, one ratio a pair."""
    return quantile([a / b for a, b in zip(ours, theirs, strict=True)], 0.5)


def growth(values: Sequence[float], *, blocks: int) -> Estimate:
    """Estimate by how much a series rises from its first half to its second.

    The series is cut into `blocks` stretches, an even number, and each mean of the first half is paired
    with the one half a series later: neighbours depend on each other too much to be told apart.
    """
    size, half = len(values) // blocks, blocks // 2
    means = [math.fsum(values[i * size : (i + 1) * size]) / size for i in range(blocks)]
    return quantile([means[i + half] - means[i] for i in range(half)], 0.5)


def share(hits: int, n: int) -> Estimate:
    """Estimate how often something happens from how often it did (Clopper and Pearson: never too short)."""
    low = 0.0 if hits == 0 else _crossing(lambda p: 1 - _at_most(n, p)[hits - 1], _TAIL)
    high = 1.0 if hits == n else _crossing(lambda p: 1 - _at_most(n, p)[hits], 1 - _TAIL)
    return Estimate(hits / n, low, high)


def _crossing(rising: Callable[[float], float], at: float) -> float:
    """Return where a function that rises on (0, 1) reaches a value."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) >= at else (middle, high)
    return (low + high) / 2


def _at_most(n: int, q: float) -> list[float]:
    """Return P(X <= k) for k in 0..n, X binomial."""
    choose = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    chances = [math.exp(c + k * math.log(q) + (n - k) * math.log1p(-q)) for k, c in enumerate(choose)]
    return list(itertools.accumulate(chances))


def _interpolated(ordered: Sequence[float], q: float) -> float:
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
