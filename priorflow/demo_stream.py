"""The demo's history on Kafka: mails on three partitions, their labels on two, by other keys.

What each partition holds is a function of the mails and a seed, so an interrupted start is gone on with
by counting: the next record of a partition is the one after its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

from connectors.codec import event_record, label_record
from connectors.kafka_client import KEPT, KafkaClient, TopicWish, ensure_topics
from connectors.kafka_sink import KafkaSink
from connectors.kafka_topics import topic_facts
from connectors.mails import Mail, label_delays
from priorflow.console import Console
from priorflow.sections_kafka import TopicSettings
from stream.record import Event, Label

EVENT_PARTITIONS = 3
LABEL_PARTITIONS = 2
READERS = 7  # people who route mails by hand; their names are the labels' keys
CHUNK = 500
SOURCE = "priorflow/demo"

Outgoing = tuple[bytes, bytes, list[tuple[str, bytes]], int]  # key, value, headers, time


def histories(
    mails: Sequence[Mail], topics: TopicSettings, *, seed: int
) -> Mapping[tuple[str, int], list[Outgoing]]:
    """Return what every partition holds, in order."""
    out: dict[tuple[str, int], list[Outgoing]] = {}
    for topic, count in ((topics.events, EVENT_PARTITIONS), (topics.labels, LABEL_PARTITIONS)):
        out |= {(topic, p): [] for p in range(count)}
    for mail in mails:
        event = Event(event_id=mail.id, text=mail.text, time_ms=mail.time_ms)
        value, headers = event_record(event, source=SOURCE)
        partition = zlib.crc32(mail.id.encode()) % EVENT_PARTITIONS
        out[topics.events, partition].append((mail.id.encode(), value, headers, mail.time_ms))
    for reader, label in sorted(_told(mails, seed), key=lambda pair: (pair[1].time_ms, pair[1].event_id)):
        value, headers = label_record(label, source=SOURCE)
        lane = out[topics.labels, reader % LABEL_PARTITIONS]
        lane.append((f"reader-{reader}".encode(), value, headers, label.time_ms))
    return out


def _told(mails: Sequence[Mail], seed: int) -> Iterator[tuple[int, Label]]:
    delays = label_delays(len(mails), seed=seed)
    for i, (mail, delay) in enumerate(zip(mails, delays, strict=True)):
        if delay is not None:
            yield (
                (i * 5 + seed) % READERS,
                Label(event_id=mail.id, label=mail.label, time_ms=mail.time_ms + delay),
            )


def produce(
    client: KafkaClient, mails: Sequence[Mail], topics: TopicSettings, *, seed: int, console: Console
) -> int:
    """Write what is not there yet; return how many records that were."""
    wanted = histories(mails, topics, seed=seed)
    wishes = [
        TopicWish(name=topics.events, partitions=EVENT_PARTITIONS, configs=KEPT),
        TopicWish(name=topics.labels, partitions=LABEL_PARTITIONS, configs=KEPT),
    ]
    ensure_topics(client, wishes)
    facts = topic_facts(client, [topics.events, topics.labels])
    missing = {
        (topic, partition): records[facts[topic].next[partition] :]
        for (topic, partition), records in wanted.items()
    }
    total = sum(map(len, missing.values()))
    if total == 0:
        return 0
    sink = KafkaSink(client, dead_letters=topics.dead_letters, late=topics.late)
    try:
        with console.progress("producing mails and labels", total=total) as bar:
            for (topic, partition), records in missing.items():
                for start in range(0, len(records), CHUNK):
                    for key, value, headers, time_ms in records[start : start + CHUNK]:
                        sink.send(
                            topic, value, key=key, headers=headers, partition=partition, timestamp_ms=time_ms
                        )
                    sink.flush()
                    bar.advance(len(records[start : start + CHUNK]))
    finally:
        sink.close()
    return total
