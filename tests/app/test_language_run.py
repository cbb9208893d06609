"""A causal language model on a stream: answers and tokens, foretold before learned, derived again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.snapshot import Snapshot
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.judging import token_scores, told
from priorflow.replay import verify
from priorflow.run import execute
from priorflow.story_ledger import scores
from stream.plan import Forecast, Member
from stream.record import Position
from tests.app.streams import archived, small_settings, small_stream
from tests.trainers.languages import SITES, small_llama

pytestmark = pytest.mark.slow  # whole runs of the application


def learned(home: Path, archive: Path, objective: str, **more: Any) -> tuple[Settings, list[Snapshot]]:
    small_llama(home / "llama")
    said = {"model.encoder": str(home / "llama"), "model.objective": objective, "model.sites": SITES}
    settings = small_settings(home, archive, **said | {"model.ask": " :"} | more)
    execute(settings, until_end=True, console=Silent())
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    try:
        return settings, list(ledger.history("main"))
    finally:
        ledger.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(small_stream(), tmp_path_factory.mktemp("archive"))


@pytest.mark.parametrize("objective", ["answer", "tokens"])
def test_every_snapshot_is_the_same_again(archive: Path, tmp_path: Path, objective: str) -> None:
    settings, rows = learned(tmp_path, archive, objective)
    assert [s.kind for s in rows] == ["root", *["learned"] * 4]
    verdicts = verify(settings, chain="main", first=None, last=None, source=None, console=Silent())
    assert [same for _, _, same in verdicts] == [True] * 4


def test_tokens_are_scored_by_nats_and_nothing_is_right_or_wrong(archive: Path, tmp_path: Path) -> None:
    """The first window too is foretold: a language model needs no class to begin with."""
    _, rows = learned(tmp_path, archive, "tokens")
    for row in rows[1:]:
        report = row.report
        assert report["foretold"] == report["members"] == 30
        assert report["tokens"] >= 4 * report["foretold"]
        assert report["perplexity"] == pytest.approx(math.exp(report["nll"]))
        assert report["accuracy"] is report["ece"] is report["brier"] is None
        assert "perplexity" in told(report)
    assert scores(rows) == {}


def test_answers_are_foretold_as_classes_are(archive: Path, tmp_path: Path) -> None:
    _, rows = learned(tmp_path, archive, "answer")
    assert rows[1].report["foretold"] == 0
    assert set(scores(rows)) == {2, 3, 4}


def member(forecast: Forecast | None) -> Member:
    at = Position("t", 0, 0)
    return Member("m", "text", "linux", None, at, "", 0, at, "", 0, 0, forecast)


def test_a_window_s_nats_are_divided_by_its_tokens_not_by_its_texts() -> None:
    said = [{"nats": nats, "tokens": tokens} for nats, tokens in ((12.0, 3.0), (8.0, 7.0), (0.0, 0.0))]
    scored = token_scores([*map(member, said), member(None)])
    assert scored.numbers["nll"] == 2.0
    assert (scored.numbers["tokens"], scored.numbers["foretold"]) == (10, 2)
    assert scored.events == [(False, 4.0), (False, 8.0 / 7.0)]
    assert token_scores([member(None)]).numbers["perplexity"] is None
