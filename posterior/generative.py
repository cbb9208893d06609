"""A class head that generates features: a Gaussian per class, one covariance for all, exact Bayes.

    Sigma ~ IW(Psi0, nu0)      mu_k | Sigma ~ N(m0, Sigma / kappa0)      x | k ~ N(mu_k, Sigma)

No loss pushes it off classes that a window does not hold, as a softmax head's does, however Bayesian.
What was seen (`posterior.moments`: n_k, xbar_k, scatter S within classes, N events in all) is kept apart
from what was believed before (`Base`), so that constants chosen later tell every old window anew:

    kappa_k = kappa0 + n_k      m_k = m0 + (n_k / kappa_k) (xbar_k - m0)      nu = nu0 + N
    Psi     = Psi0 + S + sum_k (kappa0 n_k / kappa_k) (xbar_k - m0)(xbar_k - m0)'

Source: Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007, sections 8 and 9; there for
one class, here Sigma is integrated out once for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from posterior.family import NotFinite
from posterior.moments import Moments


@dataclass(frozen=True)
class Base:
    """What is believed before any evidence, all float64.

    mean m0 (d,) · variance (d,), the expected covariance of a class, Psi0 = (freedom - 2) diag(variance) ·
    worth kappa0, events that m0 counts for · freedom > 2 of the first predictive's tails, nu0 = freedom +
    d - 1.
    """

    mean: Tensor
    variance: Tensor
    worth: Tensor
    freedom: Tensor


@dataclass(frozen=True)
class Belief:
    """Base and moments together, factorised once: what densities need.

    mean (K, d) and worth (K,) of the classes · root (d, d) lower, Psi = root root' · freedom nu · base.
    """

    mean: Tensor
    worth: Tensor
    root: Tensor
    freedom: Tensor
    base: Base


def base(mean: Tensor, variance: Tensor, *, worth: float, freedom: float) -> Base:
    """Return the constants as a state; ValueError names one that is out of range."""
    number = {"worth": worth, "freedom - 2": freedom - 2, "variance": float(variance.min())}
    for name, value in number.items():
        if not 0 < value < math.inf:
            msg = f"{name} of a generative head must be positive and finite, not {value}"
            raise ValueError(msg)
    constants = (torch.tensor(x, dtype=torch.float64) for x in (worth, freedom))
    return Base(mean.double(), variance.double().expand(mean.shape), *constants)


def believe(base: Base, evidence: Moments) -> Belief:
    """Return the posterior; NotFinite if rounding has eaten the base's part of the scatter."""
    n = evidence.count.unsqueeze(1)
    worth, gap = base.worth + n, evidence.mean - base.mean
    pulled = (base.worth * n / worth * gap).T @ gap
    psi = pulled.add_(evidence.scatter)  # in place: (d, d) is large, and fresh memory is not free
    psi.diagonal().add_((base.freedom - 2) * base.variance)
    root, failed = torch.linalg.cholesky_ex(psi)
    if int(failed):
        msg = f"scatter is not positive definite at feature {int(failed)}: the base's variance is too small"
        raise NotFinite(msg)
    return Belief(
        mean=base.mean + n / worth * gap,
        worth=worth.squeeze(1),
        root=root,
        freedom=base.freedom + len(psi) - 1 + evidence.count.sum(),
        base=base,
    )


def log_densities(belief: Belief, features: Tensor) -> Tensor:
    """Return log p(x | k), (n, K), float64.

    Integrated over mu_k and Sigma it is Student's t at m_k with nu - d + 1 degrees of freedom and shape
    Psi c_k / (nu - d + 1), c_k = 1 + 1/kappa_k:

        lnG((nu+1)/2) - lnG((nu-d+1)/2) - d/2 ln(pi c_k) - ln|Psi|/2 - (nu+1)/2 ln(1 + q_k/c_k)

    with q_k = (x - m_k)' Psi^-1 (x - m_k). nu holds the events of all classes, since all inform Sigma:
    nu0 + n_k there would give a rare class tails that its covariance has not got.
    """
    return _student(belief, belief.mean, belief.worth, features)


def log_fresh(belief: Belief, features: Tensor) -> Tensor:
    """Return log p(x | a class never seen), (n,): its mean is where the base has it."""
    b = belief
    return _student(b, b.base.mean.unsqueeze(0), b.base.worth.unsqueeze(0), features).squeeze(1)


def _student(belief: Belief, mean: Tensor, worth: Tensor, features: Tensor) -> Tensor:
    centre, d, nu = belief.base.mean, belief.root.shape[0], belief.freedom
    x = solve_triangular(belief.root, (features.double() - centre).T, upper=False).T
    m = solve_triangular(belief.root, (mean - centre).T, upper=False).T
    wider = 1 + 1 / worth
    level = torch.lgamma((nu + 1) / 2) - torch.lgamma((nu - d + 1) / 2) - _log_det(belief.root)
    tails = (nu + 1) / 2 * torch.log1p(_square_distances(x, m) / wider)
    return level - d / 2 * (math.pi * wider).log() - tails


def _square_distances(x: Tensor, m: Tensor) -> Tensor:
    """Return |x_i - m_k|^2, (..., n, K), without a tensor of all differences."""
    return x.square().sum(-1).unsqueeze(-1) + m.square().sum(-1).unsqueeze(-2) - 2 * x @ m.mT


def _log_det(root: Tensor) -> Tensor:
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
