"""What became of events that no longer wait: so that a second copy is known, and a late label too.

Ids are kept in buckets of event time and forgotten a bucket at a time, at the horizon at the earliest.
A stream remembers many more ids than come between two commits, so what was written of them is kept and
only added to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from stream.plan import canonical_json
from stream.record import Millis

_BUCKETS: Final = 64  # in a horizon


@dataclass(slots=True)
class _Bucket:
    """Ids by fate, in the order in which they ended, and the same as JSON lists without brackets."""

    learned: dict[str, bool] = field(default_factory=dict)
    written: dict[bool, bytearray] = field(default_factory=lambda: {True: bytearray(), False: bytearray()})

    def add(self, event_id: str, *, learned: bool) -> None:
        self.learned[event_id] = learned
        text = self.written[learned]
        if text:
            text += b","
        text += canonical_json(event_id)

    def dump(self) -> bytes:
        return b'{"expired":[' + self.written[False] + b'],"learned":[' + self.written[True] + b"]}"


@final
class Past:
    """Ids of events that were learned or have expired, for `horizon_ms` of event time."""

    def __init__(self, horizon_ms: Millis, capacity: int) -> None:
        """Remember nothing yet; beyond `capacity` ids the oldest bucket is forgotten early."""
        self._horizon, self._capacity = horizon_ms, capacity
        self._width = max(1, horizon_ms // _BUCKETS)
        self._bucket_of: dict[str, int] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._oldest: int | None = None
        self._closed: int | None = None  # buckets below this one are forgotten for good

    def __len__(self) -> int:
        """Return the number of ids remembered."""
        return len(self._bucket_of)

    @property
    def wake_ms(self) -> Millis:
        """The time at which the next bucket is closed."""
        closed = 0 if self._closed is None else self._closed
        return (closed + 1) * self._width + self._horizon

    def learned(self, event_id: str) -> bool | None:
        """Tell whether an event was learned (or else expired); None if it is not remembered."""
        number = self._bucket_of.get(event_id)
        return None if number is None else self._buckets[number].learned[event_id]

    def add(self, event_id: str, time_ms: Millis, *, learned: bool) -> None:
        """Remember an id, unless its time is already beyond the horizon."""
        number = time_ms // self._width
        if self._closed is not None and number < self._closed:
            return
        self._bucket_of[event_id] = number
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket()
        bucket.add(event_id, learned=learned)
        if self._oldest is None or number < self._oldest:
            self._oldest = number

    def forget(self, now_ms: Millis) -> None:
        """Forget buckets that ended before the horizon, and the oldest while there are too many."""
        reached = (now_ms - self._horizon) // self._width
        if self._closed is None or reached > self._closed:
            self._closed = reached
        while self._oldest is not None and (
            self._oldest < self._closed or len(self._bucket_of) > self._capacity
        ):
            for event_id in self._buckets.pop(self._oldest).learned:
                del self._bucket_of[event_id]
            self._oldest = min(self._buckets, default=None)

    def dump(self) -> bytes:
        """Return canonical JSON: bucket -> fate -> ids in the order in which they ended."""
        rows = sorted((str(number).encode(), bucket) for number, bucket in self._buckets.items())
        return b"{" + b",".join(b'"%b":%b' % (number, bucket.dump()) for number, bucket in rows) + b"}"

    def load(self, data: Mapping[str, Any], now_ms: Millis) -> None:
        """Fill an empty memory from what `dump` wrote at `now_ms`."""
        for number, bucket in data.items():
            for fate in ("expired", "learned"):
                for event_id in bucket[fate]:
                    self.add(event_id, int(number) * self._width, learned=fate == "learned")
        self.forget(now_ms)
