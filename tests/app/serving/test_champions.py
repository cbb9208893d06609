"""Whom the decision log names: who is in charge, and whom the gates judged last."""

from __future__ import annotations

from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from connectors.memory_registry import MemoryRegistry
from posterior.snapshot import Action
from priorflow.case import CASE
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
