"""`priorflow unlearn`: the chain that never heard of some records, from where they were first learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.archive import ArchiveWriter, read_archive
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.descent import Node, Way
from priorflow.exit_codes import ExitCode
from priorflow.look import look
from priorflow.run import execute
from priorflow.unlearning import CannotUnlearn, Wanted, _place, parse_stretch, unlearn
from stream.erasure import Stretch
from stream.record import RawRecord
from tests.app.histories import assert_accounts_balance, history, opened
from tests.app.streams import EVENTS, small_settings, small_stream

pytestmark = pytest.mark.slow  # whole runs of the application

GONE = ("m35", "m40")  # learned in window 2
STEPS = ["after-chain", "before-first-row", "after-plan", "before-ledger-commit", "after-ledger-commit"]


class Died(Exception):
    """The process is gone."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three windows learned from an archive."""
    folder = tmp_path_factory.mktemp("learned")
    keep(folder / "archive.jsonl", [raw for lane in small_stream(110).lanes.values() for raw in lane])
    chosen = small_settings(
        folder / "home", None, **{"gate.enabled": False, "family.name": "gaussian_lowrank"}
    )
    said = chosen.model_dump(
        include={"window", "model", "learn", "mlflow", "gate", "family"}, exclude_unset=True
    )
    said |= {"home": "home", "source": "archive:archive.jsonl"}
    (folder / "priorflow.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(said, default=str))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute(load(folder / "priorflow.yaml"), until_end=True, max_windows=3, console=Silent())
    return folder


def keep(folder: Path, records: list[RawRecord]) -> None:
    writer = ArchiveWriter(folder, form="jsonl")
    writer.add(records)
    writer.flush()


@pytest.fixture
def here(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(learned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def settings_here(here: Path) -> Settings:
    return load(here / "priorflow.yaml")


def wanted(*ids: str, stretches: tuple[Stretch, ...] = (), into: str = "clean") -> Wanted:
    return Wanted(ids=ids, stretches=stretches, chain="main", into=into)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert call(list(arguments)) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def place_of(here: Path, event_id: str) -> Stretch:
    """Return the stretch that holds an event and nothing else."""
    (raw,) = [
        raw
        for raw in read_archive(here / "archive.jsonl")
        if raw.position.topic == EVENTS and dict(raw.headers)["ce_id"] == event_id.encode()
    ]
    at = raw.position
    return Stretch(at.topic, at.partition, at.offset, at.offset)


def tensors(here: Path, chain: str) -> list[str]:
    return [row.posterior for row in history(settings_here(here), chain) if row.kind == "learned"]


def test_it_is_the_chain_of_a_log_that_never_held_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = history(settings_here(here))
    said = told(capsys, "unlearn", "--event-id", GONE[0], "--event-id", GONE[1], "--into", "clean")
    rows = history(settings_here(here), "clean")
    assert (rows[0].kind, rows[0].parent, rows[0].posterior) == ("branch", old[1].sha, old[1].posterior)
    assert_accounts_balance(rows)
    assert rows[-1].counts["erased"] == 4
    ids = [name.encode() for name in GONE]
    fewer = [
        raw
        for raw in read_archive(here / "archive.jsonl")
        if not any(b'"%b"' % i in (raw.value or b"") or i in dict(raw.headers).values() for i in ids)
    ]
    keep(here / "fewer.jsonl", fewer)
    told(
        capsys,
        "run",
        "--until-end",
        "--windows",
        "3",
        "--source",
        "archive:fewer.jsonl",
        "--set",
        "home=other",
    )
    never = history(settings_here(here).model_copy(update={"home": Path("other")}))
    assert tensors(here, "clean") == [row.posterior for row in never if row.kind == "learned"][1:]
    assert history(settings_here(here)) == old
    changed = [line for line in said if line["event"] == "changed"]
    assert [line["window"] for line in changed] == [2, 3]
    assert [line["left_out"] for line in changed] == [2, 0]
    assert changed[1]["moved"] == 2  # two of window 3 took their places in window 2
    assert all(line["members_after"] == 30 for line in changed)
    assert all(line["kl_nats"] > 0 for line in changed)
    assert all(line["accuracy_after"] is not None and line["nll_before"] is not None for line in changed)


def test_by_id_or_by_place_is_the_same(here: Path) -> None:
    settings = settings_here(here)
    (first, second) = (place_of(here, name) for name in GONE)
    by_place = unlearn(settings, wanted(stretches=(first, second), into="by-place"), console=Silent())
    by_id = unlearn(settings, wanted(*GONE, into="by-id"), console=Silent())
    assert tensors(here, "by-place") == tensors(here, "by-id")
    assert [(c.window, c.kl_nats, c.left_out) for c in by_place] == [
        (c.window, c.kl_nats, c.left_out) for c in by_id
    ]


def test_erased_first_it_can_still_be_derived(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlearn(settings_here(here), wanted(*GONE, into="before"), console=Silent())
    said = told(capsys, "erase", "--event-id", GONE[0], "--event-id", GONE[1])
    way = next(line["command"] for line in said if line["event"] == "learned_by")
    told(capsys, *way.split()[1:])
    assert tensors(here, way.split()[-1]) == tensors(here, "before")


def test_of_a_chain_that_went_back_what_is_in_force_is_derived(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, first = settings_here(here), history(settings_here(here))[1]
    with opened(settings) as ledger:
        plan = ledger.plan("main", first.plan or "")
    assert plan is not None
    topic, partition, offset = _place(plan.content["members"][0][0])
    out = (Stretch(topic, partition, offset, offset),)
    before = unlearn(settings, wanted(stretches=out, into="before"), console=Silent())
    told(capsys, "promote", first.sha, "--force", "--reason", "to begin with")
    told(capsys, "rollback", "--to", first.sha, "--relearn", "--reason", "again")
    told(capsys, "run", "--until-end", "--windows", "2")
    after = unlearn(settings, wanted(stretches=out, into="after"), console=Silent())
    assert tensors(here, "after") == tensors(here, "before")
    assert [one.window for one in before] == [1, 2, 3]
    assert [one.window for one in after] == [1, 4, 5]
    assert [one.left_out for one in after] == [one.left_out for one in before] == [1, 0, 0]
    begun_anew = settings.model_copy(update={"chain": settings.chain.model_copy(update={"name": "before"})})
    seen = look(begun_anew, ask_kafka=False)  # its first row is a branch that did without nothing of its own
    assert seen is not None
    derived = [("branch", 0), ("learned", 1), ("learned", 2), ("learned", 3)]
    assert kinds(seen.lineage[0]) == [("root", 0), *derived]
    assert seen.place["windows"] == 3
    whole = look(settings, ask_kafka=False)
    assert whole is not None
    prior, first_window = (one for one in whole.lineage[0][:2] if isinstance(one, Node))
    chains = {way[0].row.chain: kinds(way) for way in prior.ways if isinstance(way[0], Node)}
    assert chains["before"] == derived
    assert chains.keys() == {"before", "after"}
    assert [kinds(way) for way in first_window.ways] == [[("learned", 2), ("learned", 3)]], "gone back over"


def kinds(way: Way) -> list[tuple[str, int]]:
    return [(step.row.kind, step.row.index) for step in way if isinstance(step, Node)]


@pytest.mark.parametrize("step", STEPS)
def test_dying_anywhere_the_same_call_goes_on(here: Path, step: str) -> None:
    settings = settings_here(here)
    unlearn(settings, wanted(*GONE, into="whole"), console=Silent())

    def crash(reached: str) -> None:
        if reached == step:
            raise Died

    with pytest.raises(Died):
        unlearn(settings, wanted(*GONE), console=Silent(), crash=crash)
    unlearn(settings, wanted(*GONE), console=Silent())
    assert tensors(here, "clean") == tensors(here, "whole")


def test_the_new_chain_verifies_goes_on_and_can_be_promoted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "unlearn", "--event-id", GONE[0], "--into", "clean")
    told(capsys, "run", "--until-end", "--set", "chain.name=clean")
    assert told(capsys, "snapshots", "verify", "--chain", "clean")[-1]["faults"] == 0
    said = told(capsys, "replay", "--verify", "--chain", "clean")
    assert said[-1]["differ"] == []
    head = [row for row in history(settings_here(here), "clean") if row.kind == "learned"][-1]
    told(capsys, "promote", head.sha, "--force", "--reason", "without m35", "--chain", "clean")
    with opened(settings_here(here)) as ledger:
        assert ledger.decisions("clean")[-1].snapshot == head.sha
        assert ledger.decisions("main") == []


def test_what_cannot_be_is_refused_and_nothing_is_written(here: Path) -> None:
    settings = settings_here(here)
    with pytest.raises(CannotUnlearn, match="nothing to derive again"):
        unlearn(settings, wanted("nobody"), console=Silent())
    with pytest.raises(CannotUnlearn, match="is another"):
        unlearn(settings, wanted(GONE[0], into="main"), console=Silent())
    with opened(settings) as ledger:
        assert [chain.name for chain in ledger.chains()] == ["main"]
    unlearn(settings, wanted(GONE[0]), console=Silent())
    with pytest.raises(CannotUnlearn, match="without other records"):
        unlearn(settings, wanted(GONE[1]), console=Silent())
    assert call(["unlearn", "--into", "x"]) == ExitCode.USAGE
    assert call(["unlearn", "--into", "x", "--offsets", "mails:1"]) == ExitCode.USAGE


@pytest.mark.parametrize("text", ["mails", "mails:1:5", "mails:1:7-5", "mails:x:1-2", "a b:1:1-2"])
def test_a_stretch_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CannotUnlearn, match="TOPIC:PARTITION:FROM-TO"):
        parse_stretch(text)


def test_a_stretch_is_read_as_it_is_written() -> None:
    stretch = Stretch("support.tickets", 2, 100, 140)
    assert parse_stretch(str(stretch)) == stretch
