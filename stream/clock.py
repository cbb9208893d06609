"""Event time: what may be believed, and how late is late.

A partition is judged against itself only: its watermark W is the largest event time it has shown, less the
disorder it is allowed, or a recorded floor if that is higher. The wall clock plays no part, so replay of
an old stream reaches the same verdicts as the live run did.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stream.record import Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRules:
    """What is waited for and what is not believed; None switches a rule off.

    `quorum` is the number of first records of a partition that are judged by the median of their times.
    """

    out_of_order_ms: Millis = 0
    max_ahead_ms: Millis | None = None
    max_behind_ms: Millis | None = None
    not_before_ms: Millis | None = None
    not_after_ms: Millis | None = None
    quorum: int = 5

    def __post_init__(self) -> None:
        """Where nothing is judged against the partition, nobody has to wait for a quorum."""
        if self.max_ahead_ms is None and self.max_behind_ms is None:
            object.__setattr__(self, "quorum", 0)


def disbelief(rules: ClockRules, time_ms: Millis, watermark_ms: Millis | None) -> str | None:
    """Return why an event time cannot be true, or None; judged against the partition's watermark."""
    if rules.not_before_ms is not None and time_ms < rules.not_before_ms:
        return f"event time {written(time_ms)} lies before {written(rules.not_before_ms)}"
    if rules.not_after_ms is not None and time_ms > rules.not_after_ms:
        return f"event time {written(time_ms)} lies after {written(rules.not_after_ms)}"
    if watermark_ms is None:
        return None
    if rules.max_ahead_ms is not None and time_ms > watermark_ms + rules.max_ahead_ms:
        return f"event time {written(time_ms)} is far ahead of its partition ({written(watermark_ms)})"
    if rules.max_behind_ms is not None and time_ms < watermark_ms - rules.max_behind_ms:
        return f"event time {written(time_ms)} is far behind its partition ({written(watermark_ms)})"
    return None


def written(time_ms: Millis) -> str:
    """Write a time for people; one that no calendar holds stays a number."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
