"""When enough has come together to be learned: count and event-time windows.

An accepted example is in exactly one window. Count windows close with their last member. Time windows
are tumbling in merge time, aligned to multiples of their length, and close when the first record at or
beyond their end is about to be released; empty ones do not exist.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from stream.plan import Member
from stream.record import Millis, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """`size` is a number of examples (count) or milliseconds (time)."""

    kind: Literal["count", "time"] = "count"
    size: int = 500


@final
class Windower:
    """The open window."""

    def __init__(self, rules: WindowRules) -> None:
        """Start with an empty window."""
        self._rules = rules
        self._members: dict[str, Member] = {}
        self._labels: Counter[str] = Counter()
        self._until: Millis | None = None

    def __len__(self) -> int:
        """Return the number of members so far."""
        return len(self._members)

    def member(self, event_id: str) -> Member | None:
        """Return an open member."""
        return self._members.get(event_id)

    def labels(self) -> list[str]:
        """Return the labels of the open window."""
        return list(self._labels)

    def accept(self, member: Member) -> None:
        """Take an example in; the order of acceptance is the order of the plan."""
        self._members[member.event_id] = member
        self._labels[member.label] += 1
        if self._until is None:
            self._until = (member.accepted_ms // self._rules.size + 1) * self._rules.size

    def relabel(self, event_id: str, label: str, at: Position, sha256: str) -> None:
        """Replace a member's label: the last one before it is learned holds."""
        old = self._members[event_id]
        self._labels[old.label] -= 1
        self._labels = +self._labels
        self._labels[label] += 1
        self._members[event_id] = replace(old, label=label, label_at=at, label_sha256=sha256)

    def accept_forecast(self, event_id: str, member: Member) -> None:
        """Put back a member that has been foretold since."""
        self._members[event_id] = member

    def full(self) -> bool:
        """Tell whether a count window has its last member."""
        return self._rules.kind == "count" and len(self._members) >= self._rules.size

    def due(self, time_ms: Millis) -> bool:
        """Tell whether a time window ends before a record of this effective time."""
        ends = self._rules.kind == "time" and bool(self._members) and self._until is not None
        return ends and time_ms >= (self._until or 0)

    def close(self) -> tuple[Member, ...]:
        """Return the members in order and begin the next window."""
        members = tuple(self._members.values())
        self._members, self._labels, self._until = {}, Counter(), None
        return members

    def dump(self) -> list[Any]:
        """Return the open members as plain JSON values, in order."""
        return [[_plain(getattr(m, name)) for name in Member.__slots__] for m in self._members.values()]

    def load(self, data: list[Any]) -> None:
        """Fill an empty window from `dump`."""
        for values in data:
            fields = dict(zip(Member.__slots__, values, strict=True))
            fields |= {"event": Position(*fields["event"]), "label_at": Position(*fields["label_at"])}
            self.accept(Member(**fields))


def _plain(value: Any) -> Any:
    return [value.topic, value.partition, value.offset] if isinstance(value, Position) else value
