"""Small streams of features with classes, and the Normal-inverse-Wishart written out densely."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import multigammaln

from posterior import generative
from posterior.generative import Base, Belief
from posterior.moments import Moments

DIM, CLASSES = 3, 4


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stream(
    n: int, *, seed: int, dim: int = DIM, classes: int = CLASSES, offset: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Return features (n, dim) of correlated classes far from 0, and labels in order of first sight."""
    rng = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, classes, (n,), generator=rng).tolist()
    rows = {label: row for row, label in enumerate(dict.fromkeys(raw))}
    labels = torch.tensor([rows[label] for label in raw], dtype=torch.long)
    centres, mix = 2 * normals(classes, dim, seed=seed + 1), normals(dim, dim, seed=seed + 2)
    return offset + centres[labels] + normals(n, dim, seed=seed + 3) @ mix, labels


def small_base(
    dim: int = DIM, *, variance: Tensor | None = None, worth: float = 0.4, freedom: float = 4.0
) -> Base:
    """Return a base no constant of which is 1 or equal to another."""
    spread = 0.5 + torch.arange(dim) / 3 if variance is None else variance
    return generative.base(0.3 + torch.arange(dim) / 7, spread, worth=worth, freedom=freedom)


def assert_same(found: Moments, wanted: Moments, *, rtol: float = 1e-9) -> None:
    for name in ("count", "mean", "scatter"):
        one, other = getattr(found, name), getattr(wanted, name)
        size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(
            one, other, rtol=rtol, atol=rtol * size, msg=f"{name} differ: {one}, {other}"
        )


def assert_identical(found: Moments, wanted: Moments) -> None:
    for name in ("count", "mean", "scatter"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def psi(belief: Belief) -> Tensor:
    return belief.root @ belief.root.T


def log_partition(belief: Belief) -> Tensor:
    """Return log of the integral of |P|^((nu-d-1)/2) e^(-tr(Psi P)/2) prod_k |kappa P|^(1/2) e^(...)."""
    d, nu = belief.root.shape[0], belief.freedom
    wishart: Tensor = nu * d / 2 * math.log(2) + multigammaln(nu / 2, d) - nu / 2 * torch.logdet(psi(belief))
    return wishart - d / 2 * (belief.worth.log() - math.log(2 * math.pi)).sum()
