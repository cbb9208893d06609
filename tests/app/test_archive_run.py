"""The archive that a run keeps holds every record that its positions have passed, whatever dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from connectors.archive import read_archive
from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.replay import verify
from priorflow.run import execute
from tests.app.streams import archived, small_settings, small_stream

pytestmark = pytest.mark.slow  # whole runs of the application

Place = tuple[str, int, int]


def passed(settings: Settings) -> set[Place]:
    """Return the places of all records that the committed positions have passed."""
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    try:
        head = ledger.head("main")
    finally:
        ledger.close()
    assert head is not None
    return {(s.topic, s.partition, offset) for s in head.spans for offset in (*range(s.low), *s.beyond)}


def kept(archive: Path) -> set[Place]:
    positions = (raw.position for raw in read_archive(archive))
    return {(at.topic, at.partition, at.offset) for at in positions}


@pytest.mark.parametrize("form", ["kept", "kept.jsonl"])
def test_at_every_commit_the_archive_is_as_long_as_the_positions(tmp_path: Path, form: str) -> None:
    """Asked in the moment behind a commit: a run that died there would never read those records again."""
    archive, commits = tmp_path / form, []
    stream = archived(small_stream(), tmp_path / "stream")
    settings = small_settings(tmp_path / "home", stream, archive=str(archive))

    def look(step: str) -> None:
        if step == "before-acknowledge":
            commits.append(passed(settings) <= kept(archive))

    execute(settings, until_end=True, console=Silent(), crash=look)
    assert commits == [True] * 4
    source = f"archive:{archive}"
    verdicts = verify(settings, chain="main", first=None, last=None, source=source, console=Silent())
    assert [same for _, _, same in verdicts] == [True] * 4


def test_a_run_that_was_asked_to_stop_says_so_and_the_next_goes_on(tmp_path: Path) -> None:
    """One signal finishes the window in hand; whoever would tell of a whole stream has to know."""
    settings = small_settings(tmp_path / "home", archived(small_stream(), tmp_path / "stream"))
    asked: list[str] = []

    def ask(step: str) -> None:
        if step == "before-acknowledge" and not asked:
            asked.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    first = execute(settings, until_end=True, console=Silent(), crash=ask)
    assert (first.stopped, first.head.index) == (True, 1)
    second = execute(settings, until_end=True, console=Silent())
    assert (second.stopped, second.head.index) == (False, 4)
