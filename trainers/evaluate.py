"""What a posterior says of texts it has not learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from posterior.family import Draw, Family
from posterior.predict import mixture
from trainers.model import AdaptedModel
from trainers.noise import key, normals
from trainers.update import Ranks

BATCH = 32  # fixed: forward bits differ between batch shapes
TEMPERS = (1.0, 1.5, 2.0, 3.0)  # bounded: at infinity nothing would ever be worth forgetting


Sampler = Callable[[Sequence[str]], Draw]  # tasks of a batch -> weights


def draws_of(
    family: Family[Any, Any], state: Any, *, tasks: Sequence[str], count: int, seed: int
) -> list[Sampler]:
    """Return `count` draws shared by all inputs, keyed by seed and number; 0 means the mean alone.

    `tasks` are those that will be asked about. A draw is one set of weights for every task.
    """
    opened = family.open(state, sorted(set(tasks)))
    shapes = family.noise(opened)
    if count == 0 or not shapes:  # a family without randomness says the same at every draw
        return [partial(family.mean, opened)]
    noises = [normals(shapes, [key(seed, "draw", k)]) for k in range(count)]
    return [partial(family.sample, opened, noise) for noise in noises]


@torch.no_grad()
def log_predictive(
    model: AdaptedModel, activations: Sequence[Tensor], tasks: Sequence[str], draws: Sequence[Sampler]
) -> Tensor:
    """Return log p(class) of the mixture over draws, (n, classes), float64, in batches of fixed size."""
    parts = []
    for start in range(0, len(activations), BATCH):
        batch, whose = activations[start : start + BATCH], tasks[start : start + BATCH]
        logits = torch.stack([model.logits(batch, draw(whose)) for draw in draws])
        parts.append(mixture(torch.log_softmax(logits.double(), dim=-1)))
    return torch.cat(parts)


def by_ranks(ranks: Ranks, count: int, columns: int, say: Callable[[slice], Tensor]) -> Tensor:
    """Return what is said of `count` texts, (count, columns), float64, each batch by one rank.

    Ranks get whole batches, so bits do not depend on them; one term a row is not zero.
    """
    parts = []
    for rank in ranks.mine():
        part = torch.zeros(count, columns, dtype=torch.float64)
        for start in range(rank * BATCH, count, ranks.world * BATCH):
            at = slice(start, start + BATCH)
            part[at] = say(at)
        parts.append(part)
    return torch.stack(tuple(ranks.gather(parts))).sum(dim=0)


def tempered_cost(log_p: Tensor, truth: Tensor) -> Tensor:
    """Return each example's cost (n,) in nats at the temperature of `TEMPERS` that suits log_p (n, C) best.

    A belief that knows the classes and is too sure of them loses to one that knows nothing: forgetting
    would mend its calibration by giving up its knowledge. Tempered, both are asked what they know.
    """
    rows = torch.arange(len(truth))
    costs = [-torch.log_softmax(log_p / t, dim=-1)[rows, truth] for t in TEMPERS]
    return min(costs, key=lambda cost: float(cost.mean()))
