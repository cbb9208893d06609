"""What every Source must do: one suite over the log in memory, an archive, and a real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from connectors.archive import ArchiveSource, ArchiveWriter
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.memory import MemoryLog, MemorySource
from stream.record import Position, RawRecord
from stream.source import Partition, Source, SourceLost

Values = Mapping[int, Sequence[bytes]]  # by partition
Opener = Callable[[Values, int], tuple[str, Source]]  # (records, first offset still held in partition 0)


def in_memory(values: Values, first: int) -> tuple[str, Source]:
    log = MemoryLog([("log", partition) for partition in values])
    for partition, lane in values.items():
        for number, value in enumerate(lane):
            log.append(("log", partition), value, key=b"k", headers=[("h", b"1")], timestamp_ms=number)
    log.truncate(("log", 0), first)
    return "log", MemorySource(log, seed=3)


@pytest.fixture(
    params=["memory", "archive-parquet", "archive-jsonl", pytest.param("kafka", marks=pytest.mark.kafka)]
)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    sources: list[Source] = []

    def archived(values: Values, first: int) -> tuple[str, Source]:
        writer = ArchiveWriter(tmp_path, form=request.param.removeprefix("archive-"))
        _, memory = in_memory(values, 0)
        memory.seek({})
        writer.add([raw for raw in drain(memory) if raw.position.partition or raw.position.offset >= first])
        writer.flush()
        return "log", ArchiveSource(tmp_path)

    def on_kafka(values: Values, first: int) -> tuple[str, Source]:
        client = request.getfixturevalue("kafka")
        topic = request.getfixturevalue("new_topic")(partitions=len(values))
        producer: Any = KafkaProducer(**client.settings())
        for partition, lane in values.items():
            for number, value in enumerate(lane):
                producer.send(topic, value, b"k", [("h", b"1")], partition=partition, timestamp_ms=number)
        producer.flush(30)
        producer.close()
        if first:
            admin: Any = KafkaAdminClient(**client.settings())
            admin.delete_records({TopicPartition(topic, 0): first})
            admin.close()
        return topic, KafkaSource(client, KafkaSourceRules(topics=(topic,)))

    def build(values: Values, first: int = 0) -> tuple[str, Source]:
        how = {"memory": in_memory, "kafka": on_kafka}.get(request.param, archived)
        topic, source = how(values, first)
        sources.append(source)
        return topic, source

    yield build
    for source in sources:
        source.close()


def drain(source: Source, *, max_records: int = 7) -> list[RawRecord]:
    records: list[RawRecord] = []
    while not all(source.at_end(partition) for partition in source.partitions()):
        found = source.poll(timeout_ms=50, max_records=max_records)
        assert len(found) <= max_records
        records += found
    return records


def offsets(records: Sequence[RawRecord]) -> dict[Partition, list[int]]:
    found: dict[Partition, list[int]] = {}
    for record in records:
        at = record.position
        found.setdefault((at.topic, at.partition), []).append(at.offset)
    return found


HISTORY: Values = {0: [b"a%d" % n for n in range(20)], 1: [b"b%d" % n for n in range(3)], 2: [b"\xff", b""]}


def test_every_record_once_in_offset_order_as_it_was(opener: Opener) -> None:
    topic, source = opener(HISTORY, 0)
    source.seek({})
    records = drain(source)
    assert offsets(records) == {(topic, p): list(range(len(lane))) for p, lane in HISTORY.items()}
    for raw in records:
        at = raw.position
        wanted = HISTORY[at.partition][at.offset]
        assert raw == RawRecord(
            Position(topic, at.partition, at.offset), at.offset, b"k", wanted, (("h", b"1"),)
        )


def test_partitions_are_sorted_and_ends_lie_behind_the_last_record(opener: Opener) -> None:
    topic, source = opener(HISTORY, 0)
    assert list(source.partitions()) == [(topic, 0), (topic, 1), (topic, 2)]
    assert source.ends() == {(topic, 0): 20, (topic, 1): 3, (topic, 2): 2}


@pytest.mark.parametrize("at", [0, 1, 13, 20])
def test_a_reader_that_stops_anywhere_goes_on_behind_what_it_had(opener: Opener, at: int) -> None:
    topic, source = opener(HISTORY, 0)
    source.seek({(topic, 0): at, (topic, 1): 3})
    assert offsets(drain(source)) == {
        place: numbers
        for place, numbers in {(topic, 0): [*range(at, 20)], (topic, 2): [0, 1]}.items()
        if numbers
    }
    source.seek({(topic, 0): 19, (topic, 1): 3, (topic, 2): 2})  # and may go back
    assert offsets(drain(source)) == {(topic, 0): [19]}


def test_at_the_end_nothing_comes_and_it_is_known(opener: Opener) -> None:
    topic, source = opener(HISTORY, 0)
    source.seek({(topic, 0): 20, (topic, 1): 3, (topic, 2): 1})
    assert source.at_end((topic, 0))
    assert not source.at_end((topic, 2))
    drain(source)
    assert list(source.poll(timeout_ms=10, max_records=5)) == []


def test_what_is_no_longer_held_is_not_passed_over(opener: Opener) -> None:
    topic, source = opener(HISTORY, 6)
    with pytest.raises(SourceLost, match=rf"{topic}\[0\].*5"):
        source.seek({(topic, 0): 5})
    source.seek({(topic, 0): 6, (topic, 1): 0, (topic, 2): 0})
    assert offsets(drain(source))[topic, 0] == list(range(6, 20))


def test_acknowledging_changes_nothing_for_the_reader(opener: Opener) -> None:
    topic, source = opener(HISTORY, 0)
    source.seek({(topic, 0): 4})
    source.acknowledge({(topic, 0): 17, (topic, 1): 2})
    assert offsets(drain(source))[topic, 0] == list(range(4, 20))
