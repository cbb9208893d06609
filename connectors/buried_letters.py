"""Letters taken away for good: found, buried under tombstones, and their topics made such that this helps.

A tombstone in a compacted topic has every earlier record of its key dropped, once the segment with both has
ended. Each letter has a key of its own, so a tombstone takes what was meant and nothing else. Letters of the
former form lie under their record's key, which others may share: `compact` files them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, final

from connectors.dead_letters import records_of
from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import COMPACTED, KafkaSink
from connectors.kafka_topics import TopicFacts, configure, topic_facts
from connectors.letters import (
    REQUEUED,
    Letter,
    is_buried,
    is_gone,
    letter_key,
    original,
    read_letter,
    refiled,
)
from stream.record import Position, RawRecord

_SLACK_MS: Final = 60_000  # clocks differ
_ENDING: Final = b"priorflow.segment"  # key of a tombstone that takes nothing away, but ends a segment


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """A letter as it lies in its topic, and the tombstones that are still to be written for it.

    `goes` if compaction takes it away after those: not if it shares a key with what must stay.
    """

    letter: Letter
    tombstones: tuple[bytes, ...]
    goes: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The letters that are meant, in the order in which they were filed; the newest time by partition."""

    letters: tuple[Filed, ...]
    newest: Mapping[int, int]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """What compaction takes away, by where it lies, and whether the segments with it have ended."""

    dropped: tuple[Position, ...]
    ended: bool


@final
@dataclass(slots=True)
class _Contents:
    """What a topic holds but for the records themselves."""

    letters: list[Letter] = field(default_factory=list)
    meant: set[Position] = field(default_factory=set)
    others: set[bytes | None] = field(default_factory=set)
    buried: dict[tuple[int, bytes | None], int] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)


def _contents(client: KafkaClient, topic: str, meant: Callable[[RawRecord], bool]) -> _Contents:
    out = _Contents()
    for raw in records_of(client, topic):
        at, known = raw.position, read_letter(raw)
        out.newest[at.partition] = max(out.newest.get(at.partition, 0), raw.timestamp_ms)
        if known is not None:
            out.letters.append(known)
        if known is not None and known.stage != REQUEUED and meant(original(raw)):
            out.meant.add(at)
        elif known is not None or raw.value is not None:
            out.others.add(raw.key)
        else:
            out.buried[at.partition, raw.key] = at.offset
    return out


def find_letters(client: KafkaClient, topic: str, meant: Callable[[RawRecord], bool]) -> Found:
    """Return every copy of the letters whose record is meant, until compaction has taken it away."""
    held = _contents(client, topic, meant)
    letters = tuple(_filed(one, held) for one in held.letters if one.filed in held.meant)
    return Found(letters=letters, newest=held.newest)


def _filed(one: Letter, held: _Contents) -> Filed:
    alone = one.key is not None and one.key not in held.others
    keys = {letter_key(one.position), *([one.key] if one.key is not None and alone else [])}
    return Filed(
        letter=one,
        tombstones=tuple(sorted(key for key in keys if not is_buried(one, key, held.buried))),
        goes=alone or is_buried(one, one.key, held.buried),
    )


def bury_letters(client: KafkaClient, facts: TopicFacts, found: Found, *, now_ms: int) -> Burial:
    """Write tombstones for letters, in their own partitions, and have their segments end, if that helps.

    What is buried is shown to nobody and not filed anew, also where compaction does not take it away: in a
    topic that is not compacted, or under a record's key that others bear.
    """
    partitions = {one.letter.filed.partition for one in found.letters}
    with closing(KafkaSink(client)) as sink:
        for one in found.letters:
            for key in one.tombstones:
                sink.send(facts.name, None, key=key, partition=one.letter.filed.partition)
        sink.flush()
        if not facts.compacted:
            return Burial(dropped=(), ended=False)
        ended = _end_segments(sink, facts, partitions, found.newest, now_ms)
    return Burial(dropped=tuple(one.letter.filed for one in found.letters if one.goes), ended=ended)


def _end_segments(
    sink: KafkaSink, facts: TopicFacts, partitions: Collection[int], newest: Mapping[int, int], now_ms: int
) -> bool:
    """Have the segments that are written to end; return whether they do.

    Kafka ends one when a record comes whose time lies `roll_ms` behind that of the segment's first, and
    not before. So one is sent from that far ahead, as far as the topic allows it.
    """
    last = None if facts.ahead_ms is None else now_ms + facts.ahead_ms - _SLACK_MS
    enough = True
    for partition in partitions:
        wanted = max(now_ms + _SLACK_MS, newest.get(partition, 0)) + facts.roll_ms + 1
        sent = wanted if last is None else max(now_ms, min(wanted, last))
        sink.send(facts.name, None, key=_ENDING, partition=partition, timestamp_ms=sent)
        enough = enough and sent == wanted
    sink.flush()
    return enough


def compact(client: KafkaClient, topic: str, *, now_ms: int) -> int:
    """Have a topic compacted, and lose nothing by it; return how many letters were filed anew for that.

    Letters and markers of the former form are filed anew under keys of their own, then those they had get
    tombstones, then compaction is switched on. Dying in between, the same call finishes. Nobody may still
    write letters of the former form meanwhile. A topic that does not exist is left so.
    """
    if not topic_facts(client, [topic]):
        return 0
    held = _contents(client, topic, lambda _: False)
    former = [one for one in held.letters if one.former]
    anew = {one.filed for one in former if not is_gone(one, held.buried)}
    with closing(KafkaSink(client)) as sink:
        sink.send_all(refiled(raw) for raw in records_of(client, topic) if raw.position in anew)
        sink.flush()
        for partition, key in {(one.filed.partition, one.key): None for one in former}:
            if key is not None:  # compaction drops what has no key
                sink.send(topic, None, key=key, partition=partition)
        sink.flush()
        configure(client, topic, COMPACTED)
        _end_segments(sink, topic_facts(client, [topic])[topic], held.newest, held.newest, now_ms)
    return len(anew)
