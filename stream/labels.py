"""Labels come late: the bounded store in which events wait for theirs, and labels for their event.

Everything goes by event time, so that replay forgets what the live run forgot: an event older than the
horizon expires, an event id is remembered for the duplicate horizon. Capacity is a second bound; beyond
it the oldest expire. Counts are kept in records by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Literal, final

from stream.plan import Forecast
from stream.record import Millis, Position

Fate = Literal["waits", "learned", "expired"]


@dataclass(slots=True)
class Waiting:
    """An event without a label; `forecast` is filled in once, when it has been predicted."""

    text: str
    task: str | None
    time_ms: Millis
    at: Position
    sha256: str
    arrived: int
    forecast: Forecast | None = None


@dataclass(slots=True)
class Orphan:
    """A label whose event has not come."""

    label: str
    time_ms: Millis
    at: Position
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizons:
    """How long to wait, how long to remember, and how much at the most."""

    label_ms: Millis
    dedup_ms: Millis
    capacity: int


@final
class PendingStore:
    """Events and labels that have not met."""

    def __init__(self, horizons: Horizons) -> None:
        """Start empty."""
        self._horizons = horizons
        self.events: dict[str, Waiting] = {}
        self.orphans: dict[str, Orphan] = {}
        self._seen: dict[str, tuple[Millis, Fate]] = {}
        # Heaps hold (time, id); an entry whose id has left or changed time is passed over.
        self._old_events: list[tuple[Millis, str]] = []
        self._old_orphans: list[tuple[Millis, str]] = []
        self._old_seen: list[tuple[Millis, str]] = []

    def fate(self, event_id: str) -> Fate | None:
        """Return what became of an event id, or None if it is not remembered."""
        seen = self._seen.get(event_id)
        return None if seen is None else seen[1]

    def add_event(self, event_id: str, event: Waiting) -> None:
        """Let an event wait; its id is remembered from now on."""
        self.events[event_id] = event
        heappush(self._old_events, (event.time_ms, event_id))
        self.remember(event_id, event.time_ms, "waits")

    def add_orphan(self, event_id: str, label: Orphan) -> bool:
        """Let a label wait, in place of an earlier one for the same event; tell whether there was one."""
        replaced = event_id in self.orphans
        self.orphans[event_id] = label
        heappush(self._old_orphans, (label.time_ms, event_id))
        return replaced

    def remember(self, event_id: str, time_ms: Millis, fate: Fate) -> None:
        """Remember an id for the duplicate horizon."""
        if event_id not in self._seen:
            heappush(self._old_seen, (time_ms, event_id))
        self._seen[event_id] = (self._seen.get(event_id, (time_ms,))[0], fate)

    def expire(self, now_ms: Millis) -> int:
        """Let go of what is too old or too much; return the number of records that expired."""
        gone = 0
        deadline = now_ms - self._horizons.label_ms
        while self._over(self._old_events, deadline, len(self.events)):
            time_ms, event_id = heappop(self._old_events)
            event = self.events.get(event_id)
            if event is not None and event.time_ms == time_ms:
                del self.events[event_id]
                self.remember(event_id, time_ms, "expired")
                gone += 1
        while self._over(self._old_orphans, deadline, len(self.orphans)):
            time_ms, event_id = heappop(self._old_orphans)
            orphan = self.orphans.get(event_id)
            if orphan is not None and orphan.time_ms == time_ms:
                del self.orphans[event_id]
                gone += 1
        self._forget(now_ms - self._horizons.dedup_ms)
        return gone

    def _over(self, heap: list[tuple[Millis, str]], deadline: Millis, size: int) -> bool:
        return bool(heap) and (heap[0][0] < deadline or size > self._horizons.capacity)

    def _forget(self, deadline: Millis) -> None:
        while self._old_seen and self._old_seen[0][0] < deadline:
            time_ms, event_id = heappop(self._old_seen)
            # An event that still waits is a duplicate's twin however old it is.
            if self._seen.get(event_id, (None,))[0] == time_ms and event_id not in self.events:
                del self._seen[event_id]

    def dump(self) -> dict[str, Any]:
        """Return plain sorted JSON values: the same whatever order things were added in."""
        return {
            "events": [
                [i, e.text, e.task, e.time_ms, _place(e.at), e.sha256, e.arrived, e.forecast]
                for i, e in sorted(self.events.items())
            ],
            "orphans": [
                [i, o.label, o.time_ms, _place(o.at), o.sha256] for i, o in sorted(self.orphans.items())
            ],
            "seen": [[i, t, fate] for i, (t, fate) in sorted(self._seen.items())],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Fill an empty store from `dump`."""
        for i, text, task, time_ms, at, sha, arrived, forecast in data["events"]:
            self.events[i] = Waiting(text, task, time_ms, Position(*at), sha, arrived, forecast)
        for i, label, time_ms, at, sha in data["orphans"]:
            self.orphans[i] = Orphan(label, time_ms, Position(*at), sha)
        self._seen = {i: (t, fate) for i, t, fate in data["seen"]}
        self._old_events = [(e.time_ms, i) for i, e in self.events.items()]
        self._old_orphans = [(o.time_ms, i) for i, o in self.orphans.items()]
        self._old_seen = [(t, i) for i, (t, _) in self._seen.items()]
        for heap in (self._old_events, self._old_orphans, self._old_seen):
            heapify(heap)

    def records(self) -> Iterator[Position]:
        """Yield the positions of all records that wait."""
        yield from (e.at for e in self.events.values())
        yield from (o.at for o in self.orphans.values())


def _place(at: Position) -> list[Any]:
    return [at.topic, at.partition, at.offset]
