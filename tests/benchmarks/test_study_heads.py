"""The study's baselines are what they are named after."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.study.ewc import Ewc, Held
from benchmarks.study.heads import PROJECTIONS, Counting, Head, Lda, RanPac
from benchmarks.study.streams import Example
from posterior.family import Slot

D, CENTRES = 6, torch.eye(6, dtype=torch.float64) * 4


def features(texts: Sequence[str]) -> Tensor:
    """Return points around the centre that a text names: "CLASS NUMBER"."""
    rows = []
    for text in texts:
        which, number = map(int, text.split())
        noise = torch.Generator().manual_seed(100 * which + number)
        rows.append(CENTRES[which] + torch.randn(D, generator=noise, dtype=torch.float64))
    return torch.stack(rows)


def window(classes: Sequence[int], numbers: Sequence[int]) -> list[Example]:
    return [Example(f"{c} {n}", f"class {c}", 0) for c in classes for n in numbers]


@pytest.mark.parametrize("make", [Lda, lambda: RanPac(1)], ids=["lda", "ranpac"])
def test_a_counting_head_keeps_classes_that_do_not_come_again(make: type[Lda]) -> None:
    head: Head = make()
    learner = Counting(features, head)
    assert learner.foretell(["0 1"]) == [None]
    for classes in ([0, 1], [2, 3], [4, 5]):
        learner.learn(window(classes, range(40)))
    asked = [f"{c} {n}" for c in range(6) for n in range(100, 110)]
    said = [forecast for forecast in learner.recall(asked) if forecast is not None]
    guesses = [max(one, key=one.__getitem__) for one in said]
    right = [guess == f"class {text[0]}" for guess, text in zip(guesses, asked, strict=True)]
    assert sum(right) > 0.95 * len(asked)
    assert all(sum(one.values()) == pytest.approx(1) for one in said)


def test_ridge_regression_on_projections_is_the_same_in_one_window_or_two() -> None:
    at_once, in_two = RanPac(1), RanPac(1)
    x, y = features([f"{c} {n}" for n in range(20) for c in range(3)]), torch.arange(3).repeat(20)
    at_once.count(x, y, 3)
    in_two.count(x[:30], y[:30], 3)
    in_two.count(x[30:], y[30:], 3)
    torch.testing.assert_close(at_once.scores(x, 1.0), in_two.scores(x, 1.0))
    assert at_once.carried() == 8 * PROJECTIONS * (PROJECTIONS + 3)


def test_ewc_charges_a_move_by_the_information_and_adds_it_up() -> None:
    family, slots = Ewc(strength=2.0), [Slot("head", (2, 3), "head")]
    base = family.base(slots, seed=1, centres={})
    rows = torch.arange(12.0).reshape(2, 2, 3)
    once, _ = family.absorb(base, base, {"head": rows})
    twice, _ = family.absorb(once, once, {"head": rows})
    torch.testing.assert_close(once.fisher["head"], rows[0] ** 2 + rows[1] ** 2)
    torch.testing.assert_close(twice.fisher["head"], 2 * once.fisher["head"])
    moved = Held({"head": once.point["head"] + 0.1}, once.fisher)
    assert float(family.kl(moved, once)) == pytest.approx(0.01 * float(once.fisher["head"].sum()))
    assert float(family.kl(moved, base)) == 0.0, "of the base nothing is known"


def test_new_rows_of_ewc_are_free_and_old_ones_held() -> None:
    family = Ewc()
    small, large = (family.base([Slot("head", (k, 2), "head")], seed=1, centres={}) for k in (1, 2))
    known = Held(small.point, {"head": torch.ones(1, 2)})
    grown = family.grow(known, large)
    torch.testing.assert_close(grown.fisher["head"], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
