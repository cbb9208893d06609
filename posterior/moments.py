"""What was seen of features by class: counts, means and one scatter within classes, exactly additive.

Evidence of a generative class head (`posterior.generative`). What a window shows of a class enters that
class's mean and the shared scatter, and nothing else: a class that the window does not hold keeps its row.
Windows may come in any order and in any cut, up to rounding. Two windows' scatters do not just add up:
where their means of a class differ, n_a n_b / (n_a + n_b) (mean_b - mean_a)(...)' comes on top, and leaving
that out (as streaming LDA with an online mean does) makes the covariance too small. Source: Chan, Golub and
LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior.tensors import require_finite


@dataclass(frozen=True)
class Moments:
    """What was seen, all float64; row k is the k-th class of the label map, in order of first sight.

    count (K,), events that the class's mean is worth · mean (K, d), 0 where nothing was seen · scatter
    (d, d) within classes · seen (K,), events of the class: N = sum seen, and N are the scatter's degrees of
    freedom · firsts (K,), what the class's first event counted. `count` is `seen`.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor
    seen: Tensor
    firsts: Tensor


def nothing(features: int) -> Moments:
    """Return no evidence about no class: the neutral element of `combine`."""
    zeros = torch.zeros(0, dtype=torch.float64)
    return Moments(zeros, zeros.new_zeros(0, features), zeros.new_zeros(features, features), zeros, zeros)


def moments(features: Tensor, labels: Tensor, *, weights: Tensor | None = None) -> Moments:
    """Return the evidence of features (n, d) with labels (n,), differentiable in the features.

    An event of weight w counts as its likelihood to the power w; weight 0 is an event not seen. Raises
    NotFinite, and ValueError for labels or weights below 0.
    """
    require_finite({"features": features}, where="moments of a window")
    w = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()
    if labels.numel() and (int(labels.min()) < 0 or not bool((w >= 0).all())):
        msg = (
            f"labels are rows of the label map and weights are >= 0; the least are {labels.min()}, {w.min()}"
        )
        raise ValueError(msg)
    counted = w > 0
    x, y, w = features[counted].double(), labels[counted], w[counted]
    if not len(y):
        return nothing(features.shape[1])
    seen = torch.zeros(int(y.max()) + 1, dtype=torch.float64).index_add(0, y, w)
    total = x.new_zeros(len(seen), x.shape[1]).index_add(0, y, w.unsqueeze(1) * x)
    mean = total / torch.where(seen > 0, seen, 1.0).unsqueeze(1)
    apart = w.sqrt().unsqueeze(1) * (x - mean[y])
    return Moments(seen, mean, apart.T @ apart, seen, _firsts(y, w, len(seen)))


def combine(before: Moments, window: Moments) -> Moments:
    """Return the evidence of both, as if it had come at once; rows that one lacks are the other's (Chan).

    Without events of a class in `window`, its row stays what it was, bit for bit.
    """
    rows = max(len(before.count), len(window.count))
    a, b = grow(before, rows), grow(window, rows)
    count = a.count + b.count
    share = (b.count / torch.where(count > 0, count, 1.0)).unsqueeze(1)
    gap = b.mean - a.mean
    between = (a.count.unsqueeze(1) * share * gap).T @ gap
    return Moments(
        count=count,
        mean=a.mean + share * gap,
        scatter=a.scatter + b.scatter + between,
        seen=a.seen + b.seen,
        firsts=torch.where(a.seen > 0, a.firsts, b.firsts),
    )


def tempered(evidence: Moments, *, beta: float) -> Moments:
    """Return the evidence to the power beta: counts and scatter shrink, means stand; beta = 0 is none.

    Of a window it is tempering; of a state it is forgetting: base and `tempered(state)` are the power prior
    q^beta p_0^(1-beta) of the Normal-inverse-Wishart, exactly, since evidence is natural parameters.
    """
    if not 0 <= beta < math.inf:
        msg = f"beta must be >= 0 and finite, not {beta}"
        raise ValueError(msg)
    if beta == 1.0:
        return evidence
    if beta == 0.0:
        return nothing(evidence.mean.shape[1])
    e = evidence
    return Moments(e.count * beta, e.mean, e.scatter * beta, e.seen * beta, e.firsts * beta)


def grow(evidence: Moments, rows: int) -> Moments:
    """Return the evidence with rows up to `rows`, the new ones without events; old ones are untouched."""
    missing = rows - len(evidence.count)
    if missing <= 0:
        return evidence
    e = evidence
    count, mean, seen, firsts = (
        torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
        for part in (e.count, e.mean, e.seen, e.firsts)
    )
    return Moments(count, mean, e.scatter, seen, firsts)


def _firsts(labels: Tensor, weights: Tensor, rows: int) -> Tensor:
    """Return the weight of each class's first event, 0 for classes without events."""
    last = len(labels) - 1
    places = torch.full((rows,), last + 1).scatter_reduce(0, labels, torch.arange(last + 1), "amin")
    return torch.where(places <= last, weights[places.clamp_max(last)], 0.0)
