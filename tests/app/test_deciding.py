"""What a person decides: recorded with who and why, refused where it must be, whole whoever dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import MemoryBlobs, open_blobs
from connectors.decision_log import champion
from connectors.ledger import open_ledger
from posterior.snapshot import Decision, LedgerCorrupt, LogMoved, Snapshot
from priorflow.case import newest_candidate
from priorflow.cli import call
from priorflow.config import load
from priorflow.deciding import Bench, NotAllowed, whoever
from priorflow.exit_codes import ExitCode
from priorflow.opening import registry
from tests.app.forked import forked
from tests.app.judged import Court
from tests.connectors.chain_builder import Writer, progress
from trainers.branching import DECISION, asked_for
from trainers.line import on_top


@pytest.fixture(params=["memory", "sqlite"])
def court(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Court]:
    if request.param == "memory":
        yield Court.opened()
        return
    blobs = open_blobs(tmp_path / "blobs")
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    yield Court.opened(ledger, blobs)
    ledger.close()


def bench(court: Court, **other: Any) -> Bench:
    parts = {"ledger": court.ledger, "blobs": court.blobs, "actor": "ada@host", **other}
    return Bench(chain="main", at_ms=9, **parts)


def promote(court: Court, sha: str | None = None, **other: Any) -> Decision:
    return bench(court).promote(sha, **{"force": False, "reason": None, **other})


def roll_back(court: Court, sha: str | None = None, **other: Any) -> Decision:
    return bench(court).roll_back(sha, **{"reason": None, "continue_from": "head", **other})


def test_without_force_the_gates_decide(court: Court) -> None:
    with pytest.raises(NotAllowed, match="judged nothing yet"):
        promote(court)
    for p in (0.9, 0.9, 0.6, 0.6, 0.6, 0.6):
        court.step(p)
    with pytest.raises(NotAllowed, match=r"do not allow \w+ \(fail\): not better than the champion"):
        promote(court)
    head = court.writer.head
    with pytest.raises(NotAllowed, match="have not judged"):
        promote(court, head.sha)
    with pytest.raises(NotAllowed, match="has to say why"):
        promote(court, head.sha, force=True)
    assert champion(court.log()) == court.rows[0][0].sha


def test_what_is_not_decided_yet_is_not_allowed_either(court: Court) -> None:
    for p in (0.8, 0.8, 0.8):
        court.step(p)
    assert court.actions()[-1] == "wait"
    with pytest.raises(NotAllowed, match=r"do not allow \w+ \(wait\): "):
        promote(court)


def test_force_goes_past_them_and_is_kept_with_the_reason(court: Court) -> None:
    for p in (0.9, 0.9, 0.6, 0.6):
        court.step(p)
    refused = court.log()[-1]
    line = promote(court, refused.snapshot[:12], force=True, reason="it is all we have")
    assert (line.actor, line.action, line.snapshot) == ("ada@host", "promote", refused.snapshot)
    assert line.evidence == {"reason": "it is all we have", "forced": True, "finding": refused.seq}
    with pytest.raises(NotAllowed, match="champion already"):
        promote(court, refused.snapshot, force=True, reason="again")


def test_whom_the_gate_put_back_is_no_candidate(court: Court) -> None:
    """What is promoted if nobody is named is whom the gates judged last, not whom they put back."""
    for p in (0.85, 0.85, 0.55, 0.55):
        court.step(p)
    promote(court, court.rows[2][0].sha, force=True, reason="to see")
    while court.actions()[-1] != "rollback":
        court.step(0.55)
        assert len(court.rows) < 20
    back = court.log()[-1].snapshot
    judged = newest_candidate(court.log())
    assert judged == court.log()[-2].snapshot != back
    with pytest.raises(NotAllowed, match=f"do not allow {judged}"):
        promote(court)


def test_what_the_gates_passed_may_come_back_after_a_rollback_but_not_against_another(court: Court) -> None:
    for p in (0.7, 0.7, *[0.95] * 20):
        court.step(p)
        if court.actions().count("promote") == 2:
            break
    first, second = (line.snapshot for line in court.log() if line.action == "promote")
    assert roll_back(court).snapshot == first
    assert promote(court, second).snapshot == second
    promote(court, court.writer.head.sha, force=True, reason="to see")
    with pytest.raises(NotAllowed, match="another champion"):
        promote(court, second)


def test_a_rollback_goes_to_who_was_champion_and_to_nobody_else(court: Court) -> None:
    court.step(0.9)
    with pytest.raises(NotAllowed, match="no champion before"):
        roll_back(court)
    for p in (0.9, 0.8):
        court.step(p)
    rows = [row for row, _ in court.rows]
    for sha in (rows[1].sha, rows[2].sha):  # judged, and not even that
        with pytest.raises(NotAllowed, match="never champion"):
            roll_back(court, sha)
    promote(court, rows[1].sha, force=True, reason="to see")
    line = roll_back(court, reason="complaints")
    assert (line.action, line.snapshot, line.previous) == ("rollback", rows[0].sha, rows[1].sha)
    assert line.evidence == {"reason": "complaints", "continue_from": "head"}


@pytest.mark.parametrize("onward", ["champion", "relearn"])
def test_what_learning_was_to_go_on_from_can_be_taken_back_until_it_does(court: Court, onward: str) -> None:
    """Else a run that cannot go back would stop there for ever: the champion itself may well stay."""
    first, second = (court.learn(p)[0] for p in (0.8, 0.9))
    for row in (first, second):
        promote(court, row.sha, force=True, reason="to see")
    roll_back(court, continue_from=onward)
    line = roll_back(court, first.sha)
    assert (line.snapshot, line.previous, line.evidence["continue_from"]) == (first.sha, second.sha, "head")
    assert asked_for(court.log(), ()) is None
    with pytest.raises(NotAllowed, match="champion already"):
        roll_back(court, first.sha)
    asked = roll_back(court, first.sha, continue_from=onward)
    court.writer.commit(on_top(court.writer.head, "branch", report={DECISION: asked.hash}))
    with pytest.raises(NotAllowed, match="champion already"):
        roll_back(court, first.sha)


def test_only_a_belief_of_this_chain_that_verifies(court: Court) -> None:
    row, _ = court.learn(0.9)
    moved = court.writer.commit(progress(court.blobs, row))
    other = Writer.on_new_chain(court.ledger, court.blobs, "other").learn()
    for sha, why in ((moved.sha, "progress row"), (other.sha, "chain other"), ("f" * 12, "begins with")):
        with pytest.raises(NotAllowed, match=why):
            promote(court, sha, force=True, reason="x")
    with pytest.raises(LedgerCorrupt):
        bench(court, blobs=MemoryBlobs()).promote(row.sha, force=True, reason="its bytes are lost")
    assert not court.log()


def test_of_two_promoters_at_once_one_is_told_who_was_first(court: Court) -> None:
    rows = [court.learn(p)[0] for p in (0.8, 0.9)]
    looked, told = threading.Barrier(2), []

    def both_look(step: str) -> None:
        if step == "before-decision":
            looked.wait(20)

    def decide(who: str, row: Snapshot) -> None:
        try:
            told.append(
                bench(court, actor=who, crash=both_look).promote(row.sha, force=True, reason=who).actor
            )
        except LogMoved as moved:
            told.append(str(moved))

    threads = [threading.Thread(target=decide, args=pair) for pair in zip(("ada", "bob"), rows, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (line,) = court.log()
    assert line.actor in told
    assert any(f"{line.actor} has decided something since" in said for said in told)


# The commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Court:
    """A chain under .priorflow whose first snapshot the gate has promoted, and refused two since."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".priorflow"
    blobs = open_blobs(folder / "blobs")
    ledger = open_ledger(f"sqlite:///{folder}/ledger.db", blobs)
    court = Court.opened(ledger, blobs)
    for p in (0.9, 0.9, 0.6, 0.6):
        court.step(p)
    return court


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


