"""A broker of our own and the demo's mails on it, as often as a measurement needs them."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.result import ROOT
from connectors import kafka_broker
from connectors.kafka_client import KEPT, KafkaClient, TopicWish, ensure_topics
from connectors.kafka_jars import fetch_jars
from connectors.kafka_sink import KafkaSink
from connectors.mails import Mail, fetch_mails, load_mails
from priorflow.demo_stream import EVENT_PARTITIONS, LABEL_PARTITIONS, Outgoing, histories
from priorflow.sections_kafka import TopicSettings
from stream.source import Partition

ASSETS: Final = ROOT / ".priorflow" / "assets"
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
EPOCH_MS: Final = 1_000_000_000_000  # September 2001

History = Mapping[Partition, Sequence[Outgoing]]


def fresh_folder(name: str) -> Path:
    """Return an empty folder of this benchmark's, on the disk that the product would use."""
    folder = ROOT / ".priorflow" / f"bench-{name}"
    kafka_broker.stop(folder / "kafka")  # what an interrupted measurement left
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def broker(folder: Path) -> Iterator[KafkaClient]:
    """Run an embedded broker in a folder while the context is open."""
    running = kafka_broker.start(folder / "kafka", fetch_jars(ASSETS), environ=os.environ)
    try:
        yield KafkaClient(bootstrap=running.bootstrap)
    finally:
        kafka_broker.stop(folder / "kafka")


def mails(count: int) -> list[Mail]:
    """Return so many mails: the demo's, then the same again a while later under other ids, and so on."""
    known = load_mails(fetch_mails(ASSETS))
    span = known[-1].time_ms - known[0].time_ms + DAY_MS
    out: list[Mail] = []
    while len(out) < count:
        turn = len(out) // len(known)
        out += [replace(m, id=f"{m.id}-{turn}", time_ms=m.time_ms + turn * span) for m in known]
    return out[:count]


def mixed(count: int, *, seed: int) -> list[Mail]:
    """Return so many mails of all queues from the start, one an hour, with texts that no other seed has.

    Texts of their own, because the activations of a text that was seen before are at hand.
    """
    chosen = random.Random(seed).choices(load_mails(fetch_mails(ASSETS)), k=count)
    return [
        replace(m, id=f"{seed}-{i}", time_ms=EPOCH_MS + i * HOUR_MS, text=f"({seed}-{i}) {m.text}")
        for i, m in enumerate(chosen)
    ]


def topics(name: str) -> TopicSettings:
    """Return topic names of a stream of its own."""
    return TopicSettings(
        events=f"{name}.mails", labels=f"{name}.labels", dead_letters=f"{name}.dead", late=f"{name}.late"
    )


def as_cloudevents(chosen: Sequence[Mail], names: TopicSettings) -> History:
    """Return what the partitions hold: binary CloudEvents, attributes in six headers."""
    return histories(chosen, names, seed=1)


def as_own_json(chosen: Sequence[Mail], names: TopicSettings) -> History:
    """Return the same in JSON of a user's own, as the default mapping reads it: all in the value."""
    found = histories(chosen, names, seed=1)
    return {lane: [_own(record) for record in records] for lane, records in found.items()}


def _own(record: Outgoing) -> Outgoing:
    key, value, headers, time_ms = record
    said = dict(headers)
    body = {**json.loads(value), "id": said["ce_id"].decode(), "time": said["ce_time"].decode()}
    return key, json.dumps(body, ensure_ascii=False).encode(), [], time_ms


def produce(client: KafkaClient, history: History, names: TopicSettings) -> int:
    """Write a history to its topics; return the number of records."""
    counts = {names.events: EVENT_PARTITIONS, names.labels: LABEL_PARTITIONS}
    ensure_topics(client, [TopicWish(name=n, partitions=c, configs=KEPT) for n, c in counts.items()])
    sink = KafkaSink(client)
    try:
        for (topic, partition), records in history.items():
            for key, value, headers, time_ms in records:
                sink.send(topic, value, key=key, headers=headers, partition=partition, timestamp_ms=time_ms)
        sink.flush()
    finally:
        sink.close()
    return sum(map(len, history.values()))
