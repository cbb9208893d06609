"""When to answer, and when to say "I do not know": at a risk that somebody has named.

Past forecasts give pairs (confidence, right or wrong). Answering from confidence t on has the risk
r(t) = P(wrong | confidence >= t). Thresholds are tested from the surest down, each by the chance that a risk
of just `risk` would show so few errors,

    P(Bin(n, risk) <= errors) <= alpha

and the last one that passes before the first that fails is taken. Testing in an order fixed beforehand keeps
the level for all thresholds at once: with probability 1 - alpha the risk is kept, if what comes is like what
was. After a drift it is not: then the next windows raise the threshold.

Sources: Geifman and El-Yaniv, Selective classification for deep neural networks, 2017; Angelopoulos, Bates,
Candes, Jordan and Lei, Learn then test, 2021 (fixed-sequence testing).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

STEPS: Final = 100  # thresholds are hundredths
CONFIDENCES: Final = "confidences"  # in a window's report: its `Tally`

Tally = Sequence[tuple[int, int, int]]
"""Hundredths of confidence, rounded down, with how many forecasts had so much and how many were right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """Answer from confidence `at` on; None: nothing is sure enough.

    Of `events` that it was chosen on, so many would have been `answered`, and of these so many `wrong`.
    """

    risk: float
    alpha: float
    at: float | None
    events: int
    answered: int
    wrong: int

    def abstains(self, confidence: float) -> bool:
        """Tell whether an answer of this confidence is withheld."""
        return self.at is None or _hundredth(confidence) < round(self.at * STEPS)


def tally(told: Iterable[tuple[float, bool]]) -> list[tuple[int, int, int]]:
    """Count (confidence, right) by hundredths; ValueError for what is no probability."""
    seen, right = Counter[int](), Counter[int]()
    for confidence, correct in told:
        if not 0 <= confidence <= 1:
            msg = f"a confidence is {confidence}, which is no probability"
            raise ValueError(msg)
        seen[_hundredth(confidence)] += 1
        right[_hundredth(confidence)] += correct
    return [(at, seen[at], right[at]) for at in sorted(seen)]


def abstention(tallies: Iterable[Tally], *, risk: float, alpha: float) -> Abstention:
    """Return the rule that past windows' tallies support."""
    if not (0 < risk < 1 and 0 < alpha < 1):
        msg = f"risk {risk} and alpha {alpha} must lie between 0 and 1, both excluded"
        raise ValueError(msg)
    counts = Counter[int]()
    wrongs = Counter[int]()
    for step, seen, right in (row for one in tallies for row in one):
        counts[step] += seen
        wrongs[step] += seen - right
    at, answered, wrong = _lowest(counts, wrongs, risk, alpha)
    return Abstention(risk=risk, alpha=alpha, at=at, events=counts.total(), answered=answered, wrong=wrong)


def _lowest(
    counts: Counter[int], wrongs: Counter[int], risk: float, alpha: float
) -> tuple[float | None, int, int]:
    """Return the lowest threshold that passes in a row, and what it answers; None if the first one fails."""
    least = math.ceil(math.log(alpha) / math.log1p(-risk))  # fewer cannot pass, however right
    best: tuple[float | None, int, int] = (None, 0, 0)
    n = errors = 0
    for step in sorted(counts, reverse=True):
        n, errors = n + counts[step], errors + wrongs[step]
        if n < least:
            continue
        if at_most(errors, n, risk) > alpha:
            break
        best = (step / STEPS, n, errors)
    return best


def at_most(errors: int, n: int, risk: float) -> float:
    """Return P(X <= errors) for X binomial of n trials."""
    log_p, log_q, whole = math.log(risk), math.log1p(-risk), math.lgamma(n + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q)
        for k in range(errors + 1)
    )
    return min(1.0, math.fsum(terms))


def _hundredth(confidence: float) -> int:
    # A confidence that is a hundredth but for rounding counts as that one, whichever side it fell on.
    return math.floor(confidence * STEPS + 1e-6)
