"""What became of events that no longer wait: so that a second copy is known, and a late label too.

Ids are kept in buckets of event time and forgotten a bucket at a time, at the horizon at the earliest.
A stream remembers many more ids than change between two commits, so each bucket keeps its own JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from stream.plan import canonical_json
from stream.record import Millis

_BUCKETS: Final = 64  # in a horizon


@final
class Past:
    """Ids of events that were learned or have expired, for `horizon_ms` of event time."""

    def __init__(self, horizon_ms: Millis, capacity: int) -> None:
        """Remember nothing yet; beyond `capacity` ids the oldest bucket is forgotten early."""
        self._horizon, self._capacity = horizon_ms, capacity
        self._width = max(1, horizon_ms // _BUCKETS)
        self._bucket_of: dict[str, int] = {}
        self._buckets: dict[int, dict[str, bool]] = {}
        self._written: dict[int, bytes] = {}
        self._oldest: int | None = None
        self._forgotten: int | None = None  # buckets below this one are closed for good

    def __len__(self) -> int:
        """Return the number of ids remembered."""
        return len(self._bucket_of)

    def learned(self, event_id: str) -> bool | None:
        """Tell whether an event was learned (or else expired); None if it is not remembered."""
        number = self._bucket_of.get(event_id)
        return None if number is None else self._buckets[number][event_id]

    def add(self, event_id: str, time_ms: Millis, *, learned: bool) -> None:
        """Remember an id, unless its time is already beyond the horizon."""
        number = time_ms // self._width
        if self._forgotten is not None and number < self._forgotten:
            return
        self._bucket_of[event_id] = number
        self._buckets.setdefault(number, {})[event_id] = learned
        self._written.pop(number, None)
        if self._oldest is None or number < self._oldest:
            self._oldest = number

    def forget(self, now_ms: Millis) -> None:
        """Forget buckets that ended before the horizon, and the oldest while there are too many."""
        reached = (now_ms - self._horizon) // self._width
        if self._forgotten is None or reached > self._forgotten:
            self._forgotten = reached
        while self._oldest is not None and (
            self._oldest < self._forgotten or len(self._bucket_of) > self._capacity
        ):
            self._drop(self._oldest)

    def _drop(self, number: int) -> None:
        for event_id in self._buckets.pop(number):
            del self._bucket_of[event_id]
        self._written.pop(number, None)
        self._oldest = min(self._buckets, default=None)

    def dump(self) -> bytes:
        """Return canonical JSON."""
        for number, bucket in self._buckets.items():
            if number not in self._written:
                learned = sorted(i for i, was in bucket.items() if was)
                expired = sorted(i for i, was in bucket.items() if not was)
                self._written[number] = canonical_json({"expired": expired, "learned": learned})
        rows = sorted((str(number), text) for number, text in self._written.items())
        return b"{" + b",".join(b'"%b":%b' % (number.encode(), text) for number, text in rows) + b"}"

    def load(self, data: Mapping[str, Any], now_ms: Millis) -> None:
        """Fill an empty memory from what `dump` wrote at `now_ms`."""
        for number, bucket in data.items():
            for fate in ("expired", "learned"):
                for event_id in bucket[fate]:
                    self.add(event_id, int(number) * self._width, learned=fate == "learned")
        self.forget(now_ms)
