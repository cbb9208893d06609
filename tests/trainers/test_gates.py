"""The gates: what each asks for, and that nothing is promoted on less."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterior.calibration import ReliabilityBin
from stream.plan import canonical_json
from tests.trainers.betting import OPEN, counted
from trainers import gates
from trainers.bounds import Bounds, Finding, Verdict, as_json, verdict
from trainers.gates import Evidence, better, holds, judge
from trainers.guards import ClassCount, Latency, Smoke
from trainers.wager import gain_at_least, gain_at_most

BOUNDS = Bounds(max_p99_ms=250.0, smoke=True)
GOOD = Evidence(
    candidate="new",
    champion="champion",
    wager=counted([0.5, 0.2] * 200),
    reliability=(ReliabilityBin(0.8, 0.9, 400, 0.85, 0.84),),
    classes=(ClassCount("bill", 200, 180), ClassCount("ham", 197, 150), ClassCount("odd", 3, 0)),
    kl_per_example=1.0,
    latency=Latency(answers=1000, p99_ms=40.0),
    smoke=Smoke(snapshot="new", loaded=True),
)


def said(findings: Sequence[Finding]) -> dict[str, Verdict]:
    return {f.gate: f.verdict for f in findings}


# The whole


def test_good_evidence_passes_every_gate() -> None:
    found = judge(BOUNDS, GOOD)
    assert said(found) == dict.fromkeys(
        ("better", "calibration", "recall", "movement", "latency", "smoke"), "pass"
    )
    assert verdict(found) == "pass"


def test_what_nobody_asks_for_is_not_waited_for() -> None:
    unmeasured = replace(GOOD, latency=None, smoke=None)
    found = judge(Bounds(), unmeasured)
    assert said(found) == dict.fromkeys(("better", "calibration", "recall", "movement"), "pass")
    assert verdict(judge(replace(Bounds(), smoke=True), unmeasured)) == "wait"
    assert verdict(judge(replace(Bounds(), max_p99_ms=250.0), unmeasured)) == "wait"


def test_the_first_champion_is_judged_by_itself() -> None:
    assert verdict(judge(BOUNDS, replace(GOOD, champion=None, wager=None))) == "pass"
    loadless = replace(GOOD, champion=None, wager=None, smoke=None)
    assert verdict(judge(BOUNDS, loadless)) == "wait"


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ("", "wait"),
        ("pass pass", "pass"),
        ("pass wait pass", "wait"),
        ("pass wait fail", "fail"),
        ("fail pass", "fail"),
    ],
)
def test_one_fail_fails_the_whole_and_one_wait_makes_it_wait(verdicts: str, whole: Verdict) -> None:
    for order in permutations(verdicts.split()):
        findings = [Finding("g", v, "said") for v in order]  # type: ignore[arg-type]  # words of the table
        assert verdict(findings) == whole


MISSING: dict[str, Any] = {
    "wager": None,
    "reliability": (),
    "classes": (),
    "kl_per_example": None,
    "latency": None,
    "smoke": None,
}


@given(st.sets(st.sampled_from(sorted(MISSING)), min_size=1))
def test_without_any_one_part_of_the_evidence_nothing_is_promoted(missing: set[str]) -> None:
    less = replace(GOOD, **{name: MISSING[name] for name in missing})
    found = judge(BOUNDS, less)
    assert verdict(found) == "wait"
    assert sum(f.verdict == "wait" for f in found) == len(missing)


@given(st.integers(1, 400))
def test_less_of_the_same_evidence_never_promotes_where_more_did_not(labels: int) -> None:
    few = replace(
        GOOD,
        wager=counted(([0.5, 0.2] * 200)[:labels]),
        reliability=(replace(GOOD.reliability[0], count=labels),),
        classes=(ClassCount("bill", labels // 2, labels // 2), ClassCount("ham", labels // 2, labels // 4)),
        latency=Latency(answers=labels, p99_ms=40.0),
    )
    assert (verdict(judge(BOUNDS, few)) == "pass") == (labels >= 100)


@given(
    st.lists(st.floats(-5, 5), max_size=150),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1), st.floats(0, 1)), max_size=4),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), max_size=4),
    st.floats(0, 100),
    st.integers(0, 300),
)
def test_every_answer_is_one_line_and_plain_json(
    gains: list[float],
    bins: list[tuple[int, float, float]],
    classes: list[tuple[int, float]],
    kl: float,
    answers: int,
) -> None:
    evidence = Evidence(
        candidate="new",
        champion="champion",
        wager=counted(gains),
        reliability=[ReliabilityBin(0.0, 1.0, n, c, a) for n, c, a in bins],
        classes=[ClassCount(f"c{i}", n, int(n * share)) for i, (n, share) in enumerate(classes)],
        kl_per_example=kl,
        latency=Latency(answers=answers, p99_ms=kl * 5),
        smoke=Smoke(snapshot="new", loaded=kl < 50, why="no torch"),
    )
    found = (*judge(BOUNDS, evidence), holds(BOUNDS, counted(gains)))
    assert all(f.line and "\n" not in f.line for f in found)
    assert json.loads(canonical_json(as_json(found)))["verdict"] == verdict(found)


# Better than the champion, and still no worse than its predecessor


@given(
    st.lists(st.floats(-5, 5), min_size=100, max_size=120),
    st.floats(-2, 2),
    st.sampled_from([0.0, 0.05, 0.5]),
)
def test_better_goes_by_the_bounds_that_may_be_watched(
    noise: list[float], level: float, min_gain: float
) -> None:
    wager = counted([level + 0.3 * nats for nats in noise])
    bounds = replace(BOUNDS, min_gain=min_gain)
    finding = better(bounds, replace(GOOD, wager=wager))
    low, high = gain_at_least(wager, bounds.alpha), gain_at_most(wager, bounds.alpha)
    if min(abs(low - min_gain), abs(high - min_gain)) > 1e-9:
        assert (finding.verdict == "pass") == (low > min_gain)
        assert (finding.verdict == "fail") == (high < min_gain)


def test_better_at_all_is_not_yet_better_by_so_much() -> None:
    """Surely better than the champion, by about what is asked for: more labels have to say."""
    ahead = replace(GOOD, wager=counted([0.9, -0.3] * 800))
    assert better(replace(BOUNDS, min_gain=0.0), ahead).verdict == "pass"
    assert better(replace(BOUNDS, min_gain=0.3), ahead).verdict == "wait"
    assert better(replace(BOUNDS, min_gain=0.6), ahead).verdict == "fail"


def test_better_waits_for_the_least_number_of_labels_however_clear_it_is() -> None:
    clear = [4.0] * 99
    assert better(BOUNDS, replace(GOOD, wager=counted(clear))).verdict == "wait"
    assert better(BOUNDS, replace(GOOD, wager=counted([*clear, 4.0]))).verdict == "pass"


def test_an_undecided_comparison_says_how_many_labels_more() -> None:
    finding = better(BOUNDS, replace(GOOD, wager=counted([0.9, -0.7] * 60)))
    assert finding.verdict == "wait"
    more = int(finding.line.rpartition("about ")[2].split()[0])
    assert better(BOUNDS, replace(GOOD, wager=counted([0.9, -0.7] * (60 + more)))).verdict == "pass"


def test_a_policy_that_turned_of_late_is_not_promoted_for_what_it_won_long_ago() -> None:
    ahead = [0.9, -0.3] * 800
    assert better(BOUNDS, replace(GOOD, wager=counted(ahead))).verdict == "pass"
    turned = better(BOUNDS, replace(GOOD, wager=counted([*ahead, *[-3.0] * 60])))
    assert turned.numbers["log_e"] > turned.numbers["log_e_needed"]
    assert (turned.verdict, "of late" in turned.line) == ("fail", True)


@pytest.mark.parametrize("other", [{"incumbent": "older"}, {"clip": 2.0}])
def test_a_comparison_with_another_champion_or_clip_is_none(other: dict[str, Any]) -> None:
    elsewhere = counted([4.0] * 200, replace(OPEN, **other))
    assert better(BOUNDS, replace(GOOD, wager=elsewhere)).verdict == "wait"


def test_a_live_champion_that_turns_bad_is_rolled_back_though_it_was_good_for_long() -> None:
    good = counted([0.5, -0.1] * 1000)
    assert holds(BOUNDS, good).verdict == "pass"
    turned = counted([*[0.5, -0.1] * 1000, *[-0.9, 0.1] * 250])
    finding = holds(BOUNDS, turned)
    assert finding.verdict == "fail"
    assert "roll back" in finding.line
    assert finding.numbers["gain"] > 0


def test_harm_does_not_wait_for_the_least_number_of_labels() -> None:
    assert holds(BOUNDS, OPEN).verdict == "wait"
    assert holds(BOUNDS, counted([-3.0] * 30)).verdict == "fail"
    assert holds(BOUNDS, counted([-3.0, 3.0] * 30)).verdict == "wait"


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"kl_per_example": math.nan}, "movement"),
        ({"kl_per_example": math.inf}, "movement"),
        ({"latency": Latency(answers=500, p99_ms=math.nan)}, "latency"),
        ({"reliability": (ReliabilityBin(0.8, 0.9, 400, math.nan, 0.8),)}, "calibration"),
    ],
)
def test_what_is_no_number_is_an_error_that_names_the_gate(change: dict[str, Any], gate: str) -> None:
    with pytest.raises(ValueError, match=f"gate {gate}: .*(nan|inf)"):
        judge(BOUNDS, replace(GOOD, **change))


# Rules


def test_bounds_come_from_plain_values() -> None:
    assert Bounds(**json.loads(json.dumps(asdict(BOUNDS)))) == BOUNDS


@pytest.mark.parametrize("name", sorted(asdict(BOUNDS)))
@pytest.mark.parametrize("value", [-1, math.nan])
def test_bounds_that_make_no_sense_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        replace(BOUNDS, **{name: value})  # type: ignore[arg-type]  # any field, on purpose


def test_the_least_evidence_there_can_be_foretells_no_number_of_labels() -> None:
    """A gain of rounding alone once made the wait infinite, and infinity no number to write."""
    numbers = {"log_e": 5e-324, "log_e_needed": 3.0, "labels": 100}
    assert gates._more(numbers) == "nothing speaks for it yet"
    assert gates._more(numbers | {"log_e": 1.0}) == "about 200 labels more at this rate"
