"""The generative head against its own definition: Student's t, the chain rule, a class that is not there."""

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
from posterior.generative import Base, believe, log_densities
from posterior.moments import combine, grow, moments, nothing
from tests.posterior.generative_cases import (
    DIM,
    log_partition,
    normals,
    psi,
    small_base,
    stream,
)

seeds = st.integers(0, 1000)


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


@given(seed=seeds)
def test_a_class_unseen_is_where_the_base_has_it_and_as_wide_as_the_known(seed: int) -> None:
    x, y = stream(20, seed=seed)
    seen = moments(x, y)
    b = believe(small_base(), grow(seen, len(seen.count) + 1))
    torch.testing.assert_close(generative.log_fresh(b, x), log_densities(b, x)[:, -1])
    torch.testing.assert_close(log_densities(b, x)[:, :-1], log_densities(believe(small_base(), seen), x))


def test_few_events_in_many_dimensions_leave_a_head_that_tells_them_apart() -> None:
    x, y = stream(12, seed=3, dim=768)
    b = believe(generative.base(torch.zeros(768), torch.ones(768), worth=0.01, freedom=3.0), moments(x, y))
    said = log_densities(b, x.float())
    assert bool(torch.isfinite(said).all())
    assert said.argmax(dim=1).tolist() == y.tolist()


def test_a_wide_scatter_that_eats_the_base_is_an_error() -> None:
    base = generative.base(torch.zeros(DIM), torch.full((DIM,), 1e-30), worth=0.01, freedom=3.0)
    x = 1e5 * normals(2, 1, seed=0) * torch.tensor([[1.0, 1.0, -3.0]])
    with pytest.raises(NotFinite, match="variance is too small"):
        believe(base, moments(x, torch.tensor([0, 0])))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("worth", lambda: small_base(2, worth=0.0)),
        ("freedom", lambda: small_base(2, freedom=2.0)),
        ("variance", lambda: small_base(2, variance=torch.tensor([1.0, 0.0]))),
    ],
)
def test_constants_out_of_range_are_refused_by_name(name: str, make: Callable[[], Base]) -> None:
    with pytest.raises(ValueError, match=name):
        make()
