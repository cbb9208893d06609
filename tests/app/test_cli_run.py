"""`priorflow run` and `replay` as a user calls them, over an archive, with the real encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.archive import ArchiveWriter, read_archive
from priorflow.cli import call
from priorflow.exit_codes import ExitCode
from stream.record import RawRecord
from tests.trainers.world import EVENTS, LABELS, mails

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "source": "archive:archive.jsonl",
    "kafka": {"topics": {"events": EVENTS, "labels": LABELS}},
    "records": {
        "format": "mapped",
        "mapping": {"time_unit": "ms"},
        "clock": {"not_before": None},
        "out_of_order": "20ms",
    },
    "window": {"size": 30},
    "model": {"max_tokens": 16, "rank": 2},
    "learn": {"epochs": 1, "draws": 2},
    "mlflow": {"enabled": False},
    "gate": {"enabled": False},
}

Said = list[dict[str, Any]]


def keep(folder: Path, records: list[RawRecord]) -> None:
    writer = ArchiveWriter(folder, form="jsonl")
    writer.add(records)
    writer.flush()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which three windows of 100 mails were learned; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("learned")
    keep(folder / "archive.jsonl", [raw for lane in mails(100).lanes.values() for raw in lane])
    (folder / "priorflow.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(["run", "--until-end", "--json"]) == ExitCode.OK
    return folder


@pytest.fixture
def here(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(learned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Said:
    capsys.readouterr()
    assert call(list(arguments)) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def windows(capsys: pytest.CaptureFixture[str], chain: str) -> Said:
    return [row for row in told(capsys, "snapshots", "ls", "--chain", chain) if row["kind"] == "learned"]


@pytest.mark.usefixtures("here")
def test_a_second_run_finds_nothing_left_to_learn(capsys: pytest.CaptureFixture[str]) -> None:
    before = windows(capsys, "main")
    assert [row["members"] for row in before] == [30, 30, 30]
    assert told(capsys, "run", "--until-end")[-1]["event"] == "progress"
    assert windows(capsys, "main") == before
    assert told(capsys, "snapshots", "verify")[-1]["faults"] == 0


@pytest.mark.usefixtures("here")
def test_a_chain_goes_on_only_with_the_settings_it_was_begun_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["run", "--until-end", "--set", "learn.lr=0.2"]) == ExitCode.USAGE
    assert "learn.lr: 0.2, was 0.05" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_another_family_is_one_word_for_a_chain_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "--until-end", "--family", "point"]) == ExitCode.USAGE
    assert "family.name: 'point', was 'blob'" in capsys.readouterr().err
    elsewhere = ("run", "--windows", "1", "--set", "chain.name=points")
    told(capsys, *elsewhere, "--family", "point")
    assert len(windows(capsys, "points")) == 1
    assert call([*elsewhere, "--family", "blob"]) == ExitCode.USAGE
    assert "family.name: 'blob', was 'point'" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_replay_verifies_chosen_windows(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "replay", "--verify", "--from", "2", "--to", "3")
    rows = [line for line in said if line["event"] == "verified"]
    assert [row["window"] for row in rows if row["same"]] == [2, 3]
    assert said[-1]["differ"] == []


def test_one_altered_byte_makes_replay_fail_and_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = list(read_archive(here / "archive.jsonl"))
    chosen = next(r for r in records if r.position.topic == EVENTS and b"kernel" in (r.value or b""))
    altered = RawRecord(
        chosen.position, chosen.timestamp_ms, chosen.key, (chosen.value or b"").replace(b"kernel", b"kernal")
    )
    keep(here / "altered.jsonl", [altered if r is chosen else r for r in records])
    arguments = ("replay", "--verify", "--source", "archive:altered.jsonl")
    said = told(capsys, *arguments, status=ExitCode.DIFFERS)
    assert any(str(chosen.position) in line["text"] for line in said if line["event"] == "differs")


@pytest.mark.usefixtures("here")
def test_what_if_the_window_were_shorter(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "replay", "--into", "shorter", "--set", "window.size=15", "--set", "family.name=point")
    assert [row["members"] for row in windows(capsys, "shorter")] == [15] * 6
    again = ("replay", "--into", "shorter", "--set", "window.size=15")
    assert told(capsys, *again, status=ExitCode.USAGE) == []


@pytest.mark.usefixtures("here")
def test_an_archive_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "--until-end", "--source", "archive:elsewhere"]) == ExitCode.LOST
    assert "elsewhere holds no archived records" in capsys.readouterr().err
