"""How often a class was new is Bayes' rule for a rate; what densities say stops at even odds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior import novelty

WIDTH = 384
COUNTS = st.integers(0, 500)


def after(new: int, old: int) -> torch.Tensor:
    return novelty.counted(novelty.nothing(), torch.tensor([True] * new + [False] * old))


def asked(counts: torch.Tensor) -> torch.Tensor:
    """Return pi_j of a text that fits a class unseen better, of one in between, and of a familiar one."""
    fresh, known = torch.tensor([3.0, 0.0, -3.0]).double(), torch.zeros(3, 2, dtype=torch.float64)
    said = novelty.experts(counts, fresh * 30, known, width=WIDTH).exp()
    torch.testing.assert_close(said.sum(dim=-1), torch.ones(novelty.EXPERTS, 3, dtype=torch.float64))
    return said[..., 1]


@given(new=COUNTS, old=COUNTS)
def test_the_rate_is_the_mean_of_a_beta_posterior(new: int, old: int) -> None:
    a, b = novelty.RARE
    assert novelty.rate(after(new, old)) == pytest.approx((a + new) / (b + new + old))
    twice = novelty.counted(after(new, old), torch.tensor([True, False]))
    assert torch.equal(twice, after(new + 1, old + 1))


@given(new=COUNTS, old=COUNTS)
def test_constants_stand_and_one_expert_is_the_rate(new: int, old: int) -> None:
    said, count = asked(after(new, old)), len(novelty.CONSTANTS)
    for pi, row in zip((*novelty.CONSTANTS, novelty.rate(after(new, old))), said, strict=False):
        wanted = min(max(pi, 1e-4), 1 - 1e-4)
        assert row.tolist() == pytest.approx([wanted] * 3)
    assert (said[count + 1 :].diff(dim=1) <= 0).all(), "the better a known class fits, the less is it new"


@pytest.mark.parametrize(("gap", "most"), [(30.0, 0.5), (3.0, 0.5), (0.0, 0.5), (-30.0, 0.5)])
def test_densities_multiply_the_odds_up_to_even(gap: float, most: float) -> None:
    fresh, known = torch.tensor([gap]).double(), torch.zeros(1, 2, dtype=torch.float64)
    said = novelty.experts(novelty.nothing(), fresh, known, width=WIDTH).exp()
    for (pi, features), row in zip(novelty.ODDS, said[len(novelty.CONSTANTS) + 1 :], strict=True):
        odds = max(pi / (1 - pi) * math.exp(gap * features / WIDTH), 1e-4 / (1 - 1e-4))
        assert float(row[0, 1]) == pytest.approx(min(most, odds / (1 + odds)))


def test_where_all_that_comes_is_new_the_rate_says_so() -> None:
    at = len(novelty.CONSTANTS)
    never, first, always = (asked(counts)[at, 1] for counts in (after(0, 2000), after(0, 0), after(500, 0)))
    assert float(never) < 0.001 < float(first) == pytest.approx(0.01)
    assert float(always) > 0.9
