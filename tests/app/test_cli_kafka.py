"""Commands against a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import open_blobs
from connectors.kafka_client import KafkaClient
from connectors.kafka_settings import MAX_RECORD_BYTES
from connectors.kafka_topics import topic_facts
from connectors.ledger import open_ledger
from posterior.snapshot import Chain, Snapshot, Span
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.doctor_kafka import cluster
from priorflow.exit_codes import ExitCode
from priorflow.findings import Finding, examine, worst
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, root

Said = list[dict[str, Any]]
NewTopic = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def home(tmp_path: Path, kafka_jars: Path) -> Iterator[Path]:
    """A home folder that has Kafka's jars; whatever broker runs in it is stopped."""
    folder = tmp_path / ".priorflow"
    folder.mkdir()
    (folder / "assets").symlink_to(kafka_jars.parent)
    yield folder
    call(["broker", "stop"])


def test_the_embedded_broker_starts_answers_and_stops(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["broker", "status"]) == 0
    assert said(capsys)[-1]["running"] is False
    assert call(["doctor"]) == ExitCode.UNREACHABLE
    capsys.readouterr()
    assert call(["broker", "start"]) == 0
    started = said(capsys)[-1]
    assert started["folder"] == str(home / "broker")
    assert call(["broker", "start"]) == 0  # adopts the one that runs
    assert said(capsys)[-1]["pid"] == started["pid"]
    assert call(["broker", "status"]) == 0
    assert said(capsys)[-1]["bootstrap"] == started["bootstrap"]
    assert worst(examine(load(), cluster, "kafka")) is ExitCode.OK
    assert call(["broker", "stop"]) == 0
    assert said(capsys)[-1]["text"] == "Kafka has stopped"


def settings_for(kafka: KafkaClient, **topics: str) -> Settings:
    named = {f"kafka.topics.{kind}": name for kind, name in topics.items()}
    return load(overrides={"kafka.bootstrap": kafka.bootstrap, **named})


def examined(settings: Settings) -> dict[str, Finding]:
    return {f.what: f for f in examine(settings, cluster, "kafka") if f.verdict != "ok"}


def test_topics_that_keep_everything_are_well(kafka: KafkaClient, new_topic: NewTopic) -> None:
    settings = settings_for(kafka, events=new_topic("events", 3), labels=new_topic("labels"))
    assert examined(settings) == {}


def test_topics_that_lose_evidence_are_named(kafka: KafkaClient, new_topic: NewTopic) -> None:
    short = new_topic("events", retention_ms="604800000")
    compacted = new_topic("labels", cleanup_policy="compact")
    found = examined(settings_for(kafka, events=short, labels=compacted))
    assert "deleted 7d after the time they carry" in found[short].found
    assert "retention.ms=-1" in found[short].remedy
    assert "compaction" in found[compacted].found
    assert {f.verdict for f in found.values()} == {"warn"}


def test_missing_topics_are_named(kafka: KafkaClient, new_topic: NewTopic) -> None:
    found = examined(settings_for(kafka, events=new_topic("events"), labels="no-such-topic"))
    assert list(found) == ["no-such-topic"]


def test_a_dead_letter_topic_that_is_too_narrow_is_named(kafka: KafkaClient, new_topic: NewTopic) -> None:
    narrow = new_topic("dead", max_message_bytes="1000")
    settings = settings_for(
        kafka, events=new_topic("events"), labels=new_topic("labels"), dead_letters=narrow
    )
    assert f"takes 1000 bytes, the inputs up to {MAX_RECORD_BYTES}" in examined(settings)[narrow].found


def chain_at(settings: Settings, events: str, low: int) -> Snapshot:
    """A chain whose head goes on at this offset of the events topic."""
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    ledger.create(Chain(name="main", seed=1, settings={}))
    counts = {**root(blobs).counts, "consumed": low, "late": low}
    first = replace(root(blobs), spans=(Span(events, 0, low, None, (), low),), counts=counts)
    ledger.commit(ledger.acquire("main", owner=OWNER, ttl_s=1), first, CIRCUMSTANCE)
    ledger.close()
    return first


def test_a_chain_that_is_ahead_of_its_log_has_another_log(kafka: KafkaClient, new_topic: NewTopic) -> None:
    events = new_topic("events")
    settings = settings_for(kafka, events=events, labels=new_topic("labels"))
    chain_at(settings, events, low=5)
    found = examine(settings, cluster, "kafka")
    assert worst(found) is ExitCode.LOST
    assert "the chain is at 5, but the topic ends at 0" in found[-1].found


def test_status_tells_the_lag(
    kafka: KafkaClient, new_topic: NewTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    events = new_topic("events")
    settings = settings_for(kafka, events=events, labels=new_topic("labels"))
    chain_at(settings, events, low=0)
    arguments = ["--set", f"kafka.bootstrap={kafka.bootstrap}", "--set", f"kafka.topics.events={events}"]
    assert call(["status", *arguments]) == 0
    assert said(capsys)[-1]["positions"][0]["lag"] == 0


def test_facts_of_a_topic(kafka: KafkaClient, new_topic: NewTopic) -> None:
    name = new_topic("facts", 2, retention_bytes="5000000")
    facts = topic_facts(kafka, [name, "no-such-topic"])
    assert list(facts) == [name]
    assert (facts[name].first, facts[name].next) == ({0: 0, 1: 0}, {0: 0, 1: 0})
    assert (facts[name].retention_ms, facts[name].retention_bytes) == (None, 5_000_000)
    assert not facts[name].compacted