OFFLINE = ("--set", "mlflow.enabled=false")


def test_promote_rollback_and_history_beside_a_run(home: Court, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's lease is held all the time: nobody asks for it."""
    head = home.writer.head.sha
    assert call(["promote", *OFFLINE]) == ExitCode.USAGE
    assert call(["promote", head, "--force", "--reason", "to see", *OFFLINE]) == ExitCode.OK
    assert call(["rollback", "--reason", "seen", *OFFLINE]) == ExitCode.OK
    capsys.readouterr()
    assert call(["history", "--decided", "--json"]) == ExitCode.OK
    *rows, verified = said(capsys)
    assert [(r["action"], r["by"], r["window"]) for r in rows] == [
        ("promote", "gate", 1),
        ("promote", whoever(), 4),
        ("rollback", whoever(), 1),
    ]
    assert [r["why"] for r in rows[1:]] == ["to see", "seen"]
    assert rows[0]["gates"][1]["numbers"]["ece"] < 0.5
    assert (verified["event"], verified["lines"]) == ("verified", len(home.log()))
    home.writer.learn()  # and the run goes on


def test_a_decision_stands_whoever_cannot_be_told(home: Court, capsys: pytest.CaptureFixture[str]) -> None:
    """Its command must not look as if nothing was done: it says which line stands, and who hears later."""
    head = home.writer.head.sha
    sets = ["--set", "decisions.webhook=https://hooks.example/x", "--set", "mlflow.tracking_uri=nowhere://x"]
    sets += ["--set", "decisions.webhook_secret_file=gone"]
    assert call(["promote", head, "--force", "--reason", "to see", *sets]) == ExitCode.OK
    line = home.log()[-1]
    assert champion(home.log()) == head
    told, *untold = said(capsys)
    assert (told["event"], told["line"]) == ("promote", line.seq)
    assert [(one["event"], one["line"]) for one in untold] == [
        ("not_publishing", line.seq),
        ("not_telling", line.seq),
    ]
    assert all(f"line {line.seq} stands; " in one["text"] for one in untold)
    assert "decisions.webhook_secret_file" in untold[1]["error"]


LOADED = """
import sys
from priorflow import carrying_out
from priorflow.cli import call

def loaded():
    print(*sorted(set(sys.argv[1].split()) & set(sys.modules)), sep=",")

def recorded(*said):
    loaded()
    if "mlflow.enabled=false" in sys.argv:
        follows(*said)

follows, carrying_out.carry_out = carrying_out.carry_out, recorded
status = call(["rollback", "--continue-from", "champion", "--to", *sys.argv[2:]])
loaded()
sys.exit(status)
"""  # what a rollback has imported once its line is recorded, and at its end
HEAVY = ("mlflow", "numpy", "pandas", "ray", "river", "torch", "transformers")


@pytest.mark.parametrize("set_", [OFFLINE, ()], ids=["offline", "mlflow"])
def test_a_decision_waits_for_no_library_it_does_not_need(home: Court, set_: tuple[str, ...]) -> None:
    """Torch and its like take seconds to import. MLflow alone is needed, after the line, to point aliases."""
    home.ledger.close()
    first = champion(home.log())
    command = [sys.executable, "-c", LOADED, " ".join(HEAVY), str(first), *set_]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_env())
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if not line.startswith("{")] == ["", ""]


