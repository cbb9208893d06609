"""The form of a dead letter: the record as it was, and what we know of it in headers behind its own.

    key                                of the letter: where the record lay, topic[partition]@offset
    value, headers                     those of the record, untouched; a value of null is an empty one
    priorflow.topic .partition .offset where it lay; two letters of one position are one letter
    priorflow.stage .reason            what refused it (`late` for a late record) and why
    priorflow.time .key .null-value    the record's own time; its key, and that its value was null, if so

A letter that was sent to its topic again is followed by a marker: a letter without content, of a key of its
own, whose stage is `requeued`. So compaction takes no letter and no marker for another: all it drops are
copies, and letters before a tombstone of their key. For the same end the time of a letter in Kafka is that
of its filing: Kafka ends a segment by the times in it, and a record may be of any year.

Letters once bore the key, the value and the time of their record; they are read as well, and `refiled` gives
them the form above. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from stream.intake import PASSED_LATENESS
from stream.plan import Setaside
from stream.record import Position, RawRecord

PREFIX: Final = "priorflow."
LATE: Final = "late"
REQUEUED: Final = "requeued"
MAX_REASON_CHARS: Final = 1000
_FIRST: Final = PREFIX + "topic"
_TIME, _KEY, _NULL_KEY, _NULL_VALUE = "time", "key", "null-key", "null-value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record to be written; `partition` None leaves the choice to the key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is known of a record that was set aside; its content is read when somebody asks."""

    position: Position
    stage: str
    reason: str
    timestamp_ms: int
    size: int
    filed: Position
    """Where the letter itself lies."""
    key: bytes | None
    """What it is filed under."""
    requeued: bool = False

    @property
    def former(self) -> bool:
        """Tell whether it is filed under its record's key, which others may share."""
        return self.key not in {letter_key(self.position), _marker_key(self.position)}


def letter_key(position: Position) -> bytes:
    """Return what the letter of a position is filed under; a tombstone of it takes the letter away."""
    return str(position).encode()


def _marker_key(position: Position) -> bytes:
    return letter_key(position) + b" requeued"


def letter(aside: Setaside, topic: str) -> Outgoing:
    """Return a record that was set aside as a letter for this topic."""
    refusal = aside.refusal
    stage, reason = (
        (LATE, "behind its partition's watermark") if refusal is None else (refusal.stage, refusal.reason)
    )
    return _filed(aside.raw, topic, stage, reason)


def marker(position: Position, topic: str) -> Outgoing:
    """Return the note that the letter of this position was sent to its topic again."""
    return _filed(RawRecord(position, -1, None, None), topic, REQUEUED, "")


def refiled(raw: RawRecord) -> Outgoing:
    """Return a letter, or a marker, in today's form for its own partition; ValueError if it is neither."""
    record, found = original(raw), _require(raw)
    return replace(
        _filed(record, raw.position.topic, found.stage, found.reason), partition=raw.position.partition
    )


def _filed(raw: RawRecord, topic: str, stage: str, reason: str) -> Outgoing:
    at = raw.position
    told = {"topic": at.topic, "partition": at.partition, "offset": at.offset, "stage": stage}
    told |= {"reason": reason[:MAX_REASON_CHARS], _TIME: raw.timestamp_ms}
    told |= {} if raw.value is not None else {_NULL_VALUE: 1}
    block = [(PREFIX + name, _coded(value)) for name, value in told.items()]
    block += [] if raw.key is None else [(PREFIX + _KEY, raw.key)]
    key = _marker_key(at) if stage == REQUEUED else letter_key(at)
    return Outgoing(topic=topic, value=raw.value or b"", key=key, headers=(*raw.headers, *block))


def _coded(value: object) -> bytes:
    return str(value).encode(errors="backslashreplace")  # a reason may quote half a surrogate pair


