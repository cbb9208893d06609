"""A text is kept, or was learned by what is handed on; it is never both, and the copy has learned it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import pytest
import torch

from benchmarks.study.chain import Frozen, bytes_of
from benchmarks.study.coreset import Coreset, without
from benchmarks.study.streams import Example
from posterior.family import Tensors
from tests.app.encoders import small_encoder
from trainers.activations import Activations
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec

WORDS = {"linux": "kernel patch boots", "money": "cash offer now", "sport": "late goal match"}
SIZE = 12


def window(number: int, classes: Sequence[str], each: int = 5) -> list[Example]:
    return [Example(f"{WORDS[c]} {number}{i}", c, number) for i in range(each) for c in classes]


WINDOWS = [
    window(0, ["linux", "money"]),
    window(1, ["money", "sport"]),
    window(2, ["sport"]),
    window(3, ["linux"]),
]


def learner(size: int = SIZE) -> Coreset:
    torch.set_num_threads(1)
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    learn = LearnSpec(schedule=Schedule(epochs=1, batch=8, lr=0.1), draws=2, panel=True)
    return Coreset(Frozen(model, Activations(model)), FamilySpec(), learn, seed=3, size=size)


def counted(labels: Sequence[str], tensors: Tensors) -> Counter[str]:
    """Return how many texts of each class a panel's Gaussians have counted in."""
    held = tensors["generative/count"].tolist() if "generative/count" in tensors else []
    return Counter({label: round(n) for label, n in zip(labels, held, strict=False) if n})


def test_evidence_adds_up_window_by_window() -> None:
    found, shown = learner(), Counter[str]()
    for number, (texts, together) in enumerate(zip(WINDOWS, accumulate(map(len, WINDOWS)), strict=True)):
        found.learn(texts)
        shown += Counter(e.label for e in texts)
        handed_on = counted(found.handed_on.labels, found.handed_on.tensors)
        assert counted(found.copy.labels, found.copy.tensors) == shown, number
        assert sum(handed_on.values()) == max(0, together - SIZE), number
        assert handed_on <= shown, number
        assert int(found.copy.tensors["words/counts"].sum()) > int(
            found.handed_on.tensors["words/counts"].sum() if "words/counts" in found.handed_on.tensors else 0
        )


def test_the_copy_knows_what_is_kept_and_is_not_carried() -> None:
    found = learner()
    assert found.foretell(["kernel"]) == [None]
    for texts in WINDOWS:
        found.learn(texts)
    for forecast in (*found.foretell(["kernel patch", "goal"]), *found.recall(["cash"])):
        assert forecast is not None
        assert sum(forecast.values()) == pytest.approx(1)
        assert {"linux", "money", "sport"} <= set(forecast)
    of_texts = found.carried() - bytes_of(found.handed_on.tensors)
    assert SIZE * 14 <= of_texts <= SIZE * 22, "twelve texts, and no other belief"


def test_without_anything_kept_the_copy_is_what_is_handed_on() -> None:
    found = learner(size=0)
    for texts in WINDOWS[:2]:
        found.learn(texts)
    assert found.copy.tensors.keys() == found.handed_on.tensors.keys()
    assert all(torch.equal(v, found.handed_on.tensors[k]) for k, v in found.copy.tensors.items())


def test_equal_texts_are_as_many_as_they_were() -> None:
    a, b = Example("a", "x", 0), Example("b", "x", 0)
    assert without([a, b, a, a], [a, b]) == [a, a]
    assert without([a], [a]) == []
