"""A Gaussian over all adapted weights at once, precision diagonal plus low rank; beyond the papers.

A mean-field posterior forgets the correlations between weights, and correlations are what protects old
knowledge: it undercharges many weights that move together and overcharges directions the data never
asked about. Here the window's evidence enters the precision as it is,

    Lambda_t = forget(Lambda_{t-1}) + sum_n E_q[ J_n' (diag p - p p') J_n ]

with J and p from the same draw (at the averaged predictive the formula would count ignorance as
evidence, at an overfitted mean it vanishes), over sites and class head jointly, cut to a fixed rank
(`posterior.lowrank`). Only the mean is learned by gradients; the spread is never backpropagated through.
While a window is learned, draws come from the last estimate of that precision (variational online
Newton with one full step an epoch), so they are never as wide as the base prior for long.

Exact: on linear-Gaussian data, while the rank holds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from posterior import gaussian, lowrank
from posterior.family import Draw, Facts, Slot, Tensors, state_of
from posterior.gaussian import Scales
from posterior.lowrank import Joint, LowRank, joint


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianLowRank:
    """The family; scales are prior standard deviations of one weight, `rank` the directions carried."""

    rank: int = 128
    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    sd_prefix: float = 0.1
    name: str = "gaussian_lowrank"

    def __post_init__(self) -> None:
        if self.rank < 1:
            msg = f"gaussian_lowrank carries rank={self.rank} directions; it needs one at least"
            raise ValueError(msg)

    @property
    def curved(self) -> bool:
        """Spread comes from curvature."""
        return True

    def restore(self, tensors: Tensors) -> LowRank:
        """Return the state that was flattened."""
        return state_of(LowRank, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> LowRank:
        """Return p_0: diagonal, A around random directions, everything else around 0."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)
        return LowRank(
            mean={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            log_sd={s.name: torch.full(s.shape, math.log(scales.of(s))) for s in slots},
            factor={s.name: torch.zeros(0, *s.shape) for s in slots},
        )

    def grow(self, state: LowRank, base: LowRank) -> LowRank:
        """Return the state with new class rows at the base prior, correlated with nothing yet."""
        return LowRank(
            mean={k: gaussian.grow_rows(v, base.mean[k]) for k, v in state.mean.items()},
            log_sd={k: gaussian.grow_rows(v, base.log_sd[k]) for k, v in state.log_sd.items()},
            factor={k: _grow_columns(v, base.mean[k]) for k, v in state.factor.items()},
        )

    def forget(self, state: LowRank, base: LowRank, *, beta: float) -> LowRank:
        """Return the power prior; closed because the base is diagonal."""
        if beta == 1.0:
            return state
        return base if beta == 0.0 else lowrank.power_prior(state, base, beta=beta)

    def open(self, state: LowRank, tasks: Sequence[str]) -> Joint:
        """Return the belief made ready to be sampled; all tasks share one set of weights."""
        del tasks
        return joint(state)

    def origin(self, prior: Joint) -> Tensors:
        """Return zero coordinates: one for each weight's mean."""
        return {f"mean/{k}": torch.zeros_like(v) for k, v in prior.state.mean.items()}

    def place(self, prior: Joint, coordinates: Tensors, *, shape: Joint) -> Joint:
        """Return the belief with mean m + D^-1/2 u and the spread of `shape`."""
        before, spread = prior.state, shape.state
        mean = {k: m + torch.exp(before.log_sd[k]) * coordinates[f"mean/{k}"] for k, m in before.mean.items()}
        return replace(shape, state=LowRank(mean, spread.log_sd, spread.factor))

    def noise(self, state: Joint) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per weight."""
        return {k: tuple(state.state.mean[k].shape) for k in state.names}

    def sample(self, state: Joint, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of correlated weights per row of noise."""
        del tasks
        return lowrank.sample(state, noise)

    def mean(self, state: Joint, tasks: Sequence[str]) -> Draw:
        """Return the mean weights."""
        del tasks
        return {k: v.unsqueeze(0) for k, v in state.state.mean.items()}

    def kl(self, state: Joint, prior: Joint) -> Tensor:
        """Return the joint divergence in nats; the part that depends on the mean is differentiable."""
        return lowrank.quadratic(state.state, prior) + lowrank.spread_kl(state, prior)

    def marginal(self, state: Joint, slots: Collection[str]) -> Joint:
        """Return the belief about these slots whatever the others are: correlations with them are gone."""
        return lowrank.marginal(state, slots)

    def absorb(self, prior: Joint, state: Joint, rows: Tensors) -> tuple[Joint, float]:
        """Return the belief at `state`'s mean with the prior's precision plus the rows'."""
        mean, spread = state.state.mean, prior.state
        made, dropped = lowrank.compress(LowRank(mean, spread.log_sd, spread.factor), rows, rank=self.rank)
        absorbed = joint(made)
        return replace(absorbed, apart=(prior.core, lowrank.spread_kl(absorbed, prior))), dropped

    def settle(self, state: LowRank, prior: Joint, posterior: Joint, facts: Facts) -> LowRank:
        """Return where the window ended."""
        del state, prior, facts
        return posterior.state


def _grow_columns(factor: Tensor, base: Tensor) -> Tensor:
    missing = base.shape[0] - factor.shape[1]
    if missing == 0:
        return factor
    return torch.cat([factor, torch.zeros(factor.shape[0], missing, *base.shape[1:])], dim=1)
