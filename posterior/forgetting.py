"""Forgetting as a power prior: p_t proportional to q^beta p_0^(1-beta).

In natural parameters: precision beta*L + (1-beta)*L0, and the same for precision times mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA_GRID = (1.0, 0.999, 0.99, 0.9, 0.5, 0.0)


def effective(before: float, *, beta: float, new: float) -> float:
    """Return n_t = beta n_{t-1} + N_t: how many labelled examples a belief is worth beyond its base.

    Where evidence adds precision, as about a Gaussian mean, the power prior makes this exact: what a belief
    knows beyond the base is what n_t examples taken at once would have taught. beta = 0 begins anew.
    """
    return beta * before + new


def power_prior(
    mean: Tensor, log_sd: Tensor, base_mean: Tensor, base_log_sd: Tensor, *, beta: float
) -> tuple[Tensor, Tensor]:
    """Return mean and log deviation of q^beta p_0^(1-beta) for diagonal Gaussians.

    beta = 1 returns q bit for bit and beta = 0 the base, so that "no forgetting" never rounds.
    Where q is wider than the base, precision grows towards the base: that is the prior's own claim.
    """
    if not 0.0 <= beta <= 1.0:
        msg = f"beta must lie in [0, 1], got {beta}"
        raise ValueError(msg)
    if beta == 1.0:
        return mean, log_sd
    if beta == 0.0:
        return base_mean, base_log_sd
    kept = beta * torch.exp(-2 * log_sd.double())
    lent = (1 - beta) * torch.exp(-2 * base_log_sd.double())
    precision = kept + lent
    centre = (kept * mean.double() + lent * base_mean.double()) / precision
    return centre.to(mean.dtype), (-0.5 * torch.log(precision)).to(log_sd.dtype)
