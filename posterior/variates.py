"""Gamma, Dirichlet and Wishart variates as functions of standard normals, exact and differentiable.

Noise reaches a family as standard normals (`posterior.family`), so a gamma variate is its quantile at
Phi(normal). Nothing is approximated: a logistic-normal stand-in for a Dirichlet would be another law
than the one the divergence charges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import gammainc, gammaincc, log_ndtr

_ROUNDS = 5  # Newton's; 1e-11 off for a shape of .05, at rounding error from .2 on
_CUBE = 0.2  # where the Wilson-Hilferty cube root falls below this, the power law at 0 starts better
_STEP = 1e-4  # of the derivative in the shape, in units of the scale on which the tail changes


def log_gamma_variate(normal: Tensor, shape: Tensor) -> Tensor:
    """Return the log of the Gamma(shape, 1) quantile at Phi(normal), float64, differentiable in `shape`.

    In logs, because a variate of a small shape underflows. The smaller tail is inverted, so that normals
    far out keep their digits.
    """
    z = normal.double()
    a = shape.double().expand(z.shape)
    held = a.detach()
    u = _start(z, held)
    for _ in range(_ROUNDS):
        tail, slope = _log_tail(u, held, z < 0), _slope(u, held, z < 0)
        u = u - (tail - log_ndtr(-z.abs())) / slope
    if not a.requires_grad:
        return u
    # The value of u with the gradient of the quantile: exact to first order, which is what is asked.
    quantile: Tensor = u + (a - held) * _in_shape(u, held, z < 0)
    return quantile


def dirichlet(normal: Tensor, alpha: Tensor) -> Tensor:
    """Return Dirichlet(alpha) weights, (n, K) from (n, K) normals, float64, differentiable in alpha."""
    return torch.softmax(log_gamma_variate(normal, alpha), dim=-1)


def wishart_factor(normal: Tensor, nu: Tensor) -> Tensor:
    """Return lower triangular L (n, r, r), float64, with L L' ~ Wishart(I, nu), from (n, r, r) normals.

    Bartlett: chi variates of nu, nu - 1, ... degrees of freedom on the diagonal, normals below it. What
    lies above the diagonal of `normal` is not used.
    """
    z = normal.double()
    freedom = nu.double() - torch.arange(z.shape[-1], dtype=torch.float64)
    chi = torch.exp(0.5 * (math.log(2) + log_gamma_variate(torch.diagonal(z, dim1=-2, dim2=-1), freedom / 2)))
    return torch.tril(z, diagonal=-1) + torch.diag_embed(chi)


def _start(z: Tensor, a: Tensor) -> Tensor:
    cube = 1 - 1 / (9 * a) + z / (3 * a.sqrt())
    near_zero = (log_ndtr(z) + torch.lgamma(a + 1)) / a  # P(a, x) = x^a / Gamma(a + 1) as x -> 0
    return torch.where(cube > _CUBE, a.log() + 3 * cube.clamp_min(_CUBE).log(), near_zero)


def _log_tail(u: Tensor, a: Tensor, lower: Tensor) -> Tensor:
    return torch.where(lower, gammainc(a, u.exp()), gammaincc(a, u.exp())).log()


def _log_density(u: Tensor, a: Tensor) -> Tensor:
    """Return the log density of the log variate."""
    return a * u - u.exp() - torch.lgamma(a)


def _slope(u: Tensor, a: Tensor, lower: Tensor) -> Tensor:
    rise = torch.exp(_log_density(u, a) - _log_tail(u, a, lower))
    return torch.where(lower, rise, -rise)


def _in_shape(u: Tensor, a: Tensor, lower: Tensor) -> Tensor:
    """Return du/da at a fixed probability: -(dP/da) / (dP/du), by a central difference in a."""
    h = _STEP * torch.minimum(a, a.sqrt())
    along = (_log_tail(u, a + h, lower) - _log_tail(u, a - h, lower)) / (2 * h)
    return -along / _slope(u, a, lower)
