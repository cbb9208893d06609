"""What a window taught: nats by site and class, the records that moved belief most, what it is worth now.

Costs are -log p(truth) under the mean weights of prior and posterior: each member passes the adapted layers
twice, without gradients. A record is named by its place in the log, as in the plan, and by nothing else:
a row is hashed and cannot be emptied when an event is erased.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from posterior.family import Family
from posterior.forgetting import effective
from posterior.information import by_site
from posterior.snapshot import Snapshot
from stream.plan import Member
from trainers.evaluate import by_ranks
from trainers.line import BY_CLASS, BY_SITE, EFFECTIVE, MOVED
from trainers.question import Example, Question
from trainers.update import Ranks

LISTED: Final = 5  # records that are named

W = TypeVar("W")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Nats by site, N_t, and each member's cost (n, 2) by prior and posterior, float64."""

    by_site: Mapping[str, float]
    evidence: float
    costs: Tensor


def lesson_of(
    question: Question,
    family: Family[Any, W],
    prior: W,
    posterior: W,
    members: Sequence[Example],
    tasks: Sequence[str],
    *,
    labels: Sequence[str],
    slots: Iterable[str],
    evidence: float,
    ranks: Ranks,
) -> Lesson:
    """Return what a window taught whose prior and posterior are these."""
    means = [partial(family.mean, prior), partial(family.mean, posterior)]

    def say(at: slice) -> Tensor:
        nats = [question.nats(members[at], tasks[at], mean, labels) for mean in means]
        return torch.stack(nats, dim=1)

    return Lesson(
        by_site=by_site(family, posterior, prior, slots),
        evidence=evidence,
        costs=by_ranks(ranks, len(members), len(means), say),
    )


def taught(
    lesson: Lesson | None, members: Sequence[Member], head: Snapshot, *, beta: float
) -> dict[str, Any]:
    """Return what a window on top of `head` has to report of it; nothing where none was learned."""
    if lesson is None:
        return {}
    rows = [(before, after) for before, after in lesson.costs.tolist()]
    return {
        BY_SITE: dict(lesson.by_site),
        BY_CLASS: by_class([member.label for member in members], rows),
        MOVED: moved_most([str(member.event) for member in members], rows),
        EFFECTIVE: effective(head.report.get(EFFECTIVE, 0.0), beta=beta, new=lesson.evidence),
    }


def by_class(labels: Sequence[str], costs: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Return how many there are of each class, and their mean cost before and after."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for label, cost in zip(labels, costs, strict=True):
        groups.setdefault(label, []).append(cost)
    return {label: [len(own), *_means(own)] for label, own in sorted(groups.items())}


def _means(costs: Sequence[tuple[float, float]]) -> list[float]:
    return [math.fsum(column) / len(costs) for column in zip(*costs, strict=True)]


def moved_most(places: Sequence[str], costs: Sequence[tuple[float, float]]) -> list[list[Any]]:
    """Return the few records whose own cost fell most, by place among equals; none that rose."""
    pairs = zip(places, costs, strict=True)
    fell = [(after - before, place, before, after) for place, (before, after) in pairs if after < before]
    return [[place, before, after] for _, place, before, after in sorted(fell)[:LISTED]]
