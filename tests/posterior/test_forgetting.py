"""The power prior of diagonal Gaussians, at its ends and outside of them."""

from __future__ import annotations

import pytest
import torch

from posterior.forgetting import power_prior

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
