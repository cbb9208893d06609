"""What evidence makes of a snapshot: predicted, learned, told. Replay asks the same function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from posterior.family import NotFinite
from posterior.snapshot import Kind, Snapshot, Span
from posterior.tensors import from_bytes, to_bytes
from stream.drift import Alarms, DriftWatch
from stream.intake import Intake
from stream.plan import Closing, Member, Reach
from stream.relabelling import told_by_name
from trainers.lesson import taught
from trainers.line import kept, known
from trainers.parts import Parts, Rules, Scored
from trainers.planning import order_of
from trainers.window import Outcome

ATTEMPTS: Final = 2  # a belief that is no number twice from the same start will be so a third time
DRIFT: Final = "drift"


@dataclass(frozen=True, slots=True)
class Derived:
    """A snapshot that evidence gives on top of its parent; not committed by this."""

    snapshot: Snapshot
    members: tuple[Member, ...]
    seconds: Mapping[str, float]


def derive(
    parts: Parts, rules: Rules, head: Snapshot, intake: Intake, closing: Closing, plan: str | None
) -> Derived:
    """Predict, learn, and say what the next snapshot is. Replay asks the same of the same function."""
    outcome, why = _attempt(parts, rules, head, closing)
    parts.crash("after-train")
    whole = intake.foretold(closing, foretold_of(closing, head, outcome))
    scored = parts.score(whole.members)
    learned = closing.kind == "window" and why is None
    alarms = _watch_drift(intake, scored)
    intake.settled(whole, learned=learned)
    posterior = parts.blobs.put(to_bytes(outcome.tensors)) if learned else head.posterior
    kind: Kind = "progress" if closing.kind != "window" else "learned" if learned else "quarantined"
    child = Snapshot(
        chain=rules.chain.name,
        seq=head.seq + 1,
        index=intake.index,
        kind=kind,
        parent=head.sha,
        plan=plan,
        posterior=posterior,
        stream_state=parts.blobs.put(intake.state()),
        settings=rules.settings_sha256,
        labels=intake.classes,
        spans_before=spans_of(closing.reach_before),
        spans=spans_of(closing.reach),
        counts=intake.counts.told(),
        report={
            **_report(whole, outcome, scored, alarms, why),
            **kept(head, posterior),
            **taught(outcome.lesson, whole.members, head, beta=outcome.beta),
        },
        rejected=tuple(str(s.raw.position) for s in closing.setaside),
    )
    return Derived(child, whole.members, outcome.seconds)


def _attempt(parts: Parts, rules: Rules, head: Snapshot, closing: Closing) -> tuple[Outcome, str | None]:
    """Carry the closing out; a window that keeps failing is predicted only, with the reason."""
    order = order_of(rules, head, from_bytes(parts.blobs.get(head.posterior)), closing)
    why = ""
    for _ in range(ATTEMPTS):
        try:
            return parts.updater.carry_out(order), None
        except NotFinite as bad:
            why = str(bad)
            parts.watch("failed", index=closing.index, why=why)
    return parts.updater.carry_out(
        replace(order, members=(), member_tasks=(), labels=order.labels_before)
    ), why


def foretold_of(closing: Closing, head: Snapshot, outcome: Outcome) -> dict[str, dict[str, float]]:
    """Return what `head` said of each arrival, by event id."""
    columns = outcome.columns or known(head)
    rows = zip(closing.arrivals, outcome.forecasts, strict=bool(outcome.forecasts))
    return {a.event_id: told_by_name(columns, row) for a, row in rows}


def _watch_drift(intake: Intake, scored: Scored) -> Alarms:
    watch = DriftWatch(intake.extra.get(DRIFT))
    alarms = watch.watch(scored.events)
    intake.extra[DRIFT] = watch.dump()
    return alarms


def _report(
    closing: Closing, outcome: Outcome, scored: Scored, alarms: Alarms, why: str | None
) -> dict[str, Any]:
    """Return numbers that replay gives again bit for bit."""
    classes: dict[str, int] = {}
    for member in closing.members:
        classes[member.label] = classes.get(member.label, 0) + 1
    return {
        "members": len(closing.members),
        "arrivals": len(closing.arrivals),
        "end_ms": closing.end_ms,
        "classes": classes,
        "kl_nats": outcome.kl,
        "dropped_nats": outcome.dropped,
        "beta": outcome.beta,
        "beta_nll": dict(outcome.beta_nll),
        "fit_nll": outcome.nll,
        "steps": outcome.steps,
        "drift": alarms.drift,
        "alarms": [list(alarm) for alarm in alarms.sounded],
        **({} if why is None else {"quarantined": why}),
        **scored.numbers,
    }


def spans_of(reach: Sequence[Reach]) -> tuple[Span, ...]:
    """Return how far each partition was read, as a snapshot keeps it."""
    return tuple(Span(*asdict(r).values()) for r in reach)
