"""Plain LoRA as a family: every slot a point, nothing remembered but the weights.

The baseline that sequential Bayes has to beat, run by the same code on the same windows. With weight
decay 0 this is maximum likelihood from yesterday's weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Diagonal


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The family; `scale` only sets the unit of a step, so that families share step sizes."""

    scale: float = 0.02
    name: str = "point"

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Diagonal:
        """Return the state that was flattened."""
        return state_of(Diagonal, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Diagonal:
        """Return random directions for A and zeros elsewhere."""
        point = {s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots}
        return Diagonal(mean={}, log_sd={}, point=point, flags={})

    def grow(self, state: Diagonal, base: Diagonal) -> Diagonal:
        """Return the state with new class rows at 0."""
        return gaussian.grow(state, base)

    def forget(self, state: Diagonal, base: Diagonal, *, beta: float) -> Diagonal:
        """Return the state: a point carries no belief that could be weakened."""
        del base, beta
        return state

    def origin(self, prior: Diagonal) -> Tensors:
        """Return zero coordinates for every slot."""
        return gaussian.origin(prior, moving=sorted(prior.point))

    def open(self, state: Diagonal, tasks: Sequence[str]) -> Diagonal:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def place(self, prior: Diagonal, coordinates: Tensors, *, shape: Diagonal) -> Diagonal:
        """Return the weights moved by scale times the coordinates."""
        del shape
        return gaussian.place(prior, coordinates, point_scale=self.scale)

    def noise(self, state: Diagonal) -> Mapping[str, tuple[int, ...]]:
        """Return nothing: a point needs no noise."""
        return gaussian.noise(state)

    def sample(self, state: Diagonal, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del tasks
        return gaussian.sample(state, noise)

    def mean(self, state: Diagonal, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del tasks
        return gaussian.mean(state)

    def kl(self, state: Diagonal, prior: Diagonal) -> Tensor:
        """Return 0: points are charged nothing, which is what makes them forget."""
        del state, prior
        return torch.zeros((), dtype=torch.float64)

    def marginal(self, state: Diagonal, slots: Collection[str]) -> Diagonal:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Diagonal, state: Diagonal, rows: Tensors) -> tuple[Diagonal, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Diagonal, prior: Diagonal, posterior: Diagonal, facts: Facts) -> Diagonal:
        """Return where the window ended."""
        del state, prior, facts
        return posterior
