"""The panel: always a distribution, exact about what it saw, and it listens to whom it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior import dictionary, generative, moments, panel, regression
from posterior.experts import EXPERTS, ROWS
from posterior.family import tensors_of
from posterior.panel import Panel
from posterior.pool import reweighted
from posterior.predict import entropy
from posterior.sight import AMONG_WORTH, VARIANCE, OtherPanel, Sight, glance
from posterior.tensors import from_bytes, to_bytes

D = 12
V = 40


def events(count: int, classes: int, seed: int, *, first: int = 0) -> tuple[Sight, Tensor]:
    """Return views around class centres two deviations apart, pieces that lean to the class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(first, classes, (count,), generator=generator)
    centres = torch.eye(D) * 2
    views = centres[labels].unsqueeze(1) + 0.7 * torch.randn(count, 2, D, generator=generator)
    drawn = torch.randint(0, V, (count, 6), generator=generator)
    pieces = [torch.tensor(sorted({int(y), *row.tolist()})) for y, row in zip(labels, drawn, strict=True)]
    return Sight(views, pieces, V), labels


def both(a: Sight, b: Sight) -> Sight:
    return Sight(torch.cat([a.views, b.views]), [*a.pieces, *b.pieces], V)


def taught(classes: int = 3, seed: int = 0) -> Panel:
    features, labels = events(120, classes, seed)
    labels[:classes] = torch.arange(classes)
    return panel.learned(panel.founded(features), features, labels, classes=classes)


def rows(count: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(count, classes, generator=generator).double(), dim=-1)


def clever(labels: Tensor, classes: int) -> Tensor:
    """Return rows that know the truth."""
    return torch.log_softmax(6.0 * torch.nn.functional.one_hot(labels, classes).double(), dim=-1)


def foretold(state: Panel, said: Tensor, sight: Sight) -> Tensor:
    return panel.told(state, said, glance(panel.believed(state), sight))


@given(classes=st.integers(1, 5), seed=st.integers(0, 50))
def test_a_forecast_is_a_distribution(classes: int, seed: int) -> None:
    features, _ = events(9, classes, seed + 1)
    said = foretold(taught(classes, seed), rows(9, classes, seed), features).exp()
    assert said.shape == (9, classes + 1)
    assert said.sum(dim=1).tolist() == pytest.approx([1.0] * 9, abs=1e-9)


def test_a_new_class_takes_from_all_alike() -> None:
    """Ratios of known classes do not depend on who is heard about new ones."""
    state, (features, _) = taught(), events(7, 3, 5)
    loud = torch.zeros_like(state.pool["novelty"])
    loud[0] = 1.0
    other = replace(state, pool=dict(state.pool) | {"novelty": loud})
    one, two = (foretold(p, rows(7, 3, 1), features)[:, :3] for p in (state, other))
    assert torch.allclose(torch.log_softmax(one, dim=1), torch.log_softmax(two, dim=1))
    assert not torch.allclose(one, two)


def merged_foretold(state: Panel, said: Tensor, sight: Sight, labels: str) -> Tensor:
    return panel.told(state, said, glance(panel.believed(state, labels), sight))


@given(seed=st.integers(0, 30))
def test_a_merged_class_has_what_its_rows_have_and_all_else_stands(seed: int) -> None:
    state, (sight, _) = taught(4, seed), events(9, 4, seed + 1)
    apart = foretold(state, rows(9, 4, seed), sight)
    found = merged_foretold(state, rows(9, 4, seed), sight, "abcb")
    assert panel.known(state, "abcb") == ("a", "b", "c")
    torch.testing.assert_close(found[:, 1].exp(), apart[:, [1, 3]].exp().sum(dim=1))
    stands = apart[:, [0, 2, 4]]  # the last is the new class
    torch.testing.assert_close(found[:, [0, 2, 3]], stands, rtol=0, atol=1e-12)


