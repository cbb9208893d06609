"""The mixture and its doubt; calibration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior.calibration import brier, ece, reliability
from posterior.predict import doubt, mixture


def draws(seed: int, spread: float) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.log_softmax(spread * torch.randn(7, 5, 3, generator=rng).double(), dim=-1)


@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
@settings(max_examples=40, deadline=None)
def test_doubt_splits_the_total(seed: int, spread: float) -> None:
    log_p = draws(seed, spread)
    split = doubt(log_p)
    assert bool((split.epistemic >= 0).all())
    assert bool((split.total <= math.log(3) + 1e-9).all())
    torch.testing.assert_close(split.total, split.aleatoric + split.epistemic, atol=1e-9, rtol=0)
    torch.testing.assert_close(mixture(log_p).exp().sum(dim=-1), torch.ones(5).double())


def test_agreeing_draws_leave_no_epistemic_doubt() -> None:
    log_p = draws(1, 1.0)[:1].expand(7, 5, 3)
    torch.testing.assert_close(doubt(log_p).epistemic, torch.zeros(5).double(), atol=1e-12, rtol=0)


def test_certainty_has_no_entropy() -> None:
    log_p = torch.log(torch.tensor([[[1.0, 0.0]]]))
    assert float(doubt(log_p).total) == 0.0


def test_honest_confidence_is_calibrated_and_boasting_is_not() -> None:
    correct = torch.tensor([1.0] * 80 + [0.0] * 20)
    assert ece(torch.full((100,), 0.8), correct) == pytest.approx(0.0, abs=1e-6)
    assert ece(torch.full((100,), 1.0), correct) == pytest.approx(0.2, abs=1e-6)
    assert sum(b.count for b in reliability(torch.rand(100), correct)) == 100


def test_brier_is_zero_for_the_truth_and_two_for_its_opposite() -> None:
    truth = torch.tensor([0, 1])
    assert brier(torch.eye(2), truth) == 0.0
    assert brier(torch.eye(2).flip(0), truth) == 2.0


def test_calibration_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        ece(torch.zeros(0), torch.zeros(0))
