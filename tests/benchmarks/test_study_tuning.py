"""A step size is chosen by what was foretold, and the study takes the one that was chosen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.mails_stream import demo_settings
from benchmarks.study.kept import Shelf
from benchmarks.study.learners import NaiveBayes
from benchmarks.study.methods import UNTUNED, Method, methods, stepped, tuned_steps
from benchmarks.study.streams import windowed
from benchmarks.study.tuning import SEED, chosen, tried, written

POINTS = [
    {"lr": 0.1, "prequential_nll": 1.3, "final_accuracy": 0.9},
    {"lr": 0.05, "prequential_nll": 1.2, "final_accuracy": 0.7},
    {"lr": 0.2, "prequential_nll": 1.2, "final_accuracy": 0.8},
]


def test_the_step_that_foretells_best_is_chosen_and_other_choices_stay(tmp_path: Path) -> None:
    told = tmp_path / "tuning.json"
    assert tuned_steps(told) == {}
    told.write_text(json.dumps(written({"ivon": chosen(POINTS[:1])}, told)))
    told.write_text(json.dumps(written({"covon": chosen(POINTS)}, told)))
    assert tuned_steps(told) == {"ivon": 0.1, "covon": 0.05}


def test_the_study_has_each_of_them_at_the_chosen_step(tmp_path: Path) -> None:
    settings = demo_settings(tmp_path)
    known, by_step = methods(settings), stepped(settings)
    for name, make in by_step.items():
        assert make(0.1).name == name
        assert make(0.05).said != make(0.1).said
        assert known[name].said == make(tuned_steps().get(name, UNTUNED)).said


def test_a_point_is_a_kept_run_of_the_study_at_that_step(tmp_path: Path) -> None:
    held, learned = Shelf(demo_settings(tmp_path), tmp_path, "shared"), [("good", "a"), ("bad", "b")]
    stream = windowed("toy", [learned, learned], [learned[:1], learned[:1]])

    def make(lr: float) -> Method:
        return Method(name="bag", make=lambda *_: NaiveBayes(), said={"lr": lr})

    found = tried(held, stream, make, 0.2)
    kept = held.find(stream, make(0.2), SEED)
    assert kept is not None
    assert held.find(stream, make(0.1), SEED) is None
    assert (found["lr"], found["code"], found["final_accuracy"]) == (0.2, "shared", 1.0)
    costs = [-math.log(0.99 * t.forecast[t.label]) for t in kept.trace.told if t.forecast]
    assert found["prequential_nll"] == pytest.approx(sum(costs) / len(costs), abs=1e-4)
