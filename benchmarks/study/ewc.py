"""Online elastic weight consolidation as a family: a point, held where it has been informed about.

    loss_t = mean nll + 0.5 strength / N_t  sum_i F_i (w_i - w_i(t-1))^2         F_i += sum_n g_ni^2

with g_n the gradient under labels drawn from the model's own predictive. At strength 1 it is the Laplace
approximation with a diagonal precision, carried on. Sources: Kirkpatrick et al., PNAS 114 (2017); Schwarz et
al., ICML 2018 (online); Huszar, PNAS 115 (2018) (one centre, precisions added up).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import grow_rows


@dataclass(frozen=True)
class Held:
    """Weights, and the information about each that was added up, per squared weight."""

    point: Tensors
    fisher: Tensors


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ewc:
    """The family; `scale` only sets the unit of a step, as `posterior.point` does."""

    strength: float = 1.0
    scale: float = 0.02
    name: str = "benchmarks.study.ewc:Ewc"

    @property
    def curved(self) -> bool:
        """Information is counted, not learned by gradients."""
        return True

    def restore(self, tensors: Tensors) -> Held:
        """Return the state that was flattened."""
        return state_of(Held, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Held:
        """Return random directions for A and zeros elsewhere, of which nothing is known."""
        point = {s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots}
        return Held(point, {k: torch.zeros_like(v) for k, v in point.items()})

    def grow(self, state: Held, base: Held) -> Held:
        """Return the state with new class rows at 0, free to move."""
        return Held(
            {k: grow_rows(v, base.point[k]) for k, v in state.point.items()},
            {k: grow_rows(v, base.fisher[k]) for k, v in state.fisher.items()},
        )

    def forget(self, state: Held, base: Held, *, beta: float) -> Held:
        """Return the state with so much of its information."""
        del base
        return state if beta == 1.0 else Held(state.point, {k: beta * f for k, f in state.fisher.items()})

    def open(self, state: Held, tasks: Sequence[str]) -> Held:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Held) -> Tensors:
        """Return zero coordinates for every slot."""
        return {f"point/{k}": torch.zeros_like(v) for k, v in prior.point.items()}

    def place(self, prior: Held, coordinates: Tensors, *, shape: Held) -> Held:
        """Return the weights moved by scale times the coordinates."""
        moved = {k: v + self.scale * coordinates[f"point/{k}"] for k, v in prior.point.items()}
        return Held(moved, shape.fisher)

    def noise(self, state: Held) -> Mapping[str, tuple[int, ...]]:
        """Return nothing: a point needs no noise."""
        del state
        return {}

    def sample(self, state: Held, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del noise
        return self.mean(state, tasks)

    def mean(self, state: Held, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del tasks
        return {k: v.unsqueeze(0) for k, v in state.point.items()}

    def kl(self, state: Held, prior: Held) -> Tensor:
        """Return what is charged for having moved, in nats; no divergence, for a point has none."""
        total = torch.zeros((), dtype=torch.float64)
        for k, v in state.point.items():
            moved = v.double() - prior.point[k].double()
            total = total + 0.5 * self.strength * (prior.fisher[k].double() * moved.square()).sum()
        return total

    def marginal(self, state: Held, slots: Collection[str]) -> Held:
        """Return the part of the state."""
        return part_of(state, slots)

    def absorb(self, prior: Held, state: Held, rows: Tensors) -> tuple[Held, float]:
        """Return the weights with the information of the rows counted in."""
        fisher = {k: f + rows[k].square().sum(dim=0) for k, f in prior.fisher.items()}
        return Held(state.point, fisher), 0.0

    def settle(self, state: Held, prior: Held, posterior: Held, facts: Facts) -> Held:
        """Return where the window ended."""
        del state, prior, facts
        return posterior
