"""A study made on several days tells of all of them, of each run as it was last measured."""

from __future__ import annotations

from typing import Any

from benchmarks.study.curves import Curves
from benchmarks.study.former import all_comparisons, all_curves, all_rows
from benchmarks.study.paired import Difference
from benchmarks.study.targets import Compared


def _row(stream: str, method: str, seed: int, code: str) -> dict[str, Any]:
    return {"stream": stream, "method": method, "seed": seed, "code": code}


def _compared(seeds: tuple[int, ...], value: float, *, against: str = "joint") -> Compared:
    found = Difference(value=value, low=value - 1, high=value + 1, texts=9)
    return Compared(stream="mails", against=against, measure="final_accuracy", seeds=seeds, found=found)


def test_a_row_is_told_as_measured_last_and_one_of_a_method_that_is_gone_is_not() -> None:
    former = {
        "rows": [_row("mails", "b", 1, "old"), _row("mails", "a", 2, "old"), _row("mails", "gone", 1, "old")]
    }
    rows = all_rows(
        [_row("news", "a", 1, "new"), _row("mails", "b", 1, "new")], former, ["mails", "news"], ["a", "b"]
    )
    assert rows == [
        _row("mails", "a", 2, "old"),
        _row("mails", "b", 1, "new"),
        _row("news", "a", 1, "new"),
    ]


def test_a_comparison_stays_until_ours_is_run_on_the_stream_again() -> None:
    earlier, today = _compared((1, 2), 0.5), _compared((1,), 9.0, against="b")
    former = {"comparisons": [earlier.as_json()]}
    assert all_comparisons([today], former, {"news"}) == [earlier, today]
    assert all_comparisons([today], former, {"mails"}) == [today]
    assert all_comparisons([today], {}, set()) == [today]


def test_a_curve_is_that_of_the_last_run_and_those_of_other_runs_stay() -> None:
    former = {"curves": {"mails": {"nll": {"a": [1], "b": [2], "gone": [3]}}, "gone": {"nll": {"a": [4]}}}}
    found: dict[str, Curves] = {
        "mails": {"nll": {"b": [5]}, "risk": {"a": [6]}},
        "news": {"nll": {}, "risk": {}},
    }
    assert all_curves(found, former, ["mails", "news"], ["a", "b"]) == {
        "mails": {"nll": {"a": [1], "b": [5]}, "risk": {"a": [6]}}
    }
