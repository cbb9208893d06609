"""Of a chain that went back, everything that adds windows up looks at those in force: each record once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import REWOUND, Snapshot
from priorflow.config import Settings
from priorflow.descent import Node
from priorflow.flavour import confidences
from priorflow.labelling import classes
from priorflow.look import look
from priorflow.serving.version import rule_of
from tests.app.streams import small_settings
from tests.connectors.chain_builder import Writer, learned
from trainers.abstention import abstention
from trainers.branching import AGAIN, OF, SKIPPED
from trainers.line import on_top


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, None, **{"serve.risk": 0.2, "chain.name": "main"})


@contextmanager
def gone_back(settings: Settings) -> Iterator[tuple[SqlLedger, list[Snapshot]]]:
    """Learn 1 to 3, go back to 1, and learn 4: what 2 had learned, and no more."""
    settings.home_folder.mkdir(parents=True, exist_ok=True)
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    first, _, _ = (learn(writer) for _ in range(3))
    kept = {name: getattr(first, name) for name in ("posterior", "labels", "spans", "counts")}
    told = {OF: first.sha, REWOUND: first.sha, SKIPPED: [], AGAIN: [2, 3]}
    writer.commit(on_top(writer.head, "branch", **kept, report=told))
    learn(writer)
    yield ledger, list(ledger.history("main"))
    ledger.close()


def learn(writer: Writer) -> Snapshot:
    """Learn a window of ten, in which forecasts were as sure as its number says."""
    row = learned(writer.blobs, writer.head, writer.begin(), mails=10)
    report = {
        "members": 10,
        "arrivals": 10,
        "classes": {row.labels[0]: 10},
        "confidences": [[90 + row.index, 10, 10]],
        "accuracy": 1.0,
        "nll": 0.1,
        "ece": 0.1,
        "brier": 0.1,
        "kl_nats": 1.0,
        "beta": 1.0,
        "end_ms": 1000 * row.index,
        "foretold": 10,
        "drift": False,
        "alarms": [],
    }
    return writer.commit(replace(row, report=report))


def test_labels_count_an_example_once(settings: Settings) -> None:
    with gone_back(settings) as (_, rows):
        told = classes(rows)
    assert [row["learned"] for row in told] == [20, 0]
    assert told[0]["first_window"] == 1


def test_answers_are_withheld_by_windows_in_force_wherever_they_are_given(settings: Settings) -> None:
    with gone_back(settings) as (ledger, rows):
        head = rows[-1]
        standing = [rows[1].report["confidences"], head.report["confidences"]]
        assert rule_of(settings, rows, head) == abstention(
            standing, risk=0.2, alpha=settings.serve.risk_alpha
        )
        assert confidences(ledger, head, 10) == [(91, 10, 10), (94, 10, 10)]
        abandoned = rule_of(settings, rows, rows[3])
        assert abandoned is not None
        assert abandoned.events == 30  # up to where it stood


def test_where_no_history_can_be_asked_every_answer_is_withheld(settings: Settings) -> None:
    """Also by a snapshot whose own window would do for a threshold."""
    with gone_back(settings) as (_, rows):
        sure = replace(rows[-1], report={**rows[-1].report, "confidences": [[99, 1000, 1000]]})
    alone = rule_of(settings, (), sure)
    assert alone is not None
    assert (alone.at, alone.events) == (None, 0)
    assert alone.abstains(1.0)


def test_the_page_shows_windows_in_force(settings: Settings) -> None:
    with gone_back(settings) as (_, rows):
        found = look(settings, ask_kafka=False)
    assert found is not None
    assert found.story is not None
    assert found.place["windows"] == 2
    assert [window.index for window in found.story.windows] == [1, 4]
    assert sum(one.count for one in found.story.reliability["priorflow"]) == 20
    (trunk,) = found.lineage
    shown = [one for one in trunk if isinstance(one, Node)]
    assert [one.sha for one in shown] == [rows[place].sha for place in (0, 1, 4, 5)]
    assert [one.sha for one in shown[1].ways[0] if isinstance(one, Node)] == [rows[2].sha, rows[3].sha]
