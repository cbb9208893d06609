"""A probe keeps what it has not yet unlearned; a belief keeps what was seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.study.heads import Counting, Head
from benchmarks.study.probes import RIDGE, Laplace, Softmax, descended
from posterior import panel
from posterior.regression import DEVIATIONS, Regression, log_probabilities
from posterior.sight import Sight
from tests.benchmarks.test_study_heads import D, features, window

NARROW, WIDE = DEVIATIONS


def shown(classes: list[int], numbers: range) -> tuple[Tensor, Tensor]:
    texts = [(c, n) for c in classes for n in numbers]
    return features([f"{c} {n}" for c, n in texts]), torch.tensor([c for c, _ in texts])


def slope(weights: Tensor, x: Tensor, truth: Tensor, ridge: float) -> Tensor:
    """Differentiate what the probe minimises, by autograd."""
    w = weights.clone().requires_grad_()
    logits = torch.nn.functional.pad(x, (0, 1), value=1.0) @ w.T
    nats = torch.nn.functional.cross_entropy(logits, truth, reduction="sum") + ridge / 2 * w.square().sum()
    (gradient,) = torch.autograd.grad(nats, w)
    return gradient


def test_the_probe_forgets_where_it_began_when_it_goes_to_the_end_and_not_before() -> None:
    (x, truth), zero = shown([0, 1, 2], range(20)), torch.zeros(3, D + 1, dtype=torch.float64)
    elsewhere = torch.linspace(-1, 1, 3 * (D + 1), dtype=torch.float64).reshape(3, D + 1)
    near, far = (descended(w, x, truth, steps=500) for w in (zero, elsewhere))
    torch.testing.assert_close(slope(near, x, truth, RIDGE), zero, atol=1e-5, rtol=0)
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)
    early, other = (descended(w, x, truth, steps=3) for w in (zero, elsewhere))
    assert float((early - other).abs().max()) > 0.1


def test_the_belief_begins_at_the_mode_under_its_prior() -> None:
    (x, truth), head = shown([0, 1, 2], range(20)), Laplace()
    head.count(x, truth, 3)
    assert head._state is not None
    for mode, deviation in zip(head._state.mean, DEVIATIONS, strict=True):
        at_mode = slope(mode, x, truth, deviation**-2)
        torch.testing.assert_close(at_mode, torch.zeros_like(mode), atol=1e-4, rtol=0)


def test_the_belief_is_the_panels_own_window_after_window() -> None:
    windows = [shown([0, 1], range(20)), shown([1, 2], range(20, 40)), shown([0], range(40, 50))]
    head, classes = Laplace(), 0
    beside = panel.founded(Sight(windows[0][0].unsqueeze(1), [torch.tensor([0])] * 40, 1))
    for x, truth in windows:
        classes = max(classes, int(truth.max()) + 1)
        head.count(x, truth, classes)
        sight = Sight(x.unsqueeze(1), [torch.tensor([0])] * len(x), 1)
        beside = panel.learned(beside, sight, truth, classes=classes)
    asked, _ = shown([0, 1, 2], range(60, 70))
    said = log_probabilities(panel.believed(beside).divided, asked)
    assert Regression(**beside.regression).mean.shape == (2, 3, D + 1)
    for j, way in enumerate(DEVIATIONS):
        torch.testing.assert_close(head.scores(asked, way), said[j])
    assert head.carried() == 8 * (3 + 3 * D + D * D + 2 * 3 * (D + 1) + 2 * 3 * 3)


@pytest.mark.parametrize("make", [Softmax, Laplace])
def test_forecasts_are_distributions_and_learned_classes_are_told_apart(make: type[Softmax]) -> None:
    head: Head = make()
    learner = Counting(features, head)
    assert learner.foretell(["0 1"]) == [None]
    learner.learn(window([0, 1, 2], range(40)))
    learner.learn(window([0, 1, 2, 3], range(40, 80)))
    asked = [f"{c} {n}" for c in range(4) for n in range(100, 120)]
    said = [forecast for forecast in learner.foretell(asked) if forecast is not None]
    assert all(sum(one.values()) == pytest.approx(1) for one in said)
    guesses = [max(one, key=one.__getitem__) for one in said]
    right = [guess == f"class {text[0]}" for guess, text in zip(guesses, asked, strict=True)]
    assert sum(right) > 0.9 * len(asked)


def test_the_belief_keeps_classes_that_a_window_does_not_hold_and_the_probe_unlearns_them() -> None:
    asked, truth = shown([0, 1], range(100, 140))
    cost = {}
    for head, way in ((Softmax(), 30.0), (Laplace(), WIDE)):
        for classes in ([0, 1], [2, 3], [4, 5]):
            x, labels = shown(classes, range(40))
            head.count(x, labels, max(classes) + 1)
        said = torch.log_softmax(head.scores(asked, way), dim=1)
        cost[type(head).__name__] = float(-said.gather(1, truth.unsqueeze(1)).mean())
    nothing_known = math.log(6)
    assert cost["Laplace"] < 0.75 * nothing_known, cost
    assert cost["Softmax"] > 1.25 * nothing_known, cost


def test_earlier_windows_choose_the_prior() -> None:
    learner = Counting(features, Laplace())
    for numbers in (range(5), range(40, 60)):
        learner.learn(window([0, 1, 2], numbers))
    costs = {way: cost for (way, _), cost in learner._costs.items()}
    assert costs[WIDE] < costs[NARROW], "classes lie far apart, so weights may be large"
    asked = ["0 200"]
    (said,), scores = learner.foretell(asked), learner._head.scores(features(asked), WIDE)
    assert said is not None
    assert list(said.values()) == pytest.approx(scores.exp().squeeze(0).tolist())
