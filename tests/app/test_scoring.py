"""`priorflow score` on a real Kafka: each event answered once, by a version that is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from connectors.blobs import open_blobs
from connectors.codec import event_record
from connectors.kafka_client import KafkaClient, TopicWish, ensure_topics
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.ledger import open_ledger
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.run import execute
from priorflow.scoring import score
from stream.prediction_id import event_of
from stream.record import Event, RawRecord
from tests.app.histories import history
from tests.app.streams import EVENTS, archived, small_settings, small_stream

pytestmark = pytest.mark.slow
TEXTS = {"m1": "win cheap cash offer now", "m2": "kernel module will not boot", "m3": "what is this"}
ANSWERS, DEAD = "answers.of.scoring", "dead.of.scoring"


@pytest.fixture
def settings(tmp_path: Path, kafka: KafkaClient) -> Settings:
    """Return the settings of a chain whose last snapshot is champion."""
    topics = {"kafka.topics.answers": ANSWERS, "kafka.topics.dead_letters": DEAD}
    made = small_settings(
        tmp_path / "home",
        archived(small_stream(), tmp_path / "stream"),
        **{"gate.enabled": False, "kafka.bootstrap": kafka.bootstrap, **topics},
    )
    execute(made, until_end=True, console=Silent())
    ledger = open_ledger(made.ledger_url, open_blobs(made.blobs_url))
    sha = history(made)[-1].sha
    ledger.decide("main", at_ms=1, actor="test", action="promote", snapshot=sha, evidence={})
    ledger.close()
    ensure_topics(kafka, [TopicWish(name=EVENTS, partitions=3)])
    return made


def produce(kafka: KafkaClient, texts: dict[str, str]) -> None:
    sink = KafkaSink(kafka)
    for name, text in texts.items():
        value, headers = event_record(Event(event_id=name, text=text, time_ms=10**12), source="test")
        sink.send(EVENTS, value, key=name.encode(), headers=headers)
    sink.flush()
    sink.close()


def read(kafka: KafkaClient, topic: str) -> list[RawRecord]:
    source = KafkaSource(kafka, KafkaSourceRules(topics=(topic,)))
    source.seek({})
    found: list[RawRecord] = []
    while not all(source.at_end(p) for p in source.partitions()):
        found += source.poll(timeout_ms=50, max_records=500)
    source.close()
    return found


def test_every_event_is_answered_once_and_what_cannot_be_read_is_set_aside(
    settings: Settings, kafka: KafkaClient
) -> None:
    produce(kafka, TEXTS)
    sink = KafkaSink(kafka)
    sink.send(
        EVENTS, b"not json", key=b"bad", headers=[("ce_id", b"bad"), ("ce_time", b"2001-09-09T01:46:40Z")]
    )
    sink.flush()
    sink.close()
    assert score(settings, Silent(), until_end=True) == 3
    produce(kafka, {"m4": "cash"})
    assert score(settings, Silent(), until_end=True) == 1

    answers = read(kafka, ANSWERS)
    assert Counter(raw.key for raw in answers) == Counter([b"m1", b"m2", b"m3", b"m4"])
    head = history(settings)[-1].sha
    for raw in answers:
        said = json.loads(raw.value or b"")
        headers = dict(raw.headers)
        assert said["snapshot"] == head
        assert headers["ce_id"].decode() == said["prediction_id"]
        assert headers["ce_type"] == b"priorflow.answer"
        assert event_of(said["prediction_id"]) == (raw.key or b"").decode()
        assert sum(said["probabilities"].values()) + said["novelty"] == pytest.approx(1)
    (letter,) = read(kafka, DEAD)
    assert letter.value == b"not json"
    assert dict(letter.headers)["priorflow.stage"] == b"json"
