"""Rolled back, and learning goes on from the champion: on the real parts, and verified by replay."""

from __future__ import annotations

import sys

import pytest

from connectors.blobs import open_blobs
from priorflow.config import Settings
from priorflow.console import JsonLines, Silent
from priorflow.deciding import Bench
from priorflow.history import told
from priorflow.replay import verify
from priorflow.run import execute
from tests.app.histories import (
    assert_accounts_balance,
    assert_planned_without_gap_or_overlap,
    history,
    opened,
)
from tests.app.streams import archived, real_settings, small_stream

pytestmark = pytest.mark.slow  # whole runs of the application


@pytest.fixture(scope="module", params=[True, False], ids=["panel", "rows"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three windows, the first of which knows one class; back to that, and on to the end."""
    archive = archived(small_stream(180, money_from=60), tmp_path_factory.mktemp("archive"))
    more = {"gate.enabled": False, "learn.panel": request.param}
    settings = real_settings(tmp_path_factory.mktemp("home"), archive, **more)
    execute(settings, max_windows=3, console=Silent())
    with opened(settings) as ledger:
        blobs = open_blobs(settings.blobs_url)
        bench = Bench(ledger=ledger, blobs=blobs, chain="main", actor="ada@host", at_ms=1)
        first = ledger.history("main")[1].sha
        bench.promote(first, force=True, reason="to begin with")
        bench.roll_back(first, reason="wrong labels", continue_from="champion")
    execute(settings, until_end=True, console=JsonLines(sys.stdout))
    return settings


def test_learning_goes_on_from_the_champion_and_says_what_it_does_without(done: Settings) -> None:
    rows = history(done)
    branch = rows[4]
    assert [row.kind for row in rows[:6]] == ["root", "learned", "learned", "learned", "branch", "learned"]
    assert rows[1].labels == ("linux",)
    assert branch.labels == ("linux", "money")
    assert branch.posterior == rows[1].posterior
    assert rows[5].labels == ("linux", "money")
    assert rows[6].report["accuracy"] > 0.5  # both classes again
    with opened(done) as ledger:
        line = told(ledger.decisions("main")[-1], ledger, rows)
    assert line["why"] == "wrong labels; learning continues from it, without window 2, 3"


def test_accounts_balance_and_nothing_is_learned_twice(done: Settings) -> None:
    rows = history(done)
    assert_accounts_balance(rows)
    assert_planned_without_gap_or_overlap(done, rows)


def test_replay_verifies_such_a_chain(done: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = verify(done, chain="main", first=None, last=None, source=None, console=JsonLines(sys.stdout))
    assert len(verdicts) == len(history(done)) - 1
    assert all(same for _, _, same in verdicts), capsys.readouterr().out
