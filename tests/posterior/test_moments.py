"""Evidence is a sum: order and cuts do not matter, and what a window does not hold is not touched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior.family import NotFinite
from posterior.moments import Moments, combine, grow, moments, nothing
from tests.posterior.generative_cases import CLASSES, DIM, assert_identical, assert_same, stream

seeds = st.integers(0, 1000)


def learned(windows: list[tuple[Tensor, Tensor]]) -> Moments:
    state = nothing(DIM)
    for features, labels in windows:
        state = combine(state, moments(features, labels))
    return state


@given(seed=seeds, n=st.integers(1, 30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_windows_in_turn_are_one_window(seed: int, n: int, cuts: list[int]) -> None:
    """Far from 0, where E[x^2] - E[x]^2 would have lost the scatter."""
    x, y = stream(n, seed=seed, offset=1e3)
    at = sorted(min(cut, n) for cut in cuts)
    windows = [(x[a:b], y[a:b]) for a, b in zip([0, *at], [*at, n], strict=True)]
    assert_same(learned(windows), moments(x, y))


@given(seed=seeds, n=st.integers(1, 30), shuffle=seeds)
def test_the_order_of_events_does_not_matter(seed: int, n: int, shuffle: int) -> None:
    x, y = stream(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(shuffle))
    assert_same(moments(x[order], y[order]), moments(x, y))


@given(seed=seeds, cut=st.integers(1, 19))
def test_the_order_of_windows_does_not_matter(seed: int, cut: int) -> None:
    x, y = stream(20, seed=seed)
    a, b = moments(x[:cut], y[:cut]), moments(x[cut:], y[cut:])
    assert_same(combine(a, b), combine(b, a))


def test_moments_are_counts_means_and_scatter_within_classes() -> None:
    x, y = stream(40, seed=1)
    found = moments(x, y)
    scatter = torch.zeros(DIM, DIM, dtype=torch.float64)
    for k in range(CLASSES):
        rows = x[y == k]
        assert float(found.count[k]) == len(rows)
        torch.testing.assert_close(found.mean[k], rows.mean(dim=0))
        scatter += (len(rows) - 1) * torch.cov(rows.T)
    torch.testing.assert_close(found.scatter, scatter)


def test_means_that_differ_between_windows_add_to_the_scatter() -> None:
    """Two windows without any scatter of their own: all of it lies between them."""
    a, b = torch.tensor([1.0, 0.0, 2.0]).double(), torch.tensor([3.0, -1.0, 2.0]).double()
    one, other = (moments(m.expand(n, DIM), torch.zeros(n).long()) for m, n in ((a, 2), (b, 6)))
    wanted = 2 * 6 / 8 * torch.outer(b - a, b - a)
    torch.testing.assert_close(combine(one, other).scatter, wanted)


@given(seed=seeds)
def test_classes_that_a_window_does_not_hold_are_untouched(seed: int) -> None:
    x, y = stream(40, seed=seed)
    before = moments(x, y)
    after = combine(before, moments(*(part[y == 1] for part in (x, y))))
    absent = torch.arange(len(before.count)) != 1
    for name in ("count", "mean"):
        assert torch.equal(getattr(after, name)[absent], getattr(before, name)[absent])
    assert float(after.count[1]) == 2 * float(before.count[1])


def test_new_classes_come_in_order_of_first_sight_below_the_old() -> None:
    x, y = stream(60, seed=4)
    state, rows = nothing(DIM), []
    for k in range(CLASSES):
        before, state = state, combine(state, moments(x[y == k], y[y == k]))
        rows.append(len(state.count))
        assert_identical(grow(before, rows[-1]), Moments(**vars(state) | _old(state, before)))
    assert rows == [1, 2, 3, 4]


def _old(state: Moments, before: Moments) -> dict[str, Tensor]:
    """Return `state` with the rows that `before` lacks set to 0, and the scatter of `before`."""
    kept = torch.arange(len(state.count)) < len(before.count)
    mean = torch.where(kept.unsqueeze(1), state.mean, 0.0)
    return {"count": torch.where(kept, state.count, 0.0), "mean": mean, "scatter": before.scatter}


def test_a_feature_that_is_no_number_is_an_error() -> None:
    x, y = stream(5, seed=0)
    x[2, 1] = math.nan
    with pytest.raises(NotFinite, match="features"):
        moments(x, y)
