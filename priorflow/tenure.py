"""Hold a chain while it is written, and hear when to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from connectors.lease import this_owner
from connectors.ledger import SqlLedger
from posterior.snapshot import Fence, Fenced, LedgerUnavailable
from priorflow.config import Settings


@contextmanager
def owned(
    ledger: SqlLedger, settings: Settings, *, takeover: bool
) -> Iterator[tuple[Fence, threading.Event]]:
    """Hold the lease of the settings' chain; the event is set when it is lost."""
    with holding(ledger, settings.chain.name, lease_ms=settings.ledger.lease, takeover=takeover) as held:
        yield held


@contextmanager
def holding(
    ledger: SqlLedger, chain: str, *, lease_ms: int, takeover: bool = False
) -> Iterator[tuple[Fence, threading.Event]]:
    """Hold a chain's lease and renew it; the event is set when it is lost."""
    ttl_s = lease_ms / 1000
    fence = ledger.acquire(chain, owner=this_owner(), ttl_s=ttl_s, takeover=takeover)
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(ttl_s / 3):
            try:
                ledger.renew(fence, ttl_s=ttl_s)
            except Fenced:
                lost.set()
                return
            except LedgerUnavailable:
                continue  # tried again in a third of the lease; commits fail loudly meanwhile

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield fence, lost
    finally:
        done.set()
        thread.join()
        ledger.release(fence)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event: the window in hand is finished, then the loop ends.

    A second signal interrupts at once; the next run goes on from the last commit.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(number)
        stop.set()

    before = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
