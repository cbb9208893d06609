"""What operators do with records that were set aside: list them, look at one, send them again."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from typing import Final

from connectors.kafka_client import KafkaClient, NoSuchTopic
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.letters import Letter, again, fold, marker, original
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
    return list(fold(records_of(client, topic)).values())


def show_letter(client: KafkaClient, topic: str, position: Position) -> tuple[Letter, RawRecord]:
    """Return a letter and the record it holds, as it was; raises NoSuchLetter."""
    known = fold(records_of(client, topic)).get(position)
    if known is None:
        raise NoSuchLetter(_absent(topic, [position]))
    with closing(_filed_at(client, topic, {known.filed})) as found:
        return known, original(next(found))


def requeue_letters(client: KafkaClient, topic: str, positions: Collection[Position]) -> list[Position]:
    """Send records to their own partitions again, and note it; return those that were sent.

    A record sent again is excused from lateness once. Letters that were sent again before are left
    alone. Raises NoSuchLetter, and sends nothing, if a position is unknown. A crash between sending
    and noting repeats the sending; the duplicate is caught by the event id.
    """
    letters = fold(records_of(client, topic))
    absent = sorted(set(positions) - set(letters))
    if absent:
        raise NoSuchLetter(_absent(topic, absent))
    wanted = {at for at in positions if not letters[at].requeued}
    with closing(KafkaSink(client)) as sink:
        places = {letters[at].filed for at in wanted}
        sink.send_all(again(original(raw)) for raw in _filed_at(client, topic, places))
        sink.flush()
        sink.send_all(marker(at, topic) for at in wanted)
        sink.flush()
    return sorted(wanted)


def _filed_at(
    client: KafkaClient, topic: str, places: Collection[Position]
) -> Generator[RawRecord, None, None]:
    """Yield the letters that lie at these places."""
    yield from (raw for raw in records_of(client, topic) if raw.position in places)


def _absent(topic: str, positions: Collection[Position]) -> str:
    listed = ", ".join(map(str, positions))
    return f"{topic} holds no letter of {listed}; `priorflow dlq ls` lists what it holds"


def records_of(client: KafkaClient, topic: str) -> Iterator[RawRecord]:
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
