"""What a ledger holds after a run, and the laws that every chain in it obeys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import Snapshot, Span
from priorflow.config import Settings
from stream.plan import Counts


@contextmanager
def opened(settings: Settings) -> Iterator[SqlLedger]:
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    try:
        yield ledger
    finally:
        ledger.close()


def history(settings: Settings, chain: str = "main") -> list[Snapshot]:
    with opened(settings) as ledger:
        return list(ledger.history(chain))


def assert_accounts_balance(rows: Sequence[Snapshot]) -> None:
    """At every commit each record that was read is in one account, and in one only."""
    for row in rows:
        counts = Counts(**row.counts)
        assert counts.balance() == 0
        assert counts.consumed == sum(span.consumed for span in row.spans)
    for before, after in itertools.pairwise(rows):
        rejected = after.counts["dead_lettered"] - before.counts["dead_lettered"]
        assert len(after.rejected) == rejected


def assert_planned_without_gap_or_overlap(settings: Settings, rows: Sequence[Snapshot]) -> None:
    """Windows follow each other in every partition, and no record is a member of two."""
    for before, after in itertools.pairwise(rows):
        assert after.parent == before.sha
        assert after.spans_before == before.spans
    members: list[str] = []
    with opened(settings) as ledger:
        assert ledger.open_plan(settings.chain.name) is None
        for row in rows:
            if row.plan is None:
                continue
            plan = ledger.plan(row.chain, row.plan)
            assert plan is not None
            assert plan.status == "done"
            assert plan.content["reach_before"] == [_plain(span) for span in row.spans_before]
            assert plan.content["reach"] == [_plain(span) for span in row.spans]
            members += [place for member in plan.content["members"] for place in (member[0], member[2])]
    assert len(members) == len(set(members)) == rows[-1].counts["learned"]


def _plain(span: Span) -> list[Any]:
    return [list(v) if isinstance(v, tuple) else v for v in asdict(span).values()]
