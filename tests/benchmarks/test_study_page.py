"""The page is the summary, written out: no figure in it was typed by hand, and no curve is of another run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.study import ablations
from benchmarks.study.curves import POINTS, curves, drawn_beside
from benchmarks.study.figures import drawn
from benchmarks.study.methods import JOINT, LORA, PRIORFLOW
from benchmarks.study.page import (
    BEGIN,
    END,
    FRONT,
    PAGE,
    RESULTS,
    at_a_glance,
    in_short,
    part_of_page,
    published,
    results_table,
)
from benchmarks.study.seeds import half_width
from benchmarks.study.walk import Told, Trace

SCALED = f"{LORA}_scaled"


def _run(good: float, *, new: int = 0) -> Trace:
    """Return a run of three windows of ten texts; of the last, the first `new` are of a class unseen."""
    said = {"a": good, "b": 1 - good}
    told = [Told(w, w, "a", said if w else None) for w in range(3) for _ in range(10)]
    told[20 : 20 + new] = [Told(2, 2, "unseen", said)] * new
    return Trace(
        told=tuple(told),
        matrix=((1.0,), (1.0, None), (0.5, 0.7, 0.9)),
        final=(Told(0, 3, "a", said),),
        foretell_cpu=(1.0,) * 3,
        learn_cpu=(1.0,) * 3,
        carried=1,
    )


def test_curves_tell_seen_from_unseen_window_by_window() -> None:
    found = curves({("mails", "m", 2): _run(0.6), ("mails", "m", 1): _run(0.9, new=4)}, "mails", 0.01)
    seen, unseen = -math.log(0.99 * 0.9), -math.log(0.01)
    assert found["prequential_nll_seen"]["m"] == pytest.approx({"2": seen, "3": seen}, abs=1e-4)
    assert found["prequential_nll_unseen"]["m"] == pytest.approx({"3": unseen}, abs=1e-4)
    assert found["prequential_nll"]["m"]["3"] == pytest.approx(0.6 * seen + 0.4 * unseen, abs=1e-4)
    assert found["accuracy"] == {}
    assert len(found["risk_coverage"]["m"]) == POINTS
    assert found["risk_coverage"]["m"][-1] == pytest.approx(4 / 20), "the error of answering everything"


def test_beside_ours_and_lora_the_best_of_the_others_is_drawn() -> None:
    costs = {PRIORFLOW: 1.0, "frozen_panel": 0.1, LORA: 2.0, "blob": 0.7, "ranpac": 0.6}
    assert drawn_beside(costs) == (PRIORFLOW, LORA, SCALED, "ranpac")
    assert drawn_beside({}) == (PRIORFLOW, LORA, SCALED)


def test_figures_are_drawn_where_there_is_something_to_compare() -> None:
    joint = replace(_run(0.9), told=(), matrix=((0.7, 0.7, 0.7),))
    traces = {("mails", name, 1): _run(0.9) for name in (PRIORFLOW, LORA, SCALED, "blob")}
    found = curves(traces | {("mails", JOINT, 1): joint}, "mails", 0.01)
    rows = [_row(name, 1, prequential_nll=1.0, risk_coverage_area=0.1) for name in (PRIORFLOW, LORA, "blob")]
    said = {"main": ["mails", "news"], "rows": rows, "curves": {"mails": found}}
    drawings = drawn(said)
    assert "mails: accuracy so far" in drawings["accuracy.svg"]
    assert "mails: NLL of seen classes" in drawings["nll.svg"]
    assert "mails: error by share answered" in drawings["risk.svg"]
    assert all("blob" in drawings[file] for file in ("nll.svg", "risk.svg"))
    strange = {"mails": {**found, "prequential_nll_seen": {}}}
    assert set(drawn({**said, "curves": strange})) == {"accuracy.svg"}, "nothing came again"
    assert drawn({**said, "curves": {}}) == {}


def _row(method: str, seed: int, **measures: float) -> dict[str, Any]:
    costs = {"cpu_seconds": 9.0, "last_learn_cpu_seconds": 0.25, "bytes_carried": 4000}
    return {"stream": "mails", "method": method, "seed": seed, **costs, **measures}


def _cells(table: str, method: str) -> dict[str, str]:
    heads, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    return next(dict(zip(heads, line, strict=True)) for line in lines if line[0] == f"`{method}`")


def test_three_seeds_have_an_interval_and_fewer_have_none() -> None:
    """Student's t with two degrees of freedom: 4.303 sd / sqrt(3), sd being .01."""
    rows = [_row("m", seed, final_accuracy=0.8 + 0.01 * seed, forgetting=0.1) for seed in (1, 2, 3)]
    cells = _cells(results_table({"rows": rows}, "mails"), "m")
    assert (cells["seeds"], cells["final"], cells["forgetting"]) == ("3", ".820 ± .025", ".100")
    assert _cells(results_table({"rows": rows[:2]}, "mails"), "m")["final"] == ".815"
    assert half_width([1.0, 2.0]) is None


def test_what_a_scaled_reading_costs_is_a_column_and_no_line() -> None:
    rows = [_row("m", 1, prequential_nll=2.0), _row("m_scaled", 1, prequential_nll=1.5)]
    table = results_table({"rows": [*rows, _row("other", 1, prequential_nll=3.0)]}, "mails")
    cells = _cells(table, "m")
    assert (cells["preq. NLL"], cells["NLL scaled"], cells["of the last window"]) == ("2.000", "1.500", "0.2")
    assert _cells(table, "other")["NLL scaled"] == "-"
    assert "m_scaled" not in table
    assert "forgetting" not in table, "nobody has it"


def test_a_measure_that_a_seed_lacks_is_not_averaged_over_the_others() -> None:
    rows = [_row("m", 1, final_accuracy=0.5, forgetting=0.1), _row("m", 2, final_accuracy=0.7)]
    cells = _cells(results_table({"rows": [*rows, _row("n", 1, forgetting=0.2)]}, "mails"), "m")
    assert (cells["seeds"], cells["final"], cells["forgetting"]) == ("2", ".600", "-")


def test_in_short_names_the_best_of_the_others() -> None:
    ours = _row(PRIORFLOW, 1, final_accuracy=0.9, prequential_nll=1.0, prequential_nll_seen=1.0)
    others = [_row("ranpac", 1, prequential_nll=1.4), _row("blob_scaled", 1, prequential_nll=1.3)]
    short = in_short({"rows": [ours, *others, _row("joint", 1, final_accuracy=0.8)]})
    assert "| mails | .900 | - | .800 |" in short
    assert "1.300, `blob_scaled`" in short


@pytest.mark.parametrize(
    ("result", "file", "part"),
    [
        (RESULTS / "summary.json", PAGE, part_of_page),
        (RESULTS / "summary.json", FRONT, at_a_glance),
        (ablations.RESULT, ablations.PAGE, ablations.tables),
    ],
    ids=["evidence", "front", "ablations"],
)
def test_the_page_shows_the_result_as_it_is_written(
    result: Path, file: Path, part: Callable[[Mapping[str, Any]], str]
) -> None:
    said = json.loads(result.read_text(encoding="utf-8"))
    page = file.read_text(encoding="utf-8")
    assert part(said) in page
    assert published(page, part(said)) == page


def test_prose_beside_the_tables_has_no_measured_figure_that_could_go_stale() -> None:
    _, _, measured = PAGE.read_text(encoding="utf-8").partition("## What was measured")
    prose, _, _ = measured.partition(BEGIN)
    assert prose.strip()
    assert re.findall(r"(?<![\w.])\d*\.\d+|\d+ points", prose) == []


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        published(f"{END} before {BEGIN}", "")
