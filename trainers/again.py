"""Find a committed window again: the same records closed the same way, with what was foretold of them."""

from __future__ import annotations

from dataclasses import replace

from posterior.snapshot import Snapshot
from posterior.tensors import from_bytes
from stream.intake import Intake
from stream.plan import Closing, Member
from trainers.deriving import foretold_of
from trainers.loop import resume
from trainers.parts import Parts, Rules
from trainers.planning import order_of, plan_of, plan_row


def closing_again(parts: Parts, rules: Rules, intake: Intake) -> Closing | None:
    """Read on from where the source stands until something closes; None if the log ends before that."""
    while True:
        closing = intake.next_closing()
        if closing is not None:
            return closing
        raws = parts.source.poll(timeout_ms=rules.poll_ms, max_records=rules.poll_records)
        for raw in raws:
            intake.offer(parts.decode(raw))
        if not raws and all(parts.source.at_end(p) for p in intake.partitions()):
            return None


def members_again(parts: Parts, rules: Rules, parent: Snapshot, child: Snapshot) -> tuple[Member, ...] | None:
    """Return the members of the window between two rows, as they were foretold; nothing is learned.

    None if the log no longer gives the members that the plan names. SourceLost if it no longer reaches so
    far back. The source stands somewhere else afterwards.
    """
    intake = resume(parts, rules, parent)
    closing = closing_again(parts, rules, intake)
    plan = None if child.plan is None else parts.ledger.plan(child.chain, child.plan)
    if closing is None or plan is None or closing.kind != "window":
        return None
    if plan_row(plan_of(rules, parent, closing)).content["members"] != plan.content["members"]:
        return None
    order = order_of(rules, parent, from_bytes(parts.blobs.get(parent.posterior)), closing)
    predicting = replace(order, members=(), member_tasks=(), labels=order.labels_before)
    outcome = parts.updater.carry_out(predicting)
    return intake.foretold(closing, foretold_of(closing, parent, outcome)).members
