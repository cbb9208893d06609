"""The append-only log of promotions: each line carries the hash of the line before.

Pure functions, shared by all ledgers. The log, not the registry, says who is champion; aliases are
re-asserted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from posterior.snapshot import IN_CHARGE, Action, Decision, Json, LedgerCorrupt, LogMoved
from stream.plan import sha256_json


def in_charge(log: Sequence[Decision]) -> Decision | None:
    """Return the line that put the present champion in charge; None while nobody is."""
    return next((line for line in reversed(log) if line.action in IN_CHARGE), None)


def champion(log: Sequence[Decision]) -> str | None:
    """Return the sha of the snapshot that the log puts in charge."""
    line = in_charge(log)
    return None if line is None else line.snapshot


def previous(log: Sequence[Decision]) -> str | None:
    """Return the champion that the present one took over from."""
    line = in_charge(log)
    return None if line is None else line.previous


def fallback(log: Sequence[Decision]) -> str | None:
    """Return where a rollback goes: one back for each time it is asked, not to and fro between two."""
    line: list[str] = []
    for one in log:
        if one.action == "rollback" and one.snapshot in line:
            del line[line.index(one.snapshot) + 1 :]
        elif one.action in IN_CHARGE and line[-1:] != [one.snapshot]:
            line.append(one.snapshot)
    return line[-2] if len(line) > 1 else None


def last_hash(log: Sequence[Decision]) -> str:
    """Return the hash that the next line will chain to; "" for an empty log."""
    return log[-1].hash if log else ""


def next_decision(
    log: Sequence[Decision],
    *,
    chain: str,
    at_ms: int,
    actor: str,
    action: Action,
    snapshot: str,
    evidence: Json,
    after: str | None = None,
) -> Decision:
    """Write the line that follows the log; LogMoved if that does not end with the line `after`."""
    if after is not None and after != last_hash(log):
        message = (
            f"chain {chain}: cannot {action} {snapshot}: {log[-1].actor if log else 'somebody'} has decided "
            "something since; look at `priorflow history` and decide again"
        )
        raise LogMoved(message)
    unsigned = Decision(
        seq=len(log),
        chain=chain,
        at_ms=at_ms,
        actor=actor,
        action=action,
        snapshot=snapshot,
        previous=previous(log) if action in IN_CHARGE and champion(log) == snapshot else champion(log),
        evidence=evidence,
        before=last_hash(log),
        hash="",
    )
    return replace(unsigned, hash=line_hash(unsigned))


def line_hash(line: Decision) -> str:
    """Hash everything a line says, the line before included."""
    return sha256_json({name: value for name, value in asdict(line).items() if name != "hash"})


def check_log(log: Sequence[Decision], since: int = 0) -> None:
    """Raise LedgerCorrupt at the first line that was altered, removed or put in.

    `log` may begin with the line of the number `since`; then what that chains to is for the caller to know.
    """
    before = log[0].before if log and since else ""
    for place, line in enumerate(log, since):
        if line.seq != place or line.before != before or line.hash != line_hash(line):
            message = (
                f"chain {line.chain}: the decision log does not chain at line {place}; it was "
                "altered outside priorflow, restore the ledger from a backup"
            )
            raise LedgerCorrupt(message)
        before = line.hash
