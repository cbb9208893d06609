"""The scale of the objective: what a cycle of steps is charged in all."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior.elbo import Scale, kl_pace


@given(steps=st.integers(1, 3000))
def test_a_cycle_charges_what_a_constant_schedule_charges(steps: int) -> None:
    paces = [kl_pace("cyclic", step, steps) for step in range(steps)]
    assert sum(paces) == pytest.approx(steps, rel=1e-12)
    assert all(later >= 2 * pace for pace, later in itertools.pairwise(paces))


def test_the_weights_are_those_of_the_paper() -> None:
    """2^i / (2^(M+1) - 1) for i = 0..M, in shares of a cycle of M + 1 steps."""
    assert [kl_pace("cyclic", i, 3) / 3 for i in range(3)] == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_the_divergence_is_charged_once_for_every_new_example() -> None:
    kl, scale = torch.tensor(6.0, dtype=torch.float64), Scale(new_examples=12, temperature=0.5)
    assert float(scale.divergence(kl)) == pytest.approx(0.5 * 6 / 12)
    assert float(scale.divergence(kl, pace=4.0)) == pytest.approx(0.5 * 6 / 12 * 4)
    assert float(scale.likelihood(torch.tensor(6.0), 4)) == pytest.approx(1.5)
