"""A chain is held while it is written and no longer; who lost it is told; signals stop, then interrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.blobs import MemoryBlobs
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import Fence, Fenced, LeaseHeld, LedgerUnavailable
from priorflow.config import Settings, load
from priorflow.tenure import owned, stop_signals
from tests.connectors.chain_builder import a_chain

LEASE_S = 1.0
OTHER = "elsewhere/1/there/1"
PATIENCE_S = 10.0


class Watched:
    """A ledger that counts renewals, and cannot be reached for the first few."""

    def __init__(self, inner: SqlLedger, outages: int = 0) -> None:
        self._inner, self._outages = inner, outages
        self._renewed = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def renew(self, fence: Fence, *, ttl_s: float) -> None:
        if self._outages > 0:
            self._outages -= 1
            msg = "away"
            raise LedgerUnavailable(msg)
        self._inner.renew(fence, ttl_s=ttl_s)
        self._renewed.release()

    def renewals(self, count: int) -> bool:
        return all(self._renewed.acquire(timeout=PATIENCE_S / count) for _ in range(count))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened = open_ledger(f"sqlite:///{tmp_path}/ledger.db", MemoryBlobs())
    opened.create(a_chain())
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, overrides={"home": str(tmp_path), "ledger.lease": f"{LEASE_S:g}s"})


def watched(ledger: SqlLedger, outages: int = 0) -> tuple[Watched, SqlLedger]:
    one = Watched(ledger, outages)
    return one, cast("SqlLedger", one)


def free(ledger: SqlLedger) -> bool:
    try:
        ledger.release(ledger.acquire("main", owner=OTHER, ttl_s=60))
    except LeaseHeld:
        return False
    return True


def test_a_lease_outlives_its_length_while_it_is_held(ledger: SqlLedger, settings: Settings) -> None:
    watch, seen = watched(ledger)
    with owned(seen, settings, takeover=False) as (_, lost):
        assert watch.renewals(4)
        assert not free(ledger)
        assert not lost.is_set()
    assert free(ledger)


def test_it_is_let_go_of_whatever_happens(ledger: SqlLedger, settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), owned(ledger, settings, takeover=False):
        _ = 1 / 0
    assert free(ledger)


def test_who_was_taken_over_hears_of_it_and_leaves_the_successor_alone(
    ledger: SqlLedger, settings: Settings
) -> None:
    with owned(ledger, settings, takeover=False) as (fence, lost):
        ledger.acquire("main", owner=OTHER, ttl_s=60, takeover=True)
        assert lost.wait(PATIENCE_S)
        with pytest.raises(Fenced):
            ledger.renew(fence, ttl_s=LEASE_S)
    assert not free(ledger)


def test_a_live_owner_is_moved_by_a_takeover_only(ledger: SqlLedger, settings: Settings) -> None:
    ledger.acquire("main", owner=OTHER, ttl_s=60)
    with pytest.raises(LeaseHeld), owned(ledger, settings, takeover=False):
        pass
    with owned(ledger, settings, takeover=True):
        assert not free(ledger)


def test_an_outage_ends_no_tenure(ledger: SqlLedger, settings: Settings) -> None:
    watch, seen = watched(ledger, outages=2)
    with owned(seen, settings, takeover=False) as (_, lost):
        assert watch.renewals(2)
        assert not lost.is_set()


def test_the_first_signal_stops_the_second_interrupts_and_afterwards_all_is_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with stop_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_beside_the_main_thread_nobody_listens_to_signals() -> None:
    heard: list[bool] = []

    def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with stop_signals() as stop:
            heard.append(stop.is_set() or signal.getsignal(signal.SIGTERM) != before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]
