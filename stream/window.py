"""When enough has come together to be learned: count and event-time windows.

An accepted example is in exactly one window. Count windows close with their last member. Time windows
are tumbling in merge time, aligned to multiples of their length, and close when the first record at or
beyond their end is about to be released; empty ones do not exist.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, final

from stream.plan import Forecast, Member
from stream.record import Millis, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """`size` is a number of examples (count) or milliseconds (time)."""

    kind: Literal["count", "time"] = "count"
    size: int = 500


_FIELDS: Final = tuple(Member.__annotations__)


@final
class Windower:
    """The open window."""

    def __init__(self, rules: WindowRules) -> None:
        """Start with an empty window."""
        self._counts, self._size = rules.kind == "count", rules.size
        self._members: dict[str, Member] = {}
        self.labels: Counter[str] = Counter()
        self.full = False  # whether a count window has its last member
        self.end_ms: Millis | None = None  # of a time window with members

    def __len__(self) -> int:
        """Return the number of members so far."""
        return len(self._members)

    def member(self, event_id: str) -> Member | None:
        """Return an open member."""
        return self._members.get(event_id)

    def accept(self, member: Member) -> None:
        """Take an example in; the order of acceptance is the order of the plan."""
        self._members[member.event_id] = member
        self.labels[member.label] += 1
        if self._counts:
            self.full = len(self._members) >= self._size
        elif self.end_ms is None:
            self.end_ms = (member.accepted_ms // self._size + 1) * self._size

    def forecast(self, event_id: str, forecast: Forecast) -> None:
        """Attach what was said of an open member before it was learned."""
        self._members[event_id] = replace(self._members[event_id], forecast=forecast)

    def relabel(self, event_id: str, label: str, at: Position, sha256: str) -> None:
        """Replace a member's label: the last one before it is learned holds."""
        old = self._members[event_id]
        self.labels[old.label] -= 1
        self.labels[label] += 1
        self.labels = +self.labels
        self._members[event_id] = replace(old, label=label, label_at=at, label_sha256=sha256)

    def close(self) -> tuple[Member, ...]:
        """Return the members in order and begin the next window."""
        members = tuple(self._members.values())
        self._members, self.labels, self.full, self.end_ms = {}, Counter(), False, None
        return members

    def dump(self) -> list[Any]:
        """Return the open members as plain JSON values, in order."""
        return [[_plain(getattr(m, name)) for name in _FIELDS] for m in self._members.values()]

    def load(self, data: list[Any]) -> None:
        """Fill an empty window from `dump`."""
        for values in data:
            fields = dict(zip(_FIELDS, values, strict=True))
            fields |= {"event": Position(*fields["event"]), "label_at": Position(*fields["label_at"])}
            self.accept(Member(**fields))


def _plain(value: Any) -> Any:
    return [value.topic, value.partition, value.offset] if isinstance(value, Position) else value
