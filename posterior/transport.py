"""Evidence moved along when the features it was counted in change: an affine map, and what it misses.

Adapters learn, so a window's texts have new features g_i beside their old f_i; the texts of earlier windows
are gone, and only their moments can follow. The map T x + b is the ridge regression of the moves,

    g_i - f_i = A' p(f_i) + noise of covariance R,     p(x) = (x - c, 1),     G = sum p p' + ridge M
    A = G^-1 sum p(f_i) (g_i - f_i)'                   leverage h(x) = p(x)' G^-1 p(x)

with M the second moments of p under the head's own belief, c its centre: the ridge is worth that many
features which did not move, drawn as all classes come, those not in the window above all. What the map says
at x is then uncertain by h(x) R. R is judged on each pair by the map fitted without it, e_i / (1 - h_i):
in-sample residuals vanish where pairs are fewer than features, however badly the map fits elsewhere.

    mean_k -> T mean_k + b      S -> T S T' + N R      n_k -> n_k / (1 + rho h(mean_k) n_k)

The rule for counts: a mean of n_k events was uncertain by Sigma / n_k. Its image is uncertain by
Sigma' / n_k + h R, with Sigma' = T Sigma T' + R, and the head can only say Sigma' / n. Both have the same
average over Sigma'-units if 1/n = 1/n_k + h rho, rho = tr(Sigma'^-1 R) / d. Where pairs
outnumber features, a class that the window holds has a leverage of about one over its pairs and one far from
them all comes to be worth less than an event. Where they do not, every mean lies off their span and the ridge
decides: without pairs the leverage of a typical feature is (d + 1) / ridge, so a ridge far below d costs all
classes nearly all their counts. An exact map (R = 0) costs nothing. Class frequencies do not depend on
features and stay.
Ideas: semantic drift compensation (Yu et al. 2020), AdaGauss (2024); ridge, R, and the counts are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from posterior.family import NotFinite
from posterior.generative import Base, Belief, believe, covariance
from posterior.moments import Moments
from posterior.tensors import require_finite


@dataclass(frozen=True)
class Shift:
    """The fitted map, float64: linear T (d, d), offset b (d,), residual R (d, d), centre c (d,).

    root (d + 1, d + 1) is G's lower Cholesky factor, which leverages need.
    """

    linear: Tensor
    offset: Tensor
    residual: Tensor
    centre: Tensor
    root: Tensor


def fit(belief: Belief, evidence: Moments, old: Tensor, new: Tensor, *, ridge: float) -> Shift:
    """Return the map from features `old` to `new`, both (n, d), of the same texts; n = 0 is the identity.

    `ridge` > 0 counts unmoved pairs. Raises NotFinite, and ValueError for a ridge that is not
    positive: without one, fewer pairs than features would fit anything.
    """
    if not 0 < ridge < math.inf:
        msg = f"the ridge of a transport must be positive and finite, not {ridge}"
        raise ValueError(msg)
    require_finite({"old features": old, "new features": new}, where="transport of a window")
    centre, metric = _spread(belief, evidence)
    p, moves = _lifted(old.double() - centre), new.double() - old.double()
    root, failed = torch.linalg.cholesky_ex(p.T @ p + ridge * metric)
    if int(failed):
        msg = f"the pairs' second moments are singular at feature {int(failed)}: raise the ridge ({ridge})"
        raise NotFinite(msg)
    slope = torch.cholesky_solve(p.T @ moves, root)
    left_out = (moves - p @ slope) / (1 - _leverage(root, p)).unsqueeze(1)
    require_finite({"residuals": left_out}, where=f"transport of a window with ridge {ridge}: raise it")
    return Shift(
        linear=torch.eye(len(centre), dtype=torch.float64) + slope[:-1].T,
        offset=slope[-1] - centre @ slope[:-1],
        residual=left_out.T @ left_out / max(1, len(p)),
        centre=centre,
        root=root,
    )


def leverage(shift: Shift, points: Tensor) -> Tensor:
    """Return h(x) of points (n, d): the map's variance there, in units of R."""
    return _leverage(shift.root, _lifted(points.double() - shift.centre))


def move(base: Base, evidence: Moments, shift: Shift) -> Moments:
    """Return the evidence as it is believed to look in the new features; rows without events stay 0."""
    t, total = shift.linear, evidence.seen.sum()
    held = (evidence.seen > 0).unsqueeze(1)
    moved = replace(
        evidence,
        mean=torch.where(held, evidence.mean @ t.T + shift.offset, 0.0),
        scatter=t @ evidence.scatter @ t.T + total * shift.residual,
    )
    rho = _unexplained(believe(base, moved), shift.residual)
    doubt = rho * leverage(shift, evidence.mean) * evidence.count
    return replace(moved, count=evidence.count / (1 + doubt))


def transport(base: Base, evidence: Moments, old: Tensor, new: Tensor, *, ridge: float) -> Moments:
    """Return the evidence of earlier windows in the new features, by the pairs of this one."""
    return move(base, evidence, fit(believe(base, evidence), evidence, old, new, ridge=ridge))


def _spread(belief: Belief, evidence: Moments) -> tuple[Tensor, Tensor]:
    """Return the centre of the head's features, and the second moments of p under the head's belief."""
    share = evidence.seen / evidence.seen.sum().clamp_min(1e-300)
    centre = share @ belief.mean if bool(share.any()) else belief.base.mean
    gap = belief.mean - centre
    second = covariance(belief) + (share.unsqueeze(1) * gap).T @ gap
    lifted = torch.nn.functional.pad(second, (0, 1, 0, 1))
    lifted[-1, -1] = 1.0
    return centre, lifted


def _unexplained(belief: Belief, residual: Tensor) -> Tensor:
    """Return rho = tr(Sigma^-1 R) / d, the share of a class's covariance that the map adds."""
    ratio: Tensor = torch.linalg.solve(covariance(belief), residual)
    return ratio.trace() / len(residual)


def _lifted(points: Tensor) -> Tensor:
    return torch.cat([points, points.new_ones(len(points), 1)], dim=1)


def _leverage(root: Tensor, p: Tensor) -> Tensor:
    white: Tensor = solve_triangular(root, p.T, upper=False)
    return white.square().sum(dim=0)
