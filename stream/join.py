"""Events meet their labels, in merge order; what has met is an example of the open window.

Both wait for each other in the store, both expire. The last label before an event is learned holds. A
label becomes a class only with an example: one without an event, or too many kinds of them, makes none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

from stream.labels import Horizons, PendingStore, Told, Waiting
from stream.plan import Forecast, Member, canonical_json, labels_after
from stream.prediction_id import event_of
from stream.record import Event, Label, Millis, Position, RawRecord, Record, Refusal
from stream.window import Windower, WindowRules

Account = Literal["duplicate", "expired"]

_log: Final = logging.getLogger(__name__)


@final
class Join:
    """The pending store and the open window."""

    def __init__(self, window: WindowRules, horizons: Horizons, max_classes: int) -> None:
        """Start empty."""
        self._store = PendingStore(horizons)
        self.window = Windower(window)
        self._max_classes = max_classes
        self.classes: tuple[str, ...] = ()  # the label map: a class once, or once for each row it has
        self._known: frozenset[str] = frozenset()
        self.refused: list[tuple[RawRecord, Refusal]] = []  # labels, for the caller to take away

    def waiting(self) -> tuple[int, int, int]:
        """Return events without label, labels without event, members of the open window."""
        return len(self._store.events), len(self._store.orphans), len(self.window)

    def records(self) -> int:
        """Return how many records wait here; a member is two."""
        return len(self._store.events) + len(self._store.orphans) + 2 * len(self.window)

    def expire(self, now_ms: Millis) -> int:
        """Let go of what is too old or too much; return the number of records."""
        return self._store.expire(now_ms) if now_ms >= self._store.wake_ms else 0

    def event(self, record: Record, event: Event, *, arrived: int, now_ms: Millis) -> bool:
        """Take in an event; False if it is a copy of one that is known."""
        store, event_id = self._store, event.event_id
        if (
            event_id in store.events
            or self.window.member(event_id)
            or store.past.learned(event_id) is not None
        ):
            return False
        told = store.orphans.pop(event_id, None)
        waiting = Waiting(event.text, event.task, event.time_ms, record.position, record.sha256, arrived)
        if told is not None and self._admits(told.label, told):
            self._accept(event_id, waiting, told.label, told.raw.position, told.sha256, now_ms)
        else:
            store.add_event(event_id, waiting)
        return True

    def label(self, record: Record, label: Label, *, now_ms: Millis) -> Account | None:
        """Take in a label; return what became of a record by it: this one, or the one it replaces.

        None: nothing leaves, or the label is among `refused`.
        """
        store, event_id = self._store, event_of(label.event_id)
        if (event := store.events.get(event_id)) is not None:
            if self._admits(label.label, record):
                del store.events[event_id]
                self._accept(event_id, event, label.label, record.position, record.sha256, now_ms)
            return None
        if (member := self.window.member(event_id)) is not None:
            return self._relabel(member, label.label, record)
        if (learned := store.past.learned(event_id)) is not None:
            _log.info("%s tells the label of %s, which is behind us: not learned", record.position, event_id)
            return "duplicate" if learned else "expired"
        told = Told(label.label, label.time_ms, record.sha256, record.whole())
        return "duplicate" if store.add_orphan(event_id, told) else None

    def _relabel(self, member: Member, label: str, record: Record) -> Account | None:
        if not self._admits(label, record, instead_of=member.label):
            return None
        self.window.relabel(member.event_id, label, record.position, record.sha256)
        return "duplicate"

    def _admits(self, label: str, by: Record | Told, instead_of: str | None = None) -> bool:
        """Tell whether a label may become a class, if it is none yet; a refused one is noted."""
        labels = self.window.labels
        if label in self._known or label in labels:
            return True
        classes = len(self._known.union(labels))
        if instead_of is not None and instead_of not in self._known and labels[instead_of] == 1:
            classes -= 1
        if classes < self._max_classes:
            return True
        reason = f"label {label!r} would be class {classes + 1}; records.max_classes is {self._max_classes}"
        self.refused.append((by.whole(), Refusal("label", reason)))
        return False

    def _accept(
        self, event_id: str, event: Waiting, label: str, at: Position, sha256: str, now_ms: Millis
    ) -> None:
        self.window.accept(
            Member(
                event_id,
                event.text,
                label,
                event.task,
                event.at,
                event.sha256,
                event.time_ms,
                at,
                sha256,
                now_ms,
                event.arrived,
                event.forecast,
            )
        )

    def foretell(self, event_id: str, forecast: Forecast) -> None:
        """Attach a forecast to an event that waits, or to an open member."""
        if (event := self._store.events.get(event_id)) is not None:
            event.forecast = forecast
        elif self.window.member(event_id) is not None:
            self.window.forecast(event_id, forecast)

    def close(self) -> tuple[Member, ...]:
        """Return the members of the open window in order and begin the next."""
        return self.window.close()

    def settle(self, members: Sequence[Member], now_ms: Millis, *, learned: bool) -> None:
        """Remember the members of a closed window, and their labels if they were learned."""
        for member in members:
            self._store.past.add(member.event_id, member.event_ms, learned=True)
        self._store.past.forget(now_ms)
        self._store.tidy()
        if learned:
            self._learn(labels_after(self.classes, members))

    def _learn(self, labels: Sequence[str]) -> None:
        self.classes, self._known = tuple(labels), frozenset(labels)

    def dump(self) -> dict[str, bytes]:
        """Return canonical JSON, by name."""
        return {
            "classes": canonical_json(self.classes),
            "past": self._store.past.dump(),
            "store": canonical_json(self._store.dump()),
            "window": canonical_json(self.window.dump()),
        }

    def load(self, data: Mapping[str, Any], now_ms: Millis) -> None:
        """Fill an empty join from parsed `dump`."""
        self._learn(data["classes"])
        self._store.load(data["store"])
        self._store.past.load(data["past"], now_ms)
        self.window.load(data["window"])
