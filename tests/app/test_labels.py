"""`priorflow labels` on a real chain: renamed, gone on with, and proven again bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from connectors.archive import ArchiveWriter
from connectors.blobs import MemoryBlobs
from connectors.lease import this_owner
from connectors.memory import MemoryLog
from posterior.snapshot import Snapshot
from posterior.tensors import to_bytes
from priorflow.asking import Asker
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.exit_codes import ExitCode
from priorflow.learning import family_spec, model_spec
from priorflow.opening import reading
from priorflow.run import execute
from stream.plan import Member
from stream.record import Position
from stream.relabelling import AS_THEY_CAME, Names
from tests.app.histories import assert_accounts_balance, history, opened
from tests.app.streams import WORDS, small_settings, small_stream
from tests.connectors.chain_builder import root
from tests.trainers.tally import Tally
from tests.trainers.world import RULES
from trainers.activations import Activations
from trainers.answer import Answerer, AnswerSpec, answerer_of
from trainers.model import AdaptedModel

slow = pytest.mark.slow  # whole runs of the application


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two windows learned from an archive."""
    return learned_in(tmp_path_factory.mktemp("learned"), small_stream(110))


def learned_in(folder: Path, log: MemoryLog) -> Path:
    writer = ArchiveWriter(folder / "archive.jsonl", form="jsonl")
    writer.add([raw for lane in log.lanes.values() for raw in lane])
    writer.flush()
    chosen = small_settings(folder / "home", None, **{"gate.enabled": False})
    said = chosen.model_dump(include={"window", "model", "learn", "mlflow", "gate"}, exclude_unset=True)
    said |= {"home": "home", "source": "archive:archive.jsonl"}
    (folder / "priorflow.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(said, default=str))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute(load(folder / "priorflow.yaml"), until_end=True, max_windows=2, console=Silent())
    return folder


@pytest.fixture
def here(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(learned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def settings_here(here: Path) -> Settings:
    return load(here / "priorflow.yaml")


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert call(list(arguments)) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@slow
def test_renamed_it_goes_on_and_every_row_is_derived_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {row["label"]: row for row in told(capsys, "labels", "list")}
    said = told(capsys, "labels", "rename", "money", "spam", "--reason", "clearer")
    assert said[-1]["row"] == 3
    assert told(capsys, "labels", "rename", "money", "spam")[-1]["row"] is None
    told(capsys, "run", "--until-end")
    rows = history(settings_here(here))
    assert_accounts_balance(rows)
    assert set(rows[-1].labels) == {"linux", "spam"}
    assert rows[4].report["accuracy"] > 0.5  # what waited had been foretold under the old name
    after = {row["label"]: row for row in told(capsys, "labels", "list")}
    assert after["spam"]["formerly"] == ["money"]
    assert after["spam"]["learned"] > before["money"]["learned"]
    assert after["spam"]["first_window"] == before["money"]["first_window"] == 1
    assert told(capsys, "snapshots", "verify")[-1]["faults"] == 0
    assert told(capsys, "replay", "--verify")[-1]["differ"] == []


@slow
def test_two_classes_merged_it_goes_on_and_every_row_is_derived_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = learned_in(tmp_path, small_stream(120, words=WORDS | {"sport": "a late goal in the match"}))
    monkeypatch.chdir(here)
    before = {row["label"]: row for row in told(capsys, "labels", "list")}
    said = told(capsys, "labels", "merge", "linux", "sport", "--into", "talk", "--reason", "one desk")
    assert said[-1]["row"] == 3
    assert told(capsys, "labels", "merge", "linux", "sport", "--into", "talk")[-1]["row"] is None
    told(capsys, "run", "--until-end")
    told(capsys, "labels", "rename", "talk", "chat")
    rows = history(settings_here(here))
    assert_accounts_balance(rows)
    assert sorted(rows[-1].labels) == ["chat", "chat", "money"]
    assert rows[4].report["classes"].keys() == {"talk", "money"}
    assert rows[4].report["accuracy"] > 0.5
    after = {row["label"]: row for row in told(capsys, "labels", "list")}
    assert after.keys() == {"chat", "money"}
    assert set(after["chat"]["formerly"]) == {"linux", "sport", "talk"}
    assert after["chat"]["learned"] > before["linux"]["learned"] + before["sport"]["learned"]
    assert sorted(told(capsys, "status")[-1]["classes"]) == ["chat", "money"]
    assert told(capsys, "snapshots", "verify")[-1]["faults"] == 0
    assert told(capsys, "replay", "--verify")[-1]["differ"] == []
    told(capsys, "unlearn", "--event-id", "m35", "--into", "clean")
    clean = history(settings_here(here), "clean")
    assert sorted(clean[-1].labels) == sorted(clean[0].labels) == ["chat", "chat", "money"]
    assert told(capsys, "snapshots", "verify", "--chain", "clean")[-1]["faults"] == 0
    answer = answers_of(settings_here(here), clean[-1]).answer("a late goal at last")
    assert sorted(answer.probabilities) == ["chat", "money"]
    assert sum(answer.probabilities.values()) + answer.novelty == pytest.approx(1)


def answers_of(settings: Settings, snapshot: Snapshot) -> Answerer:
    model, learn = AdaptedModel(model_spec(settings)), settings.learn
    said = AnswerSpec(
        family=family_spec(settings), chain_seed=settings.chain.seed, draws=learn.draws, pi_new=learn.pi_new
    )
    with reading(settings) as (_, blobs):
        posterior = blobs.get(snapshot.posterior)
    return answerer_of(
        model, Activations(model), said, posterior, labels=snapshot.labels, window=snapshot.index
    )


@slow
def test_what_is_derived_again_bears_the_new_name_from_its_start(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "labels", "rename", "money", "spam")
    told(capsys, "unlearn", "--event-id", "m35", "--into", "clean")
    rows = history(settings_here(here), "clean")
    assert set(rows[0].labels) == set(rows[-1].labels) == {"linux", "spam"}
    assert told(capsys, "snapshots", "verify", "--chain", "clean")[-1]["faults"] == 0
    former = {row["label"]: row["formerly"] for row in told(capsys, "labels", "list", "--chain", "clean")}
    assert former == {"linux": [], "spam": ["money"]}
    assert call(["labels", "rename", "linux", "money", "--chain", "clean"]) == ExitCode.USAGE
    assert "'money' is a former name of 'spam'" in capsys.readouterr().err
    told(capsys, "unlearn", "--event-id", "m5", "--chain", "clean", "--into", "cleaner")
    again = history(settings_here(here), "cleaner")
    assert again[0].parent == history(settings_here(here))[0].sha  # learned in window 1, before the renaming
    assert set(again[-1].labels) == {"linux", "spam"}


@slow
def test_it_is_refused_beside_a_run_and_for_a_class_that_is_not_there(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["labels", "rename", "nobody", "x"]) == ExitCode.USAGE
    assert "has no class 'nobody'" in capsys.readouterr().err
    with opened(settings_here(here)) as ledger:
        fence = ledger.acquire("main", owner=this_owner(), ttl_s=60)
        assert call(["labels", "rename", "money", "spam"]) == ExitCode.FENCED
        ledger.release(fence)
    assert len(history(settings_here(here))) == 3


def test_an_older_snapshot_is_asked_for_both_classes_that_are_one_today() -> None:
    blobs, updater = MemoryBlobs(), Tally()
    member = Member(
        "e", "late goal", "talk", None, Position("a", 0, 0), "s", 1, Position("b", 0, 0), "s", 1, 0, None
    )
    counts = torch.ones(3, 32, dtype=torch.float64)
    counts[0, 3] = 9
    posterior = blobs.put(to_bytes({"counts": counts}))
    snapshot = replace(root(blobs), labels=("linux", "money", "sport"), posterior=posterior)
    plain, today = (
        Asker(blobs=blobs, updater=updater, rules=RULES, names=names).forecasts(snapshot, [member])[0]
        for names in (AS_THEY_CAME, Names({"linux": "talk", "sport": "talk"}))
    )
    assert today == {"talk": plain["linux"] + plain["sport"], "money": plain["money"]}


def test_an_older_snapshot_is_asked_under_the_names_of_today() -> None:
    """The champion of before is judged on labels of after: its column must be found."""
    blobs, updater = MemoryBlobs(), Tally()
    member = Member(
        "e", "cash now", "spam", None, Position("a", 0, 0), "s", 1, Position("b", 0, 0), "s", 1, 0, None
    )
    posterior = blobs.put(to_bytes({"counts": torch.ones(2, 32, dtype=torch.float64)}))
    snapshot = replace(root(blobs), labels=("linux", "money"), posterior=posterior)
    asker = Asker(blobs=blobs, updater=updater, rules=RULES, names=Names({"money": "spam"}))
    (forecast,) = asker.forecasts(snapshot, [member])
    assert forecast.keys() == {"linux", "spam"}
