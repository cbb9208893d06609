"""The generative head against its own definition: the chain rule, Monte Carlo, finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import StudentT

from posterior import generative
from posterior.family import NotFinite
from posterior.generative import Base, Belief, believe, kl, log_densities, log_predictive
from posterior.moments import combine, grow, moments, nothing, tempered
from tests.posterior.generative_cases import (
    CLASSES,
    DIM,
    drawn,
    log_partition,
    log_prob,
    normals,
    psi,
    small_base,
    stream,
)

seeds = st.integers(0, 1000)
DRAWS = 20_000


def belief_of(n: int, *, seed: int, freedom: float = 4.0) -> Belief:
    return believe(small_base(freedom=freedom), moments(*stream(n, seed=seed)))


def test_in_one_dimension_it_is_students_t() -> None:
    """nu0 + N degrees of freedom, the events of the other class included."""
    base = small_base(1)
    x, y = torch.tensor([[1.0], [2.0], [4.0], [0.5]]).double(), torch.tensor([0, 0, 1, 0])
    b = believe(base, moments(x, y))
    at = torch.linspace(-3, 6, 10).double().unsqueeze(1)
    for k, count in ((0, 3), (1, 1)):
        worth = 0.4 + count
        mean = (0.4 * 0.3 + float(x[y == k].sum())) / worth
        scale = math.sqrt(float(psi(b)) / (4 + 4) * (worth + 1) / worth)
        theirs: Any = StudentT(*torch.tensor([8.0, mean, scale]).double())
        wanted: Tensor = theirs.log_prob(at.squeeze(1))
        torch.testing.assert_close(log_densities(b, at)[:, k], wanted, rtol=1e-6, atol=1e-6)


@settings(max_examples=20)
@given(seed=seeds)
def test_foretelling_events_one_by_one_is_the_evidence_of_all(seed: int) -> None:
    """sum_i log p(x_i | k_i, earlier) = log of the integral over everything, in closed form."""
    x, y = stream(12, seed=seed)
    base, state = small_base(), nothing(DIM)
    total = torch.zeros((), dtype=torch.float64)
    for i, k in enumerate(y.tolist()):
        known = believe(base, grow(state, k + 1))
        total = total + log_densities(known, x[i : i + 1])[0, k]
        state = combine(state, moments(x[i : i + 1], y[i : i + 1]))
    start, end = believe(base, grow(nothing(DIM), int(y.max()) + 1)), believe(base, state)
    wanted = log_partition(end) - log_partition(start) - 12 * DIM / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(total, wanted, rtol=1e-9, atol=1e-9)


@given(seed=seeds, beta=st.floats(0.05, 0.95))
@settings(max_examples=20)
def test_tempered_evidence_is_the_power_prior(seed: int, beta: float) -> None:
    """log q_beta - beta log q - (1 - beta) log p_0 is the same everywhere."""
    x, y = stream(15, seed=seed)
    seen = moments(x, y)
    base, rows = small_base(), len(seen.count)
    q, p = believe(base, seen), believe(base, grow(nothing(DIM), rows))
    powered = believe(base, tempered(seen, beta=beta))
    left = []
    for i in range(4):
        root = normals(DIM, DIM, seed=i)
        at = normals(rows, DIM, seed=i + 10), root @ root.T + torch.eye(DIM)
        left.append(log_prob(powered, *at) - beta * log_prob(q, *at) - (1 - beta) * log_prob(p, *at))
    torch.testing.assert_close(torch.stack(left), left[0].expand(4), rtol=1e-8, atol=1e-8)


def test_class_frequencies_and_pi_new_are_counts() -> None:
    x, _ = stream(6, seed=0)
    b = believe(small_base(), moments(x, torch.tensor([0, 0, 1, 0, 2, 0])))
    wanted = torch.tensor([4 + 0.7, 1 + 0.7, 1 + 0.7]).double() / (6 + 3 * 0.7)
    torch.testing.assert_close(b.log_prior.exp(), wanted)
    assert float(generative.pi_new(b)) == pytest.approx((1.5 + 3) / (1.5 + 2.5 + 6))
    cold = log_predictive(b, x, temperature=1e9)
    torch.testing.assert_close(cold.exp(), (wanted * (5.5 / 10)).expand(6, 3), rtol=1e-6, atol=0)


@given(seed=seeds, temperature=st.floats(0.5, 10))
def test_known_classes_share_what_pi_new_leaves(seed: int, temperature: float) -> None:
    x, y = stream(20, seed=seed)
    b = believe(small_base(), moments(x, y))
    p = log_predictive(b, x, temperature=temperature).exp()
    torch.testing.assert_close(p.sum(dim=1), (1 - generative.pi_new(b)).expand(20))
    odds = (p[:, 0] / p[:, -1]).log()
    evidence = log_densities(b, x)
    wanted = b.log_prior[0] - b.log_prior[-1] + (evidence[:, 0] - evidence[:, -1]) / temperature
    torch.testing.assert_close(odds, wanted, rtol=1e-6, atol=1e-6)


def test_a_row_without_events_is_no_known_class() -> None:
    x, y = stream(20, seed=1)
    with_row = believe(small_base(), grow(moments(x, y), CLASSES + 1))
    p = log_predictive(with_row, x)
    torch.testing.assert_close(p[:, :-1], log_predictive(believe(small_base(), moments(x, y)), x))
    assert bool((p[:, -1] == -math.inf).all())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_new_class_is_told_by_bayes_from_the_density_of_a_class_unseen(temperature: float) -> None:
    x, y = stream(20, seed=6)
    b = believe(small_base(), grow(moments(x, y), CLASSES + 1))
    pi, densities = generative.pi_new(b), (log_densities(b, x) / temperature).exp()
    known = (1 - pi) * (b.log_prior.exp()[:-1] * densities[:, :-1]).sum(dim=1)
    new = pi * densities[:, -1]
    here, far = (generative.log_new(b, at, temperature=temperature).exp() for at in (x, x + 100.0))
    torch.testing.assert_close(here, new / (new + known))
    assert bool((far > here).all())


def test_the_first_event_of_all_is_new_and_nothing_can_be_foretold() -> None:
    empty = believe(small_base(), grow(nothing(DIM), 2))
    assert generative.log_new(empty, normals(3, DIM, seed=0)).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="knows no class"):
        log_predictive(empty, normals(3, DIM, seed=0))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients_in_the_features_are_finite_differences(temperature: float) -> None:
    b = belief_of(30, seed=2)
    at = stream(4, seed=7)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_predictive(b, x, temperature=temperature), (at,))
    assert torch.autograd.gradcheck(lambda x: generative.log_new(b, x, temperature=temperature), (at,))


def test_few_events_in_many_dimensions_leave_a_head_that_predicts() -> None:
    x, y = stream(12, seed=3, dim=768)
    b = believe(generative.base(torch.zeros(768), torch.ones(768)), moments(x.float(), y))
    at = x.float().requires_grad_()
    log_p = log_predictive(b, at)
    (slope,) = torch.autograd.grad(log_p[torch.arange(12), y].sum(), at)
    assert bool(torch.isfinite(log_p).all())
    assert bool(torch.isfinite(slope).all())
    assert log_p.argmax(dim=1).tolist() == y.tolist()


@pytest.mark.parametrize("n", [2, 30])
def test_densities_of_draws_average_to_the_predictive(n: int) -> None:
    b = belief_of(n, seed=4, freedom=8.0)
    z = {k: normals(DRAWS, *shape, seed=i) for i, (k, shape) in enumerate(generative.noise(b).items())}
    at = stream(5, seed=4)[0]
    drawn_densities = generative.log_densities_of(generative.sample(b, z), at).exp()
    error = drawn_densities.std(dim=0) / DRAWS**0.5
    assert bool(((drawn_densities.mean(dim=0) - log_densities(b, at).exp()).abs() < 5 * error).all())


def test_draws_have_the_covariance_that_the_belief_expects() -> None:
    b = belief_of(30, seed=5, freedom=8.0)
    z = {k: normals(DRAWS, *shape, seed=i) for i, (k, shape) in enumerate(generative.noise(b).items())}
    draws = generative.sample(b, z)
    sigma = torch.linalg.inv(draws.root @ draws.root.mT)
    error = sigma.std(dim=0) / DRAWS**0.5
    assert bool(((sigma.mean(dim=0) - generative.covariance(b)).abs() < 5 * error).all())
    spread = (draws.mean - b.mean).square() * b.worth.unsqueeze(1)
    wanted = generative.covariance(b).diagonal()
    assert bool(((spread.mean(dim=0) - wanted).abs() < 5 * spread.std(dim=0) / DRAWS**0.5).all())
    torch.testing.assert_close(draws.log_det, -0.5 * torch.logdet(sigma))


def test_kl_is_monte_carlos() -> None:
    """Over precisions as sums of outer products; the posterior has a class that the prior has not."""
    x, y = stream(20, seed=8)
    first = y < 2
    base = small_base(freedom=5.0)
    p, q = believe(base, moments(x[first][:6], y[first][:6])), believe(base, moments(x, y))
    padded = believe(base, grow(moments(x[first][:6], y[first][:6]), len(q.worth)))
    ratios = torch.stack([log_prob(q, *at) - log_prob(padded, *at) for at in drawn(q, 4000, seed=1)])
    assert abs(float(kl(q, p)) - float(ratios.mean())) < 5 * float(ratios.std()) / 4000**0.5
    torch.testing.assert_close(kl(q, p), kl(q, padded))
    assert float(kl(p, q)) > 0


@given(seed=seeds, beta=st.floats(0.0, 1.0))
def test_kl_is_positive_but_at_equality(seed: int, beta: float) -> None:
    x, y = stream(20, seed=seed)
    base, seen = small_base(), moments(x, y)
    q, p = believe(base, seen), believe(base, tempered(seen, beta=beta))
    assert float(kl(q, q).abs()) < 1e-12
    assert min(float(kl(q, p)), float(kl(p, q))) > -1e-12
    if beta < 0.99:
        assert float(kl(q, p)) > 1e-5
        assert float(kl(p, q)) > 1e-5


@pytest.mark.parametrize("step", [1e-4, 1e-3])
def test_kl_of_a_small_step_is_of_second_order(step: float) -> None:
    """Written with its cancellations it would be noise of 1e-12 about them; here it shrinks by 100."""
    x, y = stream(200, seed=9)
    base, seen = small_base(), moments(x, y)
    q = believe(base, seen)
    near, far = (float(kl(q, believe(base, tempered(seen, beta=1 - s)))) for s in (step, 10 * step))
    assert far / near == pytest.approx(100, rel=0.05)


def test_a_wide_scatter_that_eats_the_base_is_an_error() -> None:
    base = generative.base(torch.zeros(DIM), torch.full((DIM,), 1e-30))
    x = 1e5 * normals(2, 1, seed=0) * torch.tensor([[1.0, 1.0, -3.0]])
    with pytest.raises(NotFinite, match="variance is too small"):
        believe(base, moments(x, torch.tensor([0, 0])))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("worth", lambda: generative.base(torch.zeros(2), torch.ones(2), worth=0.0)),
        ("freedom", lambda: generative.base(torch.zeros(2), torch.ones(2), freedom=2.0)),
        ("concentration", lambda: generative.base(torch.zeros(2), torch.ones(2), concentration=-1.0)),
        ("novelty", lambda: generative.base(torch.zeros(2), torch.ones(2), novelty=(0.0, 1.0))),
        ("variance", lambda: generative.base(torch.zeros(2), torch.tensor([1.0, 0.0]))),
    ],
)
def test_constants_out_of_range_are_refused_by_name(name: str, make: Callable[[], Base]) -> None:
    with pytest.raises(ValueError, match=name):
        make()
