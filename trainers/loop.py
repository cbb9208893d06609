"""The continual loop: records in, snapshots out, one commit point.

    head -> release -> closing -> plan (written first) -> predict, learn -> blobs -> COMMIT -> acknowledge

Everything before the commit may happen again after a crash and gives the same bits; everything after it
can be rebuilt from the ledger. The loop reads no clock and no random number but those it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Protocol

from posterior.family import ONE_TASK, NotFinite, Tensors
from posterior.snapshot import (
    REWOUND,
    Blobs,
    Chain,
    Circumstance,
    Fence,
    Kind,
    Ledger,
    PlanRow,
    Snapshot,
    Span,
    forgotten,
)
from posterior.tensors import from_bytes, to_bytes
from stream.breaker import TooMuchBad
from stream.drift import Alarms, DriftWatch
from stream.erasure import LeftOut, husk
from stream.intake import Intake, IntakeRules
from stream.plan import (
    Arrival,
    Closing,
    Member,
    Plan,
    Reach,
    Setaside,
    labels_after,
    sha256_json,
    window_seed,
)
from stream.record import RawRecord, Record
from stream.relabelling import told_by_name
from stream.source import Floor, Partition, Source, SourceLost
from trainers.branching import Branching
from trainers.lesson import taught
from trainers.line import kept, known, state_behind
from trainers.window import FamilySpec, LearnSpec, Order, Outcome, Updater

ATTEMPTS: Final = 2  # a belief that is no number twice from the same start will be so a third time
DRIFT: Final = "drift"


@dataclass(frozen=True, slots=True)
class Scored:
    """How a window was foretold: report numbers, and (wrong, nll) of each foretold member in order."""

    numbers: Mapping[str, Any]
    events: Sequence[tuple[bool, float]]


class Watcher(Protocol):
    """Whoever is told what happens; progress bars, logs, metrics and tests are watchers."""

    def __call__(self, what: str, **facts: Any) -> None:
        """Take note."""
        ...


def _nobody(what: str, **facts: Any) -> None:
    del what, facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop works with. `aside` must be durable when it returns; `now_ms` only finds silence."""

    source: Source
    decode: Callable[[RawRecord], Record]
    ledger: Ledger
    blobs: Blobs
    updater: Updater
    score: Callable[[Sequence[Member]], Scored]
    aside: Callable[[Sequence[Setaside]], None]
    keep: Callable[[Sequence[RawRecord]], None]
    circumstance: Callable[[Mapping[str, float]], Circumstance]
    now_ms: Callable[[], int]
    watch: Watcher = _nobody
    crash: Callable[[str], None] = field(default=lambda _step: None)
    stopping: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides the chain, and how far this run goes."""

    chain: Chain
    intake: IntakeRules
    family: FamilySpec
    learn: LearnSpec
    runtime: Mapping[str, str | int]
    idle_ms: int = 60_000
    until_end: bool = False
    max_windows: int | None = None
    publish: tuple[str, ...] = ()
    publish_every: int = 1
    poll_ms: int = 200
    poll_records: int = 2000

    @property
    def settings_sha256(self) -> str:
        """Hash of the settings that decide the posterior."""
        return sha256_json(self.chain.settings)


def run(parts: Parts, rules: Rules, fence: Fence) -> Snapshot:
    """Go on from the head until told to stop, the end of the log or `max_windows`; return the head."""
    parts = _forgetful(parts)
    head = parts.ledger.head(rules.chain.name) or begin_chain(parts, rules, fence)
    intake = resume(parts, rules, head)
    silence = _Silence(parts.now_ms, rules.idle_ms)
    branching = Branching(
        ledger=parts.ledger,
        blobs=parts.blobs,
        fence=fence,
        circumstance=parts.circumstance,
        reaches=lambda row: _reaches(parts, rules, row),
    )
    windows = 0
    while not parts.stopping() and (rules.max_windows is None or windows < rules.max_windows):
        closing = _next(parts, intake)
        if closing is None and _read(parts, rules, fence, intake, silence):
            continue
        before, head = head, _branched(parts, branching, head, closing is not None)
        if head is not before and REWOUND in head.report:  # what was read goes unheard, and is read again
            intake, silence = resume(parts, rules, head), _Silence(parts.now_ms, rules.idle_ms)
        elif closing is not None:
            head = settle(parts, rules, fence, head, intake, closing)
            windows += closing.kind == "window"
        elif _over(parts, rules, fence, intake, silence):
            break
    return head


def _forgetful(parts: Parts) -> Parts:
    """Return parts that keep no more of what was erased than its place: the log may still hold it."""
    gone = LeftOut(forgotten_of(parts.ledger, {topic for topic, _ in parts.source.partitions()}))

    def left(raw: RawRecord) -> RawRecord:
        record = parts.decode(raw)
        return husk(record, raw) if gone.means(record, raw) else raw

    return replace(parts, keep=lambda raws: parts.keep([*map(left, raws)])) if gone else parts


def _reaches(parts: Parts, rules: Rules, row: Snapshot) -> None:
    """Raise SourceLost, with the way out, unless the log still holds what lies behind a row."""
    try:
        resume(parts, rules, row)
    except SourceLost as lost:
        msg = (
            f"cannot learn again from {row.sha[:12]}: {lost}. `priorflow rollback --to {row.sha[:12]} "
            "--continue-from head` has learning go on as it is; `--continue-from champion` has it go on from "
            "that belief, unless it went back over that"
        )
        raise SourceLost(msg) from lost


def _branched(parts: Parts, branching: Branching, head: Snapshot, closing: bool) -> Snapshot:
    """Return the row to go on from: the head, or a branch that a decision asks for."""
    if not closing and not branching.in_silence():
        return head
    parts.crash("before-branch")
    child = branching.after(head)
    if child is None:
        return head
    parts.crash("after-branch")
    parts.watch("committed", snapshot=child, members=(), seconds={})
    return child


def begin_chain(parts: Parts, rules: Rules, fence: Fence) -> Snapshot:
    """Commit the root: the base prior, at the beginning of every partition.

    What was erased from another chain of the same topics is not learned by this one either.
    """
    partitions = parts.source.partitions()
    gone = forgotten_of(parts.ledger, {topic for topic, _ in partitions})
    intake = Intake(rules.intake, partitions, left_out=LeftOut(gone))
    outcome = parts.updater.carry_out(_order(rules, {}, (), (), 0))
    root = Snapshot(
        chain=rules.chain.name,
        seq=0,
        index=0,
        kind="root",
        parent=None,
        plan=None,
        posterior=parts.blobs.put(to_bytes(outcome.tensors)),
        stream_state=parts.blobs.put(intake.state()),
        settings=rules.settings_sha256,
        labels=(),
        spans_before=(),
        spans=_spans(intake.reach()),
        counts=intake.counts.told(),
        report={},
    )
    parts.ledger.commit(fence, root, parts.circumstance({}))
    return root


def forgotten_of(ledger: Ledger, topics: AbstractSet[str]) -> frozenset[str]:
    """Return the events that any chain which read one of these topics has forgotten."""
    gone: set[str] = set()
    for chain in ledger.chains():
        erased = forgotten(ledger.erasures(chain.name))
        last = ledger.history(chain.name)[-1:] if erased else ()
        if erased and (not last or topics & {span.topic for span in last[0].spans}):
            gone |= erased  # a chain that was cut back to nothing reads what it read before
    return frozenset(gone)


def resume(parts: Parts, rules: Rules, head: Snapshot) -> Intake:
    """Return an intake behind `head`, and the source positioned there; what was erased stays forgotten."""
    floors = [
        Floor(f.topic, f.partition, f.at_offset, f.floor_ms) for f in parts.ledger.floors(rules.chain.name)
    ]
    state = state_behind(parts.blobs, parts.ledger.erasures(rules.chain.name), head)
    intake = Intake(rules.intake, (), floors=floors, state=state)
    parts.source.seek(intake.wanted())
    return intake


def settle(
    parts: Parts, rules: Rules, fence: Fence, head: Snapshot, intake: Intake, closing: Closing
) -> Snapshot:
    """Plan, derive and commit one closing; return the new head."""
    plan = _plan(parts, rules, fence, head, closing) if closing.kind == "window" else None
    made = derive(parts, rules, head, intake, closing, plan)
    parts.aside(closing.setaside)
    child = made.snapshot
    parts.ledger.commit(fence, child, parts.circumstance(made.seconds), publish=_targets(rules, child))
    parts.crash("before-acknowledge")
    parts.source.acknowledge({(r.topic, r.partition): r.low for r in closing.reach})
    parts.crash("after-acknowledge")
    parts.watch("committed", snapshot=child, members=made.members, seconds=made.seconds)
    return child


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
        spans_before=_spans(closing.reach_before),
        spans=_spans(closing.reach),
        counts=intake.counts.told(),
        report={
            **_report(whole, outcome, scored, alarms, why),
            **kept(head, posterior),
            **taught(outcome.lesson, whole.members, head, beta=outcome.beta),
        },
        rejected=tuple(str(s.raw.position) for s in closing.setaside),
    )
    return Derived(child, whole.members, outcome.seconds)


def _next(parts: Parts, intake: Intake) -> Closing | None:
    try:
        return intake.next_closing()
    except TooMuchBad:
        # Nothing of this stretch commits, so the same records trip again: they must be findable.
        parts.aside(intake.aside())
        raise


def _read(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: _Silence) -> bool:
    """Offer what the log has; tell whether there was anything."""
    raws = parts.source.poll(timeout_ms=rules.poll_ms, max_records=rules.poll_records)
    if raws:
        parts.keep(raws)
        _join(parts, fence, intake, raws)
        for raw in raws:
            silence.heard(raw.position.topic, raw.position.partition)
            intake.offer(parts.decode(raw))
        parts.watch("read", records=len(raws), waiting=intake.waiting, buffered=intake.buffered())
    return bool(raws)


def _over(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: _Silence) -> bool:
    """Let silent partitions go; tell whether a bounded run has nothing left to wait for."""
    if _floor(parts, rules, fence, intake, silence):
        return False
    return rules.until_end and all(parts.source.at_end(p) for p in intake.partitions())


def _floor(parts: Parts, rules: Rules, fence: Fence, intake: Intake, silence: _Silence) -> bool:
    """Record floors for partitions that fell silent or appeared, then let them take effect."""
    known = set(intake.partitions())
    quiet = {p for p in known if parts.source.at_end(p) and (rules.until_end or silence.lasts(p))}
    floors = intake.end_floors(None if quiet == known else quiet) if quiet else []
    _record(parts, fence, intake, floors)
    return bool(floors)


def _join(parts: Parts, fence: Fence, intake: Intake, raws: Sequence[RawRecord]) -> None:
    """Take in partitions that appeared since; their floor keeps them behind what was released."""
    known = set(intake.partitions())
    fresh = {(raw.position.topic, raw.position.partition) for raw in raws} - known
    _record(parts, fence, intake, [intake.newcomer(p) for p in sorted(fresh)])


def _record(parts: Parts, fence: Fence, intake: Intake, floors: Sequence[Floor]) -> None:
    """Write floors to the ledger, then let them take effect: replay must meet them too."""
    if floors:
        rows = [(f.topic, f.partition, f.at_offset, f.floor_ms) for f in floors]
        parts.ledger.add_floors(fence, rows)
    for floor in floors:
        intake.floor(floor)


class _Silence:
    """Since when each partition has said nothing, by the wall clock."""

    def __init__(self, now_ms: Callable[[], int], idle_ms: int) -> None:
        self._now, self._idle, self._last = now_ms, idle_ms, dict[Partition, int]()
        self._begun = now_ms()

    def heard(self, topic: str, partition: int) -> None:
        self._last[topic, partition] = self._now()

    def lasts(self, partition: Partition) -> bool:
        return self._now() - self._last.get(partition, self._begun) >= self._idle


def plan_of(rules: Rules, head: Snapshot, closing: Closing) -> Plan:
    """Return the plan of a window: a function of the logs, the settings and the runtime."""
    return Plan(
        chain=rules.chain.name,
        index=closing.index,
        parent=head.sha,
        seed=window_seed(rules.chain.seed, closing.index),
        settings_sha256=rules.settings_sha256,
        runtime=rules.runtime,
        members=closing.members,
        reach_before=closing.reach_before,
        reach=closing.reach,
    )


def plan_row(plan: Plan) -> PlanRow:
    """Return the plan as the ledger keeps it: positions and hashes, no text and no label."""
    content = {
        "chain": plan.chain,
        "index": plan.index,
        "parent": plan.parent,
        "seed": plan.seed,
        "settings": plan.settings_sha256,
        "runtime": dict(plan.runtime),
        "members": [[str(m.event), m.event_sha256, str(m.label_at), m.label_sha256] for m in plan.members],
        "reach_before": [list(asdict(r).values()) for r in plan.reach_before],
        "reach": [list(asdict(r).values()) for r in plan.reach],
    }
    return PlanRow(
        sha=sha256_json(content), chain=plan.chain, index=plan.index, parent=plan.parent, content=content
    )


def _plan(parts: Parts, rules: Rules, fence: Fence, head: Snapshot, closing: Closing) -> str:
    row = plan_row(plan_of(rules, head, closing))
    unfinished = parts.ledger.open_plan(rules.chain.name)
    if unfinished is not None and unfinished.sha != row.sha:
        keys = [k for k in row.content if row.content[k] != unfinished.content.get(k)]
        parts.ledger.supersede(fence, unfinished.sha, f"planned again with other {', '.join(keys)}")
        unfinished = None
    if unfinished is None:
        parts.ledger.begin(fence, row)
    parts.watch("planned", index=closing.index, members=len(closing.members))
    return row.sha


def _order(
    rules: Rules,
    parent: Tensors,
    labels_before: tuple[str, ...],
    labels: tuple[str, ...],
    index: int,
    closing: Closing | None = None,
) -> Order:
    return Order(
        window=index,
        family=rules.family,
        learn=rules.learn,
        chain_seed=rules.chain.seed,
        seed=window_seed(rules.chain.seed, index),
        parent=parent,
        labels_before=labels_before,
        labels=labels,
        arrivals=() if closing is None else tuple(a.text for a in closing.arrivals),
        members=() if closing is None else tuple((m.text, m.label) for m in closing.members),
        arrival_tasks=() if closing is None else tasks_of(closing.arrivals),
        member_tasks=() if closing is None else tasks_of(closing.members),
    )


def tasks_of(examples: Sequence[Arrival | Member]) -> tuple[str, ...]:
    """Return the task of each example; those that name none share one."""
    return tuple(example.task or ONE_TASK for example in examples)


def order_of(rules: Rules, head: Snapshot, parent: Tensors, closing: Closing) -> Order:
    """Return the order that a closing makes on top of `head`."""
    labels = labels_after(head.labels, closing.members)
    return _order(rules, parent, known(head), labels, closing.index, closing)


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


def _targets(rules: Rules, snapshot: Snapshot) -> tuple[str, ...]:
    due = snapshot.kind == "learned" and snapshot.index % rules.publish_every == 0
    return rules.publish if due else ()


def _spans(reach: Sequence[Reach]) -> tuple[Span, ...]:
    return tuple(Span(*asdict(r).values()) for r in reach)
