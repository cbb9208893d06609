"""Variates made of normals have exactly the law they are named for, and the right gradient in its shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.special import gammainc, gammaincc, log_ndtr

from posterior.variates import dirichlet, log_gamma_variate, wishart_factor

SHAPES = [0.2, 0.5, 1.0, 2.5, 30.0, 1e3, 1e6]
N = 20_000


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(p: Tensor) -> bool:
    """Whether a Kolmogorov-Smirnov test at 1e-6 takes these for uniform."""
    steps = torch.arange(1, len(p) + 1) / len(p)
    return bool((p.sort().values - steps).abs().max() < 2.7 / len(p) ** 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_gamma_variate_lies_at_the_probability_of_its_normal(shape: float) -> None:
    z = torch.linspace(-6, 6, 121, dtype=torch.float64)
    a = torch.full_like(z, shape)
    x = log_gamma_variate(z, a).exp()
    tail = torch.where(z < 0, gammainc(a, x), gammaincc(a, x)).log()
    torch.testing.assert_close(tail, log_ndtr(-z.abs()), atol=1e-8, rtol=0)


@given(z=st.floats(-5, 5), log_shape=st.floats(-1.5, 12))
def test_its_gradient_is_that_of_the_quantile(z: float, log_shape: float) -> None:
    at = torch.tensor([log_shape], dtype=torch.float64, requires_grad=True)
    normal = torch.tensor([z], dtype=torch.float64)
    (found,) = torch.autograd.grad(log_gamma_variate(normal, at.exp()).sum(), at)
    step = 1e-3
    up, down = (log_gamma_variate(normal, (at.detach() + s).exp()) for s in (step, -step))
    torch.testing.assert_close(found, (up - down) / (2 * step), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("alpha", [[1.0, 1.0, 1.0, 1.0], [0.3, 4.0, 1.5, 0.8], [300.0, 100.0, 50.0, 7.0]])
def test_dirichlet_weights_have_its_marginals_and_covariance(alpha: list[float]) -> None:
    """pi_k ~ Beta(alpha_k, rest), against draws of torch; the covariance is -m_k m_l / (alpha_0 + 1)."""
    a = torch.tensor(alpha, dtype=torch.float64)
    weights = dirichlet(normals(N, len(alpha)), a)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(N, dtype=torch.float64))
    total = a.sum()
    wanted = (torch.diag(a / total) - torch.outer(a, a) / total**2) / (total + 1)
    found = torch.cov(weights.T)
    assert bool(((found - wanted).abs() < 8 * wanted.abs().max() / N**0.5).all())
    beta = torch.distributions.Beta(a[0], total - a[0])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = beta.sample((N,)).sort().values
    rank = torch.searchsorted(theirs, weights[:, 0].contiguous()) / N  # two-sample: both vary
    assert uniform((rank.double() + 1e-9).clamp(0, 1))


@pytest.mark.parametrize("nu", [5.0, 7.5, 40.0])
def test_wishart_factors_have_the_law_of_a_sum_of_outer_products(nu: float) -> None:
    """Mean nu I, Var of a diagonal 2 nu, of an off-diagonal nu; log-determinant has mean r ln 2 + sum psi."""
    factor = wishart_factor(normals(N, 3, 3), torch.tensor(nu))
    sigma = factor @ factor.transpose(1, 2)
    mean, spread = sigma.mean(dim=0), sigma.var(dim=0)
    eye = torch.eye(3, dtype=torch.float64)
    assert bool(((mean - nu * eye).abs() < 6 * (spread / N).sqrt()).all())
    torch.testing.assert_close(spread, nu * (1 + eye), rtol=0.1, atol=0.0)
    freedom = (nu - torch.arange(3, dtype=torch.float64)) / 2
    wanted = 3 * torch.tensor(2.0).log() + torch.special.digamma(freedom).sum()
    logs = torch.linalg.slogdet(sigma).logabsdet
    assert abs(float(logs.mean() - wanted)) < 6 * float(logs.std()) / N**0.5


def test_each_diagonal_of_a_wishart_is_chi_square() -> None:
    factor = wishart_factor(normals(N, 3, 3), torch.tensor(6.0))
    for k in range(3):
        half = factor[:, k, : k + 1].square().sum(dim=1) / 2
        assert uniform(gammainc(torch.full_like(half, 3.0), half))


def test_what_lies_above_the_diagonal_changes_nothing() -> None:
    z = normals(4, 3, 3)
    assert torch.equal(wishart_factor(z, torch.tensor(5.0)), wishart_factor(z.tril(), torch.tensor(5.0)))
