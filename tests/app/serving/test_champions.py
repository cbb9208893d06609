"""Whom the decision log names: who is in charge, and whom the gates judged last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast, final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.blobs import MemoryBlobs
from connectors.decision_log import champion
from connectors.ledger import open_ledger
from connectors.memory_ledger import MemoryLedger
from connectors.memory_registry import MemoryRegistry
from posterior.snapshot import Action, Decision, Ledger, LedgerCorrupt
from priorflow.case import CASE, newest_candidate
from priorflow.serving.champions import Log, by_alias, by_version
from tests.connectors.chain_builder import CIRCUMSTANCE, Writer


def test_the_candidate_is_whom_the_gates_judged_last() -> None:
    """Not whom a person promotes, nor whom the gate puts back in charge."""
    blobs = MemoryBlobs()
    ledger = MemoryLedger(blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    first, second, third = (writer.learn().sha for _ in range(3))
    log = Log(ledger, "main")
    assert (log.champion(), log.candidate()) == (None, None)
    lines: tuple[tuple[Action, str, bool, tuple[str | None, str | None]], ...] = (
        ("promote", first, False, (first, None)),
        ("wait", second, True, (first, second)),
        ("promote", second, True, (second, second)),
        ("refuse", third, True, (second, third)),
        ("rollback", first, True, (first, third)),
    )
    for action, sha, case, expected in lines:
        ledger.decide(
            "main",
            at_ms=1,
            actor="a",
            action=action,
            snapshot=sha,
            evidence={CASE: {}} if case else {},
        )
        assert (log.champion(), log.candidate()) == expected


@final
class Counted:
    """A ledger that counts the lines it gives, and may be put in the place of another."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.read = ledger, 0

    def decisions(self, chain: str, *, since: int = 0) -> Sequence[Decision]:
        lines = self.ledger.decisions(chain, since=since)
        self.read += len(lines)
        return lines


ACTIONS: tuple[Action, ...] = ("promote", "refuse", "wait", "rollback")
LINES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.booleans()), max_size=12)


def town(lines: Sequence[tuple[Action, int, bool]]) -> Iterator[MemoryLedger]:
    """Write a log line by line: who decided what on which of three snapshots, and whether gates judged."""
    blobs = MemoryBlobs()
    ledger = MemoryLedger(blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    rows = [writer.learn().sha for _ in range(3)]
    yield ledger
    for action, row, judged in lines:
        evidence: dict[str, Any] = {CASE: {}} if judged else {}
        ledger.decide("main", at_ms=1, actor="a", action=action, snapshot=rows[row], evidence=evidence)
        yield ledger


@given(LINES, st.sets(st.integers(0, 12)))
def test_followed_line_by_line_it_names_whom_the_whole_log_names(
    lines: Sequence[tuple[Action, int, bool]], looks: set[int]
) -> None:
    """However many lines come between two looks; and a look costs what is new, and one line."""
    counted: Counted | None = None
    for place, ledger in enumerate(town(lines)):
        if counted is None:
            counted = Counted(ledger)
            log = Log(cast("Ledger", counted), "main")
        if place in looks or place == len(lines):
            whole = ledger.decisions("main")
            assert (log.champion(), log.candidate()) == (champion(whole), newest_candidate(whole))
    assert counted is not None
    assert counted.read <= len(lines) + 2 * (len(looks) + 1)


@given(LINES, LINES)
def test_a_ledger_from_a_backup_is_read_whole_again(
    lines: Sequence[tuple[Action, int, bool]], others: Sequence[tuple[Action, int, bool]]
) -> None:
    """Shorter, or with another line where the last known one was: nothing of the old one is believed."""
    (*_, first), (*_, second) = town(lines), town(others)
    counted = Counted(first)
    log = Log(cast("Ledger", counted), "main")
    log.champion()
    counted.ledger = second
    whole = second.decisions("main")
    same = lines and list(whole[len(lines) - 1 : len(lines)]) == list(first.decisions("main")[-1:])
    if not same:
        assert (log.champion(), log.candidate()) == (champion(whole), newest_candidate(whole))


def test_a_line_that_was_altered_on_the_way_is_not_followed(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    row = Writer.on_new_chain(ledger, blobs).learn()
    log = Log(ledger, "main")
    for _ in range(2):
        ledger.decide("main", at_ms=1, actor="a", action="promote", snapshot=row.sha, evidence={})
        assert log.champion() == row.sha
    ledger.decide("main", at_ms=1, actor="a", action="promote", snapshot=row.sha, evidence={})
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database, database:
        database.execute("UPDATE decisions SET actor = 'nobody' WHERE seq = 2")
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match="does not chain at line 2"):
            log.champion()
    ledger.close()


def test_a_registry_names_a_candidate_and_any_version_by_its_number() -> None:
    blobs = MemoryBlobs()
    writer = Writer.on_new_chain(MemoryLedger(blobs), blobs)
    registry, rows = MemoryRegistry(), [writer.learn() for _ in range(3)]
    versions = [registry.publish(row, CIRCUMSTANCE, blobs.get(row.posterior)) for row in rows]
    registry.assert_aliases({"champion": versions[0], "candidate": versions[2]})
    found = by_alias(registry, "main", rows[2].settings, "candidate")
    assert found is not None
    assert (found.snapshot, found.name) == (rows[2], versions[2])
    named = by_version(registry, versions[1])
    assert (named.snapshot, named.name, named.by) == (rows[1], versions[1], "setting")
    assert named.posterior() == blobs.get(rows[1].posterior)
