"""What the loop works with, and what decides how far and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from posterior.snapshot import Blobs, Chain, Circumstance, Ledger
from stream.intake import IntakeRules
from stream.plan import Member, Setaside, sha256_json
from stream.record import RawRecord, Record
from stream.source import Source
from trainers.window import FamilySpec, LearnSpec, Updater


@dataclass(frozen=True, slots=True)
class Scored:
    """How a window was foretold: report numbers, and (wrong, nll) of each foretold member in order."""

    numbers: Mapping[str, Any]
    events: Sequence[tuple[bool, float]]


class Watcher(Protocol):
    """Whoever is told what happens; progress bars, logs, metrics and tests are watchers."""

    def __call__(self, what: str, **facts: Any) -> None:
        """Take note."""
        ...


def _nobody(what: str, **facts: Any) -> None:
    del what, facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop works with. `aside` must be durable when it returns; `now_ms` only finds silence."""

    source: Source
    decode: Callable[[RawRecord], Record]
    ledger: Ledger
    blobs: Blobs
    updater: Updater
    score: Callable[[Sequence[Member]], Scored]
    aside: Callable[[Sequence[Setaside]], None]
    keep: Callable[[Sequence[RawRecord]], None]
    circumstance: Callable[[Mapping[str, float]], Circumstance]
    now_ms: Callable[[], int]
    watch: Watcher = _nobody
    crash: Callable[[str], None] = field(default=lambda _step: None)
    stopping: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides the chain, and how far this run goes."""

    chain: Chain
    intake: IntakeRules
    family: FamilySpec
    learn: LearnSpec
    runtime: Mapping[str, str | int]
    idle_ms: int = 60_000
    until_end: bool = False
    max_windows: int | None = None
    publish: tuple[str, ...] = ()
    publish_every: int = 1
    poll_ms: int = 200
    poll_records: int = 2000

    @property
    def settings_sha256(self) -> str:
        """Hash of the settings that decide the posterior."""
        return sha256_json(self.chain.settings)
