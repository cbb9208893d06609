"""What Kafka's topics still hold of an erased event, which we cannot take out of them, and what can be done.

A log is append-only: a record leaves it when its retention ends, when compaction meets a tombstone of its
key, or when an operator deletes all records before an offset. We write a tombstone where it helps and harms
nobody: in a compacted dead-letter or late topic, for a letter whose key nothing else bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.codec import decoder
from connectors.dead_letters import Filed, bury_letters, find_letters
from connectors.kafka_client import KafkaClient
from connectors.kafka_topics import TopicFacts, topic_facts
from priorflow.cluster import client
from priorflow.config import Settings
from priorflow.erasing import Request
from priorflow.quantities import format_duration
from priorflow.rules import codec_rules


def in_topics(settings: Settings, request: Request, *, write: bool) -> list[dict[str, Any]]:
    """Return a row for each topic that may hold the events; empty where an archive is read instead.

    Raises SourceUnavailable if the cluster does not answer.
    """
    if settings.archive_path is not None:
        return []
    cluster, topics = client(settings), settings.kafka.topics
    inputs = dict.fromkeys((topics.events, topics.labels))
    aside = dict.fromkeys((topics.dead_letters, topics.late))
    outputs = dict.fromkeys((topics.answers, topics.shadow))
    facts = topic_facts(cluster, [*inputs, *aside, *outputs])
    return [
        *(_input(name, facts[name]) for name in inputs if name in facts),
        *(_aside(settings, request, cluster, facts[n], write=write) for n in aside if n in facts),
        *(_output(name, facts[name]) for name in outputs if name in facts),
    ]


def _input(name: str, facts: TopicFacts) -> dict[str, Any]:
    dropped = _dropped(facts, "the record's key")
    left = f"whatever was produced of it: {dropped}{_kept(facts)}"
    return {"topic": name, "letters": [], "buried": [], "left": left}


def _output(name: str, facts: TopicFacts) -> dict[str, Any]:
    left = f"answers that `score` gave to it, by its id and without its text: {_dropped(facts, 'its id')}"
    return {"topic": name, "letters": [], "buried": [], "left": f"{left}{_kept(facts)}"}


def _dropped(facts: TopicFacts, key: str) -> str:
    return f"a tombstone under {key} has compaction drop it; " if facts.compacted else ""


def _aside(
    settings: Settings, request: Request, cluster: KafkaClient, facts: TopicFacts, *, write: bool
) -> dict[str, Any]:
    decode, out = decoder(codec_rules(settings)), request.out
    found = find_letters(cluster, facts.name, lambda raw: out.means(decode(raw), raw))
    buried = bury_letters(cluster, facts.name, found) if write and found else []
    stay = [one for one in found if one.letter.filed not in buried]
    return {
        "topic": facts.name,
        "letters": [str(one.letter.filed) for one in found],
        "buried": [str(at) for at in buried],
        "left": _letters_left(facts, stay),
    }


def _letters_left(facts: TopicFacts, stay: Sequence[Filed]) -> str:
    if not stay:
        return "nothing but what compaction will drop" if facts.compacted else "nothing"
    places = ", ".join(str(one.letter.filed) for one in stay)
    return f"letters {places}: {_kept(facts)}"


def _kept(facts: TopicFacts) -> str:
    """Say how long a topic keeps a record, and the one other way out."""
    long = "for ever" if facts.retention_ms is None else f"for {format_duration(facts.retention_ms)}"
    by = f"it is kept {long} (retention.ms)"
    return (
        f"{by}; kafka-delete-records drops everything before an offset, shorter retention drops what is old"
    )
