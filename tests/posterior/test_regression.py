"""Softmax regression: against explicit float64 algebra, and what a window may and may not move."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from posterior import moments, regression
from posterior.family import NotFinite
from posterior.moments import Moments
from posterior.regression import DEVIATIONS, Factored, Regression

D, K = 5, 3


def events(count: int, seed: int, *, classes: int = K) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.eye(classes, D, dtype=torch.float64)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return centres[labels] + torch.randn(count, D, generator=generator, dtype=torch.float64), labels


def with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)


def begun(classes: int = K) -> Factored:
    return regression.factored(regression.grow(regression.nothing(D), classes), moments.nothing(D))


def taught(count: int = 80, seed: int = 0) -> tuple[Regression, Moments]:
    features, labels = events(count, seed)
    return regression.learned(begun(), features, labels), moments.moments(features, labels)


def precision(state: Regression, seen: Tensor, j: int) -> Tensor:
    """Return 1/s^2 + A (x) S, written out; `seen` are the features of all events, with a one behind."""
    a = state.curvature[j] / len(seen)
    return torch.kron(a, seen.T @ seen) + torch.eye(K * (D + 1)) / DEVIATIONS[j] ** 2


@pytest.mark.parametrize("j", range(len(DEVIATIONS)))
def test_each_window_ends_at_the_mode_under_the_prior_before_it(j: int) -> None:
    """The gradient of the window's nats and of the Gaussian before, written out, is 0 there."""
    state, seen = taught()
    old, (features, labels) = with_one(events(80, 0)[0]), events(50, 1)
    after = regression.learned(regression.factored(state, seen), features, labels)
    x, mode = with_one(features), after.mean[j]
    by_window = (torch.softmax(x @ mode.T, dim=1) - one_hot(labels, K)).T @ x
    by_prior = (precision(state, old, j) @ (mode - state.mean[j]).flatten()).view(K, D + 1)
    assert float((by_window + by_prior).abs().max()) < 1e-4
    assert float(by_window.abs().max()) > 1.0


def test_curvature_of_one_event_is_the_likelihoods() -> None:
    """A (x) S of a single event is diag p - p p' times its features' square, without any approximation."""
    features, labels = events(1, 2)
    state, x = regression.learned(begun(), features, labels), with_one(features)
    (p,) = torch.softmax(x @ state.mean[1].T, dim=1)
    wanted = torch.kron(torch.diag(p) - torch.outer(p, p), x.T @ x)
    found = precision(state, x, 1) - torch.eye(K * (D + 1)) / DEVIATIONS[1] ** 2
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("j", range(len(DEVIATIONS)))
def test_doubt_is_the_inverse_of_the_precision_apart_from_what_logits_share(j: int) -> None:
    state, seen = taught()
    asked, covariance = (
        with_one(events(4, 3)[0]),
        torch.linalg.inv(precision(state, with_one(events(80, 0)[0]), j)),
    )
    found = regression.log_probabilities(regression.factored(state, seen), events(4, 3)[0])[j]
    apart = torch.eye(K, dtype=torch.float64) - 1 / K
    for x, said in zip(asked, found, strict=True):
        of_logits = torch.einsum("d,kdle,e->kl", x, covariance.view(K, D + 1, K, D + 1), x)
        variance = (apart @ of_logits @ apart).diagonal()
        wanted = torch.log_softmax(state.mean[j] @ x / (1 + math.pi / 8 * variance).sqrt(), dim=0)
        torch.testing.assert_close(said, wanted)


def test_curvature_adds_up_window_by_window() -> None:
    """What the first window settled stays settled: the second adds its own, counted at its mode."""
    (first, seen), (features, labels) = taught(), events(50, 1)
    after = regression.learned(regression.factored(first, seen), features, labels)
    for j, mode in enumerate(after.mean):
        p = torch.softmax(with_one(features) @ mode.T, dim=1)
        own = sum(torch.diag(row) - torch.outer(row, row) for row in p)
        torch.testing.assert_close(after.curvature[j], first.curvature[j] + own)
        assert float(first.curvature[j].trace()) > 1.0


def test_no_event_changes_nothing() -> None:
    state, seen = taught()
    none = torch.zeros(0, D)
    after = regression.learned(regression.factored(state, seen), none, torch.zeros(0, dtype=torch.int64))
    assert torch.equal(after.mean, state.mean)
    assert torch.equal(after.curvature, state.curvature)


def test_two_windows_in_turn_end_near_both_at_once() -> None:
    """Nearer than the second alone does, by the answers that they give to other texts."""
    (a, la), (b, lb), (asked, _) = events(200, 4), events(200, 5), events(60, 6)
    first, seen = regression.learned(begun(), a, la), moments.moments(a, la)
    in_turn = regression.learned(regression.factored(first, seen), b, lb)
    at_once = regression.learned(begun(), torch.cat([a, b]), torch.cat([la, lb]))
    second = regression.learned(begun(), b, lb)

    def said(state: Regression) -> Tensor:
        return torch.softmax(with_one(asked) @ state.mean[1].T, dim=1)

    gap = [float((said(state) - said(at_once)).abs().mean()) for state in (in_turn, second)]
    assert gap[0] < 0.2 * gap[1]


def test_a_new_class_starts_where_its_prior_has_it_and_the_others_stay() -> None:
    state, seen = taught()
    grown = regression.grow(state, K + 1)
    assert torch.equal(grown.mean[:, :K], state.mean)
    assert not grown.mean[:, K].any()
    before, after = (
        regression.log_probabilities(regression.factored(one, moments.grow(seen, classes)), events(9, 7)[0])
        for one, classes in ((state, K), (grown, K + 1))
    )
    assert torch.equal(after[..., :K].argmax(dim=-1), before.argmax(dim=-1))


def test_more_texts_leave_less_doubt() -> None:
    spread = []
    for count in (10, 100, 1000):
        state, seen = taught(count)
        spread.append(regression._variances(regression.factored(state, seen)).sum(dim=(1, 2)))
    assert (spread[0] > spread[1]).all()
    assert (spread[1] > spread[2]).all()


def test_what_is_not_finite_is_named() -> None:
    features, labels = events(4, 8)
    features[1, 2] = math.nan
    with pytest.raises(NotFinite, match="softmax regression on a window"):
        regression.learned(begun(), features, labels)
