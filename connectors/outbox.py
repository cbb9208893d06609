"""From the ledger's outbox to a registry, beside the run and never in its way.

One thread takes unpublished snapshots, oldest first, and re-asserts the aliases from the decision log.
A registry that is down makes a backlog, not a stop: the wait between attempts doubles up to a bound.
Dying anywhere loses nothing, since every step may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition, Thread
from typing import final

from connectors.aliases import Aliases
from connectors.crash import Crash, live
from posterior.registry import Alias, Registry, RegistryError, RegistryUnavailable
from posterior.snapshot import Blobs, Decision, Ledger, LedgerCorrupt, LedgerUnavailable, OutboxRow

MANY = 10_000
STALE_MS = 60 * 60 * 1000  # what is half-made for so long has no living publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to look when nothing calls (`idle_s`), and how long to wait after failures."""

    idle_s: float = 5.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


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
        self._pace = pace or Pace()
        self._tell = tell
        self._decided = decided
        self._aliases = Aliases(
            ledger=ledger, blobs=blobs, registry=registry, chain=chain, target=target, crash=crash
        )
        self._crash = crash
        self._changed = Condition()
        self._asked = self._served = self._published = self._failures = 0
        self._hurried = self._stopping = self._ended = False
        self._candidate: tuple[int, str] | None = None  # seq and version
        self._error: str | None = None
        self._error_now: str | None = None
        self._thread = Thread(target=self._run, name=f"outbox-{target}", daemon=True)

    def start(self) -> None:
        """Begin publishing, what a predecessor left first."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was committed or decided; returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Publish what is committed by now; False if `timeout_s` was not enough for all of it."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._served >= wanted or self._ended, timeout_s)
            served = self._served >= wanted
        return served and not self._ledger.backlog(self._target, limit=1)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the row in hand; False if it did not end in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def standing(self) -> Standing:
        """Return how it is going, for logs and status pages."""
        backlog = len(self._ledger.backlog(self._target, limit=MANY))
        with self._changed:
            return Standing(
                backlog=backlog,
                published=self._published,
                failures=self._failures,
                error=self._error,
            )

    def _run(self) -> None:
        try:
            self._work()
        except Exception as failed:
            self._now_wrong(f"the publisher died of a fault of its own: {failed!r}")
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _work(self) -> None:
        ready = False
        while not self._stopping:
            with self._changed:
                asked, self._hurried = self._asked, False
            try:
                if not ready:
                    self._take_over()
                    ready = True
                self._round()
            except (RegistryError, LedgerUnavailable, LedgerCorrupt) as failed:
                self._wait_after(failed)
            else:
                self._rest(asked)

    def _take_over(self) -> None:
        """Clear up after a predecessor, and find how far it came."""
        self._registry.sweep(time.time_ns() // 1_000_000 - STALE_MS)
        self._candidate = newest_published(self._ledger, self._chain, self._target)

    def _round(self) -> None:
        """Publish the backlog as it is now; what is refused is tried again in the next round."""
        self._error_now = None
        for row in self._ledger.backlog(self._target, limit=MANY):
            if self._stopping:
                return
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

    def _wait_after(self, failed: Exception) -> None:
        self._now_wrong(str(failed))
        with self._changed:
            self._failures += 1
            wait = self._pace.first_wait_s * 2 ** min(self._failures - 1, 30)
            self._changed.wait_for(
                lambda: self._stopping or self._hurried, min(wait, self._pace.longest_wait_s)
            )

    def _now_wrong(self, error: str | None) -> None:
        with self._changed:
            before, self._error = self._error, error
        if error != before:
            self._tell(error)

    def _rest(self, asked: int) -> None:
        self._now_wrong(self._error_now)
        with self._changed:
            self._failures, self._served = 0, asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._asked > asked, self._pace.idle_s)


def newest_published(ledger: Ledger, chain: str, target: str) -> tuple[int, str] | None:
    """Return seq and version of the newest row that has a version."""
    versions = ((row.seq, ledger.reference(row.sha, target)) for row in reversed(ledger.history(chain)))
    return next(((seq, version) for seq, version in versions if version is not None), None)
