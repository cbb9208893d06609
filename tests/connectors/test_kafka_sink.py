"""Records out and set-aside records, against a real broker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from connectors import kafka_broker
from connectors.dead_letters import NoSuchLetter, list_letters, requeue_letters, show_letter
from connectors.kafka_client import ClusterRefused, KafkaClient, NoSuchTopic, TopicWish, ensure_topics
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.kafka_topics import topic_facts
from stream.intake import PASSED_LATENESS
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal
from stream.source import SourceUnavailable
from tests.connectors.frost import freeze, thaw

NewTopic = Callable[..., str]
BAD = Refusal("json", "not JSON: expecting value")


@pytest.fixture
def sink(kafka: KafkaClient, new_topic: NewTopic) -> Iterator[KafkaSink]:
    made = KafkaSink(kafka, dead_letters=new_topic("dead"), late=new_topic("late"))
    yield made
    made.close()


def read(client: KafkaClient, topic: str) -> list[RawRecord]:
    source = KafkaSource(client, KafkaSourceRules(topics=(topic,)))
    source.seek({})
    records: list[RawRecord] = []
    while not all(source.at_end(p) for p in source.partitions()):
        records += source.poll(timeout_ms=50, max_records=100)
    source.close()
    return records


def awkward(topic: str) -> list[RawRecord]:
    """Records that a lesser writer would lose, mend or choke on."""
    return [
        RawRecord(
            Position(topic, 2, 7), 997_000_000_000, b"\xff", b"\x00\xff{", (("a", b""), ("a", b"\xff"))
        ),
        RawRecord(Position(topic, 0, 1), 0, None, b""),
        RawRecord(Position(topic, 0, 2), 4_102_444_800_000, b"k", None),
        RawRecord(Position(topic, 0, 3), 1, None, None),
        RawRecord(Position(topic, 0, 4), 1, b"k", b"x" * (6 << 20)),
    ]


def test_what_is_sent_is_read(kafka: KafkaClient, new_topic: NewTopic, sink: KafkaSink) -> None:
    topic = new_topic(partitions=2)
    for number in range(10):
        sink.send(topic, b"%d" % number, key=b"k", headers=[("h", b"1")], partition=1, timestamp_ms=number)
    sink.flush()
    wanted = [RawRecord(Position(topic, 1, n), n, b"k", b"%d" % n, (("h", b"1"),)) for n in range(10)]
    assert read(kafka, topic) == wanted


def test_dead_letters_keep_what_they_were(kafka: KafkaClient, new_topic: NewTopic) -> None:
    dead, late = new_topic("dead", max_message_bytes=str(64 << 20)), new_topic("late")
    sink = KafkaSink(kafka, dead_letters=dead, late=late)
    records = awkward("gone")
    sink.set_aside([Setaside(raw, BAD) for raw in records])
    sink.set_aside([Setaside(raw, BAD) for raw in records[:2]])  # as after a crash before the commit
    sink.close()
    letters = list_letters(kafka, dead)
    assert [(f.position, f.stage, f.reason) for f in letters] == [
        (raw.position, "json", BAD.reason) for raw in (*records[2:], *records[:2])
    ]
    assert [show_letter(kafka, dead, raw.position)[1] for raw in records] == records
    assert list_letters(kafka, late) == []


def test_late_records_go_to_their_own_topic(kafka: KafkaClient, new_topic: NewTopic) -> None:
    dead, late = new_topic("dead"), new_topic("late")
    sink = KafkaSink(kafka, dead_letters=dead, late=late)
    sink.set_aside([Setaside(RawRecord(Position("t", 0, 1), 1, b"k", b"v"), None)])
    sink.close()
    (found,) = list_letters(kafka, late)
    assert (found.stage, found.position) == ("late", Position("t", 0, 1))
    assert list_letters(kafka, dead) == []


def test_the_topics_are_made_to_keep_large_records_for_ever(kafka: KafkaClient, new_topic: NewTopic) -> None:
    stem = new_topic()
    names = [f"{stem}.dead", f"{stem}.late"]
    KafkaSink(kafka, dead_letters=names[0], late=names[1]).close()
    facts = topic_facts(kafka, names)
    assert [(f.retention_ms, f.max_record_bytes) for f in facts.values()] == [(None, 64 << 20)] * 2
    assert [(f.compacted, f.roll_ms) for f in facts.values()] == [(True, 60_000)] * 2


def test_requeue_sends_once_and_excuses_from_lateness(kafka: KafkaClient, new_topic: NewTopic) -> None:
    topic, dead, late = new_topic("events", partitions=3), new_topic("dead"), new_topic("late")
    sink = KafkaSink(kafka, dead_letters=dead, late=late)
    good, other = (
        RawRecord(Position(topic, 2, n), 1000 + n, b"k", b"v%d" % n, (("h", b"1"),)) for n in (7, 8)
    )
    sink.set_aside([Setaside(good, None), Setaside(other, None), Setaside(good, None)])
    sink.close()
    assert requeue_letters(kafka, late, [good.position]) == [good.position]
    assert requeue_letters(kafka, late, [good.position]) == []
    (again,) = read(kafka, topic)
    assert (again.position.partition, again.timestamp_ms, again.value) == (2, 1007, b"v7")
    assert again.headers == (("h", b"1"), (PASSED_LATENESS, str(good.position).encode()))
    assert [(f.position, f.requeued) for f in list_letters(kafka, late)] == [
        (other.position, False),
        (good.position, True),
    ]


def test_requeue_of_an_unknown_letter_sends_nothing(kafka: KafkaClient, new_topic: NewTopic) -> None:
    topic, dead = new_topic("events"), new_topic("dead")
    sink = KafkaSink(kafka, dead_letters=dead, late=new_topic("late"))
    known = RawRecord(Position(topic, 0, 1), 1, b"k", b"v")
    sink.set_aside([Setaside(known, BAD)])
    sink.close()
    with pytest.raises(NoSuchLetter, match=rf"{topic}\[0\]@5"):
        requeue_letters(kafka, dead, [known.position, Position(topic, 0, 5)])
    assert read(kafka, topic) == []
    with pytest.raises(NoSuchLetter):
        show_letter(kafka, dead, Position(topic, 0, 5))


def test_a_topic_that_nobody_made_holds_no_letters(kafka: KafkaClient) -> None:
    assert list_letters(kafka, "nobody-made-this") == []


def test_a_record_too_large_for_its_topic_is_refused_with_a_remedy(
    kafka: KafkaClient, new_topic: NewTopic, sink: KafkaSink
) -> None:
    narrow = new_topic(max_message_bytes="1000")
    sink.send(narrow, b"x" * 2000)
    with pytest.raises(ClusterRefused, match=r"max\.message\.bytes"):
        sink.flush()
    sink.send(narrow, b"small")  # and the sink still works
    sink.flush()
    assert [raw.value for raw in read(kafka, narrow)] == [b"small"]


def test_a_topic_that_is_missing_is_named(sink: KafkaSink) -> None:
    with pytest.raises(NoSuchTopic, match="nobody-made-this"):
        sink.send("nobody-made-this", b"x")


@pytest.mark.timeout(300)
def test_an_outage_is_told_and_nothing_is_lost(tmp_path: Path, kafka_jars: Path) -> None:
    folder = tmp_path / "broker"
    running = kafka_broker.start(folder, kafka_jars, environ=os.environ, heap_mb=256)
    try:
        client = KafkaClient(bootstrap=running.bootstrap, patience_ms=2000)
        ensure_topics(client, [TopicWish(name="t")])
        sink = KafkaSink(client, flush_s=2.5)
        sink.send("t", b"before")
        sink.flush()
        freeze(running.pid)
        sink.send("t", b"meanwhile")
        with pytest.raises(SourceUnavailable, match=running.bootstrap):
            sink.flush()
        with pytest.raises(SourceUnavailable):
            sink.send("t", b"meanwhile")
        thaw(running.pid)
        sink.send("t", b"meanwhile")
        sink.flush()
        sink.close()
        values = [raw.value for raw in read(client, "t")]
        assert values[0] == b"before"
        assert set(values[1:]) == {b"meanwhile"}  # at least once
    finally:
        kafka_broker.stop(folder)


def test_other_clients_see_plain_headers(kafka: KafkaClient, new_topic: NewTopic) -> None:
    dead = new_topic("dead")
    sink = KafkaSink(kafka, dead_letters=dead, late=new_topic("late"))
    sink.set_aside([Setaside(RawRecord(Position("events", 1, 42), 1, b"k", b"v", (("mine", b"1"),)), BAD)])
    sink.close()
    consumer: Any = KafkaConsumer(**kafka.settings(), group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(dead, 0)])
    (records,) = consumer.poll(timeout_ms=10_000).values()
    consumer.close()
    assert (records[0].key, records[0].value) == (b"events[1]@42", b"v")
    assert records[0].headers == [
        ("mine", b"1"),
        ("priorflow.topic", b"events"),
        ("priorflow.partition", b"1"),
        ("priorflow.offset", b"42"),
        ("priorflow.stage", b"json"),
        ("priorflow.reason", BAD.reason.encode()),
        ("priorflow.time", b"1"),
        ("priorflow.key", b"k"),
    ]
