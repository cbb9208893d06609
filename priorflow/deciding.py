"""What a person decides: promote, roll back. Recorded first, in the log; aliases follow.

A decision goes only where one looked: if somebody else decided meanwhile, it is refused with who that was.
It needs no lease, so it works beside a run.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from connectors.crash import Crash, live
from connectors.decision_log import champion, fallback, in_charge, last_hash
from posterior.snapshot import IN_CHARGE, Action, Blobs, Decision, Ledger, LedgerError, Snapshot
from priorflow.case import newest_candidate
from trainers.branching import CONTINUE, asked_for

ContinueFrom = Literal["head", "champion", "relearn"]
GATES: Final = "gates"


class NotAllowed(LedgerError):
    """A decision that cannot be taken as it was asked for; nothing was recorded."""


@final
class StandsAlready(NotAllowed):
    """What was asked for has been decided: `line` says so; what follows from it may not have been done."""

    def __init__(self, line: Decision) -> None:
        super().__init__(f"{line.snapshot} is champion already, by line {line.seq} of {line.actor}")
        self.line = line


def whoever() -> str:
    """Return user@host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without that user in its passwd
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@final
@dataclass(frozen=True, kw_only=True)
class Bench:
    """Decides on one chain in a person's name. Steps for `crash`: before-decision, after-decision."""

    ledger: Ledger
    blobs: Blobs
    chain: str
    actor: str
    at_ms: int
    crash: Crash = live

    def promote(self, sha: str | None, *, force: bool, reason: str | None) -> Decision:
        """Put a snapshot in charge: the gates' newest candidate if none is named.

        Without `force` the gates' newest finding on it must have passed, against the present champion.
        """
        if force and not reason:
            msg = "--force goes past the gates and has to say why: --reason TEXT"
            raise NotAllowed(msg)
        log = self.ledger.decisions(self.chain)
        wanted = self._snapshot(sha if sha is not None else _candidate(self.chain, log))
        present = in_charge(log)
        if present is not None and present.snapshot == wanted.sha:
            raise StandsAlready(present)
        found = _finding(log, wanted.sha)
        if not force:
            _require_allowed(log, found, wanted.sha)
        evidence = {"reason": reason, "forced": force, "finding": None if found is None else found.seq}
        return self._decide(log, "promote", wanted, evidence)

    def roll_back(self, sha: str | None, *, reason: str | None, continue_from: ContinueFrom) -> Decision:
        """Put a former champion in charge again: the one before the present if none is named.

        The present one only to say what learning goes on from, or that it stays at the head after all.
        """
        log = self.ledger.decisions(self.chain)
        target = sha if sha is not None else fallback(log)
        if target is None:
            msg = f"chain {self.chain}: there is no champion before the present one to roll back to"
            raise NotAllowed(msg)
        wanted = self._snapshot(target)
        if wanted.sha not in {line.snapshot for line in log if line.action in IN_CHARGE}:
            msg = f"{wanted.sha} was never champion; `priorflow promote` it, with --force and a reason"
            raise NotAllowed(msg)
        stays = continue_from == "head" and asked_for(log, self.ledger.history(self.chain)) is None
        present = in_charge(log)
        if present is not None and present.snapshot == wanted.sha and stays:
            raise StandsAlready(present)
        return self._decide(log, "rollback", wanted, {"reason": reason, CONTINUE: continue_from})

    def _snapshot(self, sha: str) -> Snapshot:
        """Return a snapshot of this chain that holds a belief of its own and whose blob verifies."""
        found = self.ledger.snapshot(sha)
        if found is None:
            msg = f"no snapshot begins with {sha!r}; `priorflow snapshots ls` lists them"
            raise NotAllowed(msg)
        snapshot = found[0]
        if snapshot.chain != self.chain or snapshot.kind != "learned":
            what = f"{snapshot.sha} is a {snapshot.kind} row of chain {snapshot.chain}"
            msg = f"{what}; name a learned one of {self.chain}"
            raise NotAllowed(msg)
        self.blobs.get(snapshot.posterior)
        return snapshot

    def _decide(
        self, log: Sequence[Decision], action: Action, snapshot: Snapshot, evidence: Mapping[str, Any]
    ) -> Decision:
        self.crash("before-decision")
        line = self.ledger.decide(
            self.chain,
            at_ms=self.at_ms,
            actor=self.actor,
            action=action,
            snapshot=snapshot.sha,
            evidence=evidence,
            after=last_hash(log),
        )
        self.crash("after-decision")
        return line


def _candidate(chain: str, log: Sequence[Decision]) -> str:
    sha = newest_candidate(log)
    if sha is None:
        msg = f"chain {chain}: the gates have judged nothing yet; name a snapshot, with --force and a reason"
        raise NotAllowed(msg)
    return sha


def _finding(log: Sequence[Decision], sha: str) -> Decision | None:
    """Return the newest line in which the gates judged a snapshot, and not the one it was put back for."""
    judged = (d for d in reversed(log) if d.action != "rollback" and GATES in d.evidence)
    return next((d for d in judged if d.snapshot == sha), None)


def _require_allowed(log: Sequence[Decision], found: Decision | None, sha: str) -> None:
    """Raise NotAllowed, with what the gates said, unless they passed it against the present champion."""
    way_out = "; --force --reason TEXT goes past the gates"
    if found is None:
        msg = f"the gates have not judged {sha}{way_out}"
        raise NotAllowed(msg)
    if found.evidence["verdict"] != "pass":
        said = "; ".join(g["line"] for g in found.evidence[GATES] if g["verdict"] != "pass")
        msg = f"the gates do not allow {sha} ({found.evidence['verdict']}): {said}{way_out}"
        raise NotAllowed(msg)
    if found.evidence["champion"] != champion(log):
        msg = f"the gates passed {sha} against another champion than the present one{way_out}"
        raise NotAllowed(msg)
