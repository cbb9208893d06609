"""What a chain must do without: events that a person had erased, stretches of the log that are left out.

An event is named by the sha256 of its id, so that what says "not this one" does not say which. Whatever the
log still holds of it is emptied before it takes its place in the order:

    place in the order, event time, its partition's watermark     as the record would have them
    text, label, task                                             gone; it counts as erased

The watermark has to move as it did: what was released before rests on it. A record that cannot be read is
refused as it would have been, and what it held is gone too. One that an archive was emptied of comes as a
husk: no value, and a header with what is left.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from stream.plan import canonical_json
from stream.prediction_id import event_of
from stream.record import (
    MAX_REFERENCE_CHARS,
    Erased,
    Event,
    Label,
    Position,
    RawRecord,
    Record,
    Refusal,
)

HUSK: Final = "priorflow.erased"  # header of a record whose content an archive no longer holds
_EVENT, _ORPHAN, _MEMBER_EVENT, _MEMBER_LABEL = 4, 3, 4, 7  # where positions stand in saved rows
_SAID: Final = re.compile(rb"([0-9a-f]{64}) (-?[0-9]{1,18})")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)', re.DOTALL)  # begins where the last one ended: linear
_LONGEST: Final = 6 * MAX_REFERENCE_CHARS  # bytes of a reference that JSON has escaped throughout


def named(event_id: str) -> str:
    """Return what an erased event is called: the sha256 of its id.

    Whoever knows the id, or can guess it, can find it again; it is a pseudonym and no secret.
    """
    return hashlib.sha256(event_id.encode()).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Offsets `first` to `last` of one partition, both of them included."""

    topic: str
    partition: int
    first: int
    last: int

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Tell whether a record lies in it."""
        return (topic, partition) == (self.topic, self.partition) and self.first <= offset <= self.last

    def __str__(self) -> str:
        """Write the stretch as it is given on the command line."""
        return f"{self.topic}:{self.partition}:{self.first}-{self.last}"


@final
@dataclass(frozen=True, slots=True)
class LeftOut:
    """Ids, as sha256, and stretches of the log that a chain does without."""

    ids: frozenset[str] = frozenset()
    stretches: tuple[Stretch, ...] = field(default=())

    def __bool__(self) -> bool:
        """Tell whether anything is left out."""
        return bool(self.ids or self.stretches)

    def __or__(self, other: LeftOut) -> LeftOut:
        """Leave out both."""
        stretches = tuple(sorted({*self.stretches, *other.stretches}))
        return LeftOut(self.ids | other.ids, stretches)

    def of(self, event_id: str) -> bool:
        """Tell whether an event is left out by its id."""
        return bool(self.ids) and named(event_id) in self.ids

    def at(self, place: Sequence[Any]) -> bool:
        """Tell whether a place [topic, partition, offset] is left out."""
        return any(stretch.holds(*place) for stretch in self.stretches)

    def means(self, record: Record, raw: RawRecord) -> bool:
        """Tell whether a record speaks of an event that is left out by its id.

        One that cannot be read is taken for theirs if its key, a header or a JSON string in it is an id, or a
        prediction's: better a bad record too many than a person's text left lying about.
        """
        body = record.body
        if isinstance(body, Event | Label):
            return self.of(event_of(body.event_id))
        return isinstance(body, Refusal) and bool(self.ids) and any(map(self.of, _said(raw)))

    def emptied(self, record: Record) -> Record:
        """Return the record, or what is left of it if it is left out."""
        body, at = record.body, record.position
        if isinstance(body, Refusal):
            raw = record.whole()
            bare = Refusal(body.stage, "its event was erased, and so was what it held")
            return Record(at, record.sha256, bare, husk(record, raw)) if self.means(record, raw) else record
        if isinstance(body, Erased):
            return record
        event_id = event_of(body.event_id)
        if not self.of(event_id) and not self.at((at.topic, at.partition, at.offset)):
            return record
        return Record(at, record.sha256, Erased(named(event_id), body.time_ms), RawRecord(at, -1, None, None))

    def dump(self) -> dict[str, Any]:
        """Return sorted JSON values by name; nothing where nothing is left out."""
        told: dict[str, Any] = {}
        if self.ids:
            told["erased"] = sorted(self.ids)
        if self.stretches:
            told["left_out"] = [[s.topic, s.partition, s.first, s.last] for s in sorted(self.stretches)]
        return told


NOTHING: Final = LeftOut()


def left_out_of(data: Mapping[str, Any]) -> LeftOut:
    """Return what a parsed state of the stream does without."""
    stretches = tuple(Stretch(*row) for row in data.get("left_out", ()))
    return LeftOut(frozenset(data.get("erased", ())), stretches)


def husk(record: Record, raw: RawRecord) -> RawRecord:
    """Return what is kept of a record in its place: position, id as sha256, time; of a refused one, no more.

    An empty record is refused as that one was, so the accounts stay.
    """
    body = record.body
    if not isinstance(body, Event | Label):
        return RawRecord(raw.position, raw.timestamp_ms, None, None)
    told = f"{named(event_of(body.event_id))} {body.time_ms}".encode()
    return RawRecord(raw.position, raw.timestamp_ms, None, None, ((HUSK, told),))


def read_husk(raw: RawRecord) -> Erased | None:
    """Return what a husk says; None if the record is none."""
    told = dict(raw.headers).get(HUSK) if raw.value is None else None
    if told is None:
        return None
    said = _SAID.fullmatch(told)
    return None if said is None else Erased(said[1].decode(), int(said[2]))


def _said(raw: RawRecord) -> Iterator[str]:
    """Yield every event that bytes which cannot be read may mean: their quotes may not pair."""
    value = raw.value or b""
    quoted = {*_QUOTED.findall(value), *value.split(b'"')[1:-1]}
    for part in (raw.key or b"", *(said for _, said in raw.headers), *quoted):
        if len(part) <= _LONGEST:
            plain = part.decode(errors="replace")
            yield event_of(plain)
            yield event_of(_unescaped(plain))


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False)).encode(errors="replace").decode()
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a state of the stream holds of events: places of their records, and ids it remembers."""

    places: tuple[Position, ...] = ()
    learned: frozenset[str] = frozenset()  # as sha256: in a window that was closed
    expired: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Tell whether anything is mentioned."""
        return bool(self.places or self.learned or self.expired)


def mentions(state: bytes, out: LeftOut) -> Mentions:
    """Return what a saved state holds of what is left out; by id, it may be remembered as well."""
    data = json.loads(state)
    store = data["store"]
    places = [row[_EVENT] for row in store["events"] if _hit(out, row[0], row[_EVENT])]
    places += [row[_ORPHAN] for row in store["orphans"] if _hit(out, row[0], row[_ORPHAN])]
    for row in data["window"]:
        if _member_goes(out, row):
            places += [row[_MEMBER_EVENT], row[_MEMBER_LABEL]]
    return Mentions(
        tuple(Position(*place) for place in places),
        frozenset(_remembered(data, "learned", out)),
        frozenset(_remembered(data, "expired", out)),
    )


def without(state: bytes, out: LeftOut) -> bytes:
    """Return a saved state without these events, which it leaves out from now on; accounts balance.

    A member whose label alone lies in a stretch waits again; one whose event does goes with its label,
    of which no bytes are kept. Idempotent; the windows that were learned from them stay counted as learned.
    """
    data = json.loads(state)
    before = _waiting(data)
    store, leaving = data["store"], [row for row in data["window"] if _member_goes(out, row)]
    back = [_unlabelled(row) for row in leaving if not _hit(out, row[0], row[_MEMBER_EVENT])]
    stay = [row for row in store["events"] if not _hit(out, row[0], row[_EVENT])]
    store["events"] = sorted([*stay, *back], key=lambda row: row[0])
    store["orphans"] = [row for row in store["orphans"] if not _hit(out, row[0], row[_ORPHAN])]
    data["window"] = [row for row in data["window"] if not _member_goes(out, row)]
    gone = before - _waiting(data)
    data["past"] = _past(data["past"], lambda event_id: not out.of(event_id))
    data["counts"] |= _moved(data["counts"], gone)
    return canonical_json(data | (left_out_of(data) | out).dump())


def _moved(counts: Mapping[str, int], gone: int) -> Mapping[str, int]:
    erased = counts.get("erased", 0) + gone
    return {"pending": counts["pending"] - gone, **({"erased": erased} if erased else {})}


def _waiting(data: Mapping[str, Any]) -> int:
    """Return how many records wait; a member is two."""
    return len(data["store"]["events"]) + len(data["store"]["orphans"]) + 2 * len(data["window"])


def _hit(out: LeftOut, event_id: str, *places: Sequence[Any]) -> bool:
    return out.of(event_id) or any(out.at(place) for place in places)


def _member_goes(out: LeftOut, row: Sequence[Any]) -> bool:
    return _hit(out, row[0], row[_MEMBER_EVENT], row[_MEMBER_LABEL])


def _unlabelled(row: Sequence[Any]) -> list[Any]:
    """Return a member as an event that waits."""
    event_id, text, _, task, at, sha, time_ms, _, _, _, arrived, forecast = row
    return [event_id, text, task, time_ms, at, sha, arrived, forecast]


def _past(past: Mapping[str, Any], stays: Callable[[str], bool]) -> dict[str, Any]:
    kept = {
        number: {fate: [i for i in ids if stays(i)] for fate, ids in bucket.items()}
        for number, bucket in past.items()
    }
    return {number: bucket for number, bucket in kept.items() if any(bucket.values())}


def _remembered(data: Mapping[str, Any], fate: str, out: LeftOut) -> Iterable[str]:
    ids = (i for bucket in data["past"].values() for i in bucket[fate])
    return (named(i) for i in ids if out.of(i))
