"""Rolled back, and what came since is learned again: on the real parts, by command, verified by replay."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from connectors.decision_log import champion
from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from priorflow.cli import call
from priorflow.config import Settings
from priorflow.console import JsonLines, Silent
from priorflow.exit_codes import ExitCode
from priorflow.history import told
from priorflow.replay import verify
from priorflow.run import execute
from tests.app.histories import (
    assert_accounts_balance,
    assert_planned_without_gap_or_overlap,
    history,
    opened,
)
from tests.app.streams import EVENTS, LABELS, archived, small_settings, small_stream
from tests.app.traffic import new_topics
from trainers.branching import AGAIN
from trainers.line import in_force

pytestmark = pytest.mark.slow  # whole runs of the application


@pytest.fixture(scope="module", params=["archive", pytest.param("kafka", marks=pytest.mark.kafka)])
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the settings by which a stream is read, from an archive and from a real Kafka."""
    log = small_stream(180, money_from=60)
    if request.param == "archive":
        return {"source": f"archive:{archived(log, tmp_path_factory.mktemp('archive'))}"}
    kafka: KafkaClient = request.getfixturevalue("kafka")
    topics = new_topics(kafka)
    names = {EVENTS: topics.event, LABELS: topics.label}
    with closing(KafkaSink(kafka)) as sink:
        for (topic, partition), lane in log.lanes.items():
            for raw in lane:
                sink.send(names[topic], raw.value, headers=raw.headers, partition=partition)
        sink.flush()
    return {"kafka.bootstrap": kafka.bootstrap, **topics.settings}


@pytest.fixture(scope="module")
def done(stream: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """All windows; then back to the first, which knows one class, and all of it again with the gate awake."""
    home = tmp_path_factory.mktemp("home")
    settings = small_settings(home, None, **stream)
    execute(settings, until_end=True, console=Silent())
    first = history(settings)[1].sha
    sets = ["--set", f"home={home}", "--set", "mlflow.enabled=false"]
    assert call(["promote", first, "--force", "--reason", "to begin with", *sets]) == ExitCode.OK
    assert call(["rollback", "--to", first, "--relearn", "--reason", "again", *sets]) == ExitCode.OK
    execute(settings, until_end=True, console=JsonLines(sys.stdout))
    return settings


def test_what_came_since_is_read_again_and_counts_once(
    done: Settings, stream: dict[str, Any], tmp_path: Path
) -> None:
    rows = history(done)
    (branch,) = [row for row in rows if row.kind == "branch"]
    line = in_force(rows, rows[-1])
    assert branch.labels == ("linux",)
    assert rows[-1].labels == ("linux", "money")
    assert_accounts_balance(line)
    again = [row for row in line if row.kind != "branch"]
    assert again[0].kind == "root"
    plain = small_settings(tmp_path, None, **stream, **{"gate.enabled": False})
    execute(plain, until_end=True, console=Silent())
    undisturbed = history(plain)
    assert_planned_without_gap_or_overlap(plain, undisturbed)
    assert [row.counts for row in again] == [row.counts for row in undisturbed]
    assert [row.spans for row in again] == [row.spans for row in undisturbed]
    assert branch.report[AGAIN] == [row.index for row in rows if 1 < row.seq < branch.seq and row.plan]


def test_each_window_is_heard_once_by_the_gate_though_its_records_were_read_before(done: Settings) -> None:
    rows = history(done)
    (branch,) = [row for row in rows if row.kind == "branch"]
    with opened(done) as ledger:
        log = ledger.decisions("main")
    heard = [line.evidence["case"]["heard"] for line in log if "case" in line.evidence]
    assert heard == sorted(set(heard))
    assert heard[-1] == rows[-1].index > branch.index
    cases = [line.evidence["case"] for line in log if "case" in line.evidence and line.at_ms]
    events = [case["wager"]["events"] for case in cases if case["wager"]]
    assert max(events) <= rows[-1].counts["learned"] // 2


def test_replay_verifies_such_a_chain(done: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = verify(done, chain="main", first=None, last=None, source=None, console=JsonLines(sys.stdout))
    assert len(verdicts) == len(history(done)) - 1
    assert all(same for _, _, same in verdicts), capsys.readouterr().out


def test_it_is_told(done: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    rows = history(done)
    with opened(done) as ledger:
        log = ledger.decisions("main")
        line = next(one for one in log if one.evidence.get("continue_from") == "relearn")
        why = told(line, ledger, rows)["why"]
    assert why.startswith("again; learning goes back to it, and reads window 2, ")
    assert champion(log) is not None
    sets = ["--set", f"home={done.home}", "--set", "mlflow.enabled=false"]
    assert call(["snapshots", "verify", "--json", *sets]) == ExitCode.OK
    capsys.readouterr()
