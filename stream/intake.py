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
from stream.labels import Horizons, Orphan, PendingStore, Waiting
from stream.merge import Merge, Released
from stream.plan import Arrival, Closing, Counts, Forecast, Member, Reach, Setaside, canonical_json
from stream.prediction_id import event_of
from stream.record import Event, Label, Record, Refusal
from stream.source import Floor, Partition
from stream.window import Windower, WindowRules

FORMAT: Final = 1
PASSED_LATENESS: Final = "priorflow.requeued"  # header of a record that was set aside and sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """All settings that decide which window holds what."""

    clock: ClockRules = field(default_factory=ClockRules)
    horizons: Horizons
    window: WindowRules = field(default_factory=WindowRules)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    late: Literal["accept", "divert"] = "accept"
    label_vocabulary: frozenset[str] | None = None
    max_classes: int = 100
    progress_every: int = 50_000


def labels_after(known: Sequence[str], members: Iterable[Member]) -> tuple[str, ...]:
    """Return the label map with the members' new labels appended in order of first sight."""
    return tuple(dict.fromkeys([*known, *(m.label for m in members)]))


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
    ) -> None:
        """Start at the beginning, or where `state` left off."""
        data: dict[str, Any] = json.loads(state) if state else {}
        reach = [Reach(t, p, low, w, tuple(b), n) for t, p, low, w, b, n in data.get("reach", ())]
        self._rules = rules
        # A saved chain knows its partitions; one that appeared since joins by a recorded floor.
        self._merge = Merge(rules.clock, () if data else partitions, reach, floors)
        self._store = PendingStore(rules.horizons)
        self._window = Windower(rules.window)
        self._breaker = Breaker(rules.breaker)
        self._counts = dict.fromkeys(asdict(Counts()), 0) | data.get("counts", {})
        self._index: int = data.get("index", 0)
        self._classes: tuple[str, ...] = tuple(data.get("classes", ()))
        self._now: int = data.get("now", 0)
        self._since = 0
        self._arrivals: list[Arrival] = []
        self._setaside: list[Setaside] = []
        self._reach = tuple(reach) if data else self._merge.reach()
        self._expected: Closing | None = None
        self.extra: dict[str, Any] = data.get("extra", {})
        if data:
            self._store.load(data["store"])
            self._window.load(data["window"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels learned so far, in order of first sight."""
        return self._classes

    @property
    def counts(self) -> Counts:
        """Where every released record is."""
        return Counts(**self._counts)

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
        return len(self._store.events), len(self._store.orphans), len(self._window)

    def wanted(self) -> Mapping[Partition, int]:
        """Return the next offset to read of every partition."""
        return self._merge.wanted()

    def buffered(self) -> int:
        """Return how many offered records wait for their place in the order to be certain."""
        return self._merge.buffered()

    def partitions(self) -> list[Partition]:
        """Return the partitions that are merged."""
        return self._merge.partitions()

    def end_floors(self, only: Iterable[Partition] | None = None) -> list[Floor]:
        """Return the floors to record when these partitions (or all) have fallen silent."""
        return self._merge.end_floors(only)

    def newcomer(self, partition: Partition) -> Floor:
        """Return the floor to record for a partition that was not there before."""
        return self._merge.newcomer(partition)

    def floor(self, floor: Floor) -> None:
        """Let a recorded floor take effect; opens a partition that appeared later."""
        self._merge.join(floor)

    def offer(self, record: Record) -> None:
        """Take in a record as polled."""
        self._merge.offer(record)

    def next_closing(self) -> Closing | None:
        """Release records until a closing; None when more must be offered first.

        The closing must be settled before the next call. Raises TooMuchBad.
        """
        assert self._expected is None, "the last closing was not settled"
        while (top := self._merge.peek()) is not None:
            if self._window.due(top.time_ms):
                return self._close("window")
            self._release(self._merge.take())
            if self._window.full():
                return self._close("window")
            if self._since >= self._rules.progress_every:
                return self._close("progress")
        return None

    def aside(self) -> tuple[Setaside, ...]:
        """Return what was set aside since the last closing, for the moment a breaker trips."""
        return tuple(self._setaside)

    def foretold(self, closing: Closing, said: Mapping[str, Forecast]) -> Closing:
        """Attach forecasts to events that wait; return the closing with its own members' filled in."""
        for event_id, forecast in said.items():
            if (event := self._store.events.get(event_id)) is not None:
                event.forecast = forecast
            elif (member := self._window.member(event_id)) is not None:
                self._window.accept_forecast(event_id, replace(member, forecast=forecast))
        members = tuple(
            replace(m, forecast=said[m.event_id]) if m.event_id in said else m for m in closing.members
        )
        self._expected = replace(closing, members=members)
        return self._expected

    def settled(self, closing: Closing, *, learned: bool) -> None:
        """Move the closing's records to learned or quarantined and go on behind it."""
        self._expected = None
        if closing.kind == "window":
            records = 2 * len(closing.members)
            self._counts["pending"] -= records
            self._counts["learned" if learned else "quarantined"] += records
            self._index += 1
            if learned:
                self._classes = labels_after(self._classes, closing.members)
        assert self.counts.balance() == 0, f"accounts do not balance: {self.counts}"

    def state(self) -> bytes:
        """Return canonical JSON of everything needed to resume behind the last settled closing."""
        assert self._expected is None, "the last closing was not settled"
        assert not self._arrivals, "state is taken right after a closing"
        return canonical_json(
            {
                "format": FORMAT,
                "reach": [list(asdict(r).values()) for r in self._merge.reach()],
                "counts": self._counts,
                "index": self._index,
                "classes": list(self._classes),
                "now": self._now,
                "store": self._store.dump(),
                "window": self._window.dump(),
                "extra": self.extra,
            }
        )

    def _close(self, kind: str) -> Closing:
        members = self._window.close() if kind == "window" else ()
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

    def _release(self, released: Released) -> None:
        record, counts = released.record, self._counts
        counts["consumed"] += 1
        self._since += 1
        self._now = max(self._now, released.time_ms)
        self._breaker.see(record)
        expired = self._store.expire(self._now)
        counts["expired"] += expired
        counts["pending"] -= expired
        body = record.body
        if isinstance(body, Refusal):
            self._set_aside(record, "dead_lettered", body)
        elif released.late and self._rules.late == "divert" and not _passes(record):
            self._set_aside(record, "late", None)
        elif isinstance(body, Event):
            self._event(record, body)
        else:
            self._label(record, body)

    def _set_aside(self, record: Record, count: str, refusal: Refusal | None) -> None:
        self._counts[count] += 1
        self._setaside.append(Setaside(record.raw, refusal))

    def _event(self, record: Record, event: Event) -> None:
        if self._store.fate(event.event_id) is not None:
            self._counts["duplicate"] += 1
            return
        self._counts["pending"] += 1
        self._arrivals.append(Arrival(event.event_id, event.text, event.task))
        waiting = Waiting(event.text, event.task, event.time_ms, record.position, record.sha256, self._index)
        self._store.add_event(event.event_id, waiting)
        if (orphan := self._store.orphans.pop(event.event_id, None)) is not None:
            self._accept(event.event_id, orphan)

    def _label(self, record: Record, label: Label) -> None:
        refusal = self._refuse_label(label.label)
        if refusal is not None:
            self._set_aside(record, "dead_lettered", refusal)
            return
        event_id = event_of(label.event_id)
        told = Orphan(label.label, label.time_ms, record.position, record.sha256)
        if event_id in self._store.events:
            self._counts["pending"] += 1
            self._accept(event_id, told)
        elif self._window.member(event_id) is not None:
            self._counts["duplicate"] += 1  # the label it replaces
            self._window.relabel(event_id, told.label, told.at, told.sha256)
        elif (fate := self._store.fate(event_id)) is not None:
            self._counts["duplicate" if fate == "learned" else "expired"] += 1
        else:
            replaced = self._store.add_orphan(event_id, told)
            self._counts["duplicate" if replaced else "pending"] += 1

    def _refuse_label(self, label: str) -> Refusal | None:
        vocabulary = self._rules.label_vocabulary
        if vocabulary is not None and label not in vocabulary:
            return Refusal("label", f"label {label!r} is not in records.label_vocabulary")
        if label in self._classes:
            return None
        orphans = (o.label for o in self._store.orphans.values())
        known = {*self._classes, *self._window.labels(), *orphans}
        if label not in known and len(known) >= self._rules.max_classes:
            return Refusal("label", f"label {label!r} would be class {len(known) + 1} (records.max_classes)")
        return None

    def _accept(self, event_id: str, label: Orphan) -> None:
        event = self._store.events.pop(event_id)
        self._store.remember(event_id, event.time_ms, "learned")
        self._window.accept(
            Member(
                event_id=event_id,
                text=event.text,
                label=label.label,
                task=event.task,
                event=event.at,
                event_sha256=event.sha256,
                event_ms=event.time_ms,
                label_at=label.at,
                label_sha256=label.sha256,
                accepted_ms=self._now,
                arrived=event.arrived,
                forecast=event.forecast,
            )
        )


def _passes(record: Record) -> bool:
    return any(name == PASSED_LATENESS for name, _ in record.raw.headers)
