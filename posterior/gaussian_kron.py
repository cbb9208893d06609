"""A Gaussian whose precision is, slot by slot, the base's plus one Kronecker product; beyond the papers.

    Lambda_t = forget(Lambda_{t-1}) + the partial traces of sum_n E_q[ J_n' (diag p - p p') J_n ]

with J and p from the same draw. A LoRA's A (r, d) keeps which of its d inputs were seen and which of its r
directions mattered, every correlation among either; a class row's prior knows which features go together.
Adapters over a frozen prefix: the inputs of the first adapted layer never change, so what is known of the
columns of A there is about the same inputs for ever and never goes stale.

Between `blob`, which keeps no correlation, and `gaussian_lowrank`, which keeps those of all slots but only
so many directions: here directions are all kept, those between slots are not. Only the mean is learned by
gradients, in coordinates turned so that a step is one deviation of what is already known.

Exact: on linear-Gaussian data, for slots of one row. The algebra is in `posterior.kronecker`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from posterior import gaussian, kronecker
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Scales
from posterior.kronecker import Kronecker, Turned, turned


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianKron:
    """The family; scales are prior standard deviations of one weight."""

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    sd_prefix: float = 0.1
    name: str = "gaussian_kron"

    @property
    def curved(self) -> bool:
        """Spread comes from curvature."""
        return True

    def restore(self, tensors: Tensors) -> Kronecker:
        """Return the state that was flattened."""
        return state_of(Kronecker, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Kronecker:
        """Return p_0: independent weights, A around random directions, everything else around 0."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)
        return Kronecker(
            mean={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            log_sd={s.name: torch.tensor(math.log(scales.of(s))) for s in slots},
            left={s.name: torch.zeros(s.shape[0], s.shape[0]) for s in slots},
            right={s.name: torch.eye(s.shape[1]) / s.shape[1] for s in slots},
        )

    def grow(self, state: Kronecker, base: Kronecker) -> Kronecker:
        """Return the state with new class rows at the base prior, correlated with nothing yet."""
        return replace(
            state,
            mean={k: gaussian.grow_rows(v, base.mean[k]) for k, v in state.mean.items()},
            left={k: _padded(v, base.left[k]) for k, v in state.left.items()},
        )

    def forget(self, state: Kronecker, base: Kronecker, *, beta: float) -> Kronecker:
        """Return the power prior; closed because every weight of a slot has the base's deviation."""
        if beta == 1.0:
            return state
        return base if beta == 0.0 else kronecker.power_prior(state, base, beta=beta)

    def open(self, state: Kronecker, tasks: Sequence[str]) -> Turned:
        """Return the belief made ready to be sampled; all tasks share one set of weights."""
        del tasks
        return turned(state)

    def origin(self, prior: Turned) -> Tensors:
        """Return zero coordinates: one for each turned coordinate of the mean."""
        return {f"mean/{k}": torch.zeros_like(v) for k, v in prior.mean.items()}

    def place(self, prior: Turned, coordinates: Tensors, *, shape: Turned) -> Turned:
        """Return the belief with its mean moved by so many prior deviations and the spread of `shape`."""
        return replace(
            shape, mean={k: kronecker.moved(prior, k, coordinates[f"mean/{k}"]) for k in prior.mean}
        )

    def noise(self, state: Turned) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per weight."""
        return {k: tuple(v.shape) for k, v in sorted(state.mean.items())}

    def sample(self, state: Turned, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of weights per row of noise, differentiable in the mean."""
        del tasks
        return {k: v + kronecker.deviate(state, k, noise[k]) for k, v in state.mean.items()}

    def mean(self, state: Turned, tasks: Sequence[str]) -> Draw:
        """Return the mean weights."""
        del tasks
        return {k: v.unsqueeze(0) for k, v in state.mean.items()}

    def kl(self, state: Turned, prior: Turned) -> Tensor:
        """Return the slots' divergences in nats; the part that depends on the mean is differentiable."""
        total = torch.zeros((), dtype=torch.float64)
        for k, mean in state.mean.items():
            total = total + kronecker.quadratic(mean, prior, k) + kronecker.spread_kl(state, prior, k)
        return total

    def marginal(self, state: Turned, slots: Collection[str]) -> Turned:
        """Return the part of the belief: slots are independent of each other."""
        return part_of(state, slots)

    def absorb(self, prior: Turned, state: Turned, rows: Tensors) -> tuple[Turned, float]:
        """Return the belief at `state`'s mean with the rows' partial traces added to the prior's."""
        return kronecker.counted(prior, state.mean, rows), 0.0

    def settle(self, state: Kronecker, prior: Turned, posterior: Turned, facts: Facts) -> Kronecker:
        """Return where the window ended."""
        del state, prior, facts
        return posterior.state


def _padded(left: Tensor, base: Tensor) -> Tensor:
    missing = base.shape[0] - left.shape[0]
    return torch.nn.functional.pad(left, (0, missing, 0, missing)) if missing else left
