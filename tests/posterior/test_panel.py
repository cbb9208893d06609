"""The panel: always a distribution, exact about what it saw, and it listens to whom it should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior import panel
from posterior.family import tensors_of
from posterior.panel import Panel
from posterior.predict import entropy
from posterior.tensors import from_bytes, to_bytes

D = 12


def events(count: int, classes: int, seed: int, *, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return features around class centres two deviations apart, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(first, classes, (count,), generator=generator)
    centres = torch.eye(D) * 2
    return centres[labels] + 0.7 * torch.randn(count, D, generator=generator), labels


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


@given(classes=st.integers(1, 5), seed=st.integers(0, 50))
def test_a_forecast_is_a_distribution(classes: int, seed: int) -> None:
    features, _ = events(9, classes, seed + 1)
    said = panel.foretold(taught(classes, seed), rows(9, classes, seed), features).exp()
    assert said.shape == (9, classes + 1)
    assert said.sum(dim=1).tolist() == pytest.approx([1.0] * 9, abs=1e-9)


def test_a_new_class_takes_from_all_alike() -> None:
    """Ratios of known classes do not depend on who is heard about new ones."""
    state, (features, _) = taught(), events(7, 3, 5)
    loud = torch.zeros_like(state.pool["novelty"])
    loud[0] = 1.0
    other = Panel(generative=state.generative, pool=dict(state.pool) | {"novelty": loud})
    one, two = (panel.foretold(p, rows(7, 3, 1), features)[:, :3] for p in (state, other))
    assert torch.allclose(torch.log_softmax(one, dim=1), torch.log_softmax(two, dim=1))
    assert not torch.allclose(one, two)


def test_what_no_class_explains_is_likelier_new() -> None:
    state, (features, _) = taught(), events(40, 3, 6)
    strange, _ = events(40, 6, 7, first=4)
    said = panel.foretold(state, rows(40, 3, 1), features)
    odd = panel.foretold(state, rows(40, 3, 1), strange)
    assert float(odd[:, -1].exp().mean()) > 2 * float(said[:, -1].exp().mean())


def test_those_who_foretold_are_heard() -> None:
    state, (features, labels) = taught(), events(200, 3, 8)
    after = panel.heard(state, clever(labels, 3), features, labels)
    heard = float(after.pool["classes"][: len(panel.ROWS)].sum())
    assert heard > 0.6  # it was a half
    misled = panel.heard(state, clever((labels + 1) % 3, 3), features, labels)
    assert float(misled.pool["classes"][: len(panel.ROWS)].sum()) < 0.1
    assert after.generative is state.generative


def test_new_classes_are_expected_where_they_came() -> None:
    state, (features, _) = taught(), events(60, 3, 9)
    never = torch.full((60,), panel.UNSEEN)
    quiet = panel.heard(state, rows(60, 3, 1), features, torch.zeros(60, dtype=torch.int64))
    busy = panel.heard(state, rows(60, 3, 1), features, never)
    least = [float(p.pool["novelty"][0]) for p in (quiet, state, busy)]  # who says 1 in 1,000, always
    assert least == sorted(least, reverse=True)
    assert torch.equal(busy.pool["classes"], state.pool["classes"])  # nothing was told of known classes


def test_a_class_the_window_lacks_keeps_its_row_bit_for_bit() -> None:
    state, (features, labels) = taught(), events(50, 3, 10, first=1)
    after = panel.learned(state, features, labels, classes=3)
    for name in ("mean", "count", "seen"):
        assert torch.equal(after.generative[name][0], state.generative[name][0])
        assert not torch.equal(after.generative[name][1:], state.generative[name][1:])


def test_windows_in_any_order_are_one_evidence() -> None:
    (a, la), (b, lb) = events(40, 3, 11), events(30, 4, 12)
    start = panel.founded(a)
    one = panel.learned(panel.learned(start, a, la, classes=3), b, lb, classes=4).generative
    two = panel.learned(panel.learned(start, b, lb, classes=4), a, la, classes=4).generative
    both = panel.learned(start, torch.cat([a, b]), torch.cat([la, lb]), classes=4).generative
    assert float(both["seen"].sum()) == float(one["count"].sum()) == 70
    for name in ("mean", "count", "scatter", "seen"):
        assert torch.allclose(one[name], two[name], atol=1e-9)
        assert torch.allclose(one[name], both[name], atol=1e-9)


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


def test_a_single_input_is_told_as_in_a_crowd() -> None:
    state, (features, _) = taught(), events(30, 3, 14)
    whole = panel.foretold(state, rows(30, 3, 1), features)
    for said, row, x in zip(whole, rows(30, 3, 1), features, strict=True):
        assert torch.allclose(panel.foretold(state, row[None], x[None])[0], said, atol=1e-9)


def test_a_temperature_makes_rows_more_modest() -> None:
    """One expert alone at a time, colder ones first: entropy rises."""
    state, (features, _) = taught(), events(20, 3, 15)
    spread = []
    for expert in range(len(panel.ROWS)):
        alone = torch.zeros_like(state.pool["classes"])
        alone[expert] = 1.0
        only = Panel(generative=state.generative, pool=dict(state.pool) | {"classes": alone})
        known = torch.log_softmax(panel.foretold(only, rows(20, 3, 1), features)[:, :3], dim=1)
        spread.append(float(entropy(known).mean()))
    assert spread == sorted(spread)
    assert spread[0] == pytest.approx(float(entropy(rows(20, 3, 1)).mean()))
