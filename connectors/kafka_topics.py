"""What a cluster says of our topics: partitions, first and next offsets, how long records are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import TopicPartition
from kafka.admin import ConfigResource, OffsetSpec

from connectors.kafka_client import KafkaClient, administration

_UNKNOWN_TOPIC: Final = 3  # Kafka's error code UNKNOWN_TOPIC_OR_PARTITION
_KIND: Final = "topic"

Offsets = Mapping[int, int]  # by partition


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """One topic. Limits are None where there is none; `next` is the offset the next record gets."""

    name: str
    first: Offsets
    next: Offsets
    retention_ms: int | None
    retention_bytes: int | None
    compacted: bool
    roll_ms: int
    """How far the times of two records lie apart, at most, in a segment; compaction leaves the newest be."""
    ahead_ms: int | None
    """How far ahead of the broker's clock a record's time may lie."""
    max_record_bytes: int

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self.next)


def topic_facts(client: KafkaClient, topics: Sequence[str]) -> dict[str, TopicFacts]:
    """Return the facts of those topics that exist.

    Raises SourceUnavailable if the cluster does not answer, ClusterRefused if it says no.
    """
    with administration(client, "describing topics") as admin:
        told = admin.describe_topics(list(topics))
        there = {t["name"]: t for t in told if t["error_code"] != _UNKNOWN_TOPIC}
        if not there:
            return {}
        configs = _configs(admin, list(there))
        first = _offsets(admin, there, OffsetSpec.EARLIEST)
        after = _offsets(admin, there, OffsetSpec.LATEST)
    return {name: _facts(name, configs[name], first[name], after[name]) for name in there}


def configure(client: KafkaClient, topic: str, configs: Mapping[str, str]) -> None:
    """Change a topic's configuration in these points; raises ClusterRefused if we may not."""
    with administration(client, f"configuring {topic}") as admin:
        admin.alter_configs([ConfigResource(_KIND.upper(), topic, dict(configs))])


def _configs(admin: Any, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    asked = [ConfigResource(_KIND.upper(), name) for name in topics]
    told = admin.describe_configs(asked, config_filter="All")[_KIND]
    return {name: {key: entry["value"] for key, entry in entries.items()} for name, entries in told.items()}


def _offsets(admin: Any, topics: Mapping[str, Any], spec: OffsetSpec) -> dict[str, dict[int, int]]:
    wanted = {
        TopicPartition(name, partition["partition_index"]): spec
        for name, topic in topics.items()
        for partition in topic["partitions"]
    }
    out: dict[str, dict[int, int]] = {name: {} for name in topics}
    for at, found in sorted(admin.list_partition_offsets(wanted).items()):
        out[at.topic][at.partition] = found.offset
    return out


def _facts(name: str, config: Mapping[str, str], first: Offsets, after: Offsets) -> TopicFacts:
    return TopicFacts(
        name=name,
        first=first,
        next=after,
        retention_ms=_limit(config["retention.ms"]),
        retention_bytes=_limit(config["retention.bytes"]),
        compacted="compact" in config["cleanup.policy"],
        roll_ms=min(int(config["segment.ms"]), int(config["max.compaction.lag.ms"])),
        ahead_ms=_limit(config.get("message.timestamp.after.max.ms", "-1")),
        max_record_bytes=int(config["max.message.bytes"]),
    )


def _limit(text: str) -> int | None:
    return None if int(text) < 0 else int(text)