def read_letter(raw: RawRecord) -> Letter | None:
    """Read what a record of a dead-letter topic says; None if it is not a letter of ours."""
    told = _block(raw)
    try:
        position = Position(
            told["topic"].decode(), int(told["partition"].decode()), int(told["offset"].decode())
        )
        stage, reason = told["stage"].decode(), told["reason"].decode()
    except (KeyError, ValueError):
        return None
    return Letter(
        position=position,
        stage=stage,
        reason=reason,
        timestamp_ms=_time(raw, told),
        size=len(raw.value or b""),
        filed=raw.position,
        key=raw.key,
    )


def _time(raw: RawRecord, told: Mapping[str, bytes]) -> int:
    return int(told[_TIME].decode()) if _TIME in told else raw.timestamp_ms


def original(raw: RawRecord) -> RawRecord:
    """Return the record that a letter holds, as it was; raises ValueError if it is no letter."""
    found, told = _require(raw), _block(raw)
    if _TIME in told:
        key, value = told.get(_KEY), None if _NULL_VALUE in told else raw.value
    else:
        key, value = None if _NULL_KEY in told else raw.key, raw.value
    return RawRecord(found.position, found.timestamp_ms, key, value, raw.headers[: _start(raw)])


def _require(raw: RawRecord) -> Letter:
    found = read_letter(raw)
    if found is None:
        msg = f"{raw.position} is no letter of priorflow"
        raise ValueError(msg)
    return found


def again(record: RawRecord) -> Outgoing:
    """Return a record to be sent to its own partition again, excused from lateness this once."""
    others = tuple((name, value) for name, value in record.headers if name != PASSED_LATENESS)
    both_null = record.key is None and record.value is None
    return Outgoing(
        topic=record.position.topic,
        value=record.value,
        key=b"" if both_null else record.key,
        headers=(*others, (PASSED_LATENESS, _coded(record.position))),
        partition=record.position.partition,
        timestamp_ms=record.timestamp_ms if record.timestamp_ms >= 0 else None,
    )


Buried = Mapping[tuple[int, bytes | None], int]
"""Where the last tombstone of a key lies, by partition and key."""


def is_gone(one: Letter, buried: Buried) -> bool:
    """Tell whether a tombstone has taken a letter, or a marker, away.

    It counts once it is written: what is read is the same before compaction and after.
    """
    keys = {one.key} if one.stage == REQUEUED else {one.key, letter_key(one.position)}
    return any(is_buried(one, key, buried) for key in keys)


def is_buried(one: Letter, key: bytes | None, buried: Buried) -> bool:
    """Tell whether a tombstone of this key lies behind a letter, in its partition."""
    return buried.get((one.filed.partition, key), -1) > one.filed.offset


def _standing(records: Iterable[RawRecord]) -> list[Letter]:
    letters, buried = list[Letter](), dict[tuple[int, bytes | None], int]()
    for raw in records:
        found = read_letter(raw)
        if found is not None:
            letters.append(found)
        elif raw.value is None:
            buried[raw.position.partition, raw.key] = raw.position.offset
    return [one for one in letters if not is_gone(one, buried)]


def fold(records: Iterable[RawRecord]) -> dict[Position, Letter]:
    """Return the letters of a topic by position, the last copy of each, in the order they were filed.

    A record that is set aside, sent again and set aside again has two positions, hence two letters.
    """
    letters: dict[Position, Letter] = {}
    requeued: set[Position] = set()
    for found in _standing(records):
        if found.stage == REQUEUED:
            requeued.add(found.position)
        else:
            letters.pop(found.position, None)  # its copy was filed later
            letters[found.position] = found
    return {at: replace(found, requeued=at in requeued) for at, found in letters.items()}


def _start(raw: RawRecord) -> int:
    """Return where our own headers begin: a record that was set aside before carries older ones."""
    places = [place for place, (name, _) in enumerate(raw.headers) if name == _FIRST]
    return places[-1] if places else len(raw.headers)


def _block(raw: RawRecord) -> Mapping[str, bytes]:
    return {name.removeprefix(PREFIX): value for name, value in raw.headers[_start(raw) :]}
