"""The stable divergences against torch's own, Monte Carlo and their limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Dirichlet, Wishart

from posterior.divergence import dirichlet_kl, gaussian_kl, half_expm1_minus, log_gamma_gap, wishart_kl
from tests.posterior.cases import log_ratio_beside

numbers = st.floats(-3, 3)


@given(m=numbers, s=numbers, pm=numbers, ps=numbers)
def test_gaussian_kl_is_torchs(m: float, s: float, pm: float, ps: float) -> None:
    q = torch.distributions.Normal(torch.tensor(m).double(), torch.tensor(s).double().exp())
    p = torch.distributions.Normal(torch.tensor(pm).double(), torch.tensor(ps).double().exp())
    ours = gaussian_kl(*(torch.tensor(x).double() for x in (m, s, pm, ps)))
    theirs = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-6)


@pytest.mark.parametrize("delta", [1e-8, 1e-5, 1e-4, 1e-3, 9.9e-3, 1.01e-2, 0.1, 1.0, -1e-4, -2.0])
def test_small_steps_keep_their_digits_in_float32(delta: float) -> None:
    exact = half_expm1_minus(torch.tensor(delta, dtype=torch.float64))
    reference = torch.expm1(torch.tensor(2 * delta, dtype=torch.float64)) / 2 - delta
    single = half_expm1_minus(torch.tensor(delta, dtype=torch.float32))
    assert abs(float(single) / float(exact) - 1) < 1e-4
    if abs(delta) > 1e-3:
        assert abs(float(exact) / float(reference) - 1) < 1e-6


def test_a_narrow_prior_charges_in_full() -> None:
    """An epsilon of 1e-6 beside a variance of 1e-8 would waive 99 % of the charge."""
    kl = gaussian_kl(torch.tensor([1e-3]), torch.tensor([-9.21]), torch.tensor([0.0]), torch.tensor([-9.21]))
    assert float(kl) == pytest.approx(0.5 * (1e-3 / 1e-4) ** 2, rel=1e-2)


positive = st.floats(-3, 6).map(math.exp)
four = st.lists(positive, min_size=4, max_size=4).map(lambda x: torch.tensor(x, dtype=torch.float64))


@given(q=four, p=four)
def test_dirichlet_kl_is_torchs(q: Tensor, p: Tensor) -> None:
    theirs = torch.distributions.kl_divergence(Dirichlet(q), Dirichlet(p))
    torch.testing.assert_close(dirichlet_kl(q, p), theirs, atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize(("q", "p"), [([1.5, 2, 2.5, 1.2], [1.0] * 4), ([5.0] * 4, [1.0] * 4)])
def test_dirichlet_kl_is_monte_carlos(q: list[float], p: list[float]) -> None:
    ours, theirs = (Dirichlet(torch.tensor(a, dtype=torch.float64)) for a in (q, p))
    values = log_ratio_beside([ours], [theirs], 50_000, seed=0)
    found = float(dirichlet_kl(torch.tensor(q), torch.tensor(p)))
    assert abs(found - float(values.mean())) < 5 * float(values.std()) / 50_000**0.5


@pytest.mark.parametrize("alpha", [0.3, 1.0, 50.0, 1e4, 1e8])
@pytest.mark.parametrize("step", [1e-7, 1e-4])
def test_dirichlet_kl_of_a_small_step_is_half_its_fisher_length(alpha: float, step: float) -> None:
    """0.5 d' F d, F = diag psi'(a) - psi'(a0), at every size: lnGamma of 1e8 leaves no digit of it."""
    a = alpha * torch.tensor([1.0, 2.0, 0.5, 1.3], dtype=torch.float64)
    d = step * a * torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    fisher = torch.diag(torch.polygamma(1, a)) - torch.polygamma(1, a.sum())
    torch.testing.assert_close(dirichlet_kl(a, a + d), 0.5 * d @ fisher @ d, rtol=1e-3, atol=0.0)


@given(
    root=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    prior=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    nu=st.floats(5, 400),
    prior_nu=st.floats(5, 400),
)
def test_wishart_kl_is_torchs(root: list[float], prior: list[float], nu: float, prior_nu: float) -> None:
    ours, theirs = (torch.tensor(x, dtype=torch.float64) for x in (root, prior))
    n, m = torch.tensor(nu, dtype=torch.float64), torch.tensor(prior_nu, dtype=torch.float64)
    q = Wishart(n, scale_tril=torch.diag(ours.exp()))
    p = Wishart(m, scale_tril=torch.diag(theirs.exp()))
    wanted = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(wishart_kl(ours, n, theirs, m), wanted, rtol=1e-7, atol=1e-8)


def test_wishart_kl_is_monte_carlos() -> None:
    """Over sums of outer products, the definition of a Wishart."""
    ours, theirs = (torch.tensor(x, dtype=torch.float64) for x in ([0.2, -0.3], [0.0, 0.1]))
    n, m = torch.tensor(4.0).double(), torch.tensor(6.0).double()
    q, p = Wishart(n, scale_tril=torch.diag(ours.exp())), Wishart(m, scale_tril=torch.diag(theirs.exp()))
    values = log_ratio_beside([q], [p], 50_000, seed=0)
    found = float(wishart_kl(ours, n, theirs, m))
    assert abs(found - float(values.mean())) < 5 * float(values.std()) / 50_000**0.5


@given(b=st.floats(-40, 30).map(math.exp), a=st.floats(-40, 30).map(math.exp))
def test_log_gamma_never_falls_below_its_tangent(b: float, a: float) -> None:
    gap = log_gamma_gap(torch.tensor(b).double(), torch.tensor(a).double())
    assert float(gap) >= 0.0
    assert bool(torch.isfinite(gap))
