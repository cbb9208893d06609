"""What is asked of a candidate by itself: never failed by chance more often than stated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from posterior.calibration import ReliabilityBin, reliability
from trainers.bounds import Bounds
from trainers.guards import ClassCount, Latency, Smoke, calibration, latency, movement, recall, smoke

BOUNDS = Bounds(max_p99_ms=250.0)


def answers(off: float, labels: int, *, seed: int, least: float = 0.6) -> list[ReliabilityBin]:
    """Return bins of answers that are `off` too sure: right with probability confidence - off."""
    u: Tensor = torch.rand(2, labels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sure = least + (1 - least) * u[0]
    return reliability(sure, (u[1] < sure - off).double())


@pytest.mark.parametrize(
    ("off", "labels", "least"), [(0.0, 100, 0.6), (0.2, 100, 0.6), (0.2, 400, 0.6), (0.0, 100, 0.0)]
)
def test_chance_alone_rarely_fails_calibration(off: float, labels: int, least: float) -> None:
    """Also where answers fill all bins, and few labels in each make an error of their own."""
    bounds = replace(BOUNDS, max_ece=off, guard_alpha=0.1)
    failed = sum(
        calibration(bounds, answers(off, labels, seed=seed, least=least)).verdict == "fail"
        for seed in range(300)
    )
    assert failed / 300 <= 0.1


def test_calibration_far_out_fails_a_little_out_waits_and_within_passes() -> None:
    found = [calibration(BOUNDS, answers(off, 1000, seed=1)) for off in (0.05, 0.23, 0.5)]
    assert [f.verdict for f in found] == ["pass", "wait", "fail"]
    assert calibration(BOUNDS, answers(0.0, 99, seed=1)).verdict == "wait"
    assert found[0].numbers["ece"] == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("labels", [20, 60, 200])
@pytest.mark.parametrize("floor", [0.1, 0.5, 0.9])
def test_a_class_at_the_floor_fails_no_more_often_than_stated(labels: int, floor: float) -> None:
    bounds = replace(BOUNDS, min_recall=floor, guard_alpha=0.1)
    failing = [k for k in range(labels + 1) if recall(bounds, [ClassCount("c", labels, k)]).verdict == "fail"]
    chance = math.fsum(math.comb(labels, k) * floor**k * (1 - floor) ** (labels - k) for k in failing)
    assert chance <= 0.1
    assert failing or labels * -math.log1p(-floor) < -math.log(0.1)  # what is surely lost is seen to be


def test_classes_share_the_level() -> None:
    lost = ClassCount("lost", 29, 0)
    assert recall(BOUNDS, [lost]).verdict == "fail"
    assert recall(BOUNDS, [lost, ClassCount("fine", 29, 29)]).verdict == "wait"


def test_recall_names_the_worst_the_few_and_the_rare() -> None:
    fine = ClassCount("fine", 900, 800)
    assert recall(BOUNDS, [fine, ClassCount("poor", 100, 9)]).verdict == "wait"
    lost = recall(BOUNDS, [fine, ClassCount("poor", 100, 0)])
    assert lost.verdict == "fail"
    assert "'poor'" in lost.line
    few = recall(BOUNDS, [ClassCount("fine", 400, 400), ClassCount("young", 19, 19)])
    assert (few.verdict, "'young'" in few.line) == ("wait", True)
    rare = recall(BOUNDS, [ClassCount("fine", 4000, 4000), ClassCount("odd", 19, 0)])
    assert (rare.verdict, "'odd'" in rare.line) == ("pass", True)
    assert recall(BOUNDS, [ClassCount("fine", 4000, 4000), ClassCount("odd", 40, 0)]).verdict == "fail"
    assert recall(BOUNDS, [ClassCount("fine", 19, 19)]).verdict == "wait"


def test_the_other_guards_hold_to_their_bounds() -> None:
    assert movement(BOUNDS, 50.0).verdict == "pass"
    assert movement(BOUNDS, 50.1).verdict == "fail"
    assert latency(BOUNDS, Latency(answers=100, p99_ms=250.0)).verdict == "pass"
    assert latency(BOUNDS, Latency(answers=100, p99_ms=250.1)).verdict == "fail"
    assert latency(BOUNDS, Latency(answers=99, p99_ms=1.0)).verdict == "wait"


def test_a_load_of_another_version_is_no_evidence() -> None:
    assert smoke("new", Smoke(snapshot="old", loaded=True)).verdict == "wait"
    assert smoke("new", Smoke(snapshot="old", loaded=False, why="no torch")).verdict == "wait"
    broken = smoke("new", Smoke(snapshot="new", loaded=False, why="no module named torch"))
    assert broken.verdict == "fail"
    assert "no module named torch" in broken.line
    killed = smoke("new", Smoke(snapshot="new", loaded=False, ended=True, why="signal 9"))
    assert (killed.verdict, "signal 9" in killed.line) == ("wait", True)


def test_more_found_than_there_were_is_refused() -> None:
    with pytest.raises(ValueError, match="class 'c'"):
        ClassCount("c", 3, 4)
