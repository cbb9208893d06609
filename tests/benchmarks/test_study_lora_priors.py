"""How busy a class was is in the counts, not in the rows; and rows lie around the base's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import pytest
import torch
from torch import Tensor

from benchmarks.study.chain import Frozen
from benchmarks.study.lora_priors import Adjusted, Anchored, LoraPriors, adjusted
from benchmarks.study.streams import Example
from posterior.families import make_family
from posterior.family import Draw, Slot
from tests.app.encoders import small_encoder
from trainers.activations import Activations
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import InProcess, Schedule, update
from trainers.window import LearnSpec

WIDE: Final[dict[str, Any]] = {"sd_head": 100.0, "scale": 0.1}
SLOTS = [Slot("head", (2, 2), "head")]
LABELS = ("a", "b")


@final
@dataclass(frozen=True)
class Constant:
    """Texts whose features say nothing, so that only a class's frequency can be learned."""

    truth: Sequence[int]
    outputs: int = 2

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        logits = draw["head"].sum(dim=2).expand(len(positions), -1)
        truth = torch.tensor([self.truth[i] for i in positions])
        return torch.nn.functional.cross_entropy(logits, truth, reduction="sum")

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        raise NotImplementedError


def learned(options: dict[str, Any], state: Anchored, truth: Sequence[int]) -> Anchored:
    family = LoraPriors(**options)
    posterior, _ = update(
        family,
        state,
        Constant(truth),
        examples=len(truth),
        schedule=Schedule(epochs=60, batch=50, lr=0.5),
        seed=1,
        window=0,
        ranks=InProcess(1),
    )
    return posterior


def said(options: dict[str, Any], state: Anchored) -> Tensor:
    return LoraPriors(**options).mean(state, [""])["head"].sum(dim=2).softmax(dim=1)[0]


def beside(counts: dict[str, int]) -> dict[str, Any]:
    return WIDE | dict(adjusted(counts, LABELS).options)


@pytest.mark.parametrize("counts", [{"a": 90, "b": 10}, {"a": 5, "b": 95}])
def test_the_window_s_imbalance_is_not_learned_by_the_rows(counts: dict[str, int]) -> None:
    truth = [0] * counts["a"] + [1] * counts["b"]
    state = learned(beside(counts), LoraPriors(**WIDE).base(SLOTS, seed=1, centres={}), truth)
    left = [n / (n + 1) for n in counts.values()]  # what the count of 1 for each class does not explain
    assert float(said(WIDE, state)[0]) == pytest.approx(left[0] / sum(left), abs=0.005)
    plain = learned(WIDE, LoraPriors(**WIDE).base(SLOTS, seed=1, centres={}), truth)
    assert float(said(WIDE, plain)[0]) == pytest.approx(counts["a"] / 100, abs=0.01)


def test_after_two_windows_classes_are_as_frequent_as_in_both() -> None:
    state = LoraPriors(**WIDE).base(SLOTS, seed=1, centres={})
    windows: list[dict[str, int]] = [{"a": 90, "b": 10}, {"a": 30, "b": 70}]
    for counts in windows:
        state = learned(beside(counts), state, [0] * counts["a"] + [1] * counts["b"])
    together = Counter(windows[0]) + Counter(windows[1])
    left = 121 * 30 / 31, 81 * 70 / 71
    assert float(said(beside(together), state)[0]) == pytest.approx(left[0] / sum(left), abs=0.005)


def test_weights_are_charged_by_how_far_they_are_from_the_base_not_from_yesterday() -> None:
    family = LoraPriors(sd_head=0.5)
    base = family.base(SLOTS, seed=1, centres={})
    yesterday = Anchored({"head": base.point["head"] + 1.0}, base.anchor, base.sd)
    assert float(family.kl(yesterday, yesterday)) == pytest.approx(4 * 0.5 * (1.0 / 0.5) ** 2)
    assert float(family.kl(base, yesterday)) == 0.0


def test_a_class_without_a_text_counts_for_one() -> None:
    made = make_family(adjusted({"a": 3}, LABELS).name, adjusted({"a": 3}, LABELS).options)
    assert isinstance(made, LoraPriors)
    assert made.class_logs == pytest.approx((math.log(4 / 5), math.log(1 / 5)))


def test_what_is_foretold_follows_the_counts_of_all_windows() -> None:
    model = AdaptedModel(ModelSpec(encoder=small_encoder()))
    learn = LearnSpec(schedule=Schedule(epochs=0), draws=0, beta=1.0)
    learner = Adjusted(Frozen(model, Activations(model)), learn, seed=1)
    assert learner.foretell(["some text"]) == [None]
    learner.learn([Example(str(i), "a", 0) for i in range(7)])
    learner.learn([Example(str(i), "b", 1) for i in range(2)])
    (forecast,) = learner.foretell(["some text"])
    assert forecast == pytest.approx({"a": 8 / 11, "b": 3 / 11})  # rows that took no step say nothing
