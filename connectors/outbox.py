"""From the ledger's outbox to a registry, beside the run and never in its way.

One thread takes unpublished snapshots, oldest first, and re-asserts the aliases from the decision log.
A registry that is down makes a backlog, not a stop (see `connectors.rounds`). Dying anywhere loses nothing,
since every step may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from connectors.aliases import Aliases
from connectors.crash import Crash, live
from connectors.rounds import Pace, Rounds
from posterior.registry import Alias, Registry, RegistryError, RegistryUnavailable
from posterior.snapshot import Blobs, Decision, Ledger, LedgerCorrupt, LedgerUnavailable, OutboxRow

MANY = 10_000
STALE_MS = 60 * 60 * 1000  # what is half-made for so long has no living publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the publisher is doing: what is left, and what went wrong last (None: all is well)."""

    backlog: int
    published: int
    failures: int
    error: str | None


def _nobody(error: str | None) -> None:
    del error


def _unheard(decision: Decision) -> None:
    del decision


@final
class Publisher:
    """Publish one chain's outbox to one registry, in a thread of its own.

    `tell` hears, in that thread, what went wrong when that changes, and None once all is well again;
    `decided` hears of an alias that a person had moved. Steps for `crash`: before-publish, before-published
    (the registry has it, the ledger knows not), and those of `Aliases`.
    """

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        registry: Registry,
        *,
        chain: str,
        target: str = "mlflow",
        pace: Pace | None = None,
        tell: Callable[[str | None], None] = _nobody,
        decided: Callable[[Decision], None] = _unheard,
        crash: Crash = live,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._registry = registry
        self._chain = chain
        self._target = target
        self._decided = decided
        self._aliases = Aliases(
            ledger=ledger, blobs=blobs, registry=registry, chain=chain, target=target, crash=crash
        )
        self._crash = crash
        self._published = 0
        self._ready = False
        self._candidate: tuple[int, str] | None = None  # seq and version
        self._error_now: str | None = None
        self._rounds = Rounds(
            "the publisher",
            self._round,
            passing=(RegistryError, LedgerUnavailable, LedgerCorrupt),
            pace=pace,
            tell=tell,
        )

    def start(self) -> None:
        """Begin publishing, what a predecessor left first."""
        self._rounds.start()

    def wake(self) -> None:
        """Say that something was committed or decided; returns at once."""
        self._rounds.wake()

    def flush(self, timeout_s: float) -> bool:
        """Publish what is committed by now; False if `timeout_s` was not enough for all of it."""
        return self._rounds.flush(timeout_s) and not self._ledger.backlog(self._target, limit=1)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the row in hand; False if it did not end in time."""
        return self._rounds.stop(timeout_s)

    def standing(self) -> Standing:
        """Return how it is going, for logs and status pages."""
        return Standing(
            backlog=len(self._ledger.backlog(self._target, limit=MANY)),
            published=self._published,
            failures=self._rounds.failures,
            error=self._rounds.error,
        )

    def _take_over(self) -> None:
        """Clear up after a predecessor, and find how far it came."""
        self._registry.sweep(time.time_ns() // 1_000_000 - STALE_MS)
        self._candidate = newest_published(self._ledger, self._chain, self._target)

    def _round(self) -> str | None:
        """Publish the backlog as it is now; what is refused is tried again in the next round."""
        if not self._ready:
            self._take_over()
            self._ready = True
        self._error_now = None
        for row in self._ledger.backlog(self._target, limit=MANY):
            if self._rounds.stopping:
                return self._error_now
            try:
                self._publish(row)
            except (RegistryError, LedgerCorrupt) as failed:
                self._error_now = str(failed)
                self._ledger.publish_failed(row.sha, self._target, str(failed))
                if isinstance(failed, RegistryUnavailable):
                    raise
        newest: Mapping[Alias, str | None] = {"candidate": self._candidate[1]} if self._candidate else {}
        heard = self._aliases.settle(newest, at_ms=time.time_ns() // 1_000_000).heard
        if heard is not None:
            self._decided(heard)
        return self._error_now

    def _publish(self, row: OutboxRow) -> None:
        entry = self._ledger.snapshot(row.sha)
        if entry is None:  # set aside since we looked
            return
        self._crash("before-publish")
        version = self._registry.publish(*entry, self._blobs.get(entry[0].posterior))
        self._crash("before-published")
        self._ledger.published(row.sha, self._target, version)
        self._candidate = max(self._candidate or (-1, ""), (entry[0].seq, version))
        self._published += 1


def newest_published(ledger: Ledger, chain: str, target: str) -> tuple[int, str] | None:
    """Return seq and version of the newest row that has a version."""
    versions = ((row.seq, ledger.reference(row.sha, target)) for row in reversed(ledger.history(chain)))
    return next(((seq, version) for seq, version in versions if version is not None), None)
