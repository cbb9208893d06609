"""Abstention: the stated risk is kept at the stated level, and more doubt never answers more."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.abstention import Tally, abstention, at_most, tally

Told = list[tuple[float, bool]]


def honest(count: int, seed: int) -> Told:
    """Return forecasts that are right as often as they say."""
    rng = random.Random(seed)
    return [(c := rng.random(), rng.random() < c) for _ in range(count)]


def test_the_risk_is_kept_as_often_as_stated() -> None:
    """Of 400 pasts at most a tenth may lead to a threshold whose true risk is above the stated one."""
    broken = 0
    for seed in range(400):
        rule = abstention([tally(honest(300, seed))], risk=0.1, alpha=0.1)
        if rule.at is not None:
            broken += (1 - rule.at) / 2 > 0.1  # confidence is uniform: mean error above t is (1 - t) / 2
    assert 0 < broken <= 40 + 3 * math.sqrt(400 * 0.1 * 0.9)


def test_much_evidence_comes_near_the_best_threshold() -> None:
    rule = abstention([tally(honest(200_000, 1))], risk=0.1, alpha=0.05)
    assert rule.at == pytest.approx(0.8, abs=0.025)
    assert rule.events == 200_000
    assert 0.08 < rule.wrong / rule.answered < 0.1


def test_nothing_known_answers_nothing() -> None:
    pasts: list[list[Tally]] = [[], [[]], [tally([(0.99, True)] * 20)]]
    for past in pasts:  # 29 without an error would do, 20 cannot
        rule = abstention(past, risk=0.1, alpha=0.05)
        assert rule.at is None
        assert rule.abstains(1.0)


def test_sure_and_wrong_answers_nothing() -> None:
    told = [(0.99, False)] * 50 + [(0.6, True)] * 5_000
    assert abstention([tally(told)], risk=0.1, alpha=0.05).at is None


@given(told=st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200), risk=st.floats(0.02, 0.5))
def test_more_risk_answers_no_less_and_windows_add_up(told: Told, risk: float) -> None:
    one = abstention([tally(told)], risk=risk, alpha=0.05)
    half = len(told) // 2
    assert abstention([tally(told[:half]), tally(told[half:])], risk=risk, alpha=0.05) == one
    bolder = abstention([tally(told)], risk=min(0.9, risk + 0.1), alpha=0.05)
    assert bolder.answered >= one.answered
    answered = [not one.abstains(confidence) for confidence, _ in told]
    assert sum(answered) == one.answered
    assert sum(not right for (_, right), yes in zip(told, answered, strict=True) if yes) == one.wrong


@given(n=st.integers(1, 60), risk=st.floats(0.01, 0.9), data=st.data())
def test_the_chance_of_so_few_errors(n: int, risk: float, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, n))
    wanted = sum(math.comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(errors + 1))
    assert at_most(errors, n, risk) == pytest.approx(min(1.0, wanted), rel=1e-9)


def test_a_confidence_of_the_threshold_is_answered() -> None:
    rule = abstention([tally([(0.7, True)] * 100)], risk=0.1, alpha=0.05)
    assert rule.at == 0.7
    assert not rule.abstains(0.7)
    assert not rule.abstains(0.7000000001)
    assert rule.abstains(0.699)


@pytest.mark.parametrize(("risk", "alpha"), [(0, 0.1), (1, 0.1), (0.1, 0), (math.nan, 0.1)])
def test_no_levels(risk: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        abstention([], risk=risk, alpha=alpha)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan])
def test_no_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        tally([(confidence, True)])
