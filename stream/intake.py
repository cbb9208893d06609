"""From records to closings: merge, join, windows and accounts as one resumable machine.

    offer(record)...            as polled, in offset order per partition
    next_closing()              release in merge order until something is to be committed
    foretold(closing, said)     what the parent posterior said of the closing's arrivals
    settled(closing, learned=)  it was committed (or quarantined)
    state()                     everything needed to go on, right after a closing was settled

The state is a function of what was released: of the logs, the recorded floors and the settings, never of
polling. Counts are in records, and balance at every closing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, final

from stream.breaker import Breaker, BreakerRules
from stream.clock import ClockRules
from stream.erasure import NOTHING, LeftOut, left_out_of
from stream.join import Join
from stream.labels import Horizons
from stream.merge import DAWN, Merge, Placed
from stream.plan import Arrival, Closing, Counts, Forecast, Reach, Setaside, canonical_json
from stream.record import Erased, Event, Label, Millis, RawRecord, Record, Refusal
from stream.relabelling import AS_THEY_CAME, names_of
from stream.source import EVERYWHERE, Floor, Partition
from stream.window import WindowRules

FORMAT: Final = 1
PASSED_LATENESS: Final = "priorflow.requeued"  # header of a record that was set aside and sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """All settings that decide which window holds what.

    `close_partial`: whether a bounded run closes the open window at its end, full or not.
    """

    clock: ClockRules = field(default_factory=ClockRules)
    horizons: Horizons
    window: WindowRules = field(default_factory=WindowRules)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    late: Literal["accept", "divert"] = "accept"
    label_vocabulary: frozenset[str] | None = None
    max_classes: int = 100
    progress_every: int = 50_000
    close_partial: bool = False


def at_index(state: bytes, index: int) -> bytes:
    """Return a saved state as it would be had so many windows been closed by then; all else stays.

    For a chain that goes back: what it closes from there on gets numbers, and so seeds, of its own.
    """
    return canonical_json({**json.loads(state), "index": index})


@final
class Intake:
    """The machine. Not thread-safe: one driver owns it."""

    def __init__(
        self,
        rules: IntakeRules,
        partitions: Iterable[Partition],
        *,
        floors: Sequence[Floor] = (),
        state: bytes | None = None,
        left_out: LeftOut = NOTHING,
    ) -> None:
        """Start at the beginning, or where `state` left off; `floors` are all of the chain's.

        A saved chain knows its partitions: `partitions` then says nothing, and one that appeared
        since joins by a recorded floor. It knows what it does without, too; `left_out` is for a new one.
        """
        data: dict[str, Any] = json.loads(state) if state else {}
        reach = [Reach(t, p, low, w, tuple(b), n) for t, p, low, w, b, n in data.get("reach", ())]
        first_times = {(t, p): time_ms for t, p, time_ms in data.get("first_times", ())}
        self._rules = rules
        self._left_out = left_out_of(data) if data else left_out
        self._names = names_of(data) if data else AS_THEY_CAME
        self._merge = Merge(rules.clock, () if data else partitions, reach, (), first_times)
        self._endings: list[int] = []
        self._ended: int = data.get("ended", DAWN)  # up to where recorded endings were met
        self._breaker = Breaker(rules.breaker)
        self._counts = dict.fromkeys(asdict(Counts()), 0) | data.get("counts", {})
        self._join = Join(rules.window, rules.horizons, rules.max_classes)
        self._index: int = data.get("index", 0)
        self._now: int = data.get("now", DAWN)
        self._since = 0
        self._arrivals: list[Arrival] = []
        self._setaside: list[Setaside] = []
        self._reach = self._merge.reach()
        self._expected: Closing | None = None
        self.extra: dict[str, Any] = data.get("extra", {})
        if data:
            self._join.load(data, self._now)
        for floor in floors:
            self.floor(floor)

    @property
    def classes(self) -> tuple[str, ...]:
        """The label map: labels learned so far, in order of first sight; a merged class once for each row."""
        return self._join.classes

    @property
    def counts(self) -> Counts:
        """Where every released record is."""
        open_members = len(self._expected.members) if self._expected is not None else 0
        return Counts(**self._counts | {"pending": self._join.records() + 2 * open_members})

    @property
    def index(self) -> int:
        """Number of windows closed so far."""
        return self._index

    def reach(self) -> tuple[Reach, ...]:
        """Return the positions of the last closing (or of the start)."""
        return self._reach

    @property
    def waiting(self) -> tuple[int, int, int]:
        """Events without label, labels without event, members of the open window."""
        return self._join.waiting()

    def wanted(self) -> Mapping[Partition, int]:
        """Return the next offset to read; a partition not named is read from its beginning."""
        return self._merge.wanted()

    def buffered(self) -> int:
        """Return how many offered records wait for their place in the order to be certain."""
        return self._merge.buffered()

    def ahead(self, limit: int) -> frozenset[Partition]:
        """Return partitions better not read just now: more than `limit` records of each are buffered.

        None of them holds up the others, so reading the rest always goes on.
        """
        return self._merge.ahead(limit)

    def partitions(self) -> list[Partition]:
        """Return the partitions that are merged."""
        return self._merge.partitions()

    def end_floors(self, only: Iterable[Partition] | None = None) -> list[Floor]:
        """Return the floors to record when these partitions (or all) have fallen silent."""
        return self._merge.end_floors(only)

    def ending(self) -> list[Floor]:
        """Return what to record at the end of a bounded run, once `end_floors()` has nothing more.

        When it takes effect, what is open is closed: the window if `close_partial`, and in any case the
        positions and whatever was set aside. Nothing is returned where nothing is open.
        """
        settled = self._merge.settled()
        closes = self._since > 0 or (self._rules.close_partial and self._join.waiting()[2] > 0)
        if settled is None or settled <= self._ended or not closes:
            return []
        return [Floor(*EVERYWHERE, 0, settled)]

    def newcomer(self, partition: Partition) -> Floor:
        """Return the floor to record for a partition that was not there before."""
        return self._merge.newcomer(partition)

    def floor(self, floor: Floor) -> None:
        """Let a recorded floor take effect; opens a partition that appeared later."""
        if (floor.topic, floor.partition) != EVERYWHERE:
            self._merge.floor(floor)
        elif floor.floor_ms > self._ended:
            self._endings = sorted({*self._endings, floor.floor_ms})

    def offer(self, record: Record) -> None:
        """Take in a record as polled."""
        if self._left_out:
            record = self._left_out.emptied(record)
        body, vocabulary = record.body, self._rules.label_vocabulary
        # Here and not at release: a label that is no label must not move its partition's watermark.
        if vocabulary is not None and isinstance(body, Label) and not self._allowed(body.label, vocabulary):
            refusal = Refusal("label", f"label {body.label!r} is not in records.label_vocabulary")
            record = Record(record.position, record.sha256, refusal, record.raw)
        self._merge.offer(self._names.named(record) if self._names else record)

    def _allowed(self, label: str, vocabulary: frozenset[str]) -> bool:
        return label in vocabulary or self._names.mean(label)

    def next_closing(self) -> Closing | None:
        """Release records until a closing; None when more must be offered first.

        The closing must be settled before the next call. Raises TooMuchBad.
        """
        assert self._expected is None, "the last closing was not settled"
        merge, window, every = self._merge, self._join.window, self._rules.progress_every
        while True:
            top = merge.peek()
            if self._endings and (closing := self._at_ending(top)) is not None:
                return closing
            if top is None:
                return None
            if window.end_ms is not None and window.end_ms <= top[0] and self._counts_as_news(top):
                return self._close("window")
            self._release(merge.take())
            if window.full:
                return self._close("window")
            if self._since >= every:
                return self._close("progress")

    def _at_ending(self, top: Placed | None) -> Closing | None:
        """Close at a recorded ending, once everything before it is released."""
        at, settled = self._endings[0], self._merge.settled()
        if settled is None or settled < at or (top is not None and top[0] < at):
            return None
        self._ended = self._endings.pop(0)
        if self._rules.close_partial and self._join.waiting()[2]:
            return self._close("window")
        return self._close("progress") if self._since else None

    def _counts_as_news(self, top: Placed) -> bool:
        """Tell whether a record may end a time window: what is set aside must change nothing."""
        late, record = top[5], top[6]
        return isinstance(record.body, Event | Label) and not (late and self._diverted(record))

    def aside(self) -> tuple[Setaside, ...]:
        """Return what was set aside since the last closing, for the moment a breaker trips."""
        return tuple(self._setaside)

    def foretold(self, closing: Closing, said: Mapping[str, Forecast]) -> Closing:
        """Attach forecasts to events that wait; return the closing with its own members' filled in."""
        # Sorted, for on resume they come back in that order, and sums depend on it in the last bit.
        ordered = {event_id: dict(sorted(forecast.items())) for event_id, forecast in said.items()}
        for event_id, forecast in ordered.items():
            self._join.foretell(event_id, forecast)
        members = tuple(
            replace(m, forecast=ordered[m.event_id]) if m.event_id in ordered else m for m in closing.members
        )
        self._expected = replace(closing, members=members)
        return self._expected

    def settled(self, closing: Closing, *, learned: bool) -> None:
        """Move the closing's records to learned or quarantined and go on behind it."""
        self._expected = None
        if closing.kind == "window":
            self._counts["learned" if learned else "quarantined"] += 2 * len(closing.members)
            self._index += 1
            self._join.settle(closing.members, self._now, learned=learned)
        assert self.counts.balance() == 0, f"accounts do not balance: {self.counts}"

    def state(self) -> bytes:
        """Return canonical JSON of everything needed to resume behind the last settled closing."""
        assert self._expected is None, "the last closing was not settled"
        assert not self._since, "state is taken right after a closing"
        first_times = [[*key, time_ms] for key, time_ms in self._merge.first_times().items()]
        told = {
            "format": FORMAT,
            "reach": [
                [r.topic, r.partition, r.low, r.watermark_ms, r.beyond, r.consumed] for r in self._reach
            ],
            "first_times": first_times,
            "ended": self._ended,
            "counts": self.counts.told(),
            "index": self._index,
            "now": self._now,
            "extra": self.extra,
            **self._left_out.dump(),
            **self._names.dump(),
        }
        parts = {name: canonical_json(value) for name, value in told.items()} | self._join.dump()
        return b"{" + b",".join(b'"%b":%b' % (k.encode(), v) for k, v in sorted(parts.items())) + b"}"

    def _close(self, kind: str) -> Closing:
        members = self._join.close() if kind == "window" else ()
        before, self._reach = self._reach, self._merge.reach()
        closing = Closing(
            kind,
            self._index,
            members,
            tuple(self._arrivals),
            tuple(self._setaside),
            before,
            self._reach,
            self._now,
        )
        self._arrivals, self._setaside, self._since = [], [], 0
        self._expected = closing
        return closing

    def _release(self, placed: Placed) -> None:
        time_ms, late, record = placed[0], placed[5], placed[6]
        assert time_ms >= self._now, "released out of order"
        self._now = time_ms
        self._since += 1
        counts, body = self._counts, record.body
        counts["consumed"] += 1
        counts["expired"] += self._join.expire(time_ms)
        if isinstance(body, Refusal):
            self._dead_letter(record.whole(), body)
        elif isinstance(body, Erased):
            counts["erased"] += 1
            self._breaker.good()
        elif late and self._diverted(record):
            counts["late"] += 1
            self._setaside.append(Setaside(record.whole(), None))
            self._breaker.good()
        else:
            self._take_in(record, body, time_ms)

    def _take_in(self, record: Record, body: Event | Label, now_ms: Millis) -> None:
        if isinstance(body, Label):
            account = self._join.label(record, body, now_ms=now_ms)
            if account is not None:
                self._counts[account] += 1
        elif self._join.event(record, body, arrived=self._index, now_ms=now_ms):
            self._arrivals.append(Arrival(body.event_id, body.text, body.task))
        else:
            self._counts["duplicate"] += 1
        if not self._join.refused:
            self._breaker.good()
            return
        # A label that may not become a class: this record, or one that had waited for it.
        refused, self._join.refused = self._join.refused, []
        for raw, refusal in refused:
            self._dead_letter(raw, refusal)

    def _dead_letter(self, raw: RawRecord, refusal: Refusal) -> None:
        self._counts["dead_lettered"] += 1
        self._setaside.append(Setaside(raw, refusal))
        self._breaker.bad(raw.position, refusal)

    def _diverted(self, record: Record) -> bool:
        if self._rules.late == "accept":
            return False
        return all(name != PASSED_LATENESS for name, _ in record.whole().headers)
