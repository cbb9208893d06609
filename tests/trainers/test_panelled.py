"""A panel in an order: it has its say in forecasts, and in nothing that the family learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import AutoModel

from posterior import panel
from posterior.experts import EXPERTS, divides
from posterior.family import Tensors
from posterior.panel import NEW
from posterior.tensors import to_bytes
from priorflow.scores import chance
from tests.trainers.conftest import SPEC
from tests.trainers.orders import LEARN, PANELLED, TOPICS, answers, order
from trainers import panelled
from trainers.activations import Activations
from trainers.model import VIEWED, AdaptedModel, encoder_folder
from trainers.window import FamilySpec, Local, Outcome, root

BLOB = FamilySpec(name="blob", options={"sd_head": 0.1})


@pytest.fixture(scope="module")
def start(model: AdaptedModel) -> Tensors:
    return root(model, BLOB, chain_seed=1)


@pytest.fixture(scope="module")
def both(model: AdaptedModel, start: Tensors) -> list[Outcome]:
    return list(answers(Local(model), start, BLOB, learn=PANELLED))


def test_the_family_learns_as_without_it_bit_for_bit(
    model: AdaptedModel, start: Tensors, both: list[Outcome]
) -> None:
    for with_it, without in zip(both, answers(Local(model), start, BLOB), strict=True):
        state, rest = panel.restore(with_it.tensors)
        assert state is not None
        assert to_bytes(rest) == to_bytes(without.tensors)
        assert (with_it.beta, with_it.kl, with_it.nll) == (without.beta, without.kl, without.nll)


def test_forecasts_name_a_new_class_and_sum_to_one(both: list[Outcome]) -> None:
    assert both[0].forecasts == ()
    for outcome in both[1:]:
        assert outcome.columns == (*sorted(TOPICS), NEW)
        assert all(abs(sum(row) - 1) < 1e-9 and min(row) > 0 for row in outcome.forecasts)


def test_the_same_bits_again_and_with_more_ranks(
    model: AdaptedModel, start: Tensors, both: list[Outcome]
) -> None:
    again = list(answers(Local(model), start, BLOB, learn=PANELLED))
    assert [to_bytes(o.tensors) for o in again] == [to_bytes(o.tensors) for o in both]
    asked = order(1, both[0].tensors, known=True, family=BLOB, learn=PANELLED)
    split = Local(model, world=2).carry_out(asked)
    assert split.forecasts == both[1].forecasts
    beside, one = panel.restore(split.tensors)[0], panel.restore(both[1].tensors)[0]
    assert beside is not None
    assert one is not None
    assert all(torch.equal(beside.pool[k], one.pool[k]) for k in one.pool)


def test_forecasts_do_not_know_the_window_they_precede(model: AdaptedModel, both: list[Outcome]) -> None:
    asked = order(1, both[0].tensors, known=True, family=BLOB, swapped=True, learn=PANELLED)
    told = Local(model).carry_out(asked)
    assert told.forecasts == both[1].forecasts


def test_a_class_of_which_nobody_has_seen_an_event_is_not_offered(
    model: AdaptedModel, start: Tensors
) -> None:
    """As after going back behind its events: it stays among the labels, and costs what a new one does."""
    labels = ("linux", "lost", "money")
    first = Local(model).carry_out(
        replace(order(0, start, known=False, family=BLOB, learn=PANELLED), labels=labels)
    )
    asked = order(1, first.tensors, known=True, family=BLOB, learn=PANELLED)
    told = Local(model).carry_out(replace(asked, labels_before=labels, labels=labels))
    assert told.columns == ("linux", "money", NEW)
    assert all(abs(sum(row) - 1) < 1e-9 and min(row) > 0 for row in told.forecasts)
    right = [row[i % 2] > row[1 - i % 2] for i, row in enumerate(told.forecasts)]
    assert sum(right) >= 20
    found = dict(zip(told.columns, told.forecasts[0], strict=True))
    assert chance(found, "lost", pi_new=0.5) == found[NEW]
    back = replace(asked, labels_before=labels, labels=labels, members=(("something else", "lost"),) * 3)
    then = Local(model).carry_out(back)
    seen = replace(
        order(2, then.tensors, known=True, family=BLOB, learn=PANELLED), labels_before=labels, labels=labels
    )
    assert Local(model).carry_out(seen).columns == (*labels, NEW)


def test_a_chain_that_had_none_may_get_one(model: AdaptedModel, start: Tensors) -> None:
    """As a replay with other settings does: rows speak alone until the panel has seen a window."""
    parent = list(answers(Local(model), start, BLOB))[1].tensors
    asked = order(2, parent, known=True, family=BLOB, learn=PANELLED)
    first = Local(model).carry_out(asked)
    assert first.columns == tuple(sorted(TOPICS))
    next_one = order(3, first.tensors, known=True, family=BLOB, learn=PANELLED)
    assert Local(model).carry_out(next_one).columns == (*sorted(TOPICS), NEW)


def test_what_is_seen_of_a_text_is_its_own() -> None:
    """Whatever else is adapted, and in whatever company it is asked about; also where a prefix could be."""
    parts = replace(SPEC, parts=("lora", "adapter", "prefix"), prefix_length=3, adapter_size=5)
    adapted, plain = AdaptedModel(parts), AdaptedModel(SPEC)
    texts = ["the meeting is on thursday", "cheap", "a b c d e"]
    one, many = Activations(adapted), Activations(plain).sight(texts)
    alone = one.sight(texts[1:2])
    assert torch.equal(alone.views[0], many.views[1])
    assert torch.equal(alone.pieces[0], many.pieces[1])
    assert torch.equal(one.sight(texts).views, many.views)


@pytest.mark.parametrize("layer", [0, 1])
def test_views_are_of_the_frozen_model_wherever_it_is_cut(layer: int) -> None:
    """Against transformers' own hidden states: what enters layers at sixths, and the last's."""
    model = AdaptedModel(replace(SPEC, sites=rf"layer\.{layer}\.attention\.self\.(query|value)$"))
    whole = AutoModel.from_pretrained(encoder_folder(SPEC)).eval()
    text = "the meeting is on thursday"
    with torch.no_grad():
        states = whole(input_ids=model.tokens(text)[None], output_hidden_states=True).hidden_states
    places = {sixths * (len(states) - 1) // 6 for sixths in VIEWED}
    means = [states[at].mean(dim=1)[0] for at in (*sorted(places), -1)]
    wanted = torch.stack([mean / mean.norm() * model.dim**0.5 for mean in means])
    torch.testing.assert_close(Activations(model).sight([text]).views[0], wanted, atol=1e-5, rtol=1e-5)


def test_a_piece_is_told_once_and_beyond_what_the_model_reads(model: AdaptedModel) -> None:
    short = replace(SPEC, max_tokens=4)
    text = "a b c d e a b c d e"
    assert torch.equal(AdaptedModel(short).pieces(text), model.pieces(text))
    assert len(model.pieces(text)) == 5
    assert model.pieces("").tolist() == []


def test_what_was_seen_is_let_go_with_the_activation(model: AdaptedModel) -> None:
    texts = [f"number {i}" for i in range(6)]
    kept = Activations(model, limit_bytes=1)
    again = kept.sight(texts)
    assert torch.equal(again.views, Activations(model).sight(texts).views)
    assert len(kept._held) == 1


def test_all_that_is_kept_of_texts_counts(model: AdaptedModel) -> None:
    """However it was asked for: activations and views first, or all at once, of texts of any length."""
    limit = 60_000
    kept = Activations(model, limit_bytes=limit)
    for texts in (["a b"], ["c"], [f"number {i} of many" for i in range(9)], ["c d e f"]):
        kept.of(texts)
        kept.sight(texts)
        held = [t for one in kept._held.values() for t in (one.activation, *one.passed, *(one.shown or ()))]
        assert 0 < sum(t.numel() * t.element_size() for t in held) == kept._bytes <= limit
    assert len(kept._held) > 1


@pytest.mark.parametrize(("most", "heard"), [(256, range(24)), (5, (0, 4, 9, 14, 19)), (1, (0,))])
def test_pools_hear_what_the_parent_said_of_the_window(
    model: AdaptedModel,
    both: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    heard: Sequence[int],
) -> None:
    """Against the weights worked out from the parent's own forecasts by its rows, all over the window."""
    monkeypatch.setattr(panelled, "HEARD", most)
    parent, mean = both[1].tensors, replace(LEARN, draws=0)
    asked = order(2, parent, known=True, family=BLOB)
    rows = Local(model).carry_out(replace(asked, learn=mean)).forecasts
    texts, labels = [text for text, _ in asked.members], [label for _, label in asked.members]
    before = panel.restore(parent)[0]
    assert before is not None
    truth = torch.tensor([asked.labels_before.index(label) for label in labels])
    said = torch.tensor(rows, dtype=torch.float64).log()
    at = [*heard]
    wanted = panel.heard(before, said[at], Activations(model).sight(texts).of(at), truth[at]).pool
    told = Local(model).carry_out(replace(asked, learn=replace(mean, panel=True)))
    after = panel.restore(told.tensors)[0]
    assert after is not None
    for name, weights in wanted.items():
        assert torch.allclose(after.pool[name], weights, atol=1e-9)
        assert not torch.allclose(after.pool[name], before.pool[name], atol=1e-5)


def test_a_window_of_new_classes_alone_leaves_those_that_divide_half_their_say(
    model: AdaptedModel, both: list[Outcome]
) -> None:
    """Rows are pushed off the known classes there, and nothing in it could tell."""
    parent = both[1].tensors
    asked = order(2, parent, known=True, family=BLOB, learn=PANELLED)
    other = tuple((text, "other") for text, _ in asked.members)
    told = Local(model).carry_out(replace(asked, members=other, labels=(*asked.labels, "other")))
    before, after = (panel.restore(tensors)[0] for tensors in (parent, told.tensors))
    assert before is not None
    assert after is not None
    ratio = after.pool["classes"] / before.pool["classes"]
    divide = torch.tensor([divides(e) for e in EXPERTS])
    rows, others = ratio[divide], ratio[~divide]
    assert torch.allclose(rows, others[0] / 2)
    assert torch.allclose(others, others[0])
