"""The sections about what arrives: how records are read, believed, joined and cut into windows."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from priorflow.quantities import (
    DAY,
    HOUR,
    Duration,
    Instant,
    format_duration,
    parse_duration,
    parse_instant,
)
from priorflow.section import Section, Share


def _pointer(value: str) -> str:
    if value and (not value.startswith("/") or re.search(r"~(?![01])", value)):
        msg = "write a JSON pointer, such as /body/text (~1 stands for a slash inside a name)"
        raise ValueError(msg)
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]


class MappingSettings(Section):
    """Where the user's own JSON keeps what we need, as JSON pointers; for `format: mapped`."""

    id: Pointer = "/id"
    """Event: its id."""
    text: Pointer = "/text"
    """Event: what is to be judged."""
    time: Pointer = "/time"
    """Event: when it happened."""
    task: Pointer | None = None
    """Event: which task or group it belongs to, if any."""
    label: Pointer = "/label"
    """Label: the truth."""
    label_event_id: Pointer = "/event_id"
    """Label: the event id or prediction id it is about."""
    label_time: Pointer = "/time"
    """Label: when it was given."""
    time_unit: Literal["iso", "s", "ms", "us"] = "iso"
    """How times are written: ISO 8601 text, or numbers since the epoch in this unit."""


class ClockSettings(Section):
    """Event times that cannot be true; judged against the own partition, never the wall clock."""

    max_ahead: Duration | None = 365 * DAY
    """How far a record may lie ahead of its partition's watermark; null: any distance."""
    max_behind: Duration | None = 365 * DAY
    """How far a record may lie behind its partition's watermark; null: any distance."""
    not_before: Instant | None = parse_instant("1990-01-01")
    """The earliest believable time (null: any); catches seconds sent as milliseconds."""
    not_after: Instant | None = parse_instant("2100-01-01")
    """The latest believable time (null: any); catches microseconds sent as milliseconds."""

    @model_validator(mode="after")
    def _ordered(self) -> ClockSettings:
        if self.not_before is None or self.not_after is None:
            return self
        if self.not_before >= self.not_after:
            msg = "not_before must lie before not_after"
            raise ValueError(msg)
        return self


class BreakerSettings(Section):
    """When so much is bad that somebody should look before more is set aside."""

    share: Share = 0.2
    """Largest share of bad records among the last `over`."""
    over: int = Field(default=1_000, ge=1)
    """Number of records the share is taken over."""
    run: int = Field(default=100, ge=1)
    """Largest number of bad records in a row."""


class RecordSettings(Section):
    """How records are read, ordered, joined and refused."""

    format: Literal["cloudevents", "mapped"] = "cloudevents"
    """CloudEvents (binary or structured), or the user's own JSON read through `mapping`."""
    mapping: MappingSettings = MappingSettings()
    """JSON pointers for `format: mapped`."""
    max_bytes: ByteSize = Field(default=ByteSize(1 << 20), ge=1)
    """Largest record that is decoded, such as 1MiB."""
    label_vocabulary: tuple[str, ...] | None = None
    """The labels there are; any other is refused. Nothing said: every label is believed."""
    max_classes: int = Field(default=100, ge=1)
    """Most classes the model may grow to; a label beyond is refused."""
    clock: ClockSettings = ClockSettings()
    """Times that cannot be true."""
    out_of_order: Duration = HOUR
    """How much disorder within a partition is waited for."""
    late: Literal["accept", "divert"] = "accept"
    """What happens to records behind their partition's watermark."""
    label_horizon: Duration = 90 * DAY
    """How long, by event time, an event waits for its label (and a label for its event)."""
    dedup_horizon: Duration = 90 * DAY
    """How long, by event time, event ids are remembered."""
    pending_capacity: int = Field(default=100_000, ge=1)
    """Most events (and most labels) that wait; beyond it the oldest expire."""
    breaker: BreakerSettings = BreakerSettings()
    """When bad records stop the run."""
    idle: Duration = 60_000
    """Wall time after which a silent partition no longer holds up the others."""

    @field_validator("label_vocabulary")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) < len(value) or "" in value):
            msg = "name at least one label, each once, none empty"
            raise ValueError(msg)
        return value


class WindowSettings(Section):
    """When enough has come together to be learned."""

    kind: Literal["count", "time"] = "count"
    """Close after so many labelled examples, or after so much event time."""
    size: int = Field(default=500, json_schema_extra={"type": ["integer", "string"]})
    """Examples (`kind: count`) or a duration (`kind: time`)."""
    progress_every: int = Field(default=50_000, ge=1)
    """Records after which positions are committed even though no window has closed."""

    @field_validator("size", mode="before")
    @classmethod
    def _in_the_unit_of_kind(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("kind") == "time":
            return parse_duration(value)
        if isinstance(value, bool) or not str(value).strip().isdecimal():
            msg = "write a whole number of examples (kind: count), or set kind: time for a duration"
            raise ValueError(msg)
        return value

    @field_validator("size")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            msg = "a window holds at least one example, or lasts at least a millisecond"
            raise ValueError(msg)
        return value

    @field_serializer("size", when_used="json")
    def _show(self, value: int) -> int | str:
        return value if self.kind == "count" else format_duration(value)
