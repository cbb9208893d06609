"""Results have the form that other tools read, and verdicts follow from the numbers."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmarks.intervals import Estimate
from benchmarks.result import RESULTS, Result, Row

COMMITTED = sorted(RESULTS.glob("*.json"))
FORM: dict[str, type | tuple[type, ...]] = {
    "what": str,
    "target": (int, float),
    "measured": (int, float),
    "unit": str,
    "runs": int,
    "verdict": str,
}


def row(bound: Literal["at least", "at most"], low: float, high: float) -> Row:
    measured = Estimate((low + high) / 2, low, high)
    return Row(what="it", bound=bound, target=1.0, measured=measured, unit="s", runs=12)


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        ("at least", 1.0, 1.2, "met"),
        ("at least", 0.99, 1.2, "short"),
        ("at most", 0.8, 1.0, "met"),
        ("at most", 0.8, 1.01, "short"),
    ],
)
def test_the_whole_interval_has_to_keep_to_the_target(
    bound: Literal["at least", "at most"], low: float, high: float, verdict: str
) -> None:
    assert row(bound, low, high).verdict == verdict


def test_a_result_has_the_form_that_committed_ones_have() -> None:
    said = Result(name="x", rows=[row("at least", 1.0, 2.0)], how={}).as_json()
    check(json.loads(json.dumps(said, allow_nan=False)))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_have_the_form(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    check(found)
    assert found["name"] == path.stem


def check(found: dict[str, Any]) -> None:
    assert date.fromisoformat(found["date"])
    assert found["machine"]
    assert found["rows"]
    for one in found["rows"]:
        assert all(isinstance(one[name], kind) for name, kind in FORM.items())
        assert math.isfinite(one["target"])
        assert math.isfinite(one["measured"])
        assert one["runs"] >= 1
        assert one["verdict"] in {"met", "short"}
        if "bound" in one:
            follows(one)


def follows(one: dict[str, Any]) -> None:
    low, high = one["interval"]
    assert low <= one["measured"] <= high
    kept = low >= one["target"] if one["bound"] == "at least" else high <= one["target"]
    assert one["verdict"] == ("met" if kept else "short")
