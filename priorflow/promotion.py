"""Candidates before the gate: hear every window once, judge, write the decision down.

What is judged is the policy of following the head: each event is scored by the snapshot that was head when
it arrived, against the frozen champion, asked about the same events. The candidate is the newest snapshot
that has foretold a window. Every window that is heard appends a line, which holds all evidence so far.
The champion in turn is held against the shadow of the one before it, and goes if it did worse.
Aliases follow the decision log; nothing here touches the registry.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, final

from connectors import decision_log
from posterior.snapshot import REWOUND, Action, Decision, Json, Ledger, LedgerCorrupt, LogMoved, Snapshot
from priorflow.asking import Asker, answered, losses
from priorflow.case import CASE, Case, as_json, hear, heard, open_case
from priorflow.scores import spread
from stream.plan import Forecast, Member
from trainers import bounds as gates
from trainers.bounds import Bounds, Finding, Verdict
from trainers.branching import OF
from trainers.gates import Evidence, holds, judge
from trainers.guards import Smoke
from trainers.line import beyond, in_force, sha_before
from trainers.showing import class_counts, reliability, without
from trainers.wager import Paired, Wager

GATE: Final = "gate"
MOST_EVENTS: Final = (
    200  # of a window: asking the champion costs a prediction an event, and more windows come
)
_TRIES: Final = 5  # at a log that others write to as well
_Posed = tuple[int, Member, Forecast]  # place in the window, the event, what the policy said of it
_ACTIONS: Final[Mapping[Verdict, Action]] = {"pass": "promote", "fail": "refuse", "wait": "wait"}


@final
@dataclass(frozen=True, kw_only=True)
class Gatekeeper:
    """Judges candidates of one chain."""

    ledger: Ledger
    asker: Asker
    bounds: Bounds
    pi_new: float
    smoke: Callable[[Snapshot], Smoke] | None = None  # asked last, and only where the bounds want it
    rolls_back: bool = True  # whether a champion that did worse than the one before it goes by itself

    @property
    def chain(self) -> str:
        """Name of the chain that is judged."""
        return self.asker.rules.chain.name

    def consider(self, child: Snapshot, members: Sequence[Member], *, at_ms: int) -> Decision | None:
        """Hear the window that `child` closed, and decide on the snapshot that foretold it.

        None where there is nothing to decide on, or where the log has heard this window before. Windows
        between that and the last one heard are named in the line: no evidence was taken from them.
        """
        candidate = self.candidate(child)
        if candidate is None:
            return None
        members = self.asker.today(members)
        for _ in range(_TRIES):
            log = self.ledger.decisions(self.chain)
            if heard(log) >= child.index:
                return None
            try:
                return self._decide(log, candidate, child, members, at_ms=at_ms)
            except LogMoved:
                continue  # a person has decided meanwhile: look again
        msg = f"chain {self.chain}: the decision log moves faster than one can look at it; who writes to it?"
        raise LogMoved(msg)

    def candidate(self, child: Snapshot) -> Snapshot | None:
        """Return the snapshot whose belief foretold a window; None if that was the bare prior.

        None too if a derived chain began with that belief: the snapshot is another chain's.
        """
        row = child
        while row.parent is not None:
            found = self.ledger.snapshot(row.parent)
            if found is None or found[0].kind == "root":
                return None
            row = found[0]
            if row.kind == "branch":
                of = row.report.get(OF)
                found = None if of is None else self.ledger.snapshot(of)
                return None if found is None or found[0].kind == "root" else found[0]
            if row.kind == "learned":
                return row
        return None

    def unheard(self, log: Sequence[Decision]) -> list[tuple[Snapshot, Snapshot]]:
        """Return (row before, row) for each window in force with something to decide on and no answer yet."""
        mark, history = heard(log), self.ledger.history(self.chain)
        line = {row.sha for row in in_force(history, history[-1])} if history else set()
        pairs = [(p, c) for p, c in itertools.pairwise(history) if c.sha in line and c.index > mark]
        closed = [(p, c) for p, c in pairs if c.kind in {"learned", "quarantined"}]
        return [(parent, child) for parent, child in closed if self.candidate(child) is not None]

    def try_out(self, candidate: Snapshot, events: Sequence[Member], *, at_ms: int, actor: str) -> Decision:
        """Judge any snapshot by itself on events that are given; no case is opened or gone on with."""
        log = self.ledger.decisions(self.chain)
        champion = self._champion(log)
        events = self.asker.today(events)
        told = self.asker.forecasts(candidate, events)
        posed = [(place, m, own) for place, (m, own) in enumerate(zip(events, told, strict=True))]
        wager = None
        if champion is not None:
            wager = Wager(challenger=candidate.sha, incumbent=champion.sha, since=0, clip=self.bounds.clip)
        case = self._hear(Case(wager=wager), candidate.index, champion, posed)
        found = self._findings(candidate, champion, case)
        return self._write(log, candidate, found, champion, actor=actor, at_ms=at_ms)

    def _decide(
        self,
        log: Sequence[Decision],
        candidate: Snapshot,
        child: Snapshot,
        members: Sequence[Member],
        *,
        at_ms: int,
    ) -> Decision:
        champion, before, window = self._champion(log), self._predecessor(log), child.index
        case = open_case(
            log,
            champion,
            before,
            policy=f"head of {self.chain}",
            clip=self.bounds.clip,
            since=partial(self._since, child),
            turned=self._turned(child, heard(log)),
        )
        case = replace(case, showing=without(case.showing, self.asker.names.present))
        reopened, unheard = case.reopened, self._passed_over(log, window)
        posed = [
            (place, m, m.forecast)
            for place, m in enumerate(members)
            if m.forecast and m.arrived >= case.since
        ]
        case = self._hear(case, window, champion, posed, before)
        more: dict[str, Any] = {CASE: as_json(case)}
        more |= {"unheard": unheard} if unheard else {}
        more |= {"reopened": reopened} if reopened else {}
        if before is not None and case.tenure is not None:
            kept = holds(self.bounds, case.tenure)
            if kept.verdict == "fail":
                return self._write(log, before, (kept,), champion, actor=GATE, at_ms=at_ms, more=more)
        found = self._findings(candidate, champion, case)
        return self._write(log, candidate, found, champion, actor=GATE, at_ms=at_ms, more=more)

    def _back(self, child: Snapshot) -> Iterator[Snapshot]:
        """Walk back over the rows in force, newest first."""
        row: Snapshot | None = child
        while row is not None:
            yield row
            sha = sha_before(row)
            found = None if sha is None else self.ledger.snapshot(sha)
            row = None if found is None else found[0]

    def _turned(self, child: Snapshot, last: int) -> bool:
        """Tell whether learning went on from elsewhere since the last window that was heard."""
        for row in self._back(child):
            if row.kind == "branch":
                return True
            if row.kind in {"learned", "quarantined"} and row.index <= last:
                return False
        return False

    def _since(self, child: Snapshot, *judged: Snapshot) -> int:
        """Return how many windows were closed when the first events came that none of these had heard of.

        A snapshot of a stretch that was gone back over has learned records that are read again behind it.
        """
        heard_of = (row.index for row in self._back(child) if any(_knows(one, row) for one in judged))
        return next(heard_of, 0) + 1

    def _passed_over(self, log: Sequence[Decision], window: int) -> list[int]:
        if heard(log) >= window - 1:  # as a rule; a history may be long
            return []
        return [child.index for _, child in self.unheard(log) if child.index < window]

    def _hear(
        self,
        case: Case,
        window: int,
        champion: Snapshot | None,
        posed: Sequence[_Posed],
        before: Snapshot | None = None,
    ) -> Case:
        """Count a window: all that was foretold for the guards, a sample for the two that are compared.

        The policy stands against the champion, and the champion against the one `before` it.
        """
        answers = [answered(member, own, pi_new=self.pi_new) for _, member, own in posed]
        if champion is None:
            return hear(case, window, (), answers, self.bounds)
        asked = spread(posed, max(MOST_EVENTS, self.bounds.min_labels))
        events = [(place, member) for place, member, _ in asked]
        rival = self._asked(champion, events)
        pairs = self._pairs(window, events, [own for _, _, own in asked], rival)
        shadow: Sequence[Paired] = ()
        if before is not None:
            shadow = self._pairs(window, events, rival, self._asked(before, events))
        return hear(case, window, pairs, answers, self.bounds, shadow)

    def _asked(self, snapshot: Snapshot, events: Sequence[tuple[int, Member]]) -> Sequence[Forecast]:
        return self.asker.forecasts(snapshot, [member for _, member in events])

    def _pairs(
        self,
        window: int,
        events: Sequence[tuple[int, Member]],
        ones: Sequence[Forecast],
        others: Sequence[Forecast],
    ) -> list[Paired]:
        return [
            self._paired(window, place, member, one, other)
            for (place, member), one, other in zip(events, ones, others, strict=True)
        ]

    def _paired(self, window: int, place: int, member: Member, own: Forecast, other: Forecast) -> Paired:
        challenger, incumbent = losses(member.label, own, other, pi_new=self.pi_new)
        return Paired(
            event_id=member.event_id,
            window=window,
            place=place,
            arrived=member.arrived,
            challenger=challenger,
            incumbent=incumbent,
        )

    def _findings(self, candidate: Snapshot, champion: Snapshot | None, case: Case) -> tuple[Finding, ...]:
        evidence = Evidence(
            candidate=candidate.sha,
            champion=None if champion is None else champion.sha,
            wager=case.wager,
            reliability=reliability(case.showing),
            classes=class_counts(case.showing),
            kl_per_example=_per_example(candidate),
        )
        found = judge(replace(self.bounds, smoke=False, max_p99_ms=None), evidence)
        if champion is not None and candidate.posterior == champion.posterior:
            return (*found, Finding("candidate", "wait", "the candidate's belief is the champion's"))
        if gates.verdict(found) != "pass":  # a process of its own is for who passes all else
            return found
        return judge(self.bounds, self._tried(candidate, evidence))

    def _tried(self, candidate: Snapshot, evidence: Evidence) -> Evidence:
        """Have the candidate load and answer in a clean process, where the bounds ask for it."""
        wanted = self.bounds.smoke or self.bounds.max_p99_ms is not None
        if not wanted or self.smoke is None:
            return evidence
        tried = self.smoke(candidate)
        return replace(evidence, smoke=tried, latency=tried.latency)

    def _write(
        self,
        log: Sequence[Decision],
        candidate: Snapshot,
        found: Sequence[Finding],
        champion: Snapshot | None,
        *,
        actor: str,
        at_ms: int,
        more: Json | None = None,
    ) -> Decision:
        told = {"champion": None if champion is None else champion.sha, **gates.as_json(found)}
        return self.ledger.decide(
            self.chain,
            at_ms=at_ms,
            actor=actor,
            action="rollback" if _falls(found) else _ACTIONS[gates.verdict(found)],
            snapshot=candidate.sha,
            evidence={**told, **(more or {})},
            after=decision_log.last_hash(log),
        )

    def _predecessor(self, log: Sequence[Decision]) -> Snapshot | None:
        """Return the champion before the present one, if a champion is to be held against it."""
        sha = decision_log.fallback(log) if self.rolls_back else None
        found = None if sha is None else self.ledger.snapshot(sha)
        return None if found is None else found[0]

    def _champion(self, log: Sequence[Decision]) -> Snapshot | None:
        """Return the champion by the log; LedgerCorrupt if it is no longer in the ledger."""
        sha = decision_log.champion(log)
        if sha is None:
            return None
        found = self.ledger.snapshot(sha)
        if found is None:
            msg = f"chain {self.chain}: champion {sha} is not in the ledger any more; promote another"
            raise LedgerCorrupt(msg)
        return found[0]


def _knows(one: Snapshot, row: Snapshot) -> bool:
    """Tell whether what came right behind a row is old to a snapshot: foretold by it, or learned."""
    return one.sha in {row.sha, row.report.get(REWOUND)} or not beyond(row, one)


def _falls(found: Sequence[Finding]) -> bool:
    return any(one.gate == "holds" and one.verdict == "fail" for one in found)


def _per_example(snapshot: Snapshot) -> float:
    report = snapshot.report
    return float(report.get("kl_nats", 0.0)) / max(1, int(report.get("members", 0)))
