"""The form of a dead letter: the record as it was, and what we know of it in headers behind its own.

    key, value, headers, timestamp     those of the record, untouched
    priorflow.topic .partition .offset where it lay; two letters of one position are one letter
    priorflow.stage .reason            what refused it (`late` for a late record) and why

A letter that was sent to its topic again is followed by a marker: a letter without content whose stage is
`requeued`. Pure functions.
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
_NULL_KEY: Final = PREFIX + "null-key"


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
    copies: int = 1
    requeued: bool = False


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


def _filed(raw: RawRecord, topic: str, stage: str, reason: str) -> Outgoing:
    at = raw.position
    told = {"topic": at.topic, "partition": at.partition, "offset": at.offset, "stage": stage}
    told["reason"] = reason[:MAX_REASON_CHARS]
    block = [(PREFIX + name, _coded(value)) for name, value in told.items()]
    key = raw.key
    if raw.value is None and key is None:  # which kafka-python refuses to send
        key = b""
        block.append((_NULL_KEY, b"1"))
    when = raw.timestamp_ms if raw.timestamp_ms >= 0 else None
    headers = (*raw.headers, *block)
    return Outgoing(topic=topic, value=raw.value, key=key, headers=headers, timestamp_ms=when)


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
        timestamp_ms=raw.timestamp_ms,
        size=len(raw.value or b""),
        filed=raw.position,
    )


def original(raw: RawRecord) -> RawRecord:
    """Return the record that a letter holds, as it was; raises ValueError if it is no letter."""
    found = read_letter(raw)
    if found is None:
        msg = f"{raw.position} is no letter of priorflow"
        raise ValueError(msg)
    key = None if _NULL_KEY.removeprefix(PREFIX) in _block(raw) else raw.key
    return RawRecord(found.position, raw.timestamp_ms, key, raw.value, raw.headers[: _start(raw)])


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


def fold(records: Iterable[RawRecord]) -> dict[Position, Letter]:
    """Return the letters of a topic by position, copies counted, in the order they were filed.

    A record that is set aside, sent again and set aside again has two positions, hence two letters.
    """
    letters: dict[Position, Letter] = {}
    requeued: set[Position] = set()
    for raw in records:
        found = read_letter(raw)
        if found is None:
            continue
        if found.stage == REQUEUED:
            requeued.add(found.position)
        elif (known := letters.get(found.position)) is not None:
            letters[found.position] = replace(known, copies=known.copies + 1)
        else:
            letters[found.position] = found
    return {at: replace(found, requeued=at in requeued) for at, found in letters.items()}


def _start(raw: RawRecord) -> int:
    """Return where our own headers begin: a record that was set aside before carries older ones."""
    places = [place for place, (name, _) in enumerate(raw.headers) if name == _FIRST]
    return places[-1] if places else len(raw.headers)


def _block(raw: RawRecord) -> Mapping[str, bytes]:
    return {name.removeprefix(PREFIX): value for name, value in raw.headers[_start(raw) :]}
