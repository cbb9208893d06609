"""Labels come late: the bounded store in which events wait for theirs, and labels for their event.

Everything goes by event time, so that replay forgets what the live run forgot: an event older than the
horizon expires. Capacity is a second bound; beyond it the oldest expire. Counts are kept in records by
the caller.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Final, final

from stream.past import Past
from stream.plan import Forecast
from stream.record import Millis, Position, RawRecord

_AT_ONCE: Final = -(1 << 63)
_SLACK: Final = 1000  # stale heap entries that are not worth a clean-up

Age = tuple[Millis, str]


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
class Told:
    """A label. It keeps its bytes: should it have to be refused after all, they are set aside."""

    label: str
    time_ms: Millis
    sha256: str
    raw: RawRecord

    def whole(self) -> RawRecord:
        """Return the bytes, as a record does."""
        return self.raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizons:
    """How long to wait, how long to remember, and how much at the most.

    `capacity` bounds waiting events, and waiting labels; `remembered` the ids that are remembered
    for `dedup_ms` after they were learned or expired.
    """

    label_ms: Millis
    dedup_ms: Millis
    capacity: int
    remembered: int = 500_000


@final
class PendingStore:
    """Events and labels that have not met, and the ids of those that have."""

    def __init__(self, horizons: Horizons) -> None:
        """Start empty."""
        self._horizons = horizons
        self.events: dict[str, Waiting] = {}
        self.orphans: dict[str, Told] = {}
        self.past = Past(horizons.dedup_ms, horizons.remembered)
        self.wake_ms: Millis = _AT_ONCE  # before this, `expire` would change nothing
        # An entry whose id has left or changed its time is passed over.
        self._old_events: list[Age] = []
        self._old_orphans: list[Age] = []

    def add_event(self, event_id: str, event: Waiting) -> None:
        """Let an event wait."""
        self.events[event_id] = event
        heappush(self._old_events, (event.time_ms, event_id))
        self._wake(event.time_ms, len(self.events))

    def add_orphan(self, event_id: str, told: Told) -> bool:
        """Let a label wait, in place of an earlier one for the same event; tell whether there was one."""
        replaced = event_id in self.orphans
        self.orphans[event_id] = told
        heappush(self._old_orphans, (told.time_ms, event_id))
        self._wake(told.time_ms, len(self.orphans))
        return replaced

    def _wake(self, time_ms: Millis, waiting: int) -> None:
        self.wake_ms = min(self.wake_ms, time_ms + self._horizons.label_ms)
        if waiting > self._horizons.capacity:
            self.wake_ms = _AT_ONCE

    def expire(self, now_ms: Millis) -> int:
        """Let go of what is too old or too much; return the number of records that expired.

        Nothing happens before `wake_ms`, which is after every time that is now remembered.
        """
        deadline, capacity = now_ms - self._horizons.label_ms, self._horizons.capacity
        old, gone = self._old_events, 0
        while old and (old[0][0] < deadline or len(self.events) > capacity):
            gone += self._expire_event(*heappop(old))
        old = self._old_orphans
        while old and (old[0][0] < deadline or len(self.orphans) > capacity):
            gone += self._expire_orphan(*heappop(old))
        self.past.forget(now_ms)
        oldest = [heap[0][0] for heap in (self._old_events, self._old_orphans) if heap]
        self.wake_ms = min([self.past.wake_ms, *(t + self._horizons.label_ms for t in oldest)])
        return gone

    def _expire_event(self, time_ms: Millis, event_id: str) -> bool:
        event = self.events.get(event_id)
        if event is None or event.time_ms != time_ms:
            return False
        del self.events[event_id]
        self.past.add(event_id, time_ms, learned=False)
        return True

    def _expire_orphan(self, time_ms: Millis, event_id: str) -> bool:
        told = self.orphans.get(event_id)
        if told is None or told.time_ms != time_ms:
            return False
        del self.orphans[event_id]
        return True

    def tidy(self) -> None:
        """Drop stale heap entries, so that memory follows what waits and not what has passed."""
        if len(self._old_events) > 2 * len(self.events) + _SLACK:
            self._old_events = [(e.time_ms, i) for i, e in self.events.items()]
            heapify(self._old_events)
        if len(self._old_orphans) > 2 * len(self.orphans) + _SLACK:
            self._old_orphans = [(o.time_ms, i) for i, o in self.orphans.items()]
            heapify(self._old_orphans)

    def dump(self) -> dict[str, Any]:
        """Return plain sorted JSON values: the same whatever order things were added in."""
        return {
            "events": [
                [i, e.text, e.task, e.time_ms, _place(e.at), e.sha256, e.arrived, e.forecast]
                for i, e in sorted(self.events.items())
            ],
            "orphans": [
                [i, o.label, o.time_ms, _place(o.raw.position), o.sha256, *_bytes(o.raw)]
                for i, o in sorted(self.orphans.items())
            ],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Fill an empty store from `dump`."""
        for i, text, task, time_ms, at, sha, arrived, forecast in data["events"]:
            self.add_event(i, Waiting(text, task, time_ms, Position(*at), sha, arrived, forecast))
        for i, label, time_ms, at, sha, *raw in data["orphans"]:
            self.add_orphan(i, Told(label, time_ms, sha, _raw(Position(*at), *raw)))


def _place(at: Position) -> list[Any]:
    return [at.topic, at.partition, at.offset]


def _bytes(raw: RawRecord) -> list[Any]:
    headers = [[name, _text(value)] for name, value in raw.headers]
    return [raw.timestamp_ms, _text(raw.key), _text(raw.value), headers]


def _raw(
    at: Position, timestamp_ms: Millis, key: str | None, value: str | None, headers: Iterable[tuple[str, str]]
) -> RawRecord:
    told = tuple((name, base64.b64decode(text)) for name, text in headers)
    return RawRecord(
        at,
        timestamp_ms,
        None if key is None else base64.b64decode(key),
        None if value is None else base64.b64decode(value),
        told,
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
