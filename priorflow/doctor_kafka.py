"""The doctor's look at Kafka: Java, the cluster, and whether its topics keep what we need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from connectors.kafka_java import find_java
from connectors.kafka_topics import TopicFacts
from posterior.snapshot import Snapshot
from priorflow.cluster import bootstrap, facts
from priorflow.config import Settings
from priorflow.exit_codes import ExitCode
from priorflow.findings import Finding
from priorflow.opening import NoLedger, reading
from priorflow.quantities import format_duration

_HEADERS: Final = 4_096  # what a dead letter is larger than the record it holds


def java(settings: Settings) -> Iterator[Finding]:
    """Look for a Java that runs the embedded broker."""
    if settings.embedded:
        found = find_java(os.environ)
        yield Finding("java", "ok", f"Java {found.major} from {found.origin} ({found.path})")


def cluster(settings: Settings) -> Iterator[Finding]:
    """Reach the cluster and look at the topics, and at the chain's positions in them."""
    if settings.archive_path is not None:
        if settings.archive_path.is_dir():
            yield Finding("archive", "ok", f"{settings.archive_path} is there")
        else:
            remedy = "name the folder that `archive` wrote"
            yield Finding("archive", "fail", f"{settings.archive_path} is not there", remedy)
        return
    address = bootstrap(settings)
    told = facts(settings)
    yield Finding("kafka", "ok", f"{address} answers")
    yield from _inputs(settings, told)
    yield from _outputs(settings, told)
    head = _head(settings)
    if head is not None:
        yield from _positions(head, told)


def _inputs(settings: Settings, told: dict[str, TopicFacts]) -> Iterator[Finding]:
    topics = settings.kafka.topics
    for name in dict.fromkeys((topics.events, topics.labels)):
        if name not in told:
            remedy = "create it, or set kafka.topics; `priorflow demo` makes its own"
            yield Finding(name, "warn", "there is no such topic", remedy)
            continue
        topic = told[name]
        yield Finding(name, "ok", f"{topic.partitions} partitions, {_records(topic)} records")
        yield from _kept(topic)


def _records(topic: TopicFacts) -> int:
    return sum(after - topic.first[partition] for partition, after in topic.next.items())


def _kept(topic: TopicFacts) -> Iterator[Finding]:
    """Kafka deletes by the time that records carry, so a backdated history goes first."""
    if topic.retention_ms is not None:
        found = f"records are deleted {format_duration(topic.retention_ms)} after the time they carry"
        remedy = "set retention.ms=-1, or `archive`, or old evidence cannot be replayed"
        yield Finding(topic.name, "warn", found, remedy)
    if topic.retention_bytes is not None:
        found = f"records are deleted beyond {topic.retention_bytes} bytes"
        yield Finding(topic.name, "warn", found, "set retention.bytes=-1, or `archive`")
    if topic.compacted:
        found = "compaction deletes all but the last record of a key"
        yield Finding(topic.name, "warn", found, "set cleanup.policy=delete, or `archive`")


def _outputs(settings: Settings, told: dict[str, TopicFacts]) -> Iterator[Finding]:
    topics, needed = settings.kafka.topics, settings.records.max_bytes + _HEADERS
    inputs = [told[name] for name in (topics.events, topics.labels) if name in told]
    largest = max((t.max_record_bytes for t in inputs), default=needed)
    for name in (topics.dead_letters, topics.late):
        if name in told and told[name].max_record_bytes < largest:
            found = f"takes {told[name].max_record_bytes} bytes, the inputs up to {largest}"
            remedy = f"set max.message.bytes={largest + _HEADERS} on it"
            yield Finding(name, "warn", found, remedy)
        if name in told and not told[name].compacted:
            found = "it is not compacted, so `priorflow erase` does not reach what was said there"
            late = " --late" if name == topics.late else ""
            yield Finding(name, "warn", found, f"run `priorflow dlq compact{late}`")


def _head(settings: Settings) -> Snapshot | None:
    try:
        with reading(settings) as (ledger, _):
            name = settings.chain.name
            return ledger.head(name) if ledger.chain(name) else None
    except NoLedger:
        return None


def _positions(head: Snapshot, told: dict[str, TopicFacts]) -> Iterator[Finding]:
    """Compare where the chain goes on with what the topics still hold."""
    for span in head.spans:
        where = f"{span.topic}[{span.partition}]"
        topic = told.get(span.topic)
        if topic is None or span.partition not in topic.next:
            found = "the chain has read it, but it is not there any more"
            yield Finding(where, "fail", found, "see kafka.bootstrap and kafka.topics", ExitCode.LOST)
        elif span.low < topic.first[span.partition]:
            first = topic.first[span.partition]
            found = f"the chain goes on at {span.low}, but records before {first} are deleted"
            remedy = "set source to an archive that has them, or begin a new chain"
            yield Finding(where, "fail", found, remedy, ExitCode.LOST)
        elif span.low > topic.next[span.partition]:
            found = f"the chain is at {span.low}, but the topic ends at {topic.next[span.partition]}"
            remedy = "this is not the log that the chain has read; see kafka.bootstrap"
            yield Finding(where, "fail", found, remedy, ExitCode.LOST)
