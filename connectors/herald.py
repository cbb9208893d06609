"""Tell a receiver of decisions: each line of the log at least once, in order, beside the run.

How far the receiver is stands in the ledger's outbox, in one row for each chain. It moves only once a line
was taken, so whoever dies in between sends that line again; its id is the same. It never moves back: a run
and a command may both tell, and neither tells what the other is known to have told. A line that is not taken
is tried again for ever, and holds up those behind it: an order that is kept is worth more than a line in
time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from connectors.crash import Crash, live
from connectors.decision_events import event, worth_telling
from connectors.decision_log import in_charge
from connectors.rounds import Pace, Rounds
from connectors.webhook import Undelivered
from posterior.snapshot import Ledger, LedgerCorrupt, LedgerUnavailable

TARGET: Final = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """How far a receiver is: lines it has yet to hear, and why it did not take the next (None: it will)."""

    waiting: int
    error: str | None


def _nobody(error: str | None) -> None:
    del error


@final
class Herald:
    """Delivers one chain's decisions by `post`, in a thread of its own.

    `tell` hears, in that thread, what went wrong when that changes, and None once all is well again. Steps
    for `crash`: before-post, before-noted (the receiver has it, the ledger knows not).
    """

    def __init__(
        self,
        ledger: Ledger,
        post: Callable[[bytes], None],
        *,
        chain: str,
        pace: Pace | None = None,
        tell: Callable[[str | None], None] = _nobody,
        crash: Crash = live,
    ) -> None:
        self._ledger, self._post, self._chain, self._crash = ledger, post, chain, crash
        self._seen = 0  # lines, all of which are told or need not be
        self._rounds = Rounds(
            "the herald",
            self._round,
            passing=(Undelivered, LedgerUnavailable, LedgerCorrupt),
            pace=pace,
            tell=tell,
        )

    def start(self) -> None:
        """Begin telling, what a predecessor left first."""
        self._rounds.start()

    def wake(self) -> None:
        """Say that something was decided; returns at once."""
        self._rounds.wake()

    def flush(self, timeout_s: float) -> bool:
        """Tell of what is decided by now; False if `timeout_s` was not enough for all of it."""
        return self._rounds.flush(timeout_s)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the line in hand; False if it did not end in time."""
        return self._rounds.stop(timeout_s)

    @property
    def error(self) -> str | None:
        """What went wrong last; None: all is well."""
        return self._rounds.error

    def _round(self) -> None:
        place = begin(self._ledger, self._chain)
        if self._ledger.decided(self._chain) <= max(place, self._seen):
            return
        log = self._ledger.decisions(self._chain)
        for seq in range(place, len(log)):
            if self._rounds.stopping:
                return
            if worth_telling(log, seq) and begin(self._ledger, self._chain) <= seq:
                self._deliver(event(log[seq]))
                self._ledger.reached(_row(self._chain), TARGET, seq + 1)
        self._seen = len(log)

    def _deliver(self, body: bytes) -> None:
        self._crash("before-post")
        try:
            self._post(body)
        except Undelivered as failed:
            self._ledger.publish_failed(_row(self._chain), TARGET, str(failed))
            raise
        self._crash("before-noted")


def begin(ledger: Ledger, chain: str) -> int:
    """Return the first line that a receiver may not have heard.

    For a receiver that is new that is the one that put the present champion in charge: what an old chain
    decided last year is no news.
    """
    row = ledger.posted(_row(chain), TARGET)
    if row is not None and row.reference is not None:
        return int(row.reference)
    line = in_charge(ledger.decisions(chain))
    seq = 0 if line is None else line.seq
    ledger.reached(_row(chain), TARGET, seq)
    return seq


def heard(ledger: Ledger, chain: str) -> Heard | None:
    """Return how far the receiver is; None while there was none."""
    row = ledger.posted(_row(chain), TARGET)
    if row is None or row.reference is None:
        return None
    log = ledger.decisions(chain)
    waiting = sum(worth_telling(log, seq) for seq in range(int(row.reference), len(log)))
    return Heard(waiting=waiting, error=row.error if waiting else None)


def _row(chain: str) -> str:
    return f"decisions of {chain}"