def test_a_log_that_was_altered_is_not_shown(home: Court, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(".priorflow/ledger.db")) as database, database:
        database.execute("UPDATE decisions SET actor = 'nobody' WHERE seq = 1")
    assert call(["history"]) == ExitCode.LOST
    assert "does not chain at line 1" in capsys.readouterr().err
    assert home.ledger is not None


STEPS = ("before-decision", "after-decision", "before-alias", "before-moved", "before-noted")


@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_between_any_two_steps_of_a_promotion_the_same_command_again_finishes_it(
    home: Court, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes on a real MLflow: either nothing was decided, or all follows from what was.

    The one that goes on is a new process too: the command that an operator gives again, who is told which.
    """
    home.learn(0.6)
    home.learn(0.6)
    settings, rows = load(overrides={"home": ".priorflow"}), [row for row, _ in home.rows]
    with closing(registry(settings)) as models:
        for row in rows:
            published = models.publish(row, _circumstance(home, row), home.blobs.get(row.posterior))
            home.ledger.published(row.sha, "mlflow", published)
        for step, (before, row) in zip(STEPS, itertools.pairwise(rows), strict=True):
            done = forked("tests.app.promoter", ".priorflow", row.sha, step)
            assert done.returncode == -signal.SIGKILL
            stands = step != "before-decision"
            assert champion(home.log()) == (row if stands else before).sha
            again = forked("priorflow", "promote", row.sha, "--force", "--reason", "again", "--json")
            assert again.returncode == (ExitCode.USAGE if stands else ExitCode.OK)
            by = f"champion already, by line {home.log()[-1].seq} of ada@host"
            assert (by in again.stderr) is stands
            wanted = [home.ledger.reference(one.sha, "mlflow") for one in (row, before)]
            assert [models.aliases()[name] for name in ("champion", "previous")] == wanted
    shown = forked("priorflow", "history", "--decided", "--json").stdout.splitlines()
    told = list(map(json.loads, shown))
    assert told.pop()["event"] == "verified"
    assert [(line["snapshot"], line["why"]) for line in told[1:]] == [
        (row.sha, "again" if step == "before-decision" else "a test")
        for step, row in zip(STEPS, rows[1:], strict=True)
    ]
    assert "alias" not in {line.actor for line in home.log()}
    assert call(["rollback", "--json"]) == ExitCode.OK
    aliases = next(line for line in said(capsys) if line["event"] == "aliases")
    assert aliases["aliases"]["champion"] == home.ledger.reference(rows[4].sha, "mlflow")


def _circumstance(home: Court, row: Snapshot) -> Any:
    found = home.ledger.snapshot(row.sha)
    assert found is not None
    return found[1]


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
