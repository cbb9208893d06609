"""What a window will learn, fixed before anything is learned.

A plan is a pure function of the logs, the recorded floors and the settings. It lists its members by
position and sha256, so that the same evidence can be found again, or found altered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from stream.record import Millis, Position, RawRecord, Refusal
from stream.value import value

_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)

Forecast = Mapping[str, float]  # label -> probability; what was known when the event arrived


def canonical_json(value: object) -> bytes:
    """Serialise to the one byte string that two equal values share; NaN is refused."""
    return _CANONICAL.encode(value).encode()


def sha256_json(value: object) -> str:
    """Hash a value by its canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@value()
class Member:
    """One labelled example of a window, with the records that made it.

    `arrived` is the number of windows closed before the event was released; `forecast` is what the
    snapshot of that time said of it (None: no class was known yet, so nothing could be said).
    """

    event_id: str
    text: str
    label: str
    task: str | None
    event: Position
    event_sha256: str
    event_ms: Millis
    label_at: Position
    label_sha256: str
    accepted_ms: Millis
    arrived: int
    forecast: Forecast | None = None


@value()
class Arrival:
    """An event released since the last window closed; it is predicted before that window is learned."""

    event_id: str
    text: str
    task: str | None


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """How far one partition has been released, canonically.

    `low` is the first offset not yet released, `watermark_ms` the partition's watermark just before it
    (None before any record), `beyond` the released offsets above `low`, `consumed` the records
    released in all (offsets may have holes, so this is counted, not subtracted).
    """

    topic: str
    partition: int
    low: int
    watermark_ms: Millis | None
    beyond: tuple[int, ...]
    consumed: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Where every released record is; `balance` proves that none is lost."""

    consumed: int = 0
    learned: int = 0
    pending: int = 0
    late: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    expired: int = 0
    quarantined: int = 0
    erased: int = 0

    def balance(self) -> int:
        """Return consumed minus everything accounted for; anything but 0 is our bug."""
        return self.consumed - (
            self.learned
            + self.pending
            + self.late
            + self.duplicate
            + self.dead_lettered
            + self.expired
            + self.quarantined
            + self.erased
        )

    def told(self) -> dict[str, int]:
        """Return the accounts as rows keep them: `erased` only where there is any; older rows have none."""
        told = asdict(self)
        return told if self.erased else {name: n for name, n in told.items() if name != "erased"}


@dataclass(frozen=True, slots=True)
class Setaside:
    """A record that leaves the main path: a dead letter (with its refusal) or a late record."""

    raw: RawRecord
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Closing:
    """A point in merge order at which something is to be committed.

    kind "window": `members` are to be learned; kind "progress": only positions moved.
    `arrivals` are all events released since the previous closing, in order; `setaside` what is to be
    written to the dead-letter and late topics before this closing is committed; `reach_before` and
    `reach` the positions on either side; `end_ms` the merge time of the last released record.
    """

    kind: str
    index: int
    members: tuple[Member, ...]
    arrivals: tuple[Arrival, ...]
    setaside: tuple[Setaside, ...]
    reach_before: tuple[Reach, ...]
    reach: tuple[Reach, ...]
    end_ms: Millis


@dataclass(frozen=True, slots=True)
class Plan:
    """The ledger's promise to learn exactly these members, written before training."""

    chain: str
    index: int
    parent: str
    seed: int
    settings_sha256: str
    runtime: Mapping[str, str | int]  # world size, threads, torch version, CPU capability
    members: tuple[Member, ...]
    reach_before: tuple[Reach, ...]
    reach: tuple[Reach, ...]

    def members_sha256(self) -> str:
        """Hash members by position and content, not by text: a plan holds nothing private."""
        return sha256_json(
            [[str(m.event), m.event_sha256, str(m.label_at), m.label_sha256] for m in self.members]
        )


def labels_after(known: Sequence[str], members: Iterable[Member]) -> tuple[str, ...]:
    """Return the label map with the members' new labels appended in order of first sight.

    A class that was merged is there once for each of its rows.
    """
    fresh = dict.fromkeys(m.label for m in members)
    return (*known, *(label for label in fresh if label not in known))


def window_seed(chain_seed: int, index: int) -> int:
    """Derive a window's seed from the chain's: 63 bits of sha256, so that neighbours share nothing."""
    digest = hashlib.sha256(f"{chain_seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
