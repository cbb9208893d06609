"""The port through which records arrive, and its errors.

    SourceError
    ├── SourceUnavailable   retry: the log cannot be reached just now
    └── SourceLost          stop: positions we need are gone, or the log is not the one we knew

A source owns every partition of its topics. It never decodes: bytes out, positions in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from stream.record import Millis, RawRecord

Partition = tuple[str, int]  # (topic, partition)
EVERYWHERE: Final[Partition] = ("", -1)  # the partition of a floor that ends a bounded run


class SourceError(Exception):
    """Something about the log; the message says which partition and what to do."""


class SourceUnavailable(SourceError):
    """The log cannot be reached; the same call may succeed later."""


class SourceLost(SourceError):
    """Records we still need are gone; going on would skip evidence silently."""


@dataclass(frozen=True, slots=True, order=True)
class Floor:
    """A recorded promise that a quiet partition will say nothing older than `floor_ms`.

    It takes effect after the record before `at_offset` and before the record at `at_offset`, so that
    replay meets it at the same place. Floors enter the ledger before they take effect.

    A floor on EVERYWHERE is the end of a bounded run: once everything before `floor_ms` is released,
    what has come together is closed, full or not.
    """

    topic: str
    partition: int
    at_offset: int
    floor_ms: Millis


class Source(Protocol):
    """An ordered, replayable log of several topics with several partitions each."""

    def partitions(self) -> Sequence[Partition]:
        """Return all partitions of all topics, sorted; may grow over time."""
        ...

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Continue at these next offsets; a partition not named starts at its beginning.

        Raises SourceLost if a position lies before the first record still held.
        """
        ...

    def poll(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return records in offset order per partition; empty when nothing came in time."""
        ...

    def ends(self) -> Mapping[Partition, int]:
        """Return the offset after the last readable record of each partition."""
        ...

    def at_end(self, partition: Partition) -> bool:
        """Tell whether everything readable at the time of the last poll was returned.

        Not `position == end`: transaction markers and compaction leave offsets that hold no record.
        """
        ...

    def acknowledge(self, positions: Mapping[Partition, int]) -> None:
        """Tell the log how far we are, for its operators only; safe to repeat, or to lose."""
        ...

    def close(self) -> None:
        """Let go of the log."""
        ...