def test_experts_are_heard_for_what_they_gave_to_a_merged_class() -> None:
    """Whoever divides it in vain between its rows is as good as one who does not."""
    state, (sight, truth) = taught(4), events(60, 4, 3)
    said, first = rows(60, 4, 1), torch.tensor([0, 1, 2, 1])
    seen = glance(panel.believed(state), sight)
    p = panel.by_expert(said, seen).exp()
    both = torch.stack([p[..., 0], p[..., 1] + p[..., 3], p[..., 2]], dim=-1)
    column = first[truth].view(1, -1, 1).expand(len(EXPERTS), -1, 1)
    wanted = reweighted(state.pool["classes"], both.log().gather(2, column)[..., 0], worth=panel.WORTH)
    after = panel.heard(state, said, sight, first[truth], "abcb")
    torch.testing.assert_close(after.pool["classes"], wanted)
    unseen = torch.full((60,), panel.UNSEEN)
    new = [panel.heard(state, said, sight, unseen, names).pool["novelty"] for names in ("", "abcb")]
    assert torch.equal(*new)


def test_experts_do_not_disagree_about_rows_of_one_class() -> None:
    state, (sight, _) = taught(4), events(9, 4, 3)
    apart, one = (glance(panel.believed(state, names), sight) for names in ("abcd", "abab"))
    said = rows(9, 4, 1)
    assert (panel.dispute(state, said, one) < panel.dispute(state, said, apart)).all()
    total = entropy(panel.told(state, said, one))
    assert (panel.dispute(state, said, one) < total).all()


def test_what_is_learned_of_a_merged_class_counts_in_the_row_that_it_resembles() -> None:
    state, (sight, truth) = taught(4), events(200, 4, 12)
    first = torch.tensor([0, 1, 2, 1])
    placed = panel.placed(panel.believed(state, "abcb"), sight, first[truth])
    assert torch.equal(first[placed], first[truth])  # a row of its class
    assert float((placed == truth).double().mean()) > 0.97
    assert set(placed[truth == 3].tolist()) >= {3}
    assert panel.placed(panel.believed(state, "abcd"), sight, truth) is truth


def test_what_no_class_explains_is_likelier_new() -> None:
    state, (features, _) = taught(), events(40, 3, 6)
    strange, _ = events(40, 6, 7, first=4)
    said = foretold(state, rows(40, 3, 1), features)
    odd = foretold(state, rows(40, 3, 1), strange)
    assert float(odd[:, -1].exp().mean()) > 2 * float(said[:, -1].exp().mean())


def test_a_class_without_an_example_is_not_known() -> None:
    """As if the label map had no such class: nothing is said of it, and it is heard as a new one."""
    (sight, labels), (asked, truth) = events(90, 3, 30), events(20, 3, 31)
    gap = torch.tensor([0, 2, 3])  # the second of four was never shown
    four = panel.learned(panel.founded(sight), sight, gap[labels], classes=4)
    three = panel.learned(panel.founded(sight), sight, labels, classes=3)
    assert panel.known(four, "abcd") == ("a", "c", "d")
    said = rows(20, 4, 1)
    wanted = foretold(three, said[:, gap], asked)
    torch.testing.assert_close(foretold(four, said, asked), wanted)
    assert torch.allclose(wanted.exp().sum(dim=1), torch.ones(20, dtype=torch.float64))
    truth[:5] = panel.UNSEEN
    heard = panel.heard(three, said[:, gap], asked, truth)
    again = panel.heard(four, said, asked, torch.where(truth == panel.UNSEEN, 1, gap[truth]))
    for name, weights in heard.pool.items():
        torch.testing.assert_close(again.pool[name], weights)


def weight(state: Panel, factor: str) -> float:
    """Return the weight of the experts who go by one factor alone."""
    others = {"rows", "views", "pieces", "narrow", "wide"} - {factor}
    alone = [not any(getattr(e, other) for other in others) for e in EXPERTS]
    return float(state.pool["classes"][torch.tensor(alone)].sum())


