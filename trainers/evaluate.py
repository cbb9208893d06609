"""What a posterior says of texts it has not learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posterior.family import Draw, Family
from posterior.predict import mixture
from trainers.model import AdaptedModel
from trainers.noise import key, normals

BATCH = 32  # fixed: forward bits differ between batch shapes


def draws_of(family: Family[Any], state: Any, *, count: int, seed: int) -> list[Draw]:
    """Return `count` draws shared by all inputs, keyed by seed and number; 0 means the mean alone."""
    if count == 0:
        return [family.mean(state)]
    shapes = family.noise(state)
    if not shapes:  # a family without randomness says the same at every draw
        return [family.mean(state)]
    return [family.sample(state, normals(shapes, [key(seed, "draw", k)])) for k in range(count)]


@torch.no_grad()
def log_predictive(model: AdaptedModel, activations: Sequence[Tensor], draws: Sequence[Draw]) -> Tensor:
    """Return log p(class) of the mixture over draws, (n, classes), float64, in batches of fixed size."""
    parts = []
    for start in range(0, len(activations), BATCH):
        batch = activations[start : start + BATCH]
        logits = torch.stack([model.logits(batch, draw) for draw in draws])
        parts.append(mixture(torch.log_softmax(logits.double(), dim=-1)))
    return torch.cat(parts)
