"""Answers: what the stream was foretold, in any company the same bits, and a doubt that adds up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from posterior import panel
from posterior.families import FAMILIES, make_family
from posterior.family import Tensors
from posterior.panel import NEW
from posterior.sight import Sight, glance
from tests.trainers.orders import LEARN, PANELLED, TOPICS, order
from trainers.activations import Activations
from trainers.answer import MOST_TASKS, Answer, Answerer, NothingLearned, as_forecast
from trainers.model import AdaptedModel
from trainers.window import FamilySpec, LearnSpec, Local, Order

LABELS = tuple(sorted(TOPICS))
PI_NEW = 0.02


def learned(model: AdaptedModel, name: str, learn: LearnSpec) -> tuple[Order, Tensors]:
    """Return the order of a second window, and the parent that it is foretold with."""
    family = FamilySpec(name=name)
    first = Local(model).carry_out(order(0, {}, known=False, family=family, learn=learn))
    return order(1, first.tensors, known=True, family=family, learn=learn), first.tensors


def answerer(model: AdaptedModel, asked: Order, tensors: Tensors, **other: Any) -> Answerer:
    said: dict[str, Any] = {"draws": asked.learn.draws, "labels": LABELS, **other}
    return Answerer(
        model,
        Activations(model),
        make_family(asked.family.name, asked.family.options),
        tensors,
        window=1,
        chain_seed=asked.chain_seed,
        pi_new=PI_NEW,
        **said,
    )


@pytest.fixture(scope="module", params=[LEARN, PANELLED], ids=["rows", "panel"])
def told(request: pytest.FixtureRequest, model: AdaptedModel) -> tuple[Order, Tensors]:
    return learned(model, "blob", request.param)


def whole(answer: Answer) -> float:
    return math.fsum(answer.probabilities.values()) + answer.novelty


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_answers_what_it_foretells(model: AdaptedModel, name: str) -> None:
    """With the draws of the head's forecasts; those are made in batches, hence not the same last bit."""
    asked, parent = learned(model, name, LEARN)
    foretold = Local(model).carry_out(replace(asked, members=())).forecasts
    ready = answerer(model, asked, parent)
    for text, row in list(zip(asked.arrivals, foretold, strict=True))[:6]:
        answer = ready.answer(text)
        for label, p in zip(LABELS, row, strict=True):
            assert answer.probabilities[label] == pytest.approx((1 - PI_NEW) * p, abs=1e-6)
        assert answer.novelty == pytest.approx(PI_NEW)


def test_a_panel_answers_what_it_foretells(model: AdaptedModel) -> None:
    asked, parent = learned(model, "blob", PANELLED)
    outcome = Local(model).carry_out(replace(asked, members=()))
    ready = answerer(model, asked, parent)
    for text, row in list(zip(asked.arrivals, outcome.forecasts, strict=True))[:6]:
        said = as_forecast(ready.answer(text))
        assert list(said) == [*LABELS, NEW] == list(outcome.columns)
        assert list(said.values()) == pytest.approx(list(row), abs=1e-6)


def test_a_class_that_its_panel_has_seen_nothing_of_is_not_answered(model: AdaptedModel) -> None:
    labels = ("linux", "lost", "money")
    first = order(0, {}, known=False, family=FamilySpec(), learn=PANELLED)
    parent = Local(model).carry_out(replace(first, labels=labels)).tensors
    asked = replace(order(1, parent, known=True, family=FamilySpec(), learn=PANELLED), labels_before=labels)
    outcome = Local(model).carry_out(replace(asked, members=()))
    ready = answerer(model, asked, parent, labels=labels)
    for text, row in list(zip(asked.arrivals, outcome.forecasts, strict=True))[:4]:
        answer = ready.answer(text)
        assert list(as_forecast(answer)) == ["linux", "money", NEW] == list(outcome.columns)
        assert list(as_forecast(answer).values()) == pytest.approx(list(row), abs=1e-6)
        assert whole(answer) == pytest.approx(1, abs=1e-9)
        assert answer.epistemic > 0


def test_bits_do_not_depend_on_company(model: AdaptedModel, told: tuple[Order, Tensors]) -> None:
    texts = ["cash", "kernel module compiled on the box at last, and it boots again", "win cheap cash now"]
    ready = answerer(model, *told)
    alone = [answerer(model, *told).answer(text) for text in texts]
    assert [ready.answer(text) for text in reversed(texts)] == alone[::-1]
    assert [ready.answer(text) for text in texts] == alone


def test_an_answer_adds_up(model: AdaptedModel, told: tuple[Order, Tensors]) -> None:
    answer = answerer(model, *told).answer("win cheap cash now")
    assert whole(answer) == pytest.approx(1, abs=1e-9)
    p = [*answer.probabilities.values(), answer.novelty]
    assert answer.total == pytest.approx(-math.fsum(x * math.log(x) for x in p), abs=1e-9)
    assert answer.total == pytest.approx(answer.aleatoric + answer.epistemic)
    assert answer.epistemic > 0
    assert answer.confidence == max(answer.probabilities.values())
    low, high = answer.interval
    assert 0 <= low < high <= 1


def test_the_mean_alone_has_no_doubt_of_its_own(model: AdaptedModel) -> None:
    asked, parent = learned(model, "blob", LEARN)
    answer = answerer(model, asked, parent, draws=0).answer("win cheap cash now")
    assert answer.epistemic == pytest.approx(0, abs=1e-12)
    assert answer.interval[0] == answer.interval[1] == answer.confidence


def test_experts_one_by_one_are_surer_than_together() -> None:
    """`dispute` against the sum over all pairs of experts, written out."""
    generator = torch.Generator().manual_seed(3)
    views, labels = torch.randn(40, 2, 6, generator=generator), torch.arange(40) % 3
    sight = Sight(views, [torch.tensor([i % 7, 7 + i % 5]) for i in range(40)], 12)
    state = panel.learned(panel.founded(sight), sight, labels, classes=3)
    rows = torch.log_softmax(torch.randn(5, 3, generator=generator).double(), dim=-1)
    seen = glance(panel.believed(state), sight.of(range(5)))
    known, new = panel.by_expert(rows, seen).exp(), panel._novelty(state, seen).exp()
    wanted = torch.zeros(5, dtype=torch.float64)
    for w, p in zip(state.pool["classes"], known, strict=True):
        for v, split in zip(state.pool["novelty"], new, strict=True):
            every = torch.cat([split[:, :1] * p, split[:, 1:]], dim=1)
            wanted += w * v * -(every * every.log()).sum(dim=1)
    assert torch.allclose(panel.dispute(state, rows, seen), wanted)
    assert (panel.dispute(state, rows, seen) < -(p_log_p(panel.told(state, rows, seen)))).all()


def p_log_p(log_p: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * log_p).sum(dim=1)


def test_names_of_tasks_do_not_fill_the_memory(model: AdaptedModel, told: tuple[Order, Tensors]) -> None:
    """Whoever asks may make up any; one that was let go is drawn again, the same."""
    ready = answerer(model, *told)
    first = ready.answer("cash", "0")
    for task in range(MOST_TASKS + 3):
        ready._of(str(task))
    assert list(ready._drawn) == [str(task) for task in range(3, MOST_TASKS + 3)]
    assert ready.answer("cash", "0") == first


def test_one_that_knows_nothing_says_so(model: AdaptedModel) -> None:
    asked, parent = learned(model, "point", LEARN)
    with pytest.raises(NothingLearned, match="window 1"):
        answerer(model, asked, parent, labels=())