@pytest.mark.parametrize("factor", ["views", "pieces"])
def test_a_head_alone_is_bayes_rule_of_its_densities(factor: str) -> None:
    """Its share of densities worked out without the panel, classes being as likely as each other."""
    (sight, labels), (asked, _) = events(90, 3, 20), events(8, 3, 21)
    state = panel.learned(panel.founded(sight), sight, labels, classes=3)
    heads, at = panel.believed(state), next(i for i, e in enumerate(EXPERTS) if getattr(e, factor))
    if factor == "views":
        flat = sight.views.double().flatten(1)
        means = [flat.mean(dim=0), *(flat[labels == k].mean(dim=0) for k in range(3))]
        base = generative.base(
            torch.stack(means).mean(dim=0),
            torch.full((2 * D,), VARIANCE),
            worth=AMONG_WORTH,
            freedom=2.0 + 2 * D,
        )
        belief = generative.believe(base, moments.moments(sight.views.flatten(1), labels))
        said = generative.log_densities(belief, asked.views.flatten(1)) / (2 * D)
    else:
        said = dictionary.log_densities(heads.pieces, asked.pieces)
    alone = torch.zeros_like(state.pool["classes"])
    alone[at] = 1.0
    only = replace(state, pool=dict(state.pool) | {"classes": alone})
    found = torch.log_softmax(foretold(only, rows(8, 3, 1), asked)[:, :3], dim=1)
    wanted = torch.log_softmax(said * getattr(EXPERTS[at], factor), dim=1)
    torch.testing.assert_close(found, wanted)


def test_the_last_view_alone_is_a_head_on_that_view() -> None:
    """What all views' moments say of the last is what counting the last alone would have said."""
    sight, labels = events(60, 3, 22)
    last = Sight(sight.views[:, -1:], sight.pieces, V)
    of_all, of_last = (
        panel.believed(panel.learned(panel.founded(s), s, labels, classes=3)) for s in (sight, last)
    )
    torch.testing.assert_close(of_all.last.mean, of_last.last.mean)
    torch.testing.assert_close(of_all.last.root, of_last.last.root)


def test_a_class_of_one_text_is_looked_for_where_the_known_ones_lie() -> None:
    """And where a class is like no other it may lie anywhere: what is new is asked of the base."""
    sight, labels = events(90, 3, 22)
    state = panel.learned(panel.founded(sight), sight, labels, classes=3)
    one, _ = events(1, 4, 23, first=3)
    after = panel.believed(panel.learned(state, one, torch.tensor([3]), classes=4))
    means = [state.generative["centre"].flatten(), *state.generative["mean"]]
    own = one.views.double().flatten()
    amid = torch.stack([*means, own]).mean(dim=0)
    torch.testing.assert_close(after.views.mean[3], amid + (own - amid) / (1 + AMONG_WORTH))
    torch.testing.assert_close(after.last.base.mean, state.generative["centre"][-1])


def test_those_who_foretold_are_heard() -> None:
    state, (features, labels) = taught(), events(200, 3, 8)
    other = (labels + 1) % 3  # what views and pieces speak against
    after = panel.heard(state, clever(other, 3), features, other)
    assert weight(after, "rows") > 0.8
    misled = panel.heard(state, clever(other, 3), features, labels)
    assert weight(misled, "rows") < 0.1
    assert after.generative is state.generative


def test_what_was_heard_before_the_last_window_counts_for_little() -> None:
    state, (features, labels) = taught(), events(200, 3, 8)
    other = (labels + 1) % 3
    used = state
    for _ in range(3):  # rows are right, and then in one window wrong
        used = panel.heard(used, clever(other, 3), features, other)
    assert weight(used, "rows") > 0.9
    recent = panel.heard(used, clever(other, 3), features, labels)
    assert 0.05 < weight(recent, "rows") < 0.15  # 20 events of 220


