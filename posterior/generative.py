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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from posterior.divergence import excess, wishart_kl
from posterior.family import NotFinite, Tensors
from posterior.moments import Moments
from posterior.variates import wishart_factor

_TINY: Final = 1e-300  # keeps 0/0 from no events; nothing that was seen counts so little


@dataclass(frozen=True)
class Base:
    """What is believed before any evidence, all float64.

    mean m0 (d,) · variance (d,), the expected covariance of a class, Psi0 = (freedom - 2) diag(variance) ·
    worth kappa0, events that m0 counts for · freedom > 2 of the first predictive's tails, nu0 = freedom +
    d - 1 · concentration of the class frequencies' Dirichlet, per class · novelty (2,) of the Beta of
    "the next event shows a class never seen".
    """

    mean: Tensor
    variance: Tensor
    worth: Tensor
    freedom: Tensor
    concentration: Tensor
    novelty: Tensor


@dataclass(frozen=True)
class Belief:
    """Base and moments together, factorised once: what predictions, draws and divergences need.

    mean (K, d) and worth (K,) of the classes · root (d, d) lower, Psi = root root' · freedom nu · log_prior
    (K,) of the known classes, -inf for a row without events · novelty (2,) · base.
    """

    mean: Tensor
    worth: Tensor
    root: Tensor
    freedom: Tensor
    log_prior: Tensor
    novelty: Tensor
    base: Base


@dataclass(frozen=True)
class Gaussians:
    """Draws of all classes: mean (n, K, d), root (n, d, d) with root root' = Sigma^-1, its log_det (n,)."""

    mean: Tensor
    root: Tensor
    log_det: Tensor


def base(
    mean: Tensor,
    variance: Tensor,
    *,
    worth: float = 0.01,
    freedom: float = 3.0,
    concentration: float = 1.0,
    novelty: tuple[float, float] = (1.0, 1.0),
) -> Base:
    """Return the constants as a state; ValueError names one that is out of range."""
    number = {"worth": worth, "freedom - 2": freedom - 2, "concentration": concentration}
    number |= {"novelty": min(novelty), "variance": float(variance.min())}
    for name, value in number.items():
        if not 0 < value < math.inf:
            msg = f"{name} of a generative head must be positive and finite, not {value}"
            raise ValueError(msg)
    constants = (torch.tensor(x, dtype=torch.float64) for x in (worth, freedom, concentration, novelty))
    return Base(mean.double(), variance.double().expand(mean.shape), *constants)


def believe(base: Base, evidence: Moments) -> Belief:
    """Return the posterior; NotFinite if rounding has eaten the base's part of the scatter."""
    n = evidence.count.unsqueeze(1)
    worth, gap = base.worth + n, evidence.mean - base.mean
    pulled = (base.worth * n / worth * gap).T @ gap
    psi = evidence.scatter + pulled + torch.diag((base.freedom - 2) * base.variance)
    root, failed = torch.linalg.cholesky_ex(psi)
    if int(failed):
        msg = f"scatter is not positive definite at feature {int(failed)}: the base's variance is too small"
        raise NotFinite(msg)
    firsts, total = evidence.firsts.sum(), evidence.seen.sum()
    counted = torch.where(evidence.seen > 0, base.concentration + evidence.seen, 0.0)
    return Belief(
        mean=base.mean + n / worth * gap,
        worth=worth.squeeze(1),
        root=root,
        freedom=base.freedom + len(psi) - 1 + total,
        log_prior=(counted / counted.sum().clamp_min(_TINY)).log(),
        novelty=base.novelty + torch.stack([firsts, total - firsts]),
        base=base,
    )


def covariance(belief: Belief) -> Tensor:
    """Return E Sigma = Psi / (nu - d - 1), the expected covariance of a class, (d, d)."""
    return belief.root @ belief.root.T / (belief.freedom - len(belief.root) - 1)


def log_densities(belief: Belief, features: Tensor) -> Tensor:
    """Return log p(x | k), (n, K), float64, differentiable in the features (n, d).

    Integrated over mu_k and Sigma it is Student's t at m_k with nu - d + 1 degrees of freedom and shape
    Psi c_k / (nu - d + 1), c_k = 1 + 1/kappa_k:

        lnG((nu+1)/2) - lnG((nu-d+1)/2) - d/2 ln(pi c_k) - ln|Psi|/2 - (nu+1)/2 ln(1 + q_k/c_k)

    with q_k = (x - m_k)' Psi^-1 (x - m_k). nu holds the events of all classes, since all inform Sigma:
    nu0 + n_k there would give a rare class tails that its covariance has not got.
    """
    return _student(belief, belief.mean, belief.worth, features)


