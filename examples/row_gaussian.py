"""A family of your own, in one file: Gaussian rows that share one deviation each.

    family: {name: "examples.row_gaussian:RowGaussian", sd_head: 0.1}

Every row of a slot (a LoRA direction, a class) has its own mean and one deviation for all its weights:
q = prod_rows N(m_row, s_row^2 I). A fraction of a mean-field family's state, and it can still say "this
class was hardly ever seen". It is closed under everything a family must be closed under, and the suites
in tests/ hold it to the same laws as the built-in ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.divergence import gaussian_kl
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.forgetting import power_prior
from posterior.gaussian import Scales, grow_rows


@dataclass(frozen=True)
class Rows:
    """Means (rows, ...) and log deviations (rows,) of every slot."""

    mean: Tensors
    log_sd: Tensors


def _wide(rows: Rows, slot: str) -> Tensor:
    """Return a slot's log deviations in the shape of its weights."""
    return rows.log_sd[slot].unsqueeze(-1).expand_as(rows.mean[slot])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RowGaussian:
    """The family; scales are prior standard deviations of one weight."""

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    sd_prefix: float = 0.1
    name: str = "examples.row_gaussian:RowGaussian"

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Rows:
        """Return the state that was flattened."""
        return state_of(Rows, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Rows:
        """Return p_0."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)
        return Rows(
            mean={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            log_sd={s.name: torch.full(s.shape[:1], math.log(scales.of(s))) for s in slots},
        )

    def grow(self, state: Rows, base: Rows) -> Rows:
        """Return the state with new class rows at the base prior."""
        return Rows(
            mean={k: grow_rows(v, base.mean[k]) for k, v in state.mean.items()},
            log_sd={k: grow_rows(v, base.log_sd[k]) for k, v in state.log_sd.items()},
        )

    def forget(self, state: Rows, base: Rows, *, beta: float) -> Rows:
        """Return the power prior: rows that share a deviation go on sharing one."""
        if beta == 1.0:
            return state
        mixed = {
            k: power_prior(state.mean[k], _wide(state, k), base.mean[k], _wide(base, k), beta=beta)
            for k in state.mean
        }
        return Rows({k: m for k, (m, _) in mixed.items()}, {k: s[..., 0] for k, (_, s) in mixed.items()})

    def open(self, state: Rows, tasks: Sequence[str]) -> Rows:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Rows) -> Tensors:
        """Return zero coordinates: one for each mean and each row's deviation."""
        means = {f"mean/{k}": torch.zeros_like(v) for k, v in prior.mean.items()}
        return means | {f"log_sd/{k}": torch.zeros_like(v) for k, v in prior.log_sd.items()}

    def place(self, prior: Rows, coordinates: Tensors, *, shape: Rows) -> Rows:
        """Return the state at whitened coordinates."""
        del shape
        mean = {k: m + torch.exp(_wide(prior, k)) * coordinates[f"mean/{k}"] for k, m in prior.mean.items()}
        return Rows(mean, {k: s + coordinates[f"log_sd/{k}"] for k, s in prior.log_sd.items()})

    def noise(self, state: Rows) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per weight."""
        return {k: tuple(v.shape) for k, v in sorted(state.mean.items())}

    def sample(self, state: Rows, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of weights per row of noise."""
        del tasks
        return {k: m + torch.exp(_wide(state, k)) * noise[k] for k, m in state.mean.items()}

    def mean(self, state: Rows, tasks: Sequence[str]) -> Draw:
        """Return the mean weights."""
        del tasks
        return {k: m.unsqueeze(0) for k, m in state.mean.items()}

    def kl(self, state: Rows, prior: Rows) -> Tensor:
        """Return the divergence in nats."""
        total = torch.zeros((), dtype=torch.float64)
        for k in state.mean:
            total = total + gaussian_kl(state.mean[k], _wide(state, k), prior.mean[k], _wide(prior, k))
        return total

    def marginal(self, state: Rows, slots: Collection[str]) -> Rows:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Rows, state: Rows, rows: Tensors) -> tuple[Rows, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Rows, prior: Rows, posterior: Rows, facts: Facts) -> Rows:
        """Return where the window ended."""
        del state, prior, facts
        return posterior
