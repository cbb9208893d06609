"""Every kind of bad record on the real Kafka: none is lost, and none changes what is believed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.letters import original, read_letter
from posterior.snapshot import Snapshot
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.learning import model_spec
from priorflow.run import execute
from stream.record import Position
from tests.app.encoders import small_encoder
from tests.app.histories import assert_accounts_balance, history
from tests.app.traffic import FORMS, SETTINGS, Form, Sent, Topics, Writer, new_topics, positions, whole_topic
from trainers.line import MOVED
from trainers.model import AdaptedModel
from trainers.window import Local, Updater

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(180)]

MAILS: Final = 130
WINDOW: Final = 30
EACH: Final = 2  # of every kind of bad record, among mails and among labels
ROUNDED: Final = ("nll", "brier", "ece")
"""Scores of forecasts; mails are forecast in batches, and in other company a forecast rounds otherwise."""


@pytest.fixture(scope="module")
def updater() -> Updater:
    return Local(AdaptedModel(model_spec(load(overrides={**SETTINGS, "model.encoder": small_encoder()}))))


@pytest.fixture(scope="module", params=sorted(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture(scope="module")
def clean(
    kafka: KafkaClient, form: Form, updater: Updater, tmp_path_factory: pytest.TempPathFactory
) -> list[Snapshot]:
    """What is learned of the mails when nothing is wrong with them."""
    topics = new_topics(kafka)
    settings = settings_of(kafka, form, topics, tmp_path_factory.mktemp("clean"))
    return learned(kafka, settings, mails(form, topics), updater)


def mails(form: Form, topics: Topics) -> list[Sent]:
    return Writer(form, topics, random.Random(11)).mails(MAILS)


def settings_of(kafka: KafkaClient, form: Form, topics: Topics, home: Path) -> Settings:
    said: dict[str, Any] = {
        "home": str(home),
        "kafka.bootstrap": kafka.bootstrap,
        "window.size": WINDOW,
        "learn.epochs": 1,
        "mlflow.enabled": False,
        "model.encoder": small_encoder(),
        "gate.enabled": False,
    }
    return load(overrides={**SETTINGS, **form.settings, **topics.settings, **said})


def learned(
    kafka: KafkaClient, settings: Settings, stream: Sequence[Sent], updater: Updater
) -> list[Snapshot]:
    """Produce a stream, learn it to its end, and return the chain."""
    with closing(KafkaSink(kafka)) as sink:
        sink.send_all(one.out for one in stream)
        sink.flush()
    execute(settings, until_end=True, console=Silent(), updater=updater)
    return history(settings)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poison_changes_no_belief_and_none_is_lost(
    kafka: KafkaClient, form: Form, clean: Sequence[Snapshot], updater: Updater, tmp_path: Path, seed: int
) -> None:
    topics = new_topics(kafka)
    settings = settings_of(kafka, form, topics, tmp_path)
    stream = Writer(form, topics, random.Random(seed)).poisoned(mails(form, topics), each=EACH)
    rows = learned(kafka, settings, stream, updater)
    assert_the_same_belief(rows, clean)
    assert_accounts_balance(rows)
    assert gained(rows, clean) == {
        "consumed": len(stream) - len(mails(form, topics)),
        "dead_lettered": sum(one.stage is not None for one in stream),
        "duplicate": sum(one.what == "twice" for one in stream),
        "waiting": sum(one.what == "alone" for one in stream),
    }
    bad = [(at, one) for at, one in positions(stream) if one.stage is not None]
    assert letters(kafka, topics) == {at: (one.stage, as_sent(one)) for at, one in bad}


def assert_the_same_belief(rows: Sequence[Snapshot], clean: Sequence[Snapshot]) -> None:
    ours, theirs = ([row for row in chain if row.kind == "learned"] for chain in (rows, clean))
    assert len(ours) == MAILS // WINDOW
    assert [row.posterior for row in ours] == [row.posterior for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        exact = row.report.keys() - {"arrivals", MOVED, *ROUNDED}  # those that moved it are named by place
        assert {name: row.report[name] for name in exact} == {name: other.report[name] for name in exact}
        if row.report["foretold"]:
            assert scores(row) == pytest.approx(scores(other), rel=1e-4)


def scores(row: Snapshot) -> list[float]:
    return [row.report[name] for name in ROUNDED]


def gained(rows: Sequence[Snapshot], clean: Sequence[Snapshot]) -> dict[str, int]:
    """Return by how much more each account holds in the end; nothing else may differ."""
    more = {name: count - clean[-1].counts[name] for name, count in rows[-1].counts.items()}
    more["waiting"] = more.pop("pending") + more.pop("expired")
    return {name: count for name, count in more.items() if count}


def letters(kafka: KafkaClient, topics: Topics) -> dict[Position, tuple[str, Any]]:
    """Return stage and original content of every dead letter, each of which gives a reason."""
    found: dict[Position, tuple[str, Any]] = {}
    for raw in whole_topic(kafka, topics.dead_letters):
        letter = read_letter(raw)
        assert letter is not None
        assert letter.reason
        assert letter.position not in found
        record = original(raw)
        found[letter.position] = (letter.stage, (record.key, record.value, record.headers))
    return found


def as_sent(one: Sent) -> tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
    return one.out.key, one.out.value, one.out.headers
