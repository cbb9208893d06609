"""A class head that divides: softmax regression on features that stand still, one Gaussian after another.

    p(k | x) = softmax_k(W x)      W ~ N(M, L^-1)      L = I / s^2 + A (x) S
    S = sum_n x_n x_n'             A = mean_n (diag p_n - p_n p_n')

A window's posterior is its mode under the Gaussian before it, with the likelihood's curvature there added,
and is the next window's prior. Curvature is a Kronecker product: of all events' second moments S, which
never go stale where nothing that makes features is adapted, and of their mean curvature in the logits. So
one prior holds directions that many texts agreed on and leaves free what no text has shown, with as many
numbers as S has, and S is there already, in the moments of the generative head. In the eigenbasis of both
factors the prior is as many independent normals, and the mode takes a few steps:

    V' S V = diag(sigma)      Q' A Q = diag(alpha)      1/variance of (Q' W V)_ij = 1/s^2 + alpha_i sigma_j

Asked of a text, logits are normal; their softmax's mean is MacKay's: each logit, apart from what all logits
have in common (which softmax does not see), divided by sqrt(1 + pi/8 variance).

Where it is not exact: the posterior of a softmax is no Gaussian; curvature is taken at the mode; a sum of
Kronecker products is not the product of the sums. How narrow the prior should be differs from stream to
stream, so there are two side by side, and forecasts decide. Source: Spiegelhalter and Lauritzen, Sequential
updating of conditional probabilities on directed graphical structures, 1990; MacKay, The evidence framework
applied to classification networks, 1992; Ritter, Botev and Barber, Online structured Laplace approximations,
2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from posterior.moments import Moments
from posterior.tensors import require_finite

DEVIATIONS: Final = (0.06, 0.12)  # s, on features of unit mean square; chosen on mails and vader
_STEPS: Final = 100  # of L-BFGS at most; it stops where the gradient is 0


@dataclass(frozen=True)
class Regression:
    """What was learned under each of J deviations, float64, classes in the order of the label map.

    mean (J, K, d + 1), the last column is the intercept's · curvature (J, K, K), N times A.
    """

    mean: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Factored:
    """A regression in the eigenbasis of its prior, ready to be asked and to learn.

    mean (J, K, d + 1), before the turn · alpha (J, K), turn (J, K, K) · sigma (d + 1,), basis (d + 1, d + 1).
    """

    mean: Tensor
    curvature: Tensor
    alpha: Tensor
    turn: Tensor
    sigma: Tensor
    basis: Tensor


def nothing(features: int) -> Regression:
    """Return the regression before any class was seen."""
    zeros = torch.zeros(len(DEVIATIONS), 0, features + 1, dtype=torch.float64)
    return Regression(zeros, zeros.new_zeros(len(DEVIATIONS), 0, 0))


def grow(state: Regression, classes: int) -> Regression:
    """Return it with rows for so many classes: new ones are 0, where their prior has them."""
    more = classes - state.mean.shape[1]
    if more <= 0:
        return state
    pad = torch.nn.functional.pad
    return Regression(pad(state.mean, (0, 0, 0, more)), pad(state.curvature, (0, more, 0, more)))


def among(state: Regression, rows: Tensor) -> Regression:
    """Return it for some of the classes; one without evidence has no part in what divides the others."""
    return Regression(state.mean[:, rows], state.curvature[:, rows][:, :, rows])


def merged(state: Regression, part: Regression, rows: Tensor) -> Regression:
    """Return it with these classes as `part` has them; `part` is of all classes that have evidence."""
    mean, curvature = state.mean.clone(), state.curvature.clone()
    mean[:, rows] = part.mean
    curvature[:, rows.unsqueeze(1), rows] = part.curvature
    return Regression(mean, curvature)


def factored(state: Regression, seen: Moments) -> Factored:
    """Return the regression in its eigenbasis; `seen` are the moments of all events that it learned."""
    alpha, turn = torch.linalg.eigh(state.curvature / seen.count.sum().clamp(min=1.0))
    sigma, basis = torch.linalg.eigh(_second_moments(seen))
    return Factored(state.mean, state.curvature, alpha.clamp(min=0.0), turn, sigma.clamp(min=0.0), basis)


def learned(before: Factored, features: Tensor, labels: Tensor) -> Regression:
    """Return the regression after events, features (n, d) and labels (n,), rows it has; or NotFinite.

    No event: what it was, bit for bit.
    """
    require_finite({"features": features}, where="softmax regression on a window")
    if not len(labels):
        return Regression(before.mean, before.curvature)
    x = _with_one(features)
    turned = x @ before.basis
    modes = torch.stack([_mode(before, j, turned, labels) for j in range(len(DEVIATIONS))])
    p = torch.softmax(x @ modes.mT, dim=-1)
    curvature = torch.diag_embed(p.sum(dim=1)) - p.mT @ p
    after = Regression(modes, before.curvature + curvature)
    require_finite({"mean": after.mean}, where="softmax regression after a window")
    return after


def log_probabilities(belief: Factored, features: Tensor) -> Tensor:
    """Return log p(k | x) under each deviation, (J, n, K), float64; MacKay's mean of the softmax."""
    x = _with_one(features)
    logits = x @ belief.mean.mT
    spread = (x @ belief.basis).square() @ _variances(belief).mT  # (J, n, K), of the turned logits
    apart = belief.turn - belief.turn.mean(dim=1, keepdim=True)
    variance = spread @ apart.square().mT
    return torch.log_softmax(logits / (1 + math.pi / 8 * variance).sqrt(), dim=-1)


def _mode(before: Factored, j: int, turned: Tensor, labels: Tensor) -> Tensor:
    """Minimise the window's nats + |u|^2 / 2, u the step from the mean in the prior's deviations."""
    deviation, turn = _variances(before)[j].sqrt(), before.turn[j]
    at_mean = turned @ (before.mean[j] @ before.basis).T
    step = torch.zeros_like(deviation)
    # The gradient is written out: callers may have switched autograd off.
    optimiser: Any = torch.optim.LBFGS(
        [step], max_iter=_STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    truth = one_hot(labels, len(turn)).double()

    def nats() -> Tensor:
        log_p = torch.log_softmax(at_mean + turned @ (turn @ (deviation * step)).T, dim=1)
        step.grad = deviation * (turn.T @ (log_p.exp() - truth).T @ turned) + step
        return 0.5 * step.square().sum() - (truth * log_p).sum()

    optimiser.step(nats)
    return before.mean[j] + turn @ (deviation * step) @ before.basis.T


def _variances(belief: Factored) -> Tensor:
    """Return the variances of the turned weights, (J, K, d + 1)."""
    base = torch.tensor(DEVIATIONS, dtype=torch.float64).pow(-2).view(-1, 1, 1)
    return 1.0 / (base + belief.alpha.unsqueeze(2) * belief.sigma)


def _second_moments(seen: Moments) -> Tensor:
    """Return S of features and a one behind them: scatter within classes and what their means add."""
    weighted = seen.count.unsqueeze(1) * seen.mean
    total = weighted.sum(dim=0)
    inner = seen.scatter + weighted.T @ seen.mean
    return torch.cat(
        [
            torch.cat([inner, total.unsqueeze(1)], dim=1),
            torch.cat([total, seen.count.sum().unsqueeze(0)]).unsqueeze(0),
        ]
    )


def _with_one(features: Tensor) -> Tensor:
    return torch.nn.functional.pad(features.double(), (0, 1), value=1.0)
