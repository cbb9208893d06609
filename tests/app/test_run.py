"""The application on its real parts: learn, go on, replay, explain."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorflow.config import ConfigError, Settings
from priorflow.console import JsonLines, Silent
from priorflow.replay import branch, verify
from priorflow.run import execute
from priorflow.smoke import latency, smoke
from tests.app.histories import history, opened
from tests.app.streams import EVENTS, archived, real_settings, small_stream
from trainers.guards import Smoke

pytestmark = pytest.mark.slow  # whole runs of the application


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(small_stream(), tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def done(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = real_settings(tmp_path_factory.mktemp("home"), archive)
    execute(settings, until_end=True, console=Silent())
    return settings


def test_a_stream_becomes_a_chain_of_snapshots(done: Settings) -> None:
    rows = history(done)
    assert [s.kind for s in rows] == ["root", "learned", "learned", "learned", "learned"]
    assert set(rows[-1].labels) == {"linux", "money"}
    assert rows[1].report["kl_nats"] > 0
    assert rows[2].report["foretold"] > 0
    assert all(a.sha == b.parent for a, b in itertools.pairwise(rows))


def test_running_again_finds_nothing_new(done: Settings) -> None:
    before = [s.sha for s in history(done)]
    execute(done, until_end=True, console=Silent())
    assert [s.sha for s in history(done)] == before


def test_other_settings_are_not_mixed_into_a_chain(done: Settings, archive: Path) -> None:
    other = real_settings(done.home, archive, **{"learn.lr": 0.2})
    with pytest.raises(ConfigError, match=r"begun with other settings:\s+learn\.lr: 0\.2, was 0\.05"):
        execute(other, until_end=True, console=Silent())


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_every_snapshot_is_the_same_again(done: Settings, tmp_path: Path, form: str) -> None:
    copy = archived(small_stream(), tmp_path / form, form=form)
    verdicts = verify(done, chain="main", first=None, last=None, source=f"archive:{copy}", console=Silent())
    assert [(index, same) for index, _, same in verdicts] == [(i, True) for i in (1, 2, 3, 4)]


def test_an_altered_record_is_found_and_named(
    done: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered = small_stream(altered=40)
    position = next(
        str(raw.position)
        for lane in altered.lanes.values()
        for raw in lane
        if raw.position.topic == EVENTS and b"number 40 now" in (raw.value or b"")
    )
    copy = archived(altered, tmp_path / "altered")
    verdicts = verify(
        done,
        chain="main",
        first=None,
        last=None,
        source=f"archive:{copy}",
        console=JsonLines(sys.stdout),
    )
    assert not all(same for _, _, same in verdicts)
    assert f"record {position} is not the one" in capsys.readouterr().out


def test_a_snapshot_answers_in_a_clean_process_or_the_gate_hears_why(done: Settings) -> None:
    head = history(done)[-1]
    assert smoke(done, head) == Smoke(snapshot=head.sha, loaded=True)
    gone = smoke(done, replace(head, posterior="0" * 64))
    assert not gone.loaded
    assert "0000" in gone.why


def test_its_answers_are_timed_where_there_is_a_bound(done: Settings) -> None:
    head = history(done)[-1]
    timed = done.gate.model_copy(update={"max_p99_ms": 60_000.0, "min_answers": 7})
    tried = smoke(done.model_copy(update={"gate": timed}), head)
    assert tried.loaded
    assert tried.latency is not None
    assert tried.latency.answers == 7
    assert 0 < tried.latency.p99_ms < 60_000


def test_whoever_is_promoted_has_loaded_and_answered_in_a_clean_process(
    archive: Path, tmp_path: Path
) -> None:
    """As a run does it by default, but for a bound that a machine with other work to do keeps too."""
    told = {"gate.smoke": True, "gate.max_p99_ms": 60_000.0, "gate.min_answers": 3}
    settings = real_settings(tmp_path, archive, **told)
    execute(settings, until_end=True, max_windows=3, console=Silent())
    with opened(settings) as ledger:
        said = [(d.action, {g["gate"]: g for g in d.evidence["gates"]}) for d in ledger.decisions("main")]
    promoted = [gates for action, gates in said if action == "promote"]
    assert promoted
    for gates in promoted:
        assert gates["smoke"]["verdict"] == gates["latency"]["verdict"] == "pass"
        assert gates["latency"]["numbers"]["answers"] == 3
    assert not any({"smoke", "latency"} & gates.keys() for action, gates in said if action == "wait")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400))
def test_the_percentile_is_a_time_that_was_taken_and_nearly_all_came_by_then(took_ms: list[float]) -> None:
    seen = latency(took_ms)
    assert seen is not None
    by_then = sum(ms <= seen.p99_ms for ms in took_ms)
    before = sum(ms < seen.p99_ms for ms in took_ms)
    assert (seen.answers, seen.p99_ms in took_ms) == (len(took_ms), True)
    assert before / len(took_ms) < 0.99 <= by_then / len(took_ms) + 1e-12
    assert latency([]) is None


class Died(BaseException):
    """Nothing below may catch it."""


def decided(settings: Settings) -> list[tuple[str, str, str, object]]:
    with opened(settings) as ledger:
        return [(d.action, d.actor, d.snapshot, d.evidence) for d in ledger.decisions("main")]


@pytest.mark.parametrize("window", [2, 3])
def test_dying_between_a_commit_and_its_decision_leaves_the_undisturbed_log(
    done: Settings, archive: Path, tmp_path: Path, window: int
) -> None:
    """The window is read and foretold again at the next start, and heard once."""
    settings, left = real_settings(tmp_path, archive), window

    def crash(step: str) -> None:
        nonlocal left
        left -= step == "before-acknowledge"
        if not left:
            raise Died

    with pytest.raises(Died):
        execute(settings, until_end=True, console=Silent(), crash=crash)
    assert history(settings)[-1].index == window
    assert len(decided(settings)) == window - 2
    execute(settings, until_end=True, max_windows=1, console=Silent())
    assert len(decided(settings)) == window
    execute(settings, until_end=True, console=Silent())
    assert decided(settings) == decided(done)
    assert "promote" in {action for action, *_ in decided(done)}


def test_what_if_learns_into_a_chain_of_its_own(done: Settings, archive: Path) -> None:
    before = [s.sha for s in history(done)]
    other = real_settings(done.home, archive, **{"family.name": "point", "window.size": 50})
    branch(other, into="lora", from_chain="main", first=None, last=None, source=None, console=Silent())
    assert [s.sha for s in history(done)] == before
    assert [s.report.get("members") for s in history(done, "lora")[1:]] == [50, 50]
    assert history(done, "lora")[-1].report["kl_nats"] == 0.0
