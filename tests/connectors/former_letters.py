"""Letters as earlier releases filed them: under the key, with the value and the time, of their record."""

from __future__ import annotations

from connectors.letters import REQUEUED, Outgoing
from stream.record import Position, RawRecord


def former_letter(raw: RawRecord, topic: str, *, stage: str = "json", reason: str = "not JSON") -> Outgoing:
    """Return a record as a letter of the former form."""
    at = raw.position
    told = {"topic": at.topic, "partition": at.partition, "offset": at.offset}
    told |= {"stage": stage, "reason": reason}
    block = [(f"priorflow.{name}", str(value).encode()) for name, value in told.items()]
    null = raw.key is None and raw.value is None
    return Outgoing(
        topic=topic,
        value=raw.value,
        key=b"" if null else raw.key,
        headers=(*raw.headers, *block, *([("priorflow.null-key", b"1")] if null else [])),
        timestamp_ms=raw.timestamp_ms if raw.timestamp_ms >= 0 else None,
    )


def former_marker(position: Position, topic: str) -> Outgoing:
    """Return the note that a letter was sent again, of the former form."""
    return former_letter(RawRecord(position, -1, None, None), topic, stage=REQUEUED, reason="")
