"""How much of yesterday's belief is kept: chosen by what it foretells of the window to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from posterior.family import Family
from trainers.evaluate import draws_of
from trainers.question import Example, Question

# Draws behind the choice, and behind what pools hear; four foretold vader no better, at a tenth more CPU.
DRAWS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """A fixed beta, or a grid of candidates, how many members judge them and by how many draws."""

    beta: float | None
    grid: Sequence[float]
    sample: int
    draws: int
    seed: int


def kept(
    family: Family[Any, Any],
    grown: Any,
    base: Any,
    keeping: Keeping,
    question: Question,
    members: Sequence[Example],
    tasks: Sequence[str],
    *,
    before: Sequence[str],
    labels: Sequence[str],
) -> tuple[Any, float, dict[str, float]]:
    """Return the prior, beta and each candidate's nll on a sample of the window, before it is learned.

    Scored with the predictive mixture, on members the parent could foretell (`before` are the classes it
    knew), each class counting the same and each candidate heard at its best temperature: the mean weights
    alone would take an honest doubt for a claim, a class that has become frequent is no reason to forget
    the others, and neither is being too sure. A beta below the largest must win by more than two standard
    errors of the difference, so that forgetting always has evidence behind it.
    """
    if keeping.beta is not None:
        return family.forget(grown, base, beta=keeping.beta), keeping.beta, {}
    judged = question.judged(members, before)
    known = list(judged)
    sample = known[:: max(1, len(known) // keeping.sample)][: keeping.sample]
    if not sample:
        return family.forget(grown, base, beta=1.0), 1.0, {}
    priors = {b: family.forget(grown, base, beta=b) for b in keeping.grid}
    chosen, whose = [members[i] for i in sample], [tasks[i] for i in sample]
    count, costs = min(keeping.draws, DRAWS), {}
    for beta, prior in priors.items():
        # The same noise for every candidate.
        draws = draws_of(family, prior, tasks=whose, count=count, seed=keeping.seed)
        costs[beta] = question.costs(chosen, whose, draws, labels)
    scores, best = kept_share(costs, torch.tensor([judged[i] for i in sample]))
    return priors[best], best, {str(b): s for b, s in scores.items()}


def kept_share(costs: Mapping[float, Tensor], classes: Tensor) -> tuple[dict[float, float], float]:
    """Return each beta's mean over classes of the mean cost, and the beta to take.

    `costs[beta]` (n,) in nats, `classes` (n,). The largest beta stands unless the cheapest beats it by
    more than two standard errors of their paired difference.
    """
    weight = 1.0 / torch.bincount(classes)[classes].double()
    weight = weight / weight.sum()
    scores = {b: float((weight * c).sum()) for b, c in costs.items()}
    largest, best = max(costs), min(costs, key=lambda b: (scores[b], -b))
    gain = costs[largest] - costs[best]
    won = (weight * gain).sum()
    error = (weight * (gain - won)).norm()
    return scores, best if float(won) > 2 * float(error) else largest
