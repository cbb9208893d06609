"""What other tools read of a run, and what a terminal shows of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from priorflow.story import Story, summary, summary_json
from priorflow.story_table import method_table, window_table
from tests.app.story_example import example

TOP = [
    "chain",
    "head_sha",
    "seconds",
    "windows",
    "methods",
    "replay_verified",
    "dead_letters",
    "promoted_version",
    "tracking_uri",
    "registered_model",
    "ledger_url",
]
WINDOW = [
    "index",
    "mails",
    "accuracy",
    "nll",
    "ece",
    "kl_nats",
    "beta",
    "drift",
    "snapshot_sha",
    "mlflow_version",
]
METHOD = [
    "prequential_accuracy",
    "prequential_nll",
    "prequential_ece",
    "prequential_ece_by_window",
    "final_accuracy",
    "forgetting",
]


def _shown(story: Story, *, width: int = 80) -> str:
    page = StringIO()
    console = Console(file=page, width=width)
    console.print(window_table(story), method_table(story))
    return page.getvalue()


@pytest.fixture(scope="module")
def story() -> Story:
    return example()


def test_the_summary_has_exactly_the_promised_keys(story: Story) -> None:
    read = json.loads(summary_json(story))
    assert list(read) == TOP
    assert all(list(window) == WINDOW for window in read["windows"])
    assert all(list(method) == METHOD for method in read["methods"].values())
    assert set(read["methods"]) == {"priorflow", "sequential LoRA", "bag of words"}


def test_the_summary_tells_what_the_story_tells(story: Story) -> None:
    read = json.loads(summary_json(story))
    assert read == json.loads(json.dumps(summary(story)))
    assert [w["snapshot_sha"] for w in read["windows"]] == [w.snapshot_sha for w in story.windows]
    assert read["windows"][0]["accuracy"] is None
    assert read["windows"][7]["drift"] is True
    assert read["head_sha"] == read["windows"][-1]["snapshot_sha"]


def test_a_number_that_is_none_is_refused() -> None:
    story = example(2, thin=50)
    broken = tuple(replace(row, kl_nats=math.nan) for row in story.windows)
    with pytest.raises(ValueError, match="JSON compliant"):
        summary_json(replace(story, windows=broken))


def test_the_same_story_gives_the_same_summary() -> None:
    assert summary_json(example(3, thin=10)) == summary_json(example(3, thin=10))


def test_a_story_that_contradicts_itself_is_refused() -> None:
    story = example(2, thin=50)
    with pytest.raises(ValueError, match="none of"):
        replace(story, ours="nobody")
    with pytest.raises(ValueError, match="same methods"):
        replace(story, curves={})
    with pytest.raises(ValueError, match="rows for 2 windows"):
        replace(story, matrix=((1.0,),))


def test_the_tables_fit_a_terminal_and_name_every_window_and_method(story: Story) -> None:
    shown = _shown(story)
    assert "…" not in shown
    for row in story.windows:
        assert any(line.split()[:1] == [str(row.index)] for line in shown.splitlines())
    for name in story.methods:
        assert name in shown
    assert shown.count("drift") == 2


def test_what_was_measured_on_learned_mails_is_called_so(story: Story) -> None:
    said = " ".join(_shown(story, width=200).split())
    assert "accuracy at the end, forgetting: of learned mails" in said
    by_window = [f"{row.prequential_ece_by_window:.3f}" for row in story.methods.values()]
    assert all(number in said for number in by_window)


def test_a_version_that_is_not_there_yet_is_waited_for() -> None:
    story = example(2, thin=50)
    late = replace(story, windows=tuple(replace(w, mlflow_version=None) for w in story.windows))
    assert _shown(late).count("waiting") == 2
