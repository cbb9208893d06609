from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition, codec

from connectors import kafka_broker
from connectors.kafka_broker import Running
from connectors.kafka_client import ClusterRefused, KafkaClient, NoSuchTopic, TopicWish, ensure_topics
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from stream.record import Position, RawRecord
from stream.source import Partition, SourceLost, SourceUnavailable
from tests.connectors.frost import freeze, thaw
from tests.kafka_fixtures import USER, Certificates

NewTopic = Callable[..., str]


@pytest.fixture
def producer(kafka: KafkaClient) -> Iterator[Any]:
    made = KafkaProducer(**kafka.settings(), max_request_size=9 << 20)
    yield made
    made.close()


@pytest.fixture
def admin(kafka: KafkaClient) -> Iterator[Any]:
    made = KafkaAdminClient(**kafka.settings())
    yield made
    made.close()


@pytest.fixture
def opened(kafka: KafkaClient) -> Iterator[Callable[..., KafkaSource]]:
    sources: list[KafkaSource] = []

    def build(*topics: str, **rules: Any) -> KafkaSource:
        sources.append(KafkaSource(kafka, KafkaSourceRules(topics=topics, **rules)))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


def send(producer: Any, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    futures = [producer.send(topic, value, key=b"k", partition=partition) for value in values]
    producer.flush(30)
    for future in futures:
        future.get(1)


def drain(source: KafkaSource, *, max_records: int = 500) -> list[RawRecord]:
    """Read until every partition is at its end."""
    records: list[RawRecord] = []
    while True:
        records += source.poll(timeout_ms=50, max_records=max_records)
        if all(source.at_end(partition) for partition in source.partitions()):
            return records


def offsets(records: Sequence[RawRecord]) -> dict[Partition, list[int]]:
    found: dict[Partition, list[int]] = {}
    for record in records:
        at = record.position
        found.setdefault((at.topic, at.partition), []).append(at.offset)
    return found


def test_a_record_arrives_as_it_was_sent(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic()
    headers = [("trace", b"\xff\x00"), ("trace", b"again"), ("empty", b"")]
    producer.send(topic, b"\x00not utf-8 \xff", key=b"\x01", headers=headers, timestamp_ms=997_000_000_000)
    producer.flush(30)
    source = opened(topic)
    source.seek({})
    (record,) = drain(source)
    assert record == RawRecord(
        Position(topic, 0, 0), 997_000_000_000, b"\x01", b"\x00not utf-8 \xff", tuple(headers)
    )


def test_all_partitions_of_all_topics_in_offset_order(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    events, labels = new_topic("events", partitions=3), new_topic("labels", partitions=2)
    for topic, count in ((events, 3), (labels, 2)):
        for partition in range(count):
            send(producer, topic, [b"%d" % n for n in range(50 + partition)], partition)
    source = opened(events, labels)
    assert source.partitions() == sorted([(events, 0), (events, 1), (events, 2), (labels, 0), (labels, 1)])
    source.seek({})
    assert offsets(drain(source, max_records=7)) == {
        (topic, number): list(range(50 + number)) for topic, number in source.partitions()
    }


def test_seek_goes_on_where_it_is_told_and_may_go_back(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic(partitions=2)
    for partition in range(2):
        send(producer, topic, [b"x"] * 10, partition)
    source = opened(topic)
    source.seek({(topic, 0): 7, (topic, 1): 10})
    assert offsets(drain(source)) == {(topic, 0): [7, 8, 9]}
    source.seek({(topic, 1): 9})
    assert offsets(drain(source)) == {(topic, 0): list(range(10)), (topic, 1): [9]}


def test_at_end_goes_by_what_is_readable_not_by_offsets(
    kafka: KafkaClient, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic()
    writer = KafkaProducer(**kafka.settings(), transactional_id=topic)
    writer.init_transactions()
    for value, commit in ((b"first", True), (b"taken back", False), (b"second", True)):
        writer.begin_transaction()
        writer.send(topic, value).get(10)
        writer.commit_transaction() if commit else writer.abort_transaction()
    writer.begin_transaction()
    writer.send(topic, b"not yet").get(10)
    source = opened(topic)
    source.seek({})
    assert [r.value for r in drain(source)] == [b"first", b"second"]
    assert source.ends()[topic, 0] == 6  # three records and three markers; the open one is not readable
    writer.commit_transaction()
    assert not source.at_end((topic, 0)) or source.poll(timeout_ms=5000, max_records=9)
    writer.close()


def test_at_end_takes_notice_of_records_that_come_later(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic()
    source = opened(topic)
    source.seek({})
    assert drain(source) == []
    send(producer, topic, [b"1"])
    (record,) = source.poll(timeout_ms=10_000, max_records=10)
    send(producer, topic, [b"2"])
    assert record.value == b"1"
    assert not source.at_end((topic, 0))
    assert [r.value for r in drain(source)] == [b"2"]


def test_a_new_partition_is_read_from_its_beginning(
    kafka: KafkaClient, producer: Any, admin: Any, new_topic: NewTopic
) -> None:
    topic, now = new_topic(), 0.0
    source = KafkaSource(kafka, KafkaSourceRules(topics=(topic,), discover_ms=1000), now_ms=lambda: now)
    send(producer, topic, [b"old"])
    source.seek({})
    assert [r.value for r in drain(source)] == [b"old"]
    admin.create_partitions({topic: 2})
    admin.wait_for_topics([topic])
    fresh = KafkaProducer(**kafka.settings())
    send(fresh, topic, [b"new"], partition=1)
    fresh.close()
    assert drain(source) == []
    now = 2000.0
    assert [(r.position.partition, r.value) for r in patiently(source)] == [(1, b"new")]
    assert source.partitions() == [(topic, 0), (topic, 1)]
    source.close()


class TestLoss:
    def test_before_the_beginning(
        self, producer: Any, admin: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
    ) -> None:
        topic = new_topic()
        send(producer, topic, [b"x"] * 10)
        admin.delete_records({TopicPartition(topic, 0): 6})
        source = opened(topic)
        with pytest.raises(SourceLost, match=rf"{topic}\[0\]: offset 5 .* begins at 6"):
            source.seek({(topic, 0): 5})
        with pytest.raises(SourceLost):  # and goes on saying so
            source.poll(timeout_ms=10, max_records=10)
        source.seek({})  # a partition that is not named starts at what is held
        assert offsets(drain(source)) == {(topic, 0): [6, 7, 8, 9]}

    def test_behind_the_end(
        self, producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
    ) -> None:
        topic = new_topic()
        send(producer, topic, [b"x"])
        source = opened(topic)
        source.seek({(topic, 0): 1})
        with pytest.raises(SourceLost, match="ends at 1"):
            source.seek({(topic, 0): 2})

    def test_a_partition_that_is_gone(self, new_topic: NewTopic, opened: Callable[..., KafkaSource]) -> None:
        topic = new_topic()
        with pytest.raises(SourceLost, match=rf"{topic}\[4\].* is gone"):
            opened(topic).seek({(topic, 4): 0})

    def test_while_reading(
        self, producer: Any, admin: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
    ) -> None:
        topic = new_topic()
        send(producer, topic, [b"x"] * 10)
        source = opened(topic)
        source.seek({(topic, 0): 10})
        drain(source)
        send(producer, topic, [b"y"] * 10)
        admin.delete_records({TopicPartition(topic, 0): 15})
        source.seek({(topic, 0): 15})
        admin.delete_records({TopicPartition(topic, 0): 18})
        with pytest.raises(SourceLost, match=f"{topic}.*15"):
            drain(source)
        with pytest.raises(SourceLost):
            source.poll(timeout_ms=10, max_records=10)


class BadName(str):
    """A header name as clients write it that do not care for UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def test_a_header_name_that_cannot_be_read_stops_with_its_place(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic()
    send(producer, topic, [b"1", b"2"])
    producer.send(topic, b"3", headers=[(BadName("x"), b"")]).get(10)
    source = opened(topic)
    source.seek({})
    with pytest.raises(SourceLost, match=rf"at or behind {topic}\[0\]@2 a record is damaged"):
        drain(source)
    with pytest.raises(SourceLost):  # rather than spin for ever
        source.poll(timeout_ms=10, max_records=10)


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
def test_compressed_records_are_read_or_refused_with_a_remedy(
    producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource], compression: str
) -> None:
    topic = new_topic(compression_type=compression)  # the broker compresses what it is sent
    send(producer, topic, [b"x" * 1000])
    source = opened(topic)
    source.seek({})
    if getattr(codec, f"has_{compression}")():
        assert [r.value for r in drain(source)] == [b"x" * 1000]
        return
    for _ in range(3):
        with pytest.raises(ClusterRefused, match="pip install"):
            drain(source)


def test_a_topic_deleted_meanwhile_is_lost(kafka: KafkaClient, admin: Any, new_topic: NewTopic) -> None:
    topic = new_topic()
    source = KafkaSource(replace(kafka, patience_ms=4000), KafkaSourceRules(topics=(topic,)))
    source.seek({})
    assert drain(source) == []
    admin.delete_topics([topic])
    with pytest.raises(NoSuchTopic, match=topic):
        patiently(source)
    source.close()


def test_positions_are_shown_as_a_group_without_members(
    admin: Any, producer: Any, new_topic: NewTopic, opened: Callable[..., KafkaSource]
) -> None:
    topic = new_topic(partitions=2)
    send(producer, topic, [b"x"] * 5)
    source = opened(topic, group=f"{topic}-progress")
    source.seek({})
    drain(source)
    for reached in (3, 5, 5):  # repeating it changes nothing
        source.acknowledge({(topic, 0): reached, (topic, 1): 0})
    shown = admin.list_group_offsets([f"{topic}-progress"])[f"{topic}-progress"]
    assert {tp.partition: told.offset for tp, told in shown.items()} == {0: 5, 1: 0}


def test_a_missing_topic_is_named(opened: Callable[..., KafkaSource]) -> None:
    with pytest.raises(ClusterRefused, match="no topic 'nowhere'"):
        opened("nowhere")


def test_nobody_there_leaves_nothing_behind() -> None:
    nobody, before = KafkaClient(bootstrap="127.0.0.1:9", patience_ms=300), threading.active_count()
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:9.*ECONNREFUSED"):
            KafkaSource(nobody, KafkaSourceRules(topics=("x",)))
    assert threading.active_count() == before


class TestSecurity:
    @pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_tls_and_scram(
        self, kafka_broker_running: Running, certificates: Certificates, new_topic: NewTopic, mechanism: str
    ) -> None:
        topic = new_topic()
        client = self.client(kafka_broker_running, certificates, sasl_mechanism=mechanism, patience_ms=9000)
        writer = KafkaProducer(**client.settings())
        send(writer, topic, [b"secret"])
        writer.close()
        source = KafkaSource(client, KafkaSourceRules(topics=(topic,), group=f"{topic}-group"))
        source.seek({})
        assert [r.value for r in drain(source)] == [b"secret"]
        source.acknowledge({(topic, 0): 1})
        source.close()

    def test_a_wrong_password_is_refused(
        self, kafka_broker_running: Running, certificates: Certificates
    ) -> None:
        client = self.client(kafka_broker_running, certificates, sasl_password="guess", patience_ms=4000)
        with pytest.raises(ClusterRefused, match=r"kafka\.sasl"):
            KafkaSource(client, KafkaSourceRules(topics=("x",)))

    def test_a_broker_that_cannot_prove_itself_is_not_believed(
        self, kafka_broker_running: Running, certificates: Certificates
    ) -> None:
        client = self.client(kafka_broker_running, certificates, ssl_cafile=None)
        with pytest.raises(SourceUnavailable, match=r"certificate"):
            KafkaSource(client, KafkaSourceRules(topics=("x",)))

    def test_the_password_is_not_shown(
        self, kafka_broker_running: Running, certificates: Certificates
    ) -> None:
        assert USER.password not in repr(self.client(kafka_broker_running, certificates))

    def client(self, running: Running, certificates: Certificates, **changed: Any) -> KafkaClient:
        told: Mapping[str, Any] = {
            "bootstrap": running.secure_bootstrap,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER.name,
            "sasl_password": USER.password,
            "ssl_cafile": certificates.authority,
            "patience_ms": 2500,
        }
        return KafkaClient(**{**told, **changed})


@pytest.mark.timeout(300)
def test_an_outage_is_told_and_survived(tmp_path: Path, kafka_jars: Path) -> None:
    folder, now = tmp_path / "broker", 0.0
    running = kafka_broker.start(folder, kafka_jars, environ=os.environ, heap_mb=256)
    try:
        client = KafkaClient(bootstrap=running.bootstrap, patience_ms=2000)
        ensure_topics(client, [TopicWish(name="t")])
        writer = KafkaProducer(**client.settings())
        send(writer, "t", [b"%d" % n for n in range(10)])
        source = KafkaSource(client, KafkaSourceRules(topics=("t",), group="g"), now_ms=lambda: now)
        source.seek({})
        read = list(source.poll(timeout_ms=10_000, max_records=3))

        freeze(running.pid)
        now += 10_000
        with pytest.raises(SourceUnavailable, match=running.bootstrap):
            source.poll(timeout_ms=100, max_records=3)  # though kafka-python still has records in hand
        thaw(running.pid)
        read += patiently(source)
        assert [r.value for r in read] == [b"%d" % n for n in range(10)]  # none of them passed over

        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(SourceUnavailable, match=running.bootstrap):
            source.poll(timeout_ms=100, max_records=10)
        with pytest.raises(SourceUnavailable):
            source.at_end(("t", 0))
        source.acknowledge({("t", 0): 1})  # lost, as it may be
        again = kafka_broker.start(folder, kafka_jars, environ=os.environ, heap_mb=256)
        assert (again.bootstrap, again.adopted) == (running.bootstrap, False)
        send(writer, "t", [b"after"])
        assert [r.value for r in patiently(source)] == [b"after"]
        source.acknowledge({("t", 0): 11})
        source.close()
        writer.close()
    finally:
        kafka_broker.stop(folder)


def patiently(source: KafkaSource, attempts: int = 20) -> list[RawRecord]:
    """Wait for records, through an outage if there is one, and read to the end."""
    for _ in range(attempts):
        try:
            records = list(source.poll(timeout_ms=50, max_records=500))
            if records:
                return records + drain(source)
        except SourceUnavailable:
            continue
    msg = f"nothing came in {attempts} attempts"
    raise AssertionError(msg)
