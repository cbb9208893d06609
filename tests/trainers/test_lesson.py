"""What a window taught: it adds up, it is what the weights say, and it names records by their place alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior.blob import Blob
from posterior.family import ONE_TASK
from posterior.forgetting import effective
from stream.plan import canonical_json
from tests.trainers.languages import TEXTS, small_llama, small_spec
from tests.trainers.orders import answers, order
from tests.trainers.tally import Tally
from tests.trainers.world import World, mails
from trainers.activations import Activations
from trainers.branching import branch_of, rewound_to
from trainers.erasing import erased_row
from trainers.evaluate import Sampler
from trainers.language import NATS, NextTokens
from trainers.lesson import LISTED, Lesson, by_class, lesson_of, moved_most
from trainers.line import BY_CLASS, BY_SITE, EFFECTIVE, MOVED
from trainers.model import AdaptedModel
from trainers.question import Example, WhichClass
from trainers.relabelling import relabelled_row
from trainers.update import InProcess
from trainers.window import FamilySpec, Local, Order, Outcome, root

BLOB = FamilySpec(name="blob", options={"sd_head": 0.1})
costs = st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=30)


def learned(model: AdaptedModel, family: FamilySpec, *, world: int = 1) -> list[tuple[Outcome, Lesson]]:
    start = root(model, family, chain_seed=1)
    outcomes = answers(Local(model, world=world), start, family, windows=2)
    return [(outcome, outcome.lesson) for outcome in outcomes if outcome.lesson is not None]


@pytest.mark.parametrize("family", ["blob", "gaussian_lowrank"])
def test_sites_add_up_to_the_kl_that_is_told(model: AdaptedModel, family: str) -> None:
    told = learned(model, FamilySpec(name=family))
    assert len(told) == 2
    for outcome, lesson in told:
        assert math.fsum(lesson.by_site.values()) == pytest.approx(outcome.kl, rel=1e-6)
        assert {site.name for site in model.sites} | {"head"} <= lesson.by_site.keys()
        assert lesson.evidence == 24


def test_a_member_costs_what_the_mean_weights_say_of_it_alone(model: AdaptedModel) -> None:
    (first, _), (second, lesson) = learned(model, BLOB)
    asked, activations = order(1, first.tensors, known=True, family=BLOB), Activations(model)
    likelihood, _ = WhichClass(model, activations).evidence(asked.members, asked.labels)
    family = Blob(sd_head=0.1)
    assert second.beta == 1.0  # the prior is what the first window left
    for column, tensors in enumerate((first.tensors, second.tensors)):
        mean = family.mean(family.restore(tensors), [ONE_TASK])
        alone = [float(likelihood.nll([i], mean)) for i in range(len(asked.members))]
        assert lesson.costs[:, column].tolist() == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert float(lesson.costs[:, 1].sum()) < float(lesson.costs[:, 0].sum())


def test_it_is_the_same_whoever_computes_it(model: AdaptedModel) -> None:
    members = [mail for window in range(3) for mail in order(window, {}, known=True, family=BLOB).members]
    family, question = Blob(), WhichClass(model, Activations(model))
    state = family.base(model.slots(2), seed=1, centres={})
    one, two = (
        lesson_of(
            question,
            family,
            state,
            state,
            members,
            [ONE_TASK] * len(members),
            labels=("linux", "money"),
            slots=(),
            evidence=1.0,
            ranks=InProcess(world),
        )
        for world in (1, 2)
    )
    assert torch.equal(one.costs, two.costs)


@dataclass
class Counting:
    """A question that counts the texts it is asked about."""

    asked: int = 0

    def nats(
        self, members: Sequence[Example], tasks: Sequence[str], weights: Sampler, labels: Sequence[str]
    ) -> Tensor:
        del tasks, weights, labels
        self.asked += len(members)
        return torch.zeros(len(members), dtype=torch.float64)


def test_each_member_passes_twice() -> None:
    question: Any = Counting()
    family = Blob()
    state = family.base((), seed=1, centres={})
    lesson_of(
        question,
        family,
        state,
        state,
        [("a", "b")] * 70,
        [ONE_TASK] * 70,
        labels=("b",),
        slots=(),
        evidence=70.0,
        ranks=InProcess(2),
    )
    assert question.asked == 2 * 70


def test_of_tokens_it_is_what_whole_texts_cost(tmp_path: Path) -> None:
    small_llama(tmp_path)
    model = AdaptedModel(small_spec(tmp_path, objective="tokens"))
    family, question = Blob(), NextTokens(model, Activations(model), 0.3)
    state = family.base(model.slots(0), seed=1, centres={})
    mean, tasks = partial(family.mean, state), [ONE_TASK] * len(TEXTS)
    told = question.nats([(text, "any") for text in TEXTS], tasks, mean, ())
    said = question.foretell(TEXTS, tasks, [mean])[:, question.columns(()).index(NATS)]
    assert told.tolist() == pytest.approx(said.tolist())


@given(costs=costs, seed=st.randoms())
def test_who_moved_it_most_does_not_depend_on_any_order(costs: list[tuple[float, float]], seed: Any) -> None:
    pairs = [(f"mails[0]@{i}", cost) for i, cost in enumerate(costs)]
    shuffled = seed.sample(pairs, len(pairs))
    told = moved_most([p for p, _ in pairs], [c for _, c in pairs])
    assert told == moved_most([p for p, _ in shuffled], [c for _, c in shuffled])
    falls = sorted((before - after for before, after in costs if after < before), reverse=True)
    assert [before - after for _, before, after in told] == falls[:LISTED]


@given(costs=costs)
def test_classes_account_for_every_member(costs: list[tuple[float, float]]) -> None:
    labels = ["abc"[i % 3] for i in range(len(costs))]
    told = by_class(labels, costs)
    assert sum(count for count, _, _ in told.values()) == len(costs)
    for column in (0, 1):
        whole = math.fsum(count * row[column] for count, *row in told.values())
        assert whole == pytest.approx(math.fsum(cost[column] for cost in costs))


class Telling:
    """A tally that says what a window taught, and forgets a little in every third."""

    def __init__(self, hurt: Callable[[Order], bool]) -> None:
        self._tally = Tally(hurt)

    def close(self) -> None:
        """Nothing to let go of."""

    def carry_out(self, order: Order) -> Outcome:
        outcome = self._tally.carry_out(order)
        if not order.members:
            return outcome
        given = [[1.0 + i, 1.0 / (1 + i)] for i in range(len(order.members))]
        lesson = Lesson(by_site={"counts": outcome.kl}, evidence=float(len(given)), costs=torch.tensor(given))
        return replace(outcome, beta=0.5 if order.window % 3 == 0 else 1.0, lesson=lesson)


@pytest.fixture(scope="module")
def told() -> World:
    world = World(mails())
    world.go(updater=Telling(hurt=lambda order: order.window == 2))
    return world


def test_what_a_belief_is_worth_follows_from_the_rows(told: World) -> None:
    worth, rows = 0.0, told.ledger.history("main")
    for row in rows[1:]:
        if row.kind == "learned":
            worth = effective(worth, beta=row.report["beta"], new=row.report["members"])
        assert row.report.get(EFFECTIVE, 0.0) == worth
    assert {"learned", "quarantined"} <= {row.kind for row in rows}
    assert {row.report["beta"] for row in rows[1:]} == {0.5, 1.0}


def test_a_row_that_has_another_s_tensors_is_worth_what_they_are(told: World) -> None:
    rows = told.ledger.history("main")
    head, champion = rows[-1], next(row for row in rows if row.kind == "learned")
    worth = champion.report[EFFECTIVE]
    assert worth != head.report[EFFECTIVE]
    there = branch_of(head, champion, rows, "0" * 64), rewound_to(champion, head, rows, "0" * 64)
    assert [row.report[EFFECTIVE] for row in there] == [worth, worth]
    same = (
        relabelled_row(head, "0" * 64, {"renamed": head.labels[0], "to": "x"}),
        erased_row(head, "0" * 64, canonical_json({"counts": {}}), {}),
    )
    assert [row.report[EFFECTIVE] for row in same] == [head.report[EFFECTIVE]] * 2


def test_a_row_names_records_by_place_and_never_by_id_or_text(told: World) -> None:
    """A row is hashed: nothing could be taken out of it when an event is erased. Its plan names the same."""
    for row in told.ledger.history("main"):
        said = {name: row.report[name] for name in (BY_SITE, BY_CLASS, MOVED) if name in row.report}
        assert bool(said) == (row.kind == "learned")
        plan = told.ledger.plan("main", row.plan) if row.plan else None
        places = {member[0] for member in plan.content["members"]} if plan else set()
        assert _strings(said) <= {*said, "counts", *row.labels} | places
        assert len(said.get(MOVED, ())) in {0, LISTED}


def _strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value}.union(*map(_strings, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_strings, value))
    return {value} if isinstance(value, str) else set()