def log_predictive(belief: Belief, features: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log p(k | x) of the known classes, (n, K); their probabilities sum to 1 - pi_new.

    p ~ p(k) p(x | k)^(1/temperature): what a temperature doubts is the features' evidence (they are neither
    Gaussian nor independent), never how often a class comes.
    """
    if not bool((belief.log_prior > -math.inf).any()):
        msg = "a generative head that has seen no event knows no class to predict"
        raise ValueError(msg)
    logits = belief.log_prior + log_densities(belief, features) / temperature
    return torch.log_softmax(logits, dim=-1) + (belief.novelty[1] / belief.novelty.sum()).log()


def pi_new(belief: Belief) -> Tensor:
    """Return the probability that the next event shows a class never seen: first sights among events."""
    return belief.novelty[0] / belief.novelty.sum()


def log_fresh(belief: Belief, features: Tensor) -> Tensor:
    """Return log p(x | a class never seen), (n,): its mean is where the base has it."""
    b = belief
    return _student(b, b.base.mean.unsqueeze(0), b.base.worth.unsqueeze(0), features).squeeze(1)


def log_new(belief: Belief, features: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log p(new | x), (n,): pi_new told by the features, through the density of a class unseen."""
    b, fresh = belief, log_fresh(belief, features)
    known = torch.logsumexp(b.log_prior + log_densities(b, features) / temperature, dim=-1)
    odds = (b.novelty[0] / b.novelty[1]).log() + fresh / temperature - known
    return torch.nn.functional.logsigmoid(odds)


def noise(belief: Belief) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of the standard normals that one draw consumes."""
    return {"covariance": tuple(belief.root.shape), "mean": tuple(belief.mean.shape)}


def sample(belief: Belief, noise: Tensors) -> Gaussians:
    """Return n draws of means and covariance from normals (n, *shape).

    Sigma^-1 = M M', M = root^-T A with A A' ~ W(I, nu) by Bartlett; mu_k = m_k + M^-T z / sqrt(kappa_k).
    """
    bartlett = wishart_factor(noise["covariance"], belief.freedom)
    z = (noise["mean"].double() / belief.worth.sqrt().unsqueeze(1)).mT
    return Gaussians(
        mean=belief.mean + (belief.root @ solve_triangular(bartlett.mT, z, upper=True)).mT,
        root=solve_triangular(belief.root.T, bartlett, upper=True),
        log_det=_log_det(bartlett) - _log_det(belief.root),
    )


def log_densities_of(draws: Gaussians, features: Tensor) -> Tensor:
    """Return log p(x | k) under each draw, (draws, n, K).

    Their densities average to `log_densities`. Probabilities p(k | x) of single draws do not average to
    `log_predictive`: x itself says which draw is likely, so densities are averaged first, then divided.
    """
    x, m = features.double() @ draws.root, draws.mean @ draws.root
    half = 0.5 * math.log(2 * math.pi) * x.shape[-1]
    return draws.log_det.view(-1, 1, 1) - half - 0.5 * _square_distances(x, m)


def kl(belief: Belief, prior: Belief) -> Tensor:
    """Return KL(belief || prior) of means and covariance in nats, float64; 0 only at equality.

    KL of the Wisharts of Sigma^-1, plus for every class, E_q Sigma^-1 being nu Psi^-1,
        d/2 (r - 1 - ln r) + kappa_p nu/2 (m - m_p)' Psi^-1 (m - m_p),     r = kappa_p / kappa.
    A class that one side has not got is there as its base has it.
    """
    rows = max(len(belief.worth), len(prior.worth))
    (mean, worth), (prior_mean, prior_worth) = _padded(belief, rows), _padded(prior, rows)
    stretch = torch.linalg.svdvals(solve_triangular(belief.root, prior.root, upper=False)).log()
    shared = wishart_kl(stretch, belief.freedom, torch.zeros_like(stretch), prior.freedom)
    moved: Tensor = solve_triangular(belief.root, (mean - prior_mean).T, upper=False)
    pulled = belief.freedom * prior_worth * moved.square().sum(dim=0)
    spread = mean.shape[1] * excess(prior_worth, worth) + pulled
    return shared + 0.5 * spread.sum()


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


def _padded(belief: Belief, rows: int) -> tuple[Tensor, Tensor]:
    missing = rows - len(belief.worth)
    fresh = belief.base.mean.expand(missing, -1), belief.base.worth.expand(missing)
    return torch.cat([belief.mean, fresh[0]]), torch.cat([belief.worth, fresh[1]])
