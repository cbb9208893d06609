"""The opinion pool: a distribution, better than before on what it was told, and what EM is to find."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior.pool import even, pooled, reweighted


def told(experts: int, events: int, seed: int) -> Tensor:
    """Return log-probabilities of truths, some experts being better than others."""
    generator = torch.Generator().manual_seed(seed)
    skill = torch.linspace(0.5, 2.0, experts, dtype=torch.float64).unsqueeze(1)
    return -torch.rand(experts, events, generator=generator, dtype=torch.float64) * 3 / skill


def objective(weights: Tensor, before: Tensor, log_truth: Tensor, worth: float) -> float:
    """Return what the docstring maximises."""
    return float(pooled(log_truth, weights).sum() + worth * (before * weights.log()).sum())


cases = given(
    experts=st.integers(2, 6), events=st.integers(1, 60), seed=st.integers(0, 99), worth=st.floats(0.5, 200)
)


@cases
def test_weights_stay_a_distribution_and_gain(experts: int, events: int, seed: int, worth: float) -> None:
    before, log_truth = even(experts), told(experts, events, seed)
    after = reweighted(before, log_truth, worth=worth)
    assert float(after.sum()) == pytest.approx(1.0, abs=1e-12)
    assert bool((after > 0).all())
    gain = objective(after, before, log_truth, worth) - objective(before, before, log_truth, worth)
    assert gain >= -1e-9


@given(seed=st.integers(0, 99), worth=st.floats(1, 50))
def test_two_experts_get_the_best_weights(seed: int, worth: float) -> None:
    """Against every weight on a fine grid."""
    before, log_truth = torch.tensor([0.3, 0.7], dtype=torch.float64), told(2, 40, seed)
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    best = max(objective(torch.stack([w, 1 - w]), before, log_truth, worth) for w in grid)
    found = objective(reweighted(before, log_truth, worth=worth), before, log_truth, worth)
    assert found >= best - 1e-2


def test_one_expert_counts_events_exactly() -> None:
    """Where experts hold disjoint truths possible, a weight is its share of events, the old ones included."""
    log_truth = torch.full((2, 10), -math.inf, dtype=torch.float64)
    log_truth[0, :7], log_truth[1, 7:] = math.log(0.5), math.log(0.1)
    after = reweighted(even(2), log_truth, worth=10.0)
    assert after.tolist() == pytest.approx([(7 + 5) / 20, (3 + 5) / 20])


def test_nothing_told_changes_nothing() -> None:
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert reweighted(weights, torch.zeros(2, 0), worth=3.0) is weights
    assert reweighted(weights, torch.full((2, 4), -math.inf), worth=3.0) is weights


@given(experts=st.integers(1, 5), classes=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_pool_of_distributions_is_one(experts: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_p = torch.log_softmax(torch.randn(experts, 7, classes, generator=generator), dim=-1)
    weights = torch.softmax(torch.randn(experts, generator=generator, dtype=torch.float64), dim=0)
    found = pooled(log_p, weights).exp()
    assert found.sum(dim=-1).tolist() == pytest.approx([1.0] * 7, abs=1e-6)
    assert torch.allclose(found, torch.einsum("h,hnk->nk", weights, log_p.double().exp()))
