"""What a change does is told text by text, and the prose tells what the table does."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from benchmarks.study.ablations import PAGE
from benchmarks.study.changed import FINAL, NLL, changes_table, minus, without_stale
from benchmarks.study.page import BEGIN
from benchmarks.study.walk import Told, Trace


def _run(sure: float, *, right: int, foretold: bool = True) -> Trace:
    """Return a run that foretold eight texts so surely, and in the end has so many of eight right."""
    said = {"a": sure, "b": 1 - sure}
    final = tuple(Told(0, 1, "a" if i < right else "b", {"a": 0.9, "b": 0.1}) for i in range(8))
    told = tuple(Told(1, 1, "a", said) for _ in range(8)) if foretold else ()
    return Trace(told=told, matrix=((1.0,),), final=final, foretell_cpu=(1.0,), learn_cpu=(1.0,), carried=1)


def test_a_change_that_is_none_is_zero_without_doubt() -> None:
    found = minus(_run(0.8, right=6), _run(0.8, right=6), pi_new=0.01)
    assert found == {name: {"value": 0.0, "interval": [0.0, 0.0], "texts": 8} for name in (FINAL, NLL)}


def test_a_gain_has_the_sign_of_the_changed_minus_the_default() -> None:
    found = minus(_run(0.4, right=8), _run(0.8, right=6), pi_new=0.01)
    assert found[NLL]["value"] == pytest.approx(math.log(2), abs=1e-5)
    assert found[FINAL]["value"] == 0.25
    low, high = found[FINAL]["interval"]
    assert 0 <= low < 0.25 < high


def test_of_what_learns_everything_at_once_only_the_end_is_compared() -> None:
    assert set(minus(_run(0.8, right=8, foretold=False), _run(0.8, right=6), pi_new=0.01)) == {FINAL}


def _row(method: str, **more: Any) -> dict[str, Any]:
    return {"stream": "mails", "method": method, "cpu_seconds": 2.0, "forgetting": 0.02, **more}


def test_a_row_without_the_default_beside_it_is_not_told() -> None:
    ends = {"value": -0.25, "interval": [-0.3, 0.0], "texts": 8}
    changed = _row("m", cpu_seconds=1.0, forgetting=0.12, learning_accuracy=None, minus={FINAL: ends})
    table = changes_table([_row("priorflow"), changed, _row("n")], ["m", "n"])
    assert "| `m` | mails | -.250 | -.300 to .000 | +.100 | - | - | - | 0.50 |" in table
    assert "`n`" not in table
    assert "`m`" not in changes_table([changed], ["m"])


def test_what_was_told_of_another_run_of_the_default_is_told_no_more() -> None:
    rows = [_row("m", minus={}), {**_row("m", minus={}), "stream": "news"}]
    kept, gone = without_stale(rows, {"news"})
    assert kept == rows[0]
    assert gone == {**_row("m"), "stream": "news"}


def test_a_figure_in_the_lessons_is_one_of_the_table_s() -> None:
    _, _, lessons = PAGE.read_text(encoding="utf-8").partition("## What the parts of the default are worth")
    prose, _, measured = lessons.partition(BEGIN)
    _, _, measured = measured.partition("### Minus the default")
    measured, _, _ = measured.partition("###")
    told, held = (set(re.findall(r"(?<!\d)\.\d{3}", text)) for text in (prose, measured))
    assert told
    assert told - held == set()
