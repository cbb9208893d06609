"""A run's measures are what their names say, on runs small enough to be counted by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.measures import (
    adaptive_ece,
    auroc,
    backward_transfer,
    balanced,
    learning_accuracy,
    measures,
    novelty,
    risk_coverage_area,
    risks,
    scaled,
    tempered,
)
from benchmarks.study.walk import Told, Trace
from posterior.panel import NEW

SCORED = st.lists(st.tuples(st.integers(0, 5).map(float), st.booleans()), min_size=1, max_size=30)


def _trace(told: list[Told], final: list[Told] | None = None) -> Trace:
    return Trace(
        told=tuple(told),
        matrix=((1.0,), (0.5, 0.75), (0.25, 0.5, 1.0)),
        final=tuple(final or [Told(0, 3, "a", {"a": 1.0})]),
        foretell_cpu=(1.0, 2.0),
        learn_cpu=(3.0, 4.0),
        carried=7,
    )


def test_what_is_learned_and_lost_is_read_off_the_matrix() -> None:
    matrix = _trace([]).matrix
    assert learning_accuracy(matrix) == pytest.approx((1 + 0.75 + 1) / 3)
    assert backward_transfer(matrix) == pytest.approx(((0.25 - 1) + (0.5 - 0.75)) / 2)
    assert learning_accuracy(((0.5, 0.6),)) is None
    assert backward_transfer(((0.5, 0.6),)) is None


def test_every_class_counts_the_same_when_balanced() -> None:
    right, wrong = {"a": 0.9, "b": 0.1}, {"a": 0.8, "b": 0.2}
    shown = [Told(0, 1, "a", right)] * 9 + [Told(0, 1, "b", wrong)]
    assert balanced(shown) == pytest.approx(0.5)


@given(SCORED)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(scored: list[tuple[float, bool]]) -> None:
    true, false = ([s for s, kind in scored if kind is side] for side in (True, False))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(true, false)]
    found = auroc(scored)
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@given(SCORED)
def test_who_is_surest_where_right_has_the_least_risk(sure: list[tuple[float, bool]]) -> None:
    rights = sum(right for _, right in sure)
    ideal = [(float(i), right) for i, right in enumerate(sorted(r for _, r in sure))]
    assert risk_coverage_area(ideal) <= risk_coverage_area(sure) + 1e-12
    assert risk_coverage_area([(0.5, True)] * 3) == 0
    if not rights:
        assert risk_coverage_area(sure) == 1


def test_risks_are_errors_among_the_surest_and_equals_are_taken_at_their_worst() -> None:
    assert risks([(0.5, True), (0.9, True), (0.5, False)]) == pytest.approx([0, 1 / 2, 1 / 3])


def test_bins_of_as_many_texts_part_what_bins_of_equal_width_hide() -> None:
    """At .94 all are wrong, at .99 all right: one bin by width, where they cancel, and many by mass."""
    sure = [(0.94, False)] * 5 + [(0.99, True)] * 95
    told = [Told(1, 1, "a" if right else "b", {"a": p, "b": 1 - p}) for p, right in sure]
    found = measures(_trace(told, told), pi_new=1e-9)
    by_mass = (5 * 0.94 + 95 * 0.01) / 100
    assert adaptive_ece(sure, bins=20) == pytest.approx(by_mass)
    assert adaptive_ece(sure, bins=1) == pytest.approx(abs(0.95 - (5 * 0.94 + 95 * 0.99) / 100))
    assert found["final_ece"] == pytest.approx(adaptive_ece(sure, bins=1))
    assert found["final_ece_adaptive"] == found["prequential_ece_adaptive"] > 1.3 * found["final_ece"]


def test_what_is_kept_for_the_unseen_is_left_out_among_known_classes() -> None:
    """Of texts of before, where all that comes is new: four in five are right, and as sure as that."""
    said = {"a": 0.2 * 0.8, "b": 0.2 * 0.2, NEW: 0.8}
    final = [Told(0, 3, "a", said)] * 8 + [Told(0, 3, "b", said)] * 2
    found = measures(_trace(final, final), pi_new=0.01)
    assert found["final_ece"] == pytest.approx(0.8 - 0.16)
    assert found["final_ece_known"] == pytest.approx(0.0)
    silent = [Told(0, 3, "a", {"a": 0.9, "b": 0.1})]  # says nothing of new classes: nothing is kept
    assert measures(_trace(silent, silent), pi_new=0.5)["final_ece_known"] == pytest.approx(0.1)


@given(SCORED, st.randoms(use_true_random=False))
def test_calibration_by_mass_has_no_order_and_few_texts_are_enough(
    scored: list[tuple[float, bool]], rng: random.Random
) -> None:
    sure = [(score / 5, right) for score, right in scored]
    mixed = rng.sample(sure, len(sure))
    assert adaptive_ece(mixed) == adaptive_ece(sure) <= 1
    rate = sum(right for _, right in sure) / len(sure)
    assert adaptive_ece([(rate, right) for _, right in sure]) == pytest.approx(0)


def test_novelty_is_what_is_said_of_it_or_else_doubt() -> None:
    assert novelty({"a": 0.7, NEW: 0.3}) == 0.3
    assert novelty({"a": 0.7, "b": 0.3}) == pytest.approx(0.3)


def test_costs_of_known_classes_are_told_apart_from_those_of_new_ones() -> None:
    said = {"a": 0.5, "b": 0.5}
    told = [Told(0, 0, "a", None), Told(1, 1, "a", said), Told(1, 1, "c", said)]
    found = measures(_trace(told), pi_new=0.1)
    assert found["prequential_nll_seen"] == pytest.approx(-math.log(0.45))
    assert found["prequential_nll"] == pytest.approx((-math.log(0.45) - math.log(0.1)) / 2)
    assert found["new_class_auroc"] == 0.5
    assert found["cpu_seconds"] == 10
    assert found["last_learn_cpu_seconds"] == 4


@given(st.floats(0.2, 5), st.lists(st.floats(0.01, 1), min_size=2, max_size=5))
def test_a_temperature_keeps_the_order_and_the_whole(temperature: float, parts: list[float]) -> None:
    forecast = {str(i): p / sum(parts) for i, p in enumerate(parts)}
    found = tempered(forecast, temperature)
    assert sum(found.values()) == pytest.approx(1)
    ratios = [
        (forecast[a] / forecast[b], found[a] / found[b]) for a, b in itertools.combinations(forecast, 2)
    ]
    assert all(after == pytest.approx(before ** (1 / temperature)) for before, after in ratios)


def test_temperatures_come_from_windows_learned_before_the_forecast() -> None:
    """Window 1 was overconfident; what arrived before it was learned must not know."""
    sure = {"a": 0.999, "b": 0.001}
    first = [Told(1, 1, label, sure) for label in "ababab"]
    early, late = Told(2, 1, "a", sure), Told(2, 2, "a", sure)
    found = scaled(_trace([Told(0, 0, "a", None), *first, early, late]), pi_new=0.01).told
    assert found[-2] == early
    assert found[-1].forecast is not None
    assert found[-1].forecast["a"] < 0.9
    assert [t.forecast for t in found[1:7]] == [sure] * 6
