"""What arrives: raw bytes with a position, and what they mean once validated.

`RawRecord` is what a `Source` yields; a codec turns it into a `Record` whose body is an `Event`, a
`Label` or a `Refusal`, or an `Erased` of which nothing is left. A refusal is a value, not an exception: a
bad record takes its place in the order like any other and is dead-lettered when it is released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream.value import value

MAX_ID_CHARS: Final = 512
MAX_REFERENCE_CHARS: Final = 2800  # a prediction id holds an event id as base64 of its UTF-8

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
Reference = Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE_CHARS)]
Millis = int  # milliseconds since the epoch, UTC

Stage = Literal["size", "encoding", "json", "schema", "clock", "label", "model"]


@value(order=True)
class Position:
    """Where a record lies: topic, partition, offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Write the position as operators read it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@value()
class RawRecord:
    """A record as the log holds it; `timestamp_ms` is the log's own, not the event's."""

    position: Position
    timestamp_ms: Millis
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Event(BaseModel):
    """Something to be judged: a mail, a review, a ticket."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event_id: Id
    text: Annotated[str, Field(min_length=1)]
    time_ms: Millis
    task: Id | None = None


class Label(BaseModel):
    """The truth about an event, told later, by event id or prediction id."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event_id: Reference
    label: Id
    time_ms: Millis


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record cannot be used: the stage that refused it and a reason an operator can act on."""

    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class Erased:
    """What is left of an event or label that is to be forgotten: its event's id as sha256, and its time."""

    event_id: str
    time_ms: Millis


@value()
class Record:
    """A decoded record: its position, the sha256 of the bytes that say it, and what it says.

    Those bytes are the value; where CloudEvents attributes travel in headers, these come after it.
    `raw` is there as long as the record may still have to be set aside.
    """

    position: Position
    sha256: str
    body: Event | Label | Refusal | Erased
    raw: RawRecord | None

    def whole(self) -> RawRecord:
        """Return the bytes of a record that may have to be set aside."""
        assert self.raw is not None, f"{self.position} was given up too early"
        return self.raw