def test_the_head_that_divides_learns_in_turn_and_answers_as_by_itself() -> None:
    """The moments of the generative heads are its prior's second moments."""
    (a, la), (b, lb), (asked, _) = events(60, 3, 20), events(60, 4, 21), events(8, 4, 22)
    state = panel.learned(panel.founded(a), a, la, classes=3)
    state = panel.learned(state, b, lb, classes=4)
    alone = regression.nothing(D)
    seen = moments.nothing(D)
    for sight, labels, classes in ((a, la, 3), (b, lb, 4)):
        last = sight.views[:, -1]
        before = regression.factored(regression.grow(alone, classes), seen)
        alone = regression.learned(before, last, labels)
        seen = moments.combine(seen, moments.moments(last, labels))
    wanted = regression.log_probabilities(regression.factored(alone, seen), asked.views[:, -1])
    found = glance(panel.believed(state), asked)
    torch.testing.assert_close(torch.stack([found.narrow, found.wide]), wanted, rtol=0, atol=1e-6)


def test_at_first_everybody_is_heard_alike() -> None:
    at_first = panel.founded(events(3, 2, 0)[0]).pool["classes"]
    assert at_first.tolist() == pytest.approx([1 / len(EXPERTS)] * len(EXPERTS))


@pytest.mark.parametrize("held", [[4, 5], [0, 4], [0, 1, 3], [2]])
def test_what_a_window_lacks_costs_those_that_divide_of_their_say(held: list[int]) -> None:
    """By the share of all events so far whose class it does not hold; of classes alike, half of it."""
    state = taught(4)
    count = state.generative["count"]
    lacks = [k for k in range(4) if k not in held]
    after = panel.doubted(state, torch.tensor(held), "abcdef").pool["classes"]
    divide = torch.tensor([e.rows + e.narrow + e.wide > 0 for e in EXPERTS])
    left = 0.5 ** float(count[lacks].sum() / count.sum())
    assert float(after.sum()) == pytest.approx(1.0)
    assert (after[divide] / after[0]).tolist() == pytest.approx([1.0] * int(divide.sum()))
    assert (after[~divide] / after[0]).tolist() == pytest.approx([1 / left] * int((~divide).sum()))


def test_a_window_that_lacks_nothing_leaves_all_their_say() -> None:
    state, founded = taught(4), panel.founded(events(3, 2, 0)[0])
    assert panel.doubted(state, torch.tensor([3, 0, 2, 1, 5])) is state
    assert panel.doubted(state, torch.tensor([0, 2, 1]), "abcb") is state  # a row of a merged class
    assert panel.doubted(founded, torch.tensor([0, 1])) is founded


def test_new_classes_are_expected_where_they_came() -> None:
    state, (features, _) = taught(), events(60, 3, 9)
    never = torch.full((60,), panel.UNSEEN)
    quiet = panel.heard(state, rows(60, 3, 1), features, torch.zeros(60, dtype=torch.int64))
    busy = panel.heard(state, rows(60, 3, 1), features, never)
    assert [p.pool["rate"].tolist() for p in (quiet, busy)] == [[0.0, 60.0], [60.0, 60.0]]
    least = [float(p.pool["novelty"][0]) for p in (quiet, state, busy)]  # who says 1 in 1,000, always
    assert least == sorted(least, reverse=True)
    assert torch.equal(busy.pool["classes"], state.pool["classes"])  # nothing was told of known classes


def test_a_class_the_window_lacks_keeps_its_row_bit_for_bit() -> None:
    state, (features, labels) = taught(), events(50, 3, 10, first=1)
    after = panel.learned(state, features, labels, classes=3)
    assert torch.equal(after.words["counts"][0], state.words["counts"][0])
    for name in ("mean", "count"):
        assert torch.equal(after.generative[name][0], state.generative[name][0])
        assert not torch.equal(after.generative[name][1:], state.generative[name][1:])


