"""Chains derived from one: the newest stand in its tree, the others are counted, and each is named."""

from __future__ import annotations

from dataclasses import replace

from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from posterior.snapshot import Ledger, Snapshot
from priorflow.descent_words import way_of
from priorflow.kinship import SET_IN, Kin, kin
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, Writer, a_chain

BLOBS = MemoryBlobs()


def derive(ledger: Ledger, name: str, left: Snapshot, *, at_ms: int = 1_000, windows: int = 0) -> None:
    """Begin a chain at a row, as `unlearn` does, and learn so many windows in it."""
    ledger.create(a_chain(name, origin=left.sha))
    fence = ledger.acquire(name, owner=OWNER, ttl_s=60)
    first = replace(
        left, chain=name, seq=0, kind="branch", parent=left.sha, plan=None, spans_before=left.spans
    )
    ledger.commit(fence, first, replace(CIRCUMSTANCE, at_ms=at_ms))
    writer = Writer(ledger, BLOBS, fence, first)
    for _ in range(windows):
        writer.learn()
    ledger.release(fence)


def related(ledger: Ledger) -> Kin:
    chain = ledger.chain("main")
    assert chain is not None
    return kin(ledger, chain, ledger.history("main"))


def a_line() -> tuple[MemoryLedger, Snapshot]:
    """A chain of two windows, and its first."""
    ledger = MemoryLedger(BLOBS)
    writer = Writer.on_new_chain(ledger, BLOBS)
    first = writer.learn()
    writer.learn()
    return ledger, first


def test_all_that_were_derived_are_there_and_the_newest_stand_in_the_tree() -> None:
    """By when they were last committed, whatever they are called."""
    ledger, first = a_line()
    for at, name in enumerate("fbadec"):
        derive(ledger, name, first, at_ms=1_000 + at)
    found = related(ledger)
    assert [one.name for one in found.derived] == list("cedabf")
    assert [row.chain for row in found.rows] == ["main"] * 3 + list("dec")
    assert len(found.derived) == 6 > SET_IN


def test_of_each_it_is_said_where_it_left_and_how_far_it_came() -> None:
    ledger, first = a_line()
    derive(ledger, "longer", first, at_ms=9, windows=2)
    ledger.create(a_chain("died", origin=first.sha))
    told = {one.name: way_of(one) for one in related(ledger).derived}
    head = ledger.history("longer")[-1].sha
    assert told["longer"] == f"left window 1 ({first.sha[:12]}), has windows 2\N{EN DASH}3, head {head[:12]}"
    assert told["died"] == f"left window 1 ({first.sha[:12]}); it has no row yet"


def test_one_that_is_damaged_is_named_and_hides_no_other() -> None:
    ledger, first = a_line()
    for name in ("sound", "torn"):
        derive(ledger, name, first, at_ms=1, windows=1)
    del ledger._lines["torn"].rows[0]
    found = related(ledger)
    told = {one.name: way_of(one) for one in found.derived}
    assert "damaged" in told["torn"]
    assert "damaged" not in told["sound"]
    assert {row.chain for row in found.rows} == {"main", "sound"}
