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

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple, final

from stream.clock import ClockRules, disbelief
from stream.plan import Reach
from stream.record import Event, Label, Millis, Record, Refusal
from stream.source import Floor, Partition

DAWN: Final = -(1 << 62)  # effective time of a bad record before its partition has shown any time


class OutOfStep(RuntimeError):
    """Records of a partition were offered out of offset order: a fault of the source, or ours."""


class Released(NamedTuple):
    """A record in its place: effective time, and whether it came behind its own partition."""

    time_ms: Millis
    topic: str
    event_id: str
    partition: int
    offset: int
    late: bool
    record: Record


@dataclass(slots=True)
class _Lane:
    """One partition: what was offered, and how much of it is released."""

    key: Partition
    low: int
    low_watermark: Millis | None
    beyond: set[int]
    consumed: int
    watermark: Millis | None
    next_offset: int
    offered: deque[tuple[int, Millis | None]] = field(default_factory=deque)  # offset, watermark after
    released: set[int] = field(default_factory=set)
    floors: deque[Floor] = field(default_factory=deque)

    def apply_floors(self, before_offset: int) -> None:
        while self.floors and self.floors[0].at_offset <= before_offset:
            floor = self.floors.popleft().floor_ms
            if self.watermark is None or floor > self.watermark:
                self.watermark = floor

    def mark(self, offset: int) -> None:
        """Note a release and let `low` follow as far as everything before it is released."""
        self.consumed += 1
        self.released.add(offset)
        while self.offered and self.offered[0][0] in self.released:
            done, watermark = self.offered.popleft()
            self.released.discard(done)
            self.low, self.low_watermark = done + 1, watermark

    def reach(self) -> Reach:
        topic, partition = self.key
        beyond = tuple(sorted(self.released | {o for o in self.beyond if o >= self.low}))
        return Reach(topic, partition, self.low, self.low_watermark, beyond, self.consumed)


