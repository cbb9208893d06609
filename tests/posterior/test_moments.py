"""Evidence is a sum: order and cuts do not matter, and what a window does not hold is not touched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior.family import NotFinite
from posterior.moments import Moments, combine, grow, moments, nothing, tempered
from tests.posterior.generative_cases import CLASSES, DIM, assert_identical, assert_same, stream

seeds = st.integers(0, 1000)


def learned(windows: list[tuple[Tensor, Tensor]], *, beta: float = 1.0) -> Moments:
    state = nothing(DIM)
    for features, labels in windows:
        state = combine(state, tempered(moments(features, labels), beta=beta))
    return state


@given(
    seed=seeds, n=st.integers(1, 30), cuts=st.lists(st.integers(0, 30), max_size=4), beta=st.floats(0.1, 1)
)
def test_windows_in_turn_are_one_window(seed: int, n: int, cuts: list[int], beta: float) -> None:
    """Far from 0, where E[x^2] - E[x]^2 would have lost the scatter."""
    x, y = stream(n, seed=seed, offset=1e3)
    at = sorted(min(cut, n) for cut in cuts)
    windows = [(x[a:b], y[a:b]) for a, b in zip([0, *at], [*at, n], strict=True)]
    assert_same(learned(windows, beta=beta), tempered(moments(x, y), beta=beta))


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
        assert float(found.count[k]) == float(found.seen[k]) == len(rows)
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
    for name in ("count", "mean", "seen", "firsts"):
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
    assert state.firsts.tolist() == [1.0] * CLASSES


def _old(state: Moments, before: Moments) -> dict[str, Tensor]:
    """Return `state` with the rows that `before` lacks set to 0, and the scatter of `before`."""
    kept = torch.arange(len(state.count)) < len(before.count)
    rows = {n: torch.where(kept, getattr(state, n), 0.0) for n in ("count", "seen", "firsts")}
    mean = torch.where(kept.unsqueeze(1), state.mean, 0.0)
    return rows | {"mean": mean, "scatter": before.scatter}


@given(seed=seeds)
def test_evidence_to_the_power_0_changes_nothing(seed: int) -> None:
    """Not even the number of classes."""
    x, y = stream(30, seed=seed)
    state, window = moments(x[y < 1], y[y < 1]), moments(x, y)
    assert_identical(combine(state, tempered(window, beta=0.0)), state)
    unseen = moments(x, y, weights=torch.zeros(30))
    assert_identical(combine(state, unseen), state)
    assert tempered(window, beta=1.0) is window


@given(seed=seeds, beta=st.floats(0.01, 3))
def test_a_power_is_a_weight_of_every_event(seed: int, beta: float) -> None:
    x, y = stream(20, seed=seed)
    weighted = moments(x, y, weights=torch.full((20,), beta, dtype=torch.float64))
    assert_same(tempered(moments(x, y), beta=beta), weighted)


def test_weights_of_two_events_are_their_repetition() -> None:
    x, y = stream(12, seed=2)
    weights = torch.tensor([1, 2, 3, 0] * 3)
    weighted, repeated = (
        moments(x, y, weights=weights),
        moments(*(p.repeat_interleave(weights, 0) for p in (x, y))),
    )
    for name in ("count", "mean", "scatter", "seen"):
        torch.testing.assert_close(getattr(weighted, name), getattr(repeated, name))


def test_the_first_event_of_a_class_is_counted_by_its_weight_and_once() -> None:
    x, _ = stream(6, seed=3)
    y, w = torch.tensor([0, 1, 0, 1, 2, 1]), torch.tensor([0.0, 0.3, 0.7, 0.9, 0.5, 0.2])
    window = moments(x, y, weights=w)
    torch.testing.assert_close(window.firsts, torch.tensor([0.7, 0.3, 0.5]).double(), rtol=1e-6, atol=0)
    again = combine(window, moments(x, y))
    assert torch.equal(again.firsts, window.firsts)


def test_moments_are_differentiable_in_the_features() -> None:
    x, y = stream(7, seed=5)

    def scatter(features: Tensor) -> Tensor:
        return combine(moments(features[:3], y[:3]), moments(features[3:], y[3:])).scatter

    assert torch.autograd.gradcheck(scatter, (x.requires_grad_(),))


def test_a_feature_that_is_no_number_is_an_error() -> None:
    x, y = stream(5, seed=0)
    x[2, 1] = math.nan
    with pytest.raises(NotFinite, match="features"):
        moments(x, y)


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_weights_below_0_are_refused(weight: float) -> None:
    x, y = stream(2, seed=0)
    with pytest.raises(ValueError, match="weights are >= 0"):
        moments(x, y, weights=torch.tensor([1.0, weight]))


@pytest.mark.parametrize("beta", [-0.1, math.inf, math.nan])
def test_a_power_is_a_number_from_0_on(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        tempered(nothing(DIM), beta=beta)
