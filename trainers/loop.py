"""The continual loop: records in, snapshots out, one commit point.

    head -> release -> closing -> plan (written first) -> predict, learn -> blobs -> COMMIT -> acknowledge

Everything before the commit may happen again after a crash and gives the same bits; everything after it
can be rebuilt from the ledger. The loop reads no clock and no random number but those it is handed.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from posterior.snapshot import REWOUND, Fence, Ledger, Snapshot, forgotten
from posterior.tensors import to_bytes
from stream.erasure import LeftOut, husk
from stream.intake import Intake
from stream.plan import Closing
from stream.record import RawRecord
from stream.source import Floor, SourceLost
from trainers.branching import Branching
from trainers.deriving import derive, spans_of
from trainers.line import state_behind
from trainers.parts import Parts, Rules
from trainers.planning import plan_ahead, root_order
from trainers.reading import Silence, closing_of, over, read


def run(parts: Parts, rules: Rules, fence: Fence) -> Snapshot:
    """Go on from the head until told to stop, the end of the log or `max_windows`; return the head."""
    parts = _forgetful(parts)
    head = parts.ledger.head(rules.chain.name) or begin_chain(parts, rules, fence)
    intake = resume(parts, rules, head)
    silence = Silence(parts.now_ms, rules.idle_ms)
    branching = Branching(
        ledger=parts.ledger,
        blobs=parts.blobs,
        fence=fence,
        circumstance=parts.circumstance,
        reaches=lambda row: _reaches(parts, rules, row),
    )
    windows = 0
    while not parts.stopping() and (rules.max_windows is None or windows < rules.max_windows):
        closing = closing_of(parts, intake)
        if closing is None and read(parts, rules, fence, intake, silence):
            continue
        before, head = head, _branched(parts, branching, head, closing is not None)
        if head is not before and REWOUND in head.report:  # what was read goes unheard, and is read again
            intake, silence = resume(parts, rules, head), Silence(parts.now_ms, rules.idle_ms)
        elif closing is not None:
            head = settle(parts, rules, fence, head, intake, closing)
            windows += closing.kind == "window"
        elif over(parts, rules, fence, intake, silence):
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
    outcome = parts.updater.carry_out(root_order(rules))
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
        spans=spans_of(intake.reach()),
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
    plan = plan_ahead(parts, rules, fence, head, closing) if closing.kind == "window" else None
    made = derive(parts, rules, head, intake, closing, plan)
    parts.aside(closing.setaside)
    child = made.snapshot
    parts.ledger.commit(fence, child, parts.circumstance(made.seconds), publish=_targets(rules, child))
    parts.crash("before-acknowledge")
    parts.source.acknowledge({(r.topic, r.partition): r.low for r in closing.reach})
    parts.crash("after-acknowledge")
    parts.watch("committed", snapshot=child, members=made.members, seconds=made.seconds)
    return child


def _targets(rules: Rules, snapshot: Snapshot) -> tuple[str, ...]:
    due = snapshot.kind == "learned" and snapshot.index % rules.publish_every == 0
    return rules.publish if due else ()
