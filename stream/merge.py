"""All partitions merged into one order that depends on the logs alone.

    effective time   t = max(event time, its partition's watermark before it)
    order            (t, topic, event id, partition, offset)
    released         once every partition's watermark is greater than t

Whatever comes later has an effective time of at least its partition's watermark, so nothing can still
arrive before what was released: the order does not depend on how partitions were polled. A bad record
stands at its partition's watermark and moves it not.

What is buffered is never saved. A partition's progress is the first offset not yet released, the
watermark just before it, and the released offsets beyond it; on resume the log is read again from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import final

from stream.clock import ClockRules
from stream.lane import DAWN, Lane, OutOfStep, Placed
from stream.plan import Reach
from stream.record import Millis, Record
from stream.source import Floor, Partition

__all__ = ["DAWN", "Merge", "OutOfStep", "Placed"]


@final
class Merge:
    """The merge as a resumable machine: offer in offset order per partition, take in merge order."""

    def __init__(
        self,
        rules: ClockRules,
        partitions: Iterable[Partition],
        reach: Sequence[Reach] = (),
        floors: Sequence[Floor] = (),
        first_times: Mapping[Partition, Millis] | None = None,
    ) -> None:
        """Start where `reach` left off; `floors` are all that were ever recorded for this chain.

        `first_times` is what `first_times()` said when `reach` was saved.
        """
        self._rules = rules
        self._ready: list[Placed] = []  # what nothing can come before any more, the first one last
        self._lanes: dict[Partition, Lane] = {}
        self._moved = True  # whether a watermark may have moved since `_ready` was worked out
        known, first = {(r.topic, r.partition): r for r in reach}, first_times or {}
        for key in sorted({*partitions, *known}):
            self._lanes[key] = Lane(rules, key, known.get(key), first.get(key))
        # Partitions that joined later are told of only once something of theirs is released: when
        # the join was noticed depends on the clock.
        self._founders = frozenset(self._lanes)
        for floor in floors:
            self.floor(floor)

    def partitions(self) -> list[Partition]:
        """Return the partitions that are merged."""
        return sorted(self._lanes)

    def floor(self, floor: Floor) -> None:
        """Note a recorded floor, which takes effect at its offset; opens a partition not known yet."""
        key = (floor.topic, floor.partition)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._rules, key)
        lane.floor(floor)
        self._moved = True

    def newcomer(self, key: Partition) -> Floor:
        """Return the floor for a partition that has appeared: nothing before what may be released.

        Where nothing may be released yet, the floor only records that the partition takes part.
        """
        settled = self.settled()
        return Floor(*key, 0, DAWN if settled is None else settled)

    def offer(self, record: Record) -> None:
        """Put a record in its place; one that was released before a resume is passed over.

        Raises OutOfStep if it comes after a later one of its partition.
        """
        at = record.position
        self._lanes[at.topic, at.partition].offer(record)
        self._moved = True

    def settled(self) -> Millis | None:
        """Return the smallest watermark, or None while some partition has shown nothing."""
        shown = [lane.watermark for lane in self._lanes.values()]
        known = [w for w in shown if w is not None]
        return min(known) if known and len(known) == len(shown) else None

    def peek(self) -> Placed | None:
        """Return the next record in order if nothing can come before it any more."""
        if self._moved:
            self._settle()
        return self._ready[-1] if self._ready else None

    def _settle(self) -> None:
        """Take from the partitions what lies before all their watermarks: behind what was taken before.

        Sorted at once and not kept in a heap, for a partition is almost in order already.
        """
        self._moved = False
        settled = self.settled()
        if settled is not None:
            taken = [placed for lane in self._lanes.values() for placed in lane.take_before(settled)]
            self._ready = sorted(taken, reverse=True) + self._ready

    def take(self) -> Placed:
        """Release the record that `peek` showed."""
        top = self._ready.pop()
        self._lanes[top[1], top[3]].release(top[4])
        return top

    def buffered(self) -> int:
        """Return how many offered records are not yet released."""
        return sum(lane.waiting + lane.undecided for lane in self._lanes.values())

    def ahead(self, limit: int) -> frozenset[Partition]:
        """Return partitions with more than `limit` records buffered that hold up nobody.

        To read on in them before the others catch up would only fill memory.
        """
        settled = self.settled()
        return frozenset(
            key
            for key, lane in self._lanes.items()
            if lane.waiting > limit and lane.watermark is not None and lane.watermark != settled
        )

    def wanted(self) -> Mapping[Partition, int]:
        """Return the next offset to read; partitions of which nothing is known begin at their beginning."""
        return {k: lane.next_offset for k, lane in self._lanes.items() if lane.next_offset or lane.consumed}

    def reach(self) -> tuple[Reach, ...]:
        """Return how far partitions are released: those there from the start, and those with a release."""
        told = (self._lanes[key].reach() for key in sorted(self._lanes))
        return tuple(r for r in told if r.consumed or (r.topic, r.partition) in self._founders)

    def first_times(self) -> Mapping[Partition, Millis]:
        """Return what is to be saved beside `reach`: by what the first records are judged on resume."""
        return {
            key: lane.first_time
            for key, lane in sorted(self._lanes.items())
            if lane.first_time is not None and lane.consumed and lane.timeless()
        }

    def end_floors(self, only: Iterable[Partition] | None = None) -> list[Floor]:
        """Return floors that let everything buffered go (of all partitions, or of those named).

        For partitions that are known to be silent: the floor is just above all that was offered, or,
        where only some are silent, the watermark of the slowest that is not.
        """
        keys = self.partitions() if only is None else sorted(only)
        target = self._slowest(set(keys))
        if set(keys) == set(self._lanes):
            target = self._beyond_all() if self.buffered() else None
        if target is None:
            return []
        lanes = [self._lanes[key] for key in keys]
        return [
            Floor(*lane.key, lane.next_offset, target)
            for lane in lanes
            if lane.watermark is None or lane.watermark < target
        ]

    def _beyond_all(self) -> Millis:
        # What is ready lies before every watermark.
        return max([DAWN, *(lane.highest() for lane in self._lanes.values())]) + 1

    def _slowest(self, silent: set[Partition]) -> Millis | None:
        busy = [lane.watermark for key, lane in self._lanes.items() if key not in silent]
        shown = [w for w in busy if w is not None]
        return min(shown) if shown and len(shown) == len(busy) else None
