"""Aliases of a registry, settled by the decision log: asserted, read back, and heard if a person moved one.

    log ── last line in charge ── asserted yet? ── no ──> point the aliases, read them back, note that
                                       └── yes, and yet `champion` points elsewhere: a person moved it
                                             ├── its snapshot verifies and is of this chain: adopted
                                             └── otherwise: put back; either way a line says so

A line that was asserted is noted in the outbox. So an alias that lags behind the log because somebody died
between the two is told from one that was moved by hand. Only `champion` is a decision; `previous` and
`candidate` are put back without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from connectors.crash import Crash, live
from connectors.decision_log import champion, in_charge, last_hash, previous
from posterior.registry import Alias, Registry, RegistryRefused
from posterior.snapshot import IN_CHARGE, Action, Blobs, Decision, Ledger, LogMoved

ACTOR: Final = "alias"
_NOTED: Final = "alias"  # outbox target of lines: `mlflow-alias`
_TRIES: Final = 5  # at a log that others write to as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of it: aliases as they are now, and the line that a hand-moved one made, if it did."""

    aliases: Mapping[str, str]
    heard: Decision | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Aliases:
    """The aliases of one chain in one registry.

    Steps for `crash`: before-alias (the decision is recorded), before-noted (the alias points where it
    should, and the ledger does not know).
    """

    ledger: Ledger
    blobs: Blobs
    registry: Registry
    chain: str
    target: str = "mlflow"
    crash: Crash = live

    def settle(self, newest: Mapping[Alias, str | None] | None = None, *, at_ms: int = 0) -> Settled:
        """Make aliases and decision log agree; `newest` are aliases that are nobody's decision.

        Should the log move on meanwhile, it is settled again, and then whatever the alias says is ours.
        """
        heard, ours = None, False
        for _ in range(_TRIES):
            log = self.ledger.decisions(self.chain)
            try:
                heard = (None if ours else self._heard(log, at_ms)) or heard
            except LogMoved:
                continue
            log = self.ledger.decisions(self.chain)
            self._point(log, newest or {})
            if last_hash(self.ledger.decisions(self.chain)) == last_hash(log):
                break
            ours = True
        return Settled(aliases=self.registry.aliases(), heard=heard)

    def _heard(self, log: Sequence[Decision], at_ms: int) -> Decision | None:
        """Return the line that a champion moved by hand makes; None if nobody moved it."""
        line = in_charge(log)
        stood = None if line is None else self._noted(line)
        if line is None or stood is None:
            return None
        found = self.registry.aliases().get("champion")
        if found == stood:
            return None
        action, sha, why = self._judged(log, line, found)
        if sha == line.snapshot and action != "refuse":
            return None  # another version of the champion itself
        evidence = {"reason": why, "version": found}
        if (log[-1].actor, log[-1].evidence) == (ACTOR, evidence):
            return None  # somebody insists; it has been said
        return self.ledger.decide(
            self.chain,
            at_ms=at_ms,
            actor=ACTOR,
            action=action,
            snapshot=sha,
            evidence=evidence,
            after=last_hash(log),
        )

    def _judged(
        self, log: Sequence[Decision], line: Decision, version: str | None
    ) -> tuple[Action, str, str]:
        """Return what a moved alias means: an action, the snapshot it is about, and why."""
        if version is None:
            return "refuse", line.snapshot, "alias champion was deleted by hand; put back"
        moved = f"alias champion was moved by hand to version {version}"
        try:
            snapshot, _ = self.registry.fetch(version)
        except RegistryRefused as refused:
            return "refuse", line.snapshot, f"{moved}, which does not verify: {refused}; put back"
        if snapshot.chain != self.chain or self.ledger.snapshot(snapshot.sha) is None:
            return "refuse", line.snapshot, f"{moved}, which is not of this chain; put back"
        before = {one.snapshot for one in log if one.action in IN_CHARGE}
        return "rollback" if snapshot.sha in before else "promote", snapshot.sha, f"{moved}; adopted"

    def _point(self, log: Sequence[Decision], newest: Mapping[Alias, str | None]) -> None:
        """Assert the aliases of the log; the champion is published first if it is not yet."""
        line = in_charge(log)
        if line is None:
            self.registry.assert_aliases(newest)
            return
        self.crash("before-alias")
        self._published(line.snapshot)
        wanted = wanted_aliases(self.ledger, self.chain, self.target, log)
        self.registry.assert_aliases({**newest, **wanted})
        self.crash("before-noted")
        version = wanted.get("champion")
        if version is not None and self._noted(line) != version:
            self.ledger.published(line.hash, f"{self.target}-{_NOTED}", version)

    def _published(self, sha: str) -> None:
        """Publish a champion that the run thinned out or has not come to."""
        entry = self.ledger.snapshot(sha)
        if entry is None or self.ledger.reference(sha, self.target) is not None:
            return
        try:
            version = self.registry.publish(*entry, self.blobs.get(entry[0].posterior))
        except RegistryRefused:
            return  # aliases stay where they are until it has a version
        self.ledger.published(sha, self.target, version)

    def _noted(self, line: Decision) -> str | None:
        """Return the version that this line's alias was last seen to point at."""
        return self.ledger.reference(line.hash, f"{self.target}-{_NOTED}")


def wanted_aliases(
    ledger: Ledger, chain: str, target: str, log: Sequence[Decision] | None = None
) -> Mapping[Alias, str | None]:
    """Return what the decision log says of champion and previous, as versions.

    Empty while nothing was ever promoted, so that a new ledger takes nobody's champion away, and
    while the champion is not yet published.
    """
    lines = ledger.decisions(chain) if log is None else log
    first, second = champion(lines), previous(lines)
    version = ledger.reference(first, target) if first else None
    if version is None:
        return {}
    return {"previous": ledger.reference(second, target) if second else None, "champion": version}
