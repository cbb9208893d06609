"""Intervals hold what they promise, whatever the distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.intervals import growth, paired_ratio, quantile

finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(("n", "q"), [(10, 0.5), (12, 0.5), (25, 0.5), (200, 0.95), (500, 0.95)])
def test_so_many_values_bound_the_quantile_with_95_percent(n: int, q: float) -> None:
    """P(x_(low) <= quantile < x_(high)) is binomial, whatever the values come from."""
    found = quantile([float(rank) for rank in range(1, n + 1)], q)
    low, high = int(found.low), int(found.high)
    exact = Fraction(str(q))
    chances = [math.comb(n, k) * exact**k * (1 - exact) ** (n - k) for k in range(n + 1)]
    assert sum(chances[low:high]) >= 0.95
    assert sum(chances[low + 1 : high - 1]) < 0.95


@given(values=st.lists(finite, min_size=1, max_size=40), q=st.sampled_from([0.1, 0.5, 0.95]))
def test_the_estimate_lies_in_its_interval_and_order_means_nothing(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert min(values) <= found.low <= found.high <= max(values)
    assert quantile(values[::-1], q) == found


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        quantile(values, 0.5)


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that is slower for some pairs slows both of the pair."""
    theirs = [1.0, 5.0, 2.0, 9.0, 1.0, 7.0, 3.0, 4.0, 6.0, 8.0]
    found = paired_ratio([2 * t for t in theirs], theirs)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="argument"):
        paired_ratio([1.0], [1.0, 2.0])


def test_growth_is_from_one_half_to_the_other() -> None:
    line = [3.0 + 0.5 * i for i in range(200)]
    found = growth(line, blocks=20)
    assert found.low == found.high == pytest.approx(0.5 * 100)
    assert growth([7.0] * 200, blocks=20).value == 0.0