@final
class Merge:
    """The merge as a resumable machine: offered in offset order per partition, taken in merge order."""

    def __init__(
        self,
        rules: ClockRules,
        partitions: Iterable[Partition],
        reach: Sequence[Reach] = (),
        floors: Sequence[Floor] = (),
    ) -> None:
        """Start where `reach` left off; `floors` are all that were ever recorded for this chain."""
        self._rules = rules
        self._heap: list[Released] = []
        self._lanes: dict[Partition, _Lane] = {}
        known = {(r.topic, r.partition): r for r in reach}
        for key in sorted({*partitions, *known}):
            self._open(key, known.get(key))
        for floor in floors:
            self.floor(floor)

    def _open(self, key: Partition, reach: Reach | None) -> None:
        at = reach or Reach(*key, 0, None, (), 0)
        self._lanes[key] = _Lane(
            key, at.low, at.watermark_ms, set(at.beyond), at.consumed, at.watermark_ms, at.low
        )

    def partitions(self) -> list[Partition]:
        """Return the partitions that are merged."""
        return list(self._lanes)

    def join(self, floor: Floor) -> None:
        """Take in a partition that appeared later; its floor keeps it behind what was released."""
        key = (floor.topic, floor.partition)
        if key not in self._lanes:
            self._open(key, None)
        self.floor(floor)

    def floor(self, floor: Floor) -> None:
        """Note a recorded floor; it takes effect at its offset."""
        key = (floor.topic, floor.partition)
        if key not in self._lanes:
            self._open(key, None)
        lane = self._lanes[key]
        if floor.at_offset < lane.low:
            return  # already contained in the watermark that progress was saved with
        lane.floors.append(floor)
        lane.apply_floors(lane.next_offset)

    def wanted(self) -> Mapping[Partition, int]:
        """Return the next offset to read of every partition."""
        return {key: lane.next_offset for key, lane in self._lanes.items()}

    def reach(self) -> tuple[Reach, ...]:
        """Return how far every partition is released."""
        return tuple(self._lanes[key].reach() for key in sorted(self._lanes))

    def buffered(self) -> int:
        """Return how many records wait for their turn."""
        return len(self._heap)

    def offer(self, record: Record) -> None:
        """Put a record in its place. A record released before a resume is passed over."""
        at = record.position
        lane = self._lanes[at.topic, at.partition]
        if at.offset < lane.next_offset:
            msg = f"{at} was offered after offset {lane.next_offset - 1} of its partition"
            raise OutOfStep(msg)
        lane.apply_floors(at.offset)
        body, watermark = record.body, lane.watermark
        if not isinstance(body, Refusal):
            why = disbelief(self._rules, body.time_ms, watermark)
            if why is not None:
                body = Refusal("clock", why)
                record = Record(at, record.sha256, body, record.raw)
        if isinstance(body, Event | Label):
            time_ms, event_id = body.time_ms, body.event_id
            late = watermark is not None and time_ms < watermark
            shown = time_ms - self._rules.out_of_order_ms
            if watermark is None or shown > watermark:
                lane.watermark = shown
            if late:
                assert watermark is not None
                time_ms = watermark
        else:
            time_ms, event_id, late = DAWN if watermark is None else watermark, "", False
        lane.next_offset = at.offset + 1
        lane.offered.append((at.offset, lane.watermark))
        if at.offset in lane.beyond:
            lane.beyond.discard(at.offset)
            lane.consumed -= 1
            lane.mark(at.offset)
        else:
            heappush(self._heap, Released(time_ms, at.topic, event_id, at.partition, at.offset, late, record))
        # Floors at the new next offset hold from now on.
        if lane.floors:
            lane.apply_floors(lane.next_offset)

    def _settled(self) -> Millis | None:
        """Return the smallest watermark, or None while some partition has shown nothing."""
        lowest: Millis | None = None
        for lane in self._lanes.values():
            if lane.watermark is None:
                return None
            if lowest is None or lane.watermark < lowest:
                lowest = lane.watermark
        return lowest

    def peek(self) -> Released | None:
        """Return the next record in order if nothing can come before it any more."""
        if not self._heap:
            return None
        settled = self._settled()
        top = self._heap[0]
        return top if settled is not None and top.time_ms < settled else None

    def take(self) -> Released:
        """Release the record that `peek` showed."""
        top = heappop(self._heap)
        self._lanes[top.topic, top.partition].mark(top.offset)
        return top

    def newcomer(self, key: Partition) -> Floor:
        """Return the floor for a partition that has appeared: nothing before what may be released."""
        settled = self._settled()
        return Floor(*key, 0, DAWN if settled is None else settled)

    def end_floors(self, only: Iterable[Partition] | None = None) -> list[Floor]:
        """Return floors that let everything buffered go (of all partitions, or of those named).

        For partitions that are known to be silent: the floor is just above all that was offered, or,
        where only some are silent, the watermark of the slowest that is not.
        """
        keys = sorted(self._lanes) if only is None else sorted(only)
        target = self._beyond_all() if only is None else self._slowest(set(keys))
        return [
            Floor(*key, self._lanes[key].next_offset, target)
            for key in keys
            if target is not None and (self._lanes[key].watermark is None or target > self._held(key))
        ]

    def _held(self, key: Partition) -> Millis:
        watermark = self._lanes[key].watermark
        return DAWN if watermark is None else watermark

    def _beyond_all(self) -> Millis | None:
        times = [r.time_ms for r in self._heap if r.time_ms != DAWN]
        shown = [lane.watermark for lane in self._lanes.values() if lane.watermark is not None]
        return max([*times, *shown]) + 1 if self._heap and (times or shown) else None

    def _slowest(self, silent: set[Partition]) -> Millis | None:
        busy = [lane.watermark for key, lane in self._lanes.items() if key not in silent]
        shown = [w for w in busy if w is not None]
        return min(shown) if shown and len(shown) == len(busy) else None
