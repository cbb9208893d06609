"""What was seen of features by class: counts, means and one scatter within classes, exactly additive.

Evidence of a generative class head (`posterior.generative`). What a window shows of a class enters that
class's mean and the shared scatter, and nothing else: a class that the window does not hold keeps its row.
Windows may come in any order and in any cut, up to rounding. Two windows' scatters do not just add up:
where their means of a class differ, n_a n_b / (n_a + n_b) (mean_b - mean_a)(...)' comes on top, and leaving
that out (as streaming LDA with an online mean does) makes the covariance too small. Source: Chan, Golub and
LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posterior.tensors import require_finite


@dataclass(frozen=True)
class Moments:
    """What was seen, all float64; row k is the k-th class of the label map, in order of first sight.

    count (K,), events of the class; N = sum count are the scatter's degrees of freedom · mean (K, d), 0
    where nothing was seen · scatter (d, d) within classes.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor


def nothing(features: int) -> Moments:
    """Return no evidence about no class: the neutral element of `combine`."""
    zeros = torch.zeros(0, dtype=torch.float64)
    return Moments(zeros, zeros.new_zeros(0, features), zeros.new_zeros(features, features))


def moments(features: Tensor, labels: Tensor) -> Moments:
    """Return the evidence of features (n, d) with labels (n,), rows of the label map; or NotFinite."""
    require_finite({"features": features}, where="moments of a window")
    if not len(labels):
        return nothing(features.shape[1])
    x, rows = features.double(), int(labels.max()) + 1
    count = torch.zeros(rows, dtype=torch.float64).index_add(0, labels, x.new_ones(len(labels)))
    total = x.new_zeros(rows, x.shape[1]).index_add(0, labels, x)
    mean = total / torch.where(count > 0, count, 1.0).unsqueeze(1)
    apart = x - mean[labels]
    return Moments(count, mean, apart.T @ apart)


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
    return Moments(count, a.mean + share * gap, a.scatter + b.scatter + between)


def grow(evidence: Moments, rows: int) -> Moments:
    """Return the evidence with rows up to `rows`, the new ones without events; old ones are untouched."""
    missing = rows - len(evidence.count)
    if missing <= 0:
        return evidence
    count, mean = (
        torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
        for part in (evidence.count, evidence.mean)
    )
    return Moments(count, mean, evidence.scatter)
