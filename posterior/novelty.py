"""Is a text of a class that nobody has seen? Ten experts, six of whom look at the text.

    pi_j(x)   = c               a constant: .001, .01, .1
    pi_j(x)   = rho             the share of new classes among events so far
    odds_j(x) = min(1, pi / (1 - pi) [p(x | unseen) / mean_k p(x | k)]^(f/d))

with pi of .01 and .1, and as if f = 128, 64 or 38.4 of d features counted. rho is the mean of a Beta
posterior, learned as events are judged, from one in a hundred that is worth fifty events.

Densities do not get beyond even odds: they cannot tell a new class from an old one in new words, for after a
change of domain both are far from everything. That new classes are the rule is for the rate to say.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

CONSTANTS: Final = (0.001, 0.01, 0.1)
ODDS: Final = tuple((pi, features) for pi in (0.01, 0.1) for features in (128.0, 64.0, 38.4))
EXPERTS: Final = len(CONSTANTS) + 1 + len(ODDS)
RARE: Final = (0.5, 50.0)  # before any event: so many of a new class, among so many
_SURE: Final = 1e-4  # no expert's pi_new is nearer to 0 or 1
MOST: Final = math.log((1 - _SURE) / _SURE)  # the same in log odds


def nothing() -> Tensor:
    """Return the counts before any event was judged: of new classes, in all; (2,), float64."""
    return torch.zeros(2, dtype=torch.float64)


def counted(counts: Tensor, is_new: Tensor) -> Tensor:
    """Return the counts with events judged, is_new (n,)."""
    return counts + torch.tensor([float(is_new.sum()), float(len(is_new))], dtype=torch.float64)


def rate(counts: Tensor) -> float:
    """Return rho, the mean of Beta(a + new, b + old)."""
    new, judged = counts.tolist()
    return float((RARE[0] + new) / (RARE[1] + judged))


def experts(counts: Tensor, fresh: Tensor, known: Tensor, *, width: int) -> Tensor:
    """Return log [1 - pi_j(x), pi_j(x)] of every expert, (J, n, 2).

    `fresh` (n,) and `known` (n, K) are log densities of the text in a class unseen and in the known ones,
    over `width` features.
    """
    flat = torch.zeros_like(fresh)
    said = [flat + _log_odds(pi) for pi in (*CONSTANTS, rate(counts))]
    said += [log_odds.clamp(-MOST, 0.0) for log_odds in by_densities(fresh, known, width=width)]
    return both(torch.stack(said))


def by_densities(fresh: Tensor, known: Tensor, *, width: int) -> list[Tensor]:
    """Return the log odds of a new class by each of `ODDS`, without a bound, (n,) each."""
    said = []
    for pi, features in ODDS:
        t = features / width
        rival = torch.logsumexp(known * t, dim=-1) - math.log(known.shape[1])
        said.append(_log_odds(pi) + fresh * t - rival)
    return said


def both(log_odds: Tensor) -> Tensor:
    """Return log [1 - pi, pi] of log odds, (..., 2)."""
    return torch.nn.functional.logsigmoid(torch.stack([-log_odds, log_odds], dim=-1))


def _log_odds(pi: float) -> float:
    bounded = min(max(pi, _SURE), 1 - _SURE)
    return math.log(bounded / (1 - bounded))
