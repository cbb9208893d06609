"""What operators do with records that were set aside: list them, look at one, send them again, erase them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, final

from connectors.kafka_client import KafkaClient, NoSuchTopic
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.kafka_topics import topic_facts
from connectors.letters import REQUEUED, Letter, again, fold, marker, original, read_letter
from stream.record import Position, RawRecord
from stream.source import SourceError

_BATCH: Final = 500
_WAIT_MS: Final = 200


class NoSuchLetter(SourceError):
    """No letter of that position is in the topic."""


def list_letters(client: KafkaClient, topic: str) -> list[Letter]:
    """Return the letters of a dead-letter or late topic, each once, in the order they were filed.

    A topic that does not exist holds none.
    """
    return list(fold(_records(client, topic)).values())


def show_letter(client: KafkaClient, topic: str, position: Position) -> tuple[Letter, RawRecord]:
    """Return a letter and the record it holds, as it was; raises NoSuchLetter."""
    known = fold(_records(client, topic)).get(position)
    if known is None:
        raise NoSuchLetter(_absent(topic, [position]))
    with closing(_letters_of(client, topic, {position})) as found:
        return known, original(next(found))


def requeue_letters(client: KafkaClient, topic: str, positions: Collection[Position]) -> list[Position]:
    """Send records to their own partitions again, and note it; return those that were sent.

    A record sent again is excused from lateness once. Letters that were sent again before are left
    alone. Raises NoSuchLetter, and sends nothing, if a position is unknown. A crash between sending
    and noting repeats the sending; the duplicate is caught by the event id.
    """
    letters = fold(_records(client, topic))
    absent = sorted(set(positions) - set(letters))
    if absent:
        raise NoSuchLetter(_absent(topic, absent))
    wanted = {at for at in positions if not letters[at].requeued}
    with closing(KafkaSink(client)) as sink:
        records = {raw.position: raw for raw in map(original, _letters_of(client, topic, wanted))}
        sink.send_all(again(raw) for raw in records.values())
        sink.flush()
        sink.send_all(marker(at, topic) for at in records)
        sink.flush()
    return sorted(wanted)


def _letters_of(
    client: KafkaClient, topic: str, positions: Collection[Position]
) -> Generator[RawRecord, None, None]:
    """Yield the letters, markers left out, of these positions."""
    for raw in _records(client, topic):
        found = read_letter(raw)
        if found is not None and found.stage != REQUEUED and found.position in positions:
            yield raw


def _absent(topic: str, positions: Collection[Position]) -> str:
    listed = ", ".join(map(str, positions))
    return f"{topic} holds no letter of {listed}; `priorflow dlq ls` lists what it holds"


def _records(client: KafkaClient, topic: str) -> Iterator[RawRecord]:
    """Yield what a topic holds, from its beginning to its end; nothing if there is no such topic."""
    try:
        source = KafkaSource(client, KafkaSourceRules(topics=(topic,)))
    except NoSuchTopic:  # nothing was ever set aside
        return
    with closing(source):
        source.seek({})
        while True:
            yield from source.poll(timeout_ms=_WAIT_MS, max_records=_BATCH)
            if all(source.at_end(partition) for partition in source.partitions()):
                return


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """A letter as it lies in its topic; `gone` if a tombstone of its key came after it.

    `alone` if nothing else bears its key: only then may a tombstone of it be written.
    """

    letter: Letter
    key: bytes | None
    alone: bool
    gone: bool


def find_letters(client: KafkaClient, topic: str, meant: Callable[[RawRecord], bool]) -> list[Filed]:
    """Return every copy of the letters whose record is meant, in the order in which they were filed."""
    found: list[tuple[Letter, bytes | None]] = []
    others, buried = set[bytes | None](), dict[bytes | None, Position]()
    for raw in _records(client, topic):
        known = read_letter(raw)
        if known is None and raw.value is None:
            buried[raw.key] = raw.position
        elif known is not None and known.stage != REQUEUED and meant(original(raw)):
            found.append((known, raw.key))
        else:
            others.add(raw.key)
    return [
        Filed(
            letter=one,
            key=key,
            alone=bool(key) and key not in others,
            gone=key in buried and buried[key] > one.filed,
        )
        for one, key in found
    ]


def bury_letters(client: KafkaClient, topic: str, letters: Sequence[Filed]) -> list[Position]:
    """Write tombstones for letters, where the topic is compacted and a letter's key is its own.

    Return the letters that compaction will take away; the others only retention, or an operator, can.
    """
    facts = topic_facts(client, [topic]).get(topic)
    if facts is None or not facts.compacted:
        return []
    chosen = [one for one in letters if one.alone]
    with closing(KafkaSink(client)) as sink:
        for key in dict.fromkeys(one.key for one in chosen if not one.gone):
            sink.send(topic, None, key=key)
        sink.flush()
    return [one.letter.filed for one in chosen]
