"""What Kafka's topics still hold of an erased event, which we cannot take out of them, and what can be done.

A log is append-only: a record leaves it when its retention ends, when compaction meets a tombstone of its
key, or when an operator deletes all records before an offset. The dead-letter and late topics that we make
are compacted, and a letter's key is its own: there a tombstone takes it. In one that is not, what it takes
is told: one command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from connectors.buried_letters import Burial, Filed, bury_letters, find_letters
from connectors.codec import decoder
from connectors.kafka_client import KafkaClient
from connectors.kafka_topics import TopicFacts, topic_facts
from priorflow.cluster import client
from priorflow.config import Settings
from priorflow.erasing import Request
from priorflow.quantities import format_duration
from priorflow.rules import codec_rules

_NOTHING: Final = Burial(dropped=(), ended=True)


def in_topics(settings: Settings, request: Request, *, write: bool, now_ms: int) -> list[dict[str, Any]]:
    """Return a row for each topic that may hold the events; empty where an archive is read instead.

    `command` has a topic give up letters that it holds on to; None where there are none. Raises
    SourceUnavailable if the cluster does not answer.
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
        *(
            _aside(settings, request, cluster, facts[n], now_ms=now_ms if write else None)
            for n in aside
            if n in facts
        ),
        *(_output(name, facts[name]) for name in outputs if name in facts),
    ]


def _input(name: str, facts: TopicFacts) -> dict[str, Any]:
    dropped = _dropped(facts, "the record's key")
    left = f"whatever was produced of it: {dropped}{_kept(facts)}"
    return {"topic": name, "letters": [], "buried": [], "command": None, "left": left}


def _output(name: str, facts: TopicFacts) -> dict[str, Any]:
    left = f"answers that `score` gave to it, by its id and without its text: {_dropped(facts, 'its id')}"
    return {"topic": name, "letters": [], "buried": [], "command": None, "left": f"{left}{_kept(facts)}"}


def _dropped(facts: TopicFacts, key: str) -> str:
    return f"a tombstone under {key} has compaction drop it; " if facts.compacted else ""


def _aside(
    settings: Settings, request: Request, cluster: KafkaClient, facts: TopicFacts, *, now_ms: int | None
) -> dict[str, Any]:
    """Look into a topic of letters; with the time, bury those that are meant."""
    decode, out = decoder(codec_rules(settings)), request.out
    found = find_letters(cluster, facts.name, lambda raw: out.means(decode(raw), raw))
    letters, burial = found.letters, _NOTHING
    if letters and now_ms is not None:
        burial = bury_letters(cluster, facts, found, now_ms=now_ms)
    stay = [one for one in letters if one.letter.filed not in burial.dropped]
    late = " --late" if facts.name == settings.kafka.topics.late else ""
    held = not facts.compacted or not all(one.goes for one in stay)
    command = f"priorflow dlq compact{late}" if stay and held else None
    return {
        "topic": facts.name,
        "letters": [str(one.letter.filed) for one in letters],
        "buried": [str(at) for at in burial.dropped],
        "command": command,
        "left": _stays(facts, stay, command) if stay else _goes(facts, burial),
    }


def _goes(facts: TopicFacts, burial: Burial) -> str:
    if not burial.dropped:
        return "nothing"
    if burial.ended:
        return "nothing but what compaction drops, within two hours"
    wait = format_duration(facts.roll_ms)
    return f"nothing but what compaction drops, once a record comes that is {wait} newer: erase again then"


def _stays(facts: TopicFacts, stay: Sequence[Filed], command: str | None) -> str:
    places = ", ".join(str(one.letter.filed) for one in stay)
    if command is None:
        return f"letters {places}: a tombstone has compaction drop them"
    why = "they share keys with others" if facts.compacted else "it is not compacted"
    return f"letters {places}, for {why}: `{command}` has it drop them; until then {_kept(facts)}"


def _kept(facts: TopicFacts) -> str:
    """Say how long a topic keeps a record, and the one other way out."""
    long = "for ever" if facts.retention_ms is None else f"for {format_duration(facts.retention_ms)}"
    by = f"it is kept {long} (retention.ms)"
    return (
        f"{by}; kafka-delete-records drops everything before an offset, shorter retention drops what is old"
    )
