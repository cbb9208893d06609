"""One partition: where its records stand in time, and how far it is released.

Its first records are judged together. A partition that has shown nothing has no watermark to judge a
record against, and a first record from 2050 would make everything after it too old to be believed. So
the first `quorum` records wait for each other, and each is judged against the median of their times.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from stream.clock import ClockRules, disbelief
from stream.plan import Reach
from stream.record import Event, Millis, Record, Refusal
from stream.source import Floor, Partition

DAWN: Final = -(1 << 62)  # where a bad record stands before its partition has shown any time
TIMELESS: Final = -(1 << 61)  # a watermark below this came from no event and judges none

# (effective time, topic, event id, partition, offset, late, record, watermark before it): sorts as the merge
# does, for no two share partition and offset. A plain tuple: there is one for every record.
Placed = tuple[Millis, str, str, int, int, bool, Record, Millis]


class OutOfStep(RuntimeError):
    """Records of a partition were offered out of offset order: a fault of the source, or ours."""


@final
class Lane:
    """What was offered of one partition, and how much of it is released."""

    __slots__ = (
        "_careful",
        "_floors",
        "_held",
        "_offered",
        "_released",
        "_rules",
        "_votes",
        "_waiting",
        "consumed",
        "first_time",
        "key",
        "low",
        "low_watermark",
        "next_offset",
        "waiting",
        "watermark",
    )

    def __init__(
        self, rules: ClockRules, key: Partition, reach: Reach | None = None, first_time: Millis | None = None
    ) -> None:
        """Start at the beginning, or where `reach` left off."""
        at = reach or Reach(*key, 0, None, (), 0)
        self._rules = rules
        self.key = key
        self.low, self.low_watermark = at.low, at.watermark_ms
        self.next_offset, self.watermark = at.low, at.watermark_ms
        self.consumed = at.consumed
        # The median of the first records, once known; only needed again while `low_watermark` is None.
        self.first_time = first_time
        self._released = set(at.beyond)
        self._offered: deque[tuple[int, Millis | None]] = deque()  # offset, watermark after it
        self._floors: deque[Floor] = deque()
        self._held: list[Record] = []
        self._votes = 0
        self._careful = self._undecided()
        self._waiting: deque[Placed] = deque()
        self.waiting = 0  # records that have their place and are not released

    def _undecided(self) -> bool:
        """Tell whether the first records still wait for a quorum."""
        timeless = self.watermark is None or self.watermark < TIMELESS
        return timeless and self.first_time is None and self._rules.quorum > 0

    @property
    def undecided(self) -> int:
        """Number of first records that wait to be judged."""
        return len(self._held)

    def offer(self, record: Record) -> None:
        """Take in the next record; one that was released before a resume only moves the watermark."""
        offset = record.position.offset
        if offset < self.next_offset:
            msg = f"{record.position} was offered after offset {self.next_offset - 1} of its partition"
            raise OutOfStep(msg)
        if self._careful:
            self._offer_with_care(record, offset)
        else:
            self.next_offset = offset + 1
            self._place(record)

    def floor(self, floor: Floor) -> None:
        """Note a recorded floor."""
        if floor.at_offset < self.low:
            return  # already contained in the watermark that progress was saved with
        self._floors.append(floor)
        self._apply_floors(self.next_offset)
        self._careful = bool(self._floors) or self._undecided()

    def _offer_with_care(self, record: Record, offset: int) -> None:
        """Offer near a floor, or while the first records are still being collected."""
        self._apply_floors(offset)
        self.next_offset = offset + 1
        if self._undecided():
            self._held.append(record)
            self._votes += self._votes_for(record) is not None
            if self._votes >= self._rules.quorum:
                self._judge_first()
        else:
            self._place(record)
        # Floors at the new next offset hold from now on.
        self._apply_floors(self.next_offset)
        self._careful = bool(self._floors) or self._undecided()

    def _apply_floors(self, before_offset: int) -> None:
        while self._floors and self._floors[0].at_offset <= before_offset:
            floor_ms = self._floors.popleft().floor_ms
            if floor_ms <= DAWN:
                continue  # it only says that the partition takes part
            self._judge_first()
            if self.watermark is None or floor_ms > self.watermark:
                self.watermark = floor_ms

    def _votes_for(self, record: Record) -> Millis | None:
        body = record.body
        if isinstance(body, Refusal) or disbelief(self._rules, body.time_ms, None) is not None:
            return None
        return body.time_ms

    def _median(self) -> Millis | None:
        times = sorted(t for t in map(self._votes_for, self._held) if t is not None)
        return times[(len(times) - 1) // 2] if times else None

    def _judge_first(self) -> None:
        if self._held:
            self.first_time = self._median()
            held, self._held, self._votes = self._held, [], 0
            for record in held:
                self._place(record)

    def _place(self, record: Record) -> None:
        """Judge a record against the watermark before it, and let it move the watermark."""
        at, body, before = record.position, record.body, self.watermark
        if not isinstance(body, Refusal):
            judge = self.first_time if before is None or before < TIMELESS else before
            why = disbelief(self._rules, body.time_ms, judge)
            if why is not None:
                body = Refusal("clock", why)
                record = Record(at, record.sha256, body, record.raw)
        since = DAWN if before is None else before
        if isinstance(body, Refusal):
            time_ms, late, name = since, False, ""
        else:
            time_ms, name = body.time_ms, body.event_id
            shown = time_ms - self._rules.out_of_order_ms
            if before is None or shown > before:
                self.watermark = shown
            late = time_ms < since
            if late:
                time_ms = since
            elif isinstance(body, Event):
                # Nothing can be wrong with it any more, and its bytes would wait here beside its text.
                record = Record(at, record.sha256, body, None)
        self._offered.append((at.offset, self.watermark))
        if at.offset not in self._released:
            self.waiting += 1
            self._waiting.append((time_ms, at.topic, name, at.partition, at.offset, late, record, since))

    def take_before(self, time_ms: Millis) -> list[Placed]:
        """Take away the records whose effective time lies before this one, in offset order.

        Where a watermark reaches it, so do all effective times behind: what is far ahead costs nothing.
        """
        taken, kept, waiting = list[Placed](), list[Placed](), self._waiting
        while waiting and waiting[0][7] < time_ms:
            placed = waiting.popleft()
            (taken if placed[0] < time_ms else kept).append(placed)
        waiting.extendleft(reversed(kept))
        return taken

    def release(self, offset: int) -> None:
        """Note that a record that was taken has been released."""
        self.consumed += 1
        self.waiting -= 1
        if self._offered[0][0] == offset:
            self._pass()
        else:
            self._released.add(offset)

    def _pass(self) -> None:
        offset, self.low_watermark = self._offered.popleft()
        self.low = offset + 1

    def reach(self) -> Reach:
        """Return how far the partition is released, a function of what was released alone."""
        while self._offered and self._offered[0][0] in self._released:
            self._released.discard(self._offered[0][0])
            self._pass()
        topic, partition = self.key
        beyond = tuple(sorted(self._released))
        return Reach(topic, partition, self.low, self.low_watermark, beyond, self.consumed)

    def timeless(self) -> bool:
        """Tell whether nothing before `low` has shown a time."""
        return self.low_watermark is None or self.low_watermark < TIMELESS

    def highest(self) -> Millis:
        """Return the latest time the partition has shown, as far as it can be believed yet."""
        median, votes = self._median(), map(self._votes_for, self._held)
        believed = [t for t in votes if t is not None and disbelief(self._rules, t, median) is None]
        placed = [one[0] for one in self._waiting]
        return max([DAWN if self.watermark is None else self.watermark, *believed, *placed])
