"""Who attends a run: the console hears of it, the gate judges, the publisher is woken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

from connectors.herald import Herald
from connectors.outbox import Publisher
from posterior.snapshot import Blobs, Decision, Ledger, Snapshot
from priorflow.asking import Asker
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.flavour import publishing
from priorflow.judging import told
from priorflow.opening import MLFLOW
from priorflow.promotion import Gatekeeper
from priorflow.rules import bounds
from priorflow.smoke import smoke
from priorflow.story_ledger import reasons
from priorflow.unheard import catch_up
from stream.plan import Member
from trainers.again import members_again
from trainers.branching import AGAIN, OF, SKIPPED
from trainers.line import names_along
from trainers.parts import Parts, Rules, Watcher
from trainers.window import Updater

_SAID = {
    "promote": "promoted",
    "refuse": "refused",
    "wait": "not promoted yet:",
    "rollback": "rolled back to",
}


def now_ms() -> int:
    """Return the wall clock, for what is written beside a decision."""
    return time.time_ns() // 1_000_000


def open_publisher(
    settings: Settings, ledger: Ledger, blobs: Blobs, console: Console, stack: ExitStack
) -> Publisher | None:
    """Start the publisher, which ends with `stack`; None where nothing is published."""
    if not settings.mlflow.enabled:
        return None

    def tell(error: str | None) -> None:
        if error is None:
            console.say("MLflow takes versions again", event="publishing")
        else:
            console.warn(f"versions wait in the outbox: {error}", event="not_publishing", error=error)

    publisher = Publisher(
        ledger,
        blobs,
        publishing(settings, ledger),
        chain=settings.chain.name,
        target=MLFLOW,
        tell=tell,
        decided=lambda decision: tell_decision(console, decision),
    )
    publisher.start()
    stack.callback(publisher.stop)
    return publisher


def gatekeeper(
    settings: Settings, ledger: Ledger, blobs: Blobs, updater: Updater, rules: Rules
) -> Gatekeeper | None:
    """Return who judges candidates; None where nobody does: no token is right or wrong."""
    if not settings.gate.enabled or settings.model.objective == "tokens":
        return None
    # Nobody renames while a run is alive.
    names = names_along(ledger.history(rules.chain.name))
    return Gatekeeper(
        ledger=ledger,
        asker=Asker(blobs=blobs, updater=updater, rules=rules, names=names),
        bounds=bounds(settings),
        pi_new=settings.learn.pi_new,
        smoke=lambda snapshot: smoke(settings, snapshot),
        rolls_back=settings.gate.rollback,
    )


@final
@dataclass(frozen=True, kw_only=True)
class Attendance:
    """A watcher of the loop; `also` hears everything too, last."""

    console: Console
    publisher: Publisher | None
    gate: Gatekeeper | None
    herald: Herald | None = None
    also: Watcher | None = None

    def __call__(self, what: str, **facts: Any) -> None:
        """Take note."""
        if what == "committed":
            self._committed(facts["snapshot"], facts["members"])
        elif what == "failed":
            self.console.warn(f"window {facts['index']} failed: {facts['why']}", event="failed", **facts)
        if self.also is not None:
            self.also(what, **facts)

    def catch_up(self, parts: Parts, rules: Rules) -> None:
        """Have the gate hear what was committed and not heard; the source stands anywhere afterwards."""
        if self.gate is None or not parts.ledger.history(rules.chain.name):
            return
        for decision in catch_up(self.gate, lambda a, b: members_again(parts, rules, a, b), now_ms):
            self._decided(decision)

    def _committed(self, child: Snapshot, members: Sequence[Member]) -> None:
        tell_commit(self.console, child)
        if self.gate is not None and members:
            decision = self.gate.consider(child, members, at_ms=now_ms())
            if decision is not None:
                self._decided(decision)
        if self.publisher is not None:
            self.publisher.wake()

    def _decided(self, decision: Decision) -> None:
        tell_decision(self.console, decision)
        if self.herald is not None:
            self.herald.wake()


def tell_decision(console: Console, decision: Decision) -> None:
    """Tell of a line of the decision log."""
    console.say(
        f"{_SAID[decision.action]} {decision.snapshot[:12]}: " + "; ".join(reasons(decision)),
        event=decision.action,
        snapshot=decision.snapshot,
        by=decision.actor,
    )


def tell_commit(console: Console, snapshot: Snapshot) -> None:
    """Tell of a row."""
    report = snapshot.report
    if snapshot.kind == "branch":
        again = report.get(AGAIN, [])
        windows = ", ".join(map(str, again or report[SKIPPED])) or "none"
        what = "read again" if AGAIN in report else "evidence left behind"
        console.say(
            f"learning goes on from {report[OF][:12]}; {what}: window {windows}",
            event="branch",
            snapshot=snapshot.sha,
            of=report[OF],
            skipped=report[SKIPPED],
            again=again,
        )
        return
    if snapshot.kind == "progress":
        console.say(f"positions committed, no window closed ({snapshot.sha[:12]})", event="progress_row")
        return
    console.say(
        f"window {snapshot.index} {snapshot.kind}: {report['members']} examples, {told(report)}; "
        f"KL {report['kl_nats']:.0f} nats, beta {report['beta']:g}"
        f"{', DRIFT' if report['drift'] else ''} -> {snapshot.sha[:12]}",
        event="window",
        index=snapshot.index,
        sha=snapshot.sha,
        kind=snapshot.kind,
        **{k: report[k] for k in ("members", "accuracy", "nll", "ece", "kl_nats", "beta", "drift")},
    )
