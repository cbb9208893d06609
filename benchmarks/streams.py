"""A broker of our own, and on it the demo's mails as often as a measurement needs them, or texts of tasks."""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
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
from connectors.kafka_topics import topic_facts
from connectors.mails import Mail, fetch_mails, label_delays, load_mails
from connectors.vader import DOMAINS, Rated, fetch_vader, load_vader
from priorflow.demo_stream import EVENT_PARTITIONS, LABEL_PARTITIONS, Outgoing, histories
from priorflow.sections_kafka import TopicSettings
from stream.source import Partition

ASSETS: Final = ROOT / ".priorflow" / "assets"
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
EPOCH_MS: Final = 1_000_000_000_000  # September 2001
TASKS_MAPPED: Final = {"format": "mapped", "mapping": {"task": "/domain", "time_unit": "ms"}}

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


def rated(each: int, *, seed: int) -> list[Rated]:
    """Return so many of VADER's texts from each of its domains, mixed."""
    rng, known = random.Random(seed), load_vader(fetch_vader(ASSETS))
    chosen = [
        one
        for domain in sorted(DOMAINS.values())
        for one in rng.sample([r for r in known if r.domain == domain], each)
    ]
    rng.shuffle(chosen)
    return chosen


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


def as_tasks(chosen: Sequence[Rated], names: TopicSettings, *, seed: int) -> History:
    """Return a text an hour with its domain, as TASKS_MAPPED reads it; labels come as late as the demo's."""
    events: dict[Partition, list[Outgoing]] = {(names.events, p): [] for p in range(EVENT_PARTITIONS)}
    labels: dict[Partition, list[Outgoing]] = {(names.labels, p): [] for p in range(LABEL_PARTITIONS)}
    told: list[tuple[int, str, str]] = []
    for i, (one, delay) in enumerate(zip(chosen, label_delays(len(chosen), seed=seed), strict=True)):
        name, at = f"{one.domain}/{one.id}", EPOCH_MS + i * HOUR_MS
        said = {"id": name, "text": one.text, "time": at, "domain": one.domain}
        events[names.events, zlib.crc32(name.encode()) % EVENT_PARTITIONS].append(_json(name, at, said))
        told += [] if delay is None else [(at + delay, name, one.label)]
    for at, name, label in sorted(told):
        said = {"event_id": name, "label": label, "time": at}
        labels[names.labels, zlib.crc32(name.encode()) % LABEL_PARTITIONS].append(_json(name, at, said))
    return {**events, **labels}


def _json(key: str, time_ms: int, said: Mapping[str, object]) -> Outgoing:
    return key.encode(), json.dumps(said, ensure_ascii=False).encode(), [], time_ms


def _own(record: Outgoing) -> Outgoing:
    key, value, headers, time_ms = record
    said = dict(headers)
    body = {**json.loads(value), "id": said["ce_id"].decode(), "time": said["ce_time"].decode()}
    return key, json.dumps(body, ensure_ascii=False).encode(), [], time_ms


def produce(client: KafkaClient, history: History, names: TopicSettings) -> int:
    """Write what its topics do not hold yet of a history; return the number of its records."""
    counts = {names.events: EVENT_PARTITIONS, names.labels: LABEL_PARTITIONS}
    ensure_topics(client, [TopicWish(name=n, partitions=c, configs=KEPT) for n, c in counts.items()])
    facts = topic_facts(client, list(counts))
    sink = KafkaSink(client)
    try:
        for (topic, partition), records in history.items():
            for key, value, headers, time_ms in records[facts[topic].next[partition] :]:
                sink.send(topic, value, key=key, headers=headers, partition=partition, timestamp_ms=time_ms)
        sink.flush()
    finally:
        sink.close()
    return sum(map(len, history.values()))
