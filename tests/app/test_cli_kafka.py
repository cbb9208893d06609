"""Commands against a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import open_blobs
from connectors.kafka_broker import Running
from connectors.kafka_client import KafkaClient
from connectors.kafka_settings import MAX_RECORD_BYTES
from connectors.kafka_sink import KafkaSink
from connectors.kafka_topics import topic_facts
from connectors.ledger import open_ledger
from connectors.mails import COUNT
from posterior.snapshot import Chain, Snapshot, Span
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.doctor_kafka import cluster
from priorflow.exit_codes import ExitCode
from priorflow.findings import Finding, examine, worst
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal, Stage
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, root
from tests.kafka_fixtures import USER, Certificates

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
    narrow = new_topic("dead", max_message_bytes="1000", cleanup_policy="compact")
    late = new_topic("late", max_message_bytes=str(64 << 20))  # which is no input
    settings = settings_for(
        kafka, events=new_topic("events"), labels=new_topic("labels"), dead_letters=narrow, late=late
    )
    assert f"takes 1000 bytes, the inputs up to {MAX_RECORD_BYTES}" in examined(settings)[narrow].found


def test_a_late_topic_that_erasing_does_not_reach_is_named(kafka: KafkaClient, new_topic: NewTopic) -> None:
    late = new_topic("late")
    settings = settings_for(kafka, events=new_topic("events"), labels=new_topic("labels"), late=late)
    assert examined(settings)[late].remedy == "run `priorflow dlq compact --late`"


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


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_settings_let_us_in_by_tls_and_scram(
    kafka_broker_running: Running, certificates: Certificates, tmp_path: Path, mechanism: str
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{USER.password}\n", encoding="utf-8")
    wanted = {
        "kafka.bootstrap": kafka_broker_running.secure_bootstrap,
        "kafka.security_protocol": "SASL_SSL",
        "kafka.sasl_mechanism": mechanism,
        "kafka.sasl_username": USER.name,
        "kafka.sasl_password_file": str(secret),
        "kafka.ssl_cafile": str(certificates.authority),
    }
    assert worst(examine(load(overrides=wanted), cluster, "kafka")) is ExitCode.OK
    secret.unlink()
    assert "No such file" in examine(load(overrides=wanted), cluster, "kafka")[-1].found


def bad(topic: str, offset: int, value: bytes, *, stage: Stage = "json") -> Setaside:
    position = Position(topic, 0, offset)
    raw = RawRecord(position, 1_000, b"key", value, (("trace", b"7"),))
    return Setaside(raw, Refusal(stage, f"reason {offset}"))


def test_dead_letters_are_listed_shown_and_sent_again_once(
    kafka: KafkaClient, new_topic: NewTopic, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    events, dead, late = new_topic("events"), new_topic("dead"), new_topic("late")
    with closing(KafkaSink(kafka, dead_letters=dead, late=late)) as sink:
        letters = [bad(events, 3, b"\xff\x00"), bad(events, 4, b"[]", stage="schema")]
        sink.set_aside([*letters, letters[0]])  # once more, as after a crash
    where = [
        "--set",
        f"kafka.bootstrap={kafka.bootstrap}",
        "--set",
        f"kafka.topics.dead_letters={dead}",
    ]

    def told(*arguments: str, status: int = 0) -> Said:
        assert call(["dlq", *arguments, *where]) == status
        out = capsysbinary.readouterr().out
        lines = [json.loads(line) for line in out.splitlines()]
        return [line for line in lines if line["event"] != "progress"]

    rows = told("ls")
    assert [(r["position"], r["stage"], r["reason"], r["bytes"]) for r in rows] == [
        (f"{events}[0]@4", "schema", "reason 4", 2),
        (f"{events}[0]@3", "json", "reason 3", 2),
    ]
    assert [r["stage"] for r in told("ls", "--stage", "schema")] == ["schema"]
    assert [r["stage"] for r in told("ls", "--last", "1")] == ["json"]
    (shown,) = told("show", f"{events}[0]@3")
    assert (shown["value"], shown["key"], shown["headers"]) == ("\\xff\x00", "key", {"trace": "7"})
    assert call(["dlq", "show", f"{events}[0]@3", "--raw", *where]) == 0
    assert capsysbinary.readouterr().out == b"\xff\x00"
    assert told("show", f"{events}[0]@9", status=ExitCode.USAGE) == []
    assert told("show", "nonsense", status=ExitCode.USAGE) == []
    assert call(["dlq", "requeue", *where]) == ExitCode.USAGE
    capsysbinary.readouterr()
    assert told("requeue", f"{events}[0]@3")[-1]["requeued"] == [f"{events}[0]@3"]
    assert told("requeue", "--all")[-1] | {"text": ""} == {
        "event": "requeued",
        "requeued": [f"{events}[0]@4"],
        "before": 1,
        "text": "",
    }
    assert [r["requeued"] for r in told("ls")] == [True, True]
    assert topic_facts(kafka, [events])[events].next == {0: 2}


def test_no_dead_letter_topic_holds_no_letters(
    kafka: KafkaClient, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--set", f"kafka.bootstrap={kafka.bootstrap}", "--set", "kafka.topics.dead_letters=none-such"]
    assert call(["dlq", "ls", *where]) == 0
    assert [line for line in said(capsys) if line["event"] == "letter"] == []


def test_assets_are_fetched_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["assets", "fetch"]) == 0
    told = said(capsys)[-1]
    assert Path(told["jars"]).parent == home / "assets"
    assert len(Path(told["mails"]).read_text(encoding="utf-8").splitlines()) == COUNT


def test_facts_of_a_topic(kafka: KafkaClient, new_topic: NewTopic) -> None:
    name = new_topic("facts", 2, retention_bytes="5000000")
    facts = topic_facts(kafka, [name, "no-such-topic"])
    assert list(facts) == [name]
    assert (facts[name].first, facts[name].next) == ({0: 0, 1: 0}, {0: 0, 1: 0})
    assert (facts[name].retention_ms, facts[name].retention_bytes) == (None, 5_000_000)
    assert not facts[name].compacted
