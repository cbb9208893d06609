"""The power prior of diagonal Gaussians, at its ends and outside of them, and what a belief is worth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior.forgetting import BETA_GRID, effective, power_prior

MEAN, LOG_SD = torch.tensor([0.3, -1.7]), torch.tensor([-2.2, -3.1])
BASE_MEAN, BASE_LOG_SD = torch.tensor([0.0, 0.1]), torch.tensor([-1.1, -1.3])


def test_the_ends_never_round() -> None:
    """log(exp(x)) is not x: what is remembered whole must not pass through a precision and back."""
    whole = power_prior(MEAN, LOG_SD, BASE_MEAN, BASE_LOG_SD, beta=1.0)
    nothing = power_prior(MEAN, LOG_SD, BASE_MEAN, BASE_LOG_SD, beta=0.0)
    assert whole[0] is MEAN
    assert whole[1] is LOG_SD
    assert nothing[0] is BASE_MEAN
    assert nothing[1] is BASE_LOG_SD


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must lie in"):
        power_prior(MEAN, LOG_SD, BASE_MEAN, BASE_LOG_SD, beta=beta)


@given(
    windows=st.lists(st.tuples(st.sampled_from(BETA_GRID), st.integers(0, 500)), min_size=1, max_size=12),
    base_sd=st.floats(0.01, 10.0),
)
def test_a_belief_is_worth_as_many_examples_as_its_precision_says(
    windows: list[tuple[float, int]], base_sd: float
) -> None:
    """Of a Gaussian mean seen in unit noise, the power prior and the rows' figure say the same."""
    base = torch.tensor(0.0).double(), torch.tensor(base_sd, dtype=torch.float64).log()
    mean, log_sd, worth = *base, 0.0
    for beta, new in windows:
        mean, log_sd = power_prior(mean, log_sd, *base, beta=beta)
        log_sd = -0.5 * torch.log(torch.exp(-2 * log_sd) + new)
        worth = effective(worth, beta=beta, new=new)
    gained = float(torch.exp(-2 * log_sd)) - base_sd**-2
    assert gained == pytest.approx(worth, rel=1e-6, abs=1e-9 * base_sd**-2)