def test_windows_in_any_order_are_one_evidence() -> None:
    (a, la), (b, lb) = events(40, 3, 11), events(30, 4, 12)
    start = panel.founded(a)
    first = panel.learned(panel.learned(start, a, la, classes=3), b, lb, classes=4)
    second = panel.learned(panel.learned(start, b, lb, classes=4), a, la, classes=4)
    whole = panel.learned(start, both(a, b), torch.cat([la, lb]), classes=4)
    assert torch.equal(first.words["counts"], second.words["counts"])
    assert torch.equal(first.words["counts"], whole.words["counts"])
    one, two, all_at_once = first.generative, second.generative, whole.generative
    assert float(all_at_once["count"].sum()) == float(one["count"].sum()) == 70
    for name in ("mean", "count", "scatter"):
        assert torch.allclose(one[name], two[name], atol=1e-9)
        assert torch.allclose(one[name], all_at_once[name], atol=1e-9)


def test_a_new_class_leaves_the_others_ratios_to_the_head() -> None:
    """A row more: what densities say of the old classes stays what the shared covariance makes of them."""
    state, (features, labels) = taught(), events(5, 4, 13, first=3)
    grown = panel.learned(state, features, labels, classes=5)
    assert len(grown.generative["mean"]) == 5  # one that is known to the chain and to nobody here
    assert torch.equal(grown.generative["mean"][:3], state.generative["mean"])


def test_bytes_and_back() -> None:
    state = taught()
    mixed = tensors_of(state) | {"mean/head": torch.ones(2)}
    back, rest = panel.restore(from_bytes(to_bytes(mixed)))
    assert back is not None
    assert list(rest) == ["mean/head"]
    for field in panel.FIELDS:
        ours, theirs = getattr(state, field), getattr(back, field)
        assert sorted(ours) == sorted(theirs)
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert panel.restore(rest) == (None, rest)


def test_a_panel_of_another_release_is_told() -> None:
    """One of before a head was there, and one whose pools had other experts."""
    now = tensors_of(taught())
    lacking = [{k: v for k, v in now.items() if not k.startswith(f)} for f in ("words/", "regression/")]
    for old in (*lacking, now | {"pool/classes": torch.ones(2, 18)}, now | {"pool/novelty": torch.ones(3)}):
        with pytest.raises(OtherPanel, match="replay --into"):
            panel.restore(old)


def test_a_panel_of_other_views_is_told() -> None:
    state, (sight, _) = taught(), events(4, 3, 14)
    more = Sight(torch.cat([sight.views, sight.views], dim=1), sight.pieces, V)
    with pytest.raises(OtherPanel, match="replay --into"):
        foretold(state, rows(4, 3, 1), more)


def test_a_single_input_is_told_as_in_a_crowd() -> None:
    state, (features, _) = taught(), events(30, 3, 14)
    whole = foretold(state, rows(30, 3, 1), features)
    for i, (said, row) in enumerate(zip(whole, rows(30, 3, 1), strict=True)):
        assert torch.allclose(foretold(state, row[None], features.of([i]))[0], said, atol=1e-9)


def test_a_temperature_makes_rows_more_modest() -> None:
    """One expert alone at a time, colder ones first: entropy rises."""
    state, (features, _) = taught(), events(20, 3, 15)
    spread = []
    for expert in range(len(ROWS)):
        alone = torch.zeros_like(state.pool["classes"])
        alone[expert] = 1.0
        only = replace(state, pool=dict(state.pool) | {"classes": alone})
        known = torch.log_softmax(foretold(only, rows(20, 3, 1), features)[:, :3], dim=1)
        spread.append(float(entropy(known).mean()))
    assert spread == sorted(spread)
    assert spread[0] == pytest.approx(float(entropy(rows(20, 3, 1)).mean()))
