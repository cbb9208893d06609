"""A log in memory: a real, small implementation of the Source port, for tests and examples."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import final

from stream.record import Position, RawRecord
from stream.source import Partition, SourceLost


@final
class MemoryLog:
    """Partitions of raw records; may be appended to while it is read."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        """Start with empty partitions."""
        self.lanes: dict[Partition, list[RawRecord]] = {p: [] for p in sorted(partitions)}
        self.first: dict[Partition, int] = dict.fromkeys(self.lanes, 0)

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> Position:
        """Add a record at the end of a partition."""
        lane = self.lanes.setdefault(partition, [])
        self.first.setdefault(partition, 0)
        at = Position(*partition, len(lane))
        lane.append(RawRecord(at, timestamp_ms, key, value, tuple(headers)))
        return at

    def truncate(self, partition: Partition, first: int) -> None:
        """Forget records before `first`, as retention does."""
        self.first[partition] = first


@final
class MemorySource:
    """Reads a MemoryLog; `seed` picks how partitions are interleaved and how much comes at a time."""

    def __init__(self, log: MemoryLog, *, seed: int = 0) -> None:
        """Start at the beginning."""
        self._log, self._rng = log, random.Random(seed)  # noqa: S311 - an interleaving, not a secret
        self._next: dict[Partition, int] = {}
        self._held: frozenset[Partition] = frozenset()
        self.acknowledged: dict[Partition, int] = {}

    def partitions(self) -> Sequence[Partition]:
        """Return all partitions."""
        return sorted(self._log.lanes)

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Continue at these offsets; raises SourceLost if one of them is not held, or not yet."""
        for partition, offset in positions.items():
            first, end = self._log.first.get(partition, 0), len(self._log.lanes.get(partition, ()))
            if not first <= offset <= end:
                topic, number = partition
                held = f"begins at {first} and ends at {end}"
                msg = f"{topic}[{number}]: offset {offset} is wanted but the log {held}"
                raise SourceLost(msg)
        self._next = dict(positions)
        self._held = frozenset()

    def poll(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return some records of one partition."""
        del timeout_ms
        ready = [p for p in self.partitions() if p not in self._held and not self.at_end(p)]
        if not ready:
            return ()
        partition = self._rng.choice(ready)
        at = self._at(partition)
        count = min(max_records, self._rng.randint(1, 50))
        found = self._log.lanes[partition][at : at + count]
        self._next[partition] = at + len(found)
        return found

    def _at(self, partition: Partition) -> int:
        return self._next.get(partition, self._log.first[partition])

    def hold(self, partitions: Collection[Partition]) -> None:
        """Read nothing of these partitions, and of no others, until told otherwise."""
        self._held = frozenset(partitions)

    def ends(self) -> Mapping[Partition, int]:
        """Return the offset after the last record of each partition."""
        return {p: len(lane) for p, lane in self._log.lanes.items()}

    def at_end(self, partition: Partition) -> bool:
        """Tell whether a partition has been read to its end."""
        return self._at(partition) >= len(self._log.lanes[partition])

    def acknowledge(self, positions: Mapping[Partition, int]) -> None:
        """Note how far the reader says it is."""
        self.acknowledged |= positions

    def close(self) -> None:
        """Nothing to let go of."""
