"""Laws of scoring forecasts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterior.panel import NEW
from priorflow.asking import losses
from priorflow.scores import (
    FLOOR,
    Prediction,
    best_guess,
    chance,
    final_accuracy,
    forgetting,
    prequential,
    reliability_bins,
    score,
    shared,
)

PI_NEW = 0.01
CLASSES = ("ilug", "rpm", "spam", "zzzzteana")


@st.composite
def forecasts(draw: st.DrawFn) -> dict[str, float]:
    known = draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True))
    weights = [draw(st.floats(0.001, 1)) for _ in known]
    return {label: w / sum(weights) for label, w in zip(known, weights, strict=True)}


told = st.builds(
    Prediction,
    st.integers(0, 3),
    st.sampled_from((*CLASSES, "never named")),
    st.none() | forecasts(),
)
streams = st.lists(told, min_size=1, max_size=30)


def _uniform(label: str) -> Prediction:
    return Prediction(0, label, dict.fromkeys(CLASSES, 1 / len(CLASSES)))


def _perfect(label: str) -> Prediction:
    return Prediction(0, label, {c: float(c == label) for c in CLASSES})


def test_perfect_forecasts_cost_only_what_was_kept_for_the_unknown() -> None:
    made = score([_perfect(c) for c in CLASSES], pi_new=PI_NEW)
    assert made.accuracy == 1.0
    assert made.nll == pytest.approx(-math.log(1 - PI_NEW))
    assert made.ece == pytest.approx(PI_NEW)
    assert made.brier == pytest.approx(2 * PI_NEW**2)


def test_uniform_forecasts_are_calibrated_and_cost_the_log_of_the_number_of_classes() -> None:
    made = score([_uniform(c) for c in CLASSES], pi_new=1e-9)
    assert made.nll == pytest.approx(math.log(len(CLASSES)))
    assert made.accuracy == 1 / len(CLASSES)
    assert made.ece == pytest.approx(0, abs=1e-6)
    assert made.brier == pytest.approx(1 - 1 / len(CLASSES))


@given(forecasts())
def test_an_unseen_label_costs_what_was_kept_for_it_whatever_was_said(
    forecast: dict[str, float],
) -> None:
    made = score([Prediction(2, "never named", forecast)], pi_new=PI_NEW)
    assert made.nll == pytest.approx(-math.log(PI_NEW))
    assert made.accuracy == 0.0


@given(forecasts())
def test_chances_of_all_classes_and_of_a_new_one_sum_to_one(forecast: dict[str, float]) -> None:
    whole = math.fsum(chance(forecast, label, pi_new=PI_NEW) for label in (*forecast, "new"))
    assert whole == pytest.approx(1)


def test_a_stated_impossibility_is_dear_but_finite() -> None:
    wrong = Prediction(0, "rpm", {"spam": 1.0, "rpm": 0.0})
    assert score([wrong], pi_new=PI_NEW).nll == pytest.approx(-math.log(FLOOR))


def test_of_equals_the_first_by_name_is_guessed() -> None:
    assert best_guess({"spam": 0.4, "ilug": 0.4, "rpm": 0.2}) == "ilug"


@given(streams)
def test_order_of_predictions_and_of_classes_changes_nothing(stream: list[Prediction]) -> None:
    turned = [
        Prediction(p.window, p.label, None if p.forecast is None else _turned(p.forecast)) for p in stream
    ]
    ours, theirs = prequential(stream, pi_new=PI_NEW), prequential(turned, pi_new=PI_NEW)
    assert ours.without == theirs.without
    for window, made in ours.windows.items():
        other = theirs.windows[window]
        assert made.count == other.count
        assert made.accuracy == other.accuracy
        assert (made.nll, made.brier) == pytest.approx((other.nll, other.brier))


def _turned(forecast: object) -> dict[str, float]:
    assert isinstance(forecast, dict)
    return dict(reversed(forecast.items()))


@given(streams)
def test_the_total_is_the_mean_over_events_that_had_a_forecast(stream: list[Prediction]) -> None:
    made = prequential(stream, pi_new=PI_NEW)
    foretold = sum(p.forecast is not None for p in stream)
    assert sum(s.count for s in made.windows.values()) == foretold
    assert sum(made.without.values()) == len(stream) - foretold
    if made.total is None:
        assert foretold == 0
        return
    for name in ("accuracy", "nll", "brier"):
        weighted = sum(s.count * getattr(s, name) for s in made.windows.values()) / foretold
        assert getattr(made.total, name) == pytest.approx(weighted)


def test_windows_too_sure_and_too_modest_cancel_in_one_diagram_and_not_by_window() -> None:
    """Said .75 of everything: right always in one window, every other time in the next."""
    said = {"a": 0.75, "b": 0.25}
    modest = [Prediction(1, "a", said) for _ in range(20)]
    sure = [Prediction(2, label, said) for label in "ab" * 10]
    made = prequential([*modest, *sure], pi_new=1e-9)
    assert made.total is not None
    assert made.total.ece == pytest.approx(0, abs=1e-6)
    assert made.ece_by_window == pytest.approx(0.25)
    assert prequential([], pi_new=PI_NEW).ece_by_window is None


@given(streams)
def test_every_window_is_scored_or_named_as_left_out(stream: list[Prediction]) -> None:
    made = prequential(stream, pi_new=PI_NEW)
    assert sorted((*made.windows, *made.left_out)) == sorted({p.window for p in stream})
    for window in made.left_out:
        assert all(p.forecast is None for p in stream if p.window == window)


@given(streams)
def test_the_reliability_diagram_holds_every_forecast_and_gives_the_ece(
    stream: list[Prediction],
) -> None:
    made = prequential(stream, pi_new=PI_NEW)
    bins = reliability_bins(stream, pi_new=PI_NEW)
    if made.total is None:
        assert bins == ()
        return
    assert sum(b.count for b in bins) == made.total.count
    gap = sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / made.total.count
    assert gap == pytest.approx(made.total.ece)


@pytest.mark.parametrize(
    "forecast", [{}, {"spam": 0.7}, {"spam": math.nan, "rpm": 0.5}, {"spam": 1.5, "rpm": -0.5}]
)
def test_what_is_no_distribution_is_an_error_that_names_the_window(
    forecast: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="window 7"):
        score([Prediction(7, "spam", forecast)], pi_new=PI_NEW)


@pytest.mark.parametrize("pi_new", [0.0, 1.0, -0.1, math.nan])
def test_the_share_kept_for_new_classes_lies_strictly_between_0_and_1(pi_new: float) -> None:
    with pytest.raises(ValueError, match="pi_new"):
        score([_perfect("spam")], pi_new=pi_new)


def test_nothing_foretold_is_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="foretold"):
        score([Prediction(0, "spam", None)], pi_new=PI_NEW)


def test_forgetting_is_the_mean_fall_from_the_best() -> None:
    matrix = [[0.8], [0.9, 0.7], [0.6, 0.75, 1.0]]
    assert forgetting(matrix) == pytest.approx((0.3 - 0.05) / 2)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_what_is_always_known_alike_is_not_forgotten(accuracies: Sequence[float]) -> None:
    matrix = [list(accuracies[: i + 1]) for i in range(len(accuracies))]
    assert forgetting(matrix) == 0


def test_one_window_can_forget_nothing() -> None:
    assert forgetting([[0.5]]) is None
    assert forgetting([]) is None


def test_final_accuracy_weighs_windows_by_size_and_skips_unmeasured_ones() -> None:
    assert final_accuracy([[0.5], [0.5, 1.0]], [100, 300]) == pytest.approx(0.875)
    assert final_accuracy([[0.5], [None, 1.0]], [100, 300]) == 1.0
    assert final_accuracy([[None]], [100]) is None
    assert final_accuracy([], []) is None


def test_a_forecast_may_say_itself_how_likely_a_new_class_is() -> None:
    said = {"spam": 0.6, "ham": 0.1, NEW: 0.3}
    costs = {label: -math.log(chance(said, label, pi_new=PI_NEW)) for label in ("spam", "ham", "never named")}
    assert costs == {k: -math.log(p) for k, p in zip(costs, (0.6, 0.1, 0.3), strict=True)}
    assert best_guess({"spam": 0.2, NEW: 0.8}) == "spam"
    bare = {"spam": 6 / 7, "ham": 1 / 7}
    one, two = (score([Prediction(2, "spam", f)], pi_new=0.3) for f in (said, bare))
    assert one.nll == pytest.approx(two.nll)
    assert one.brier == pytest.approx(two.brier)
    assert one.ece == pytest.approx(two.ece)


def test_to_say_something_new_is_not_cheaper_than_to_say_what() -> None:
    """Beliefs of which one knows more classes are compared over all that the other tells apart."""
    knows_little = {"spam": 0.1, NEW: 0.9}
    for label in ("ilug", "never named"):
        for rival, cost in ({"spam": 1.0}, 0.9), (dict.fromkeys(CLASSES, 1 / len(CLASSES)), 0.9 / 4):
            paid, _ = losses(label, knows_little, rival, pi_new=PI_NEW)
            assert paid == pytest.approx(-math.log(cost))
    whole = shared(knows_little, CLASSES)
    assert math.fsum(whole.values()) == pytest.approx(1.0)
    assert whole["spam"] == 0.1
    assert shared({"spam": 1.0}, CLASSES) == {"spam": 1.0}
