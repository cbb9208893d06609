"""The stable KL against analytic oracles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior.divergence import gaussian_kl, half_expm1_minus

numbers = st.floats(-3, 3)


@given(m=numbers, s=numbers, pm=numbers, ps=numbers)
def test_gaussian_kl_is_torchs(m: float, s: float, pm: float, ps: float) -> None:
    q = torch.distributions.Normal(torch.tensor(m).double(), torch.tensor(s).double().exp())
    p = torch.distributions.Normal(torch.tensor(pm).double(), torch.tensor(ps).double().exp())
    ours = gaussian_kl(*(torch.tensor(x).double() for x in (m, s, pm, ps)))
    theirs = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


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
