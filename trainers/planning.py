"""A window on paper: its plan, which the ledger keeps, and the order that its learner carries out.

Both are functions of the logs, the settings and the runtime, so a plan written before a crash and one made
after it are the same, or the ledger says in what they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from posterior.family import ONE_TASK, Tensors
from posterior.snapshot import Fence, PlanRow, Snapshot
from stream.plan import Arrival, Closing, Member, Plan, labels_after, sha256_json, window_seed
from trainers.line import known
from trainers.parts import Parts, Rules
from trainers.window import Order


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


def plan_ahead(parts: Parts, rules: Rules, fence: Fence, head: Snapshot, closing: Closing) -> str:
    """Write the plan before anything is learned, unless it stands there from before; return its sha.

    One that is unfinished and differs is superseded, with what it differs in.
    """
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


def root_order(rules: Rules) -> Order:
    """Return the order that gives the base prior."""
    return _order(rules, {}, (), (), 0)


def order_of(rules: Rules, head: Snapshot, parent: Tensors, closing: Closing) -> Order:
    """Return the order that a closing makes on top of `head`."""
    labels = labels_after(head.labels, closing.members)
    return _order(rules, parent, known(head), labels, closing.index, closing)


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
