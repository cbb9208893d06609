"""Two classes made one over a real model: nothing else moves, and what is learned of it is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from posterior import panel
from posterior.families import FAMILIES, make_family
from posterior.family import Tensors
from posterior.panel import NEW
from posterior.tensors import from_bytes, to_bytes
from stream.plan import window_seed
from stream.relabelling import told_by_name
from tests.trainers.orders import LEARN, PANELLED
from trainers.activations import Activations
from trainers.answer import Answerer, as_forecast
from trainers.model import AdaptedModel
from trainers.window import FamilySpec, LearnSpec, Local, Order, Outcome

TOPICS = {
    "linux": "kernel module compiled on the box",
    "money": "win cheap cash now",
    "sport": "a late goal in the match",
}
APART = ("linux", "money", "sport")
MERGED = ("talk", "money", "talk")
PI_NEW = 0.02
KINDS = pytest.mark.parametrize("learn", [LEARN, PANELLED], ids=["rows", "panel"])


def mails(window: int, topics: Sequence[str] = APART) -> tuple[tuple[str, str], ...]:
    names = [topics[i % len(topics)] for i in range(24)]
    return tuple((f"{TOPICS[name]} {window}-{i}", name) for i, name in enumerate(names))


def order(window: int, parent: Tensors, labels: tuple[str, ...], learn: LearnSpec, name: str) -> Order:
    """Return a window's order on top of a parent that knows these rows."""
    now = dict(zip(APART, labels or APART, strict=True))
    members = mails(window)
    return Order(
        window=window,
        family=FamilySpec(name=name),
        learn=learn,
        chain_seed=1,
        seed=window_seed(1, window),
        parent=parent,
        labels_before=labels,
        labels=labels or APART,
        arrivals=tuple(text for text, _ in members),
        members=tuple((text, now[label]) for text, label in members),
    )


def foretold(outcome: Outcome) -> list[dict[str, float]]:
    return [told_by_name(outcome.columns, row) for row in outcome.forecasts]


def parent_of(model: AdaptedModel, learn: LearnSpec, name: str = "blob") -> Tensors:
    return Local(model).carry_out(order(0, {}, (), learn, name)).tensors


def answerer(model: AdaptedModel, tensors: Tensors, labels: tuple[str, ...], name: str = "blob") -> Answerer:
    return Answerer(
        model,
        Activations(model),
        make_family(name, {}),
        tensors,
        labels,
        window=1,
        chain_seed=1,
        draws=LEARN.draws,
        pi_new=PI_NEW,
    )


@KINDS
def test_it_is_foretold_what_both_were_and_all_else_stands(model: AdaptedModel, learn: LearnSpec) -> None:
    parent = parent_of(model, learn)
    apart, merged = (
        foretold(Local(model).carry_out(replace(order(1, parent, labels, learn, "blob"), members=())))
        for labels in (APART, MERGED)
    )
    for one, two in zip(apart, merged, strict=True):
        assert two["talk"] == pytest.approx(one["linux"] + one["sport"], abs=1e-12)
        stands = {k: p for k, p in one.items() if k not in {"linux", "sport"}}
        assert two == pytest.approx({"talk": two["talk"], **stands}, abs=1e-12)
        assert sum(two.values()) == pytest.approx(1, abs=1e-9)


@KINDS
def test_it_is_answered_as_it_is_foretold_and_doubt_adds_up(model: AdaptedModel, learn: LearnSpec) -> None:
    parent = parent_of(model, learn)
    asked = replace(order(1, parent, MERGED, learn, "blob"), members=())
    ready, apart = answerer(model, parent, MERGED), answerer(model, parent, APART)
    for text, said in list(zip(asked.arrivals, foretold(Local(model).carry_out(asked)), strict=True))[:4]:
        answer, before = ready.answer(text), apart.answer(text)
        share = 1.0 if learn.panel else 1 - PI_NEW
        found = as_forecast(answer)
        assert found == pytest.approx({k: share * p for k, p in said.items()} | {NEW: found[NEW]}, abs=1e-6)
        assert sum(found.values()) == pytest.approx(1, abs=1e-9)
        assert found["money"] == pytest.approx(before.probabilities["money"], abs=1e-12)
        assert answer.novelty == pytest.approx(before.novelty, abs=1e-12)
        assert answer.total < before.total  # which of the two it is, is no doubt any more
        assert answer.total == pytest.approx(answer.aleatoric + answer.epistemic)
        assert answer.interval[0] < answer.confidence < answer.interval[1] or answer.label == "money"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_what_is_learned_of_it_makes_it_likelier_in_every_family(model: AdaptedModel, name: str) -> None:
    parent = parent_of(model, LEARN, name)
    asked = order(1, parent, MERGED, LEARN, name)
    strange = tuple((f"{TOPICS['money']} {i}", "talk") for i in range(24))
    after = Local(model).carry_out(replace(asked, members=strange))
    texts = tuple(text for text, _ in strange)
    before, since = (
        [
            said["talk"]
            for said in foretold(Local(model).carry_out(replace(asked, parent=p, arrivals=texts, members=())))
        ]
        for p in (parent, after.tensors)
    )
    assert sum(since) > sum(before)
    assert after.nll > 0


@KINDS
def test_learned_again_it_has_the_same_bits_also_behind_bytes(model: AdaptedModel, learn: LearnSpec) -> None:
    parent = parent_of(model, learn)
    once = Local(model).carry_out(order(1, parent, MERGED, learn, "blob"))
    read = from_bytes(to_bytes(parent))
    again = Local(model).carry_out(order(1, read, MERGED, learn, "blob"))
    assert to_bytes(once.tensors) == to_bytes(again.tensors)
    assert (once.forecasts, once.columns, once.beta_nll) == (again.forecasts, again.columns, again.beta_nll)
    twice = Local(model).carry_out(order(2, from_bytes(to_bytes(once.tensors)), MERGED, learn, "blob"))
    assert set(foretold(twice)[0]) == {"talk", "money", *([NEW] if learn.panel else [])}


def test_heads_count_each_text_once_and_in_the_row_that_it_resembles(model: AdaptedModel) -> None:
    parent = parent_of(model, PANELLED)
    after = Local(model).carry_out(order(1, parent, MERGED, PANELLED, "blob"))
    before, since = (panel.restore(tensors)[0] for tensors in (parent, after.tensors))
    assert before is not None
    assert since is not None
    gained = since.generative["count"] - before.generative["count"]
    assert gained.tolist() == [8, 8, 8]  # as many as each topic had
    words = (since.words["counts"] - before.words["counts"]).sum(dim=1)
    assert (words > 0).all()


def test_a_row_that_tensors_do_not_know_yet_is_learned_as_the_class_it_belongs_to(
    model: AdaptedModel,
) -> None:
    """As after going on from a belief of before one of the two was seen."""
    parent = parent_of(model, PANELLED)
    first = replace(order(1, parent, APART, PANELLED, "blob"), labels=(*APART, "news"))
    labels = ("linux", "money", "sport", "linux")
    asked = replace(first, labels=labels, members=tuple((t, k) for t, k in mails(1)))
    after = Local(model).carry_out(asked)
    told = Local(model).carry_out(
        replace(asked, window=2, parent=after.tensors, labels_before=labels, members=())
    )
    assert set(told.columns) == {*APART, NEW}
    right = [
        max(TOPICS, key=lambda k: said[k]) == name
        for said, (_, name) in zip(foretold(told), mails(1), strict=True)
    ]
    assert sum(right) > 20
    assert torch.isfinite(torch.tensor(told.forecasts)).all()
