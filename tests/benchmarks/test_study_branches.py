"""Surprise opens a branch, foretelling earns it weight, and nobody loses what only branch 0 holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.study.branches import MOST, Branches, filled, joined, mixed, surprises
from benchmarks.study.streams import Example
from stream.plan import Forecast
from tests.benchmarks.test_study_heads import CENTRES, D


class Eyes:
    """Sees which class a text "DOMAIN CLASS NUMBER" is of in its own domains; in others only noise."""

    def __init__(self, *domains: int) -> None:
        self._domains = domains

    def features(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for domain, which, number in (map(int, text.split()) for text in texts):
            noise = torch.Generator().manual_seed(10_000 * domain + 1_000 * which + number)
            row = torch.randn(D, generator=noise, dtype=torch.float64)
            rows.append(row + CENTRES[which] if domain in self._domains else row)
        return torch.stack(rows)

    def carried(self) -> int:
        return 11


def window(domain: int, classes: Sequence[int], begin: int) -> list[Example]:
    return [Example(f"{domain} {c} {n}", f"class {c}", 0) for n in range(begin, begin + 40) for c in classes]


def opened(window: Sequence[Example]) -> Eyes:
    return Eyes(int(window[0].text.split()[0]))


def learned(*windows: Sequence[Example]) -> Branches:
    learner = Branches(Eyes(0).features, opened, pi_new=0.01)
    for one in windows:
        learner.learn(one)
    return learner


def cost(learner: Branches, asked: Sequence[Example]) -> float:
    said = learner.foretell([e.text for e in asked])
    return sum(-math.log(f[e.label]) for f, e in zip(said, asked, strict=True) if f) / len(asked)


CALM = (window(0, [0, 1, 2], 0), window(0, [0, 1, 2], 100), window(0, [0, 1, 2], 200))


def test_a_surprise_opens_a_branch_and_nothing_else_does() -> None:
    assert len(learned(*CALM).branches) == 1
    assert len(learned(*CALM, window(1, [0, 1, 2], 0)).branches) == 2
    assert len(learned(*CALM, window(1, [0], 0)).branches) == 1, "adapters would learn nothing"
    assert len(learned(CALM[0], window(1, [0, 1, 2], 0)).branches) == 1, "nothing to compare it with"
    many = [window(domain, [0, 1, 2], 0) for domain in range(1, 9)]
    assert len(learned(*CALM * 4, *many).branches) == MOST


@pytest.mark.parametrize(
    ("costs", "before", "told"),
    [
        ([1.1, 1.3] * 50, [0.9, 1.1], True),
        ([1.0, 1.1] * 50, [0.9, 1.1], False),  # dearer, but not by a tenth
        ([0.0, 2.4] * 50, [0.9, 1.1], False),  # by a fifth, which here is chance
        ([1.1, 1.3] * 50, [], False),
        ([9.0], [1.0], False),
    ],
)
def test_a_surprise_is_dear_and_no_chance(costs: list[float], before: list[float], told: bool) -> None:
    assert surprises(costs, before) is told


def test_weight_goes_to_the_branch_that_foretells() -> None:
    learner = learned(*CALM, window(1, [0, 1, 2], 0))
    assert learner.weights.tolist() == [0.5, 0.5]
    asked = window(1, [0, 1, 2], 500)
    before = cost(learner, asked)
    learner.learn(window(1, [0, 1, 2], 100))
    assert float(learner.weights[1]) > 0.8
    assert float(learner.weights.sum()) == pytest.approx(1)
    assert cost(learner, asked) < 0.7 * before
    learner.learn(window(0, [0, 1, 2], 300))
    assert float(learner.weights[0]) > 0.4, "and back with what the frozen encoder knows"


def test_classes_of_before_a_branch_are_held_by_the_frozen_encoder() -> None:
    learner = learned(*CALM, window(1, [1, 2, 3], 0), window(1, [1, 2, 3], 100))
    assert len(learner.branches) == 2
    said = learner.recall([e.text for e in window(0, [0], 500)])
    assert sum(max(f, key=f.__getitem__) == "class 0" for f in said if f) > 0.6 * len(said)


def test_forecasts_are_distributions_over_all_classes() -> None:
    learner = Branches(Eyes(0).features, opened, pi_new=0.01)
    assert learner.foretell(["0 1 1", "0 2 1"]) == [None, None]
    assert learner.foretell([]) == []
    learner = learned(*CALM, window(1, [1, 2, 3], 0), window(1, [4, 2, 3], 0))
    said = [f for f in learner.foretell([e.text for e in window(1, range(5), 500)]) if f is not None]
    assert len(said) == 200
    assert all(set(f) == {f"class {c}" for c in range(5)} for f in said)
    assert all(sum(f.values()) == pytest.approx(1) for f in said)
    beside = len(learner.branches) - 1
    assert learner.carried() == sum(b.head.carried() for b in learner.branches) + 11 * beside + 8 * (
        beside + 1
    )


def test_a_branch_shares_out_what_branch_0_leaves_to_classes_it_has_counted() -> None:
    zero: Forecast = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert filled({"b": 0.9, "c": 0.1}, zero) == pytest.approx({"a": 0.5, "b": 0.45, "c": 0.05})
    assert filled({"a": 0.1, "b": 0.2, "c": 0.7}, zero) == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.7})


def test_a_pool_is_the_mean_by_weights_and_a_newcomer_gets_an_even_part() -> None:
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert mixed([{"a": 1.0, "b": 0.0}, {"a": 0.2, "b": 0.8}], weights) == pytest.approx({"a": 0.8, "b": 0.2})
    assert joined(weights).tolist() == pytest.approx([0.5, 1 / 6, 1 / 3])
