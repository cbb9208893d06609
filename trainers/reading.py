"""What the log has: taken in partition by partition, and let go of where a partition says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from posterior.snapshot import Fence
from stream.breaker import TooMuchBad
from stream.intake import Intake
from stream.plan import Closing
from stream.record import RawRecord
from stream.source import Floor, Partition
from trainers.parts import Parts, Rules


@final
class Silence:
    """Since when each partition has said nothing, by the wall clock."""

    def __init__(self, now_ms: Callable[[], int], idle_ms: int) -> None:
        self._now, self._idle, self._last = now_ms, idle_ms, dict[Partition, int]()
        self._begun = now_ms()

    def heard(self, topic: str, partition: int) -> None:
        """Note that a partition has said something."""
        self._last[topic, partition] = self._now()

    def lasts(self, partition: Partition) -> bool:
        """Tell whether a partition has been silent for too long."""
        return self._now() - self._last.get(partition, self._begun) >= self._idle


def closing_of(parts: Parts, intake: Intake) -> Closing | None:
    """Return what closes next, if anything does; TooMuchBad, after setting aside what led to it."""
    try:
        return intake.next_closing()
    except TooMuchBad:
        # Nothing of this stretch commits, so the same records trip again: they must be findable.
        parts.aside(intake.aside())
        raise


def read(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: Silence) -> bool:
    """Offer what the log has; tell whether there was anything."""
    raws = parts.source.poll(timeout_ms=rules.poll_ms, max_records=rules.poll_records)
    if raws:
        parts.keep(raws)
        _join(parts, fence, intake, raws)
        for raw in raws:
            silence.heard(raw.position.topic, raw.position.partition)
            intake.offer(parts.decode(raw))
        parts.watch("read", records=len(raws), waiting=intake.waiting, buffered=intake.buffered())
    return bool(raws)


def over(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: Silence) -> bool:
    """Let silent partitions go; tell whether a bounded run has nothing left to wait for."""
    if _floor(parts, rules, fence, intake, silence):
        return False
    return rules.until_end and all(parts.source.at_end(p) for p in intake.partitions())


def _floor(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: Silence) -> bool:
    """Record floors for partitions that fell silent or appeared, then let them take effect."""
    known = set(intake.partitions())
    quiet = {p for p in known if parts.source.at_end(p) and (rules.until_end or silence.lasts(p))}
    floors = intake.end_floors(None if quiet == known else quiet) if quiet else []
    _record(parts, fence, intake, floors)
    return bool(floors)


def _join(parts: Parts, fence: Fence, intake: Intake, raws: Sequence[RawRecord]) -> None:
    """Take in partitions that appeared since; their floor keeps them behind what was released."""
    known = set(intake.partitions())
    fresh = {(raw.position.topic, raw.position.partition) for raw in raws} - known
    _record(parts, fence, intake, [intake.newcomer(p) for p in sorted(fresh)])


def _record(parts: Parts, fence: Fence, intake: Intake, floors: Sequence[Floor]) -> None:
    """Write floors to the ledger, then let them take effect: replay must meet them too."""
    if floors:
        rows = [(f.topic, f.partition, f.at_offset, f.floor_ms) for f in floors]
        parts.ledger.add_floors(fence, rows)
    for floor in floors:
        intake.floor(floor)
