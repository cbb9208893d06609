"""Closed-form divergences, in nats, reduced in float64."""

from __future__ import annotations

import torch
from torch import Tensor

_SERIES_BELOW = 0.01  # below this the direct form has cancelled to noise in float32
_EXCESS_SERIES_BELOW = 2e-3  # the same in float64, for a series of five terms
_EXCESS_LOG1P_BELOW = 0.5
_SHIFT = 32  # arguments of log-gamma are raised by this much; Stirling's tail is then below 1e-10 of all


def half_expm1_minus(delta: Tensor) -> Tensor:
    """Return 0.5*expm1(2d) - d >= 0 without cancellation.

    For |d| < .01 the direct form loses all digits in float32 (6x wrong at 1e-4); there the series
    d^2 (1 + 2d/3 + d^2/3) is exact to 1e-6 relative.
    """
    small = delta.abs() < _SERIES_BELOW
    # Each branch sees only arguments it is good for, so the unused one cannot poison the gradient.
    near = torch.where(small, delta, torch.zeros_like(delta))
    far = torch.where(small, torch.zeros_like(delta), delta)
    series = near.square() * (1 + near * (2 / 3) + near.square() / 3)
    return torch.where(small, series, 0.5 * torch.expm1(2 * far) - far)


def gaussian_kl(mean: Tensor, log_sd: Tensor, prior_mean: Tensor, prior_log_sd: Tensor) -> Tensor:
    """Return KL(N(mean, e^2log_sd) || N(prior...)) summed over all entries, float64 scalar.

    sum 0.5*expm1(2d) - d + 0.5 z^2, d = log_sd - prior_log_sd, z = (mean - prior_mean) e^-prior_log_sd.
    No epsilon anywhere: a floor in the denominator would waive most of the penalty of a narrow prior.
    """
    delta = log_sd.double() - prior_log_sd.double()
    z = (mean.double() - prior_mean.double()) * torch.exp(-prior_log_sd.double())
    return (half_expm1_minus(delta) + 0.5 * z.square()).sum()


def excess(b: Tensor, a: Tensor) -> Tensor:
    """Return b/a - 1 - log(b/a) >= 0 for positive b and a, with its digits where they are close."""
    x = (b - a) / a
    small, middle = x.abs() < _EXCESS_SERIES_BELOW, x.abs() < _EXCESS_LOG1P_BELOW
    near = torch.where(small, x, torch.zeros_like(x))
    mid = torch.where(middle, x, torch.zeros_like(x))
    series = near.square() * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5 - near / 6))))
    return torch.where(small, series, torch.where(middle, mid - torch.log1p(mid), x - (b.log() - a.log())))


def log_gamma_gap(b: Tensor, a: Tensor) -> Tensor:
    """Return lnGamma(b) - lnGamma(a) - (b - a) psi(a) >= 0: how far log-gamma bends away from its tangent.

    Each step of z -> z + 1 adds excess(b, a), and far up Stirling's series takes over, written so that
    no two large terms cancel: the direct form loses everything where b is close to a or both are large.
    """
    steps = torch.arange(_SHIFT, dtype=torch.float64)
    climbed = excess(b.double().unsqueeze(-1) + steps, a.double().unsqueeze(-1) + steps).sum(dim=-1)
    b, a = b.double() + _SHIFT, a.double() + _SHIFT
    square = (b - a).square()
    tail = square / (12 * a**2 * b) - square * (a**2 + 2 * a * b + 3 * b**2) / (360 * a**4 * b**3)
    return climbed + b * excess(a, b) + 0.5 * excess(b, a) + tail


def dirichlet_kl(alpha: Tensor, prior_alpha: Tensor) -> Tensor:
    """Return KL(Dir(alpha) || Dir(prior)) over the last axis, summed over the others, float64 scalar.

    lnG(a0) - sum lnG(a) - lnG(p0) + sum lnG(p) + sum (a - p)(psi(a) - psi(a0)), regrouped into gaps.
    """
    q, p = alpha.double(), prior_alpha.double()
    return log_gamma_gap(p, q).sum() - log_gamma_gap(p.sum(dim=-1), q.sum(dim=-1)).sum()


def wishart_kl(log_root: Tensor, nu: Tensor, prior_log_root: Tensor, prior_nu: Tensor) -> Tensor:
    """Return KL(W(V, nu) || W(V_p, nu_p)), V = diag exp(2 log_root) of size r, float64 scalar.

    nu/2 (tr R - log|R| - r) + (nu - nu_p)/2 log|R| + sum_{i<r} gap((nu_p - i)/2, (nu - i)/2), R = V_p^-1 V.
    """
    delta = log_root.double() - prior_log_root.double()
    n, m = nu.double(), prior_nu.double()
    steps = torch.arange(delta.shape[-1], dtype=torch.float64)
    freedom = log_gamma_gap((m - steps) / 2, (n - steps) / 2).sum() + (n - m) * delta.sum()
    return n * half_expm1_minus(delta).sum() + freedom
