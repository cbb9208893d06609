"""Aliases of a registry, settled by the decision log: asserted, read back, and heard if a person moved one.

    log ── last line in charge ── asserted yet? ── no ──> point the aliases, read them back, note that
                                       └── yes, and yet `champion` points elsewhere
                                             ├── where somebody may have put it late: put back
                                             └── else a person moved it
                                                   ├── its snapshot verifies and is of this chain: adopted
                                                   └── otherwise: put back; in each case a line says so

A line that was asserted is noted in the outbox. So an alias that lags behind the log because somebody died
between the two is told from one that was moved by hand. Nor is a hand taken for one that is only late, which
would be a decision that nobody took: a move on behalf of an earlier line stands among the `askings` from
before it is made until nothing can come of it. Where no asking for that version stands, and none came or
went while one looked, every such move was made before the present line was asserted, and `champion` is
elsewhere by somebody else's doing. Where one stands, both may be, so the log wins, and its line tells a
person how to decide. A lock would not do in the place of this: it is lost by who is frozen for too long, or
else stops everybody.

While nobody is in charge, an alias on a version of this chain is a hand's too: adopted, or taken away if it
does not verify. One on another's version is left alone, so that a new ledger takes nobody's champion away.
Only `champion` is a decision; `previous` and `candidate` are put back without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from connectors.askings import Asking, ask, askings, cross_out, this_asker
from connectors.crash import Crash, live
from connectors.decision_log import champion, in_charge, last_hash, previous
from posterior.registry import Alias, Registry, RegistryRefused
from posterior.snapshot import IN_CHARGE, Action, Blobs, Decision, Ledger, LogMoved

ACTOR: Final = "alias"
_NOTED: Final = "alias"  # outbox target of lines: `mlflow-alias`
_TRIES: Final = 5  # at a log that others write to as well
_Judgement = tuple[Action, str, str]  # an action, the snapshot it is about, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of it: aliases as they are now, and the line that a hand-moved one made, if it did."""

    aliases: Mapping[str, str]
    heard: Decision | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Aliases:
    """The aliases of one chain in one registry; `by` names who moves them, for one thread.

    Steps for `crash`: before-alias (the decision is recorded), before-moved (it is asked for),
    before-noted (the alias points where it should, and the ledger does not know).
    """

    ledger: Ledger
    blobs: Blobs
    registry: Registry
    chain: str
    target: str = "mlflow"
    by: str = field(default_factory=this_asker)
    crash: Crash = live

    def settle(self, newest: Mapping[Alias, str | None] | None = None, *, at_ms: int = 0) -> Settled:
        """Make aliases and decision log agree; `newest` are aliases that are nobody's decision.

        Should the log move on meanwhile, it is settled again, and then whatever the alias says is ours.
        """
        heard, ours, over = None, False, list[Asking]()
        for _ in range(_TRIES):
            log = self.ledger.decisions(self.chain)
            try:
                heard = (None if ours else self._heard(log, at_ms)) or heard
            except LogMoved:
                continue
            log = self.ledger.decisions(self.chain)
            over += self._point(log, newest or {})
            if last_hash(self.ledger.decisions(self.chain)) == last_hash(log):
                for asking in over:
                    cross_out(self.ledger, self.target, asking)
                break
            ours = True
        return Settled(aliases=self.registry.aliases(), heard=heard)

    def _heard(self, log: Sequence[Decision], at_ms: int) -> Decision | None:
        """Return the line that a champion elsewhere than it was put makes; None if it makes none."""
        line = in_charge(log)
        stood = None if line is None else self._noted(line)
        if (line is not None and stood is None) or self.registry.aliases().get("champion") == stood:
            return None
        found, late = self._found(log)
        judged = None if found == stood else self._judged(log, line, found, late)
        if judged is None:
            return None
        heard = self._said(log, judged, found, at_ms)
        if line is None and judged[0] == "refuse":
            self.registry.assert_aliases({"champion": None})
        return heard

    def _found(self, log: Sequence[Decision]) -> tuple[str | None, Decision | None]:
        """Return where the champion is, and an earlier line on whose behalf it may have come there late.

        LogMoved where somebody asked, or was done, while one looked: it cannot be told who moved.
        """
        before = list(askings(self.ledger, self.target, log))
        found = self.registry.aliases().get("champion")
        if before != list(askings(self.ledger, self.target, log)):
            msg = f"chain {self.chain}: aliases are being moved by somebody else; look again"
            raise LogMoved(msg)
        line = in_charge(log)
        lines = (asking.line for asking in before if asking.stands and asking.version == found)
        return found, next((one for one in lines if one != line), None)

    def _said(
        self, log: Sequence[Decision], judged: _Judgement, version: str | None, at_ms: int
    ) -> Decision | None:
        action, sha, why = judged
        evidence = {"reason": why, "version": version}
        if log and (log[-1].actor, log[-1].evidence) == (ACTOR, evidence):
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
        self,
        log: Sequence[Decision],
        line: Decision | None,
        version: str | None,
        late: Decision | None,
    ) -> _Judgement | None:
        """Return what an alias elsewhere than the log has it means; None for nothing."""
        if line is None:
            return self._judged_first(str(version))
        if version is None:
            return "refuse", line.snapshot, "alias champion was deleted by hand; put back"
        if late is not None:
            return "refuse", line.snapshot, _may_be_late(version, late)
        moved = f"alias champion was moved by hand to version {version}"
        sha, wrong = self._verified(version)
        if sha is None:
            return "refuse", line.snapshot, f"{moved}, which {wrong}; put back"
        if sha == line.snapshot:
            return None  # another version of the champion itself
        before = {one.snapshot for one in log if one.action in IN_CHARGE}
        return "rollback" if sha in before else "promote", sha, f"{moved}; adopted"

    def _judged_first(self, version: str) -> _Judgement | None:
        """Return what an alias means while nobody is in charge; None where it is not ours."""
        moved = f"alias champion was moved by hand to version {version} while nobody was in charge"
        sha, wrong = self._verified(version)
        if sha is not None:
            return "promote", sha, f"{moved}; adopted"
        rows = reversed(self.ledger.history(self.chain))
        ours = next((row.sha for row in rows if self._reference(row.sha) == version), None)
        return None if ours is None else ("refuse", ours, f"{moved}, which {wrong}; taken away")

    def _verified(self, version: str) -> tuple[str | None, str]:
        """Return the snapshot of this chain that a version is, or None and what is wrong with it."""
        try:
            snapshot, _ = self.registry.fetch(version)
        except RegistryRefused as refused:
            return None, f"does not verify: {refused}"
        if snapshot.chain != self.chain or self.ledger.snapshot(snapshot.sha) is None:
            return None, "is not of this chain"
        return snapshot.sha, ""

    def _point(self, log: Sequence[Decision], newest: Mapping[Alias, str | None]) -> list[Asking]:
        """Assert the aliases of the log; the champion is published first if it is not yet.

        Returns what is over once the log is found unmoved after this: what was asked here, and by the dead.
        """
        line = in_charge(log)
        if line is None:
            self.registry.assert_aliases(newest)
            return []
        self.crash("before-alias")
        self._published(line.snapshot)
        wanted = dict(wanted_aliases(self.ledger, self.chain, self.target, log))
        version = wanted.get("champion")
        if version is None or self._stands(line, version):
            wanted.pop("champion", None)  # no move that nobody asked for
            self.registry.assert_aliases({**newest, **wanted})
            return []
        over = self._asked(log, line, version)
        self.crash("before-moved")
        self.registry.assert_aliases({**newest, **wanted})
        self.crash("before-noted")
        if self._noted(line) != version:
            self.ledger.published(line.hash, f"{self.target}-{_NOTED}", version)
        return over

    def _stands(self, line: Decision, version: str) -> bool:
        """Tell whether the alias was seen to point where this line has it, and does."""
        return self._noted(line) == version and self.registry.aliases().get("champion") == version

    def _asked(self, log: Sequence[Decision], line: Decision, version: str) -> list[Asking]:
        """Ask to move the alias; return that, and what was asked before by us, or by who is dead."""
        before = (asking for asking in askings(self.ledger, self.target, log) if asking.stands)
        over = [asking for asking in before if asking.is_by(self.by) or asking.gone]
        return [*over, ask(self.ledger, self.target, self.by, line, version)]

    def _published(self, sha: str) -> None:
        """Publish a champion that the run thinned out or has not come to."""
        entry = self.ledger.snapshot(sha)
        if entry is None or self._reference(sha) is not None:
            return
        try:
            version = self.registry.publish(*entry, self.blobs.get(entry[0].posterior))
        except RegistryRefused:
            return  # aliases stay where they are until it has a version
        self.ledger.published(sha, self.target, version)

    def _reference(self, sha: str) -> str | None:
        return self.ledger.reference(sha, self.target)

    def _noted(self, line: Decision) -> str | None:
        """Return the version that this line's alias was last seen to point at."""
        return self.ledger.reference(line.hash, f"{self.target}-{_NOTED}")


def _may_be_late(version: str, line: Decision) -> str:
    return (
        f"alias champion points at version {version}, where whoever carried out line {line.seq} may have put "
        "it late; put back. To have it there, `priorflow promote` or `rollback --to` it"
    )


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
