"""A regime that comes back is met by the belief that knew it; without one, nothing goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.study.ancestors import SAMPLE, Ancestral, judging, own_of
from benchmarks.study.chain import Frozen
from benchmarks.study.streams import Example
from tests.app.encoders import small_encoder
from trainers.activations import Activations
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec

TEXTS = ("kernel patch", "late goal")


def window(labels: Sequence[str], each: int = 16) -> list[Example]:
    return [
        Example(f"{t} {i}", label, 0) for i in range(each) for t, label in zip(TEXTS, labels, strict=True)
    ]


ONE, OTHER = window(["linux", "sport"]), window(["sport", "linux"])  # the same texts, named the other way


def learner() -> Ancestral:
    torch.set_num_threads(1)
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    learn = LearnSpec(schedule=Schedule(epochs=4, batch=4, lr=0.5), beta=1.0, draws=4, panel=True)
    return Ancestral(Frozen(model, Activations(model)), FamilySpec(name="point"), learn, seed=3)


def test_a_regime_that_comes_back_is_met_by_who_knew_it() -> None:
    found = learner()
    for texts in (ONE, OTHER):
        found.learn(texts)
    assert found.went_back == []
    knew = found.ancestors[1]
    found.learn(ONE)
    assert found.went_back == [2]
    stays = learner()
    stays.learn(ONE)
    stays.learn(ONE)
    stays.learn(ONE)
    assert stays.went_back == []
    assert knew.labels == found.head.labels


def test_rows_go_back_and_what_was_counted_stays() -> None:
    found = learner()
    for texts in (ONE, OTHER):
        found.learn(texts)
    counted = found.head.tensors["words/counts"]
    found.spec = replace(found.spec, schedule=replace(found.spec.schedule, epochs=0))
    knew = found.ancestors[1].tensors
    found.learn(ONE)
    assert found.went_back == [2]
    assert all(torch.equal(found.head.tensors[name], knew[name]) for name in own_of(knew))
    assert int(found.head.tensors["words/counts"].sum()) > int(counted.sum())


def test_nobody_who_lacks_a_class_is_asked() -> None:
    found = learner()
    found.learn([e for e in ONE if e.label == "linux"])
    found.learn(OTHER)
    found.learn(ONE)
    assert [a.labels for a in found.ancestors] == [(), ("linux",), ("linux", "sport")]
    assert found.went_back == []


def test_texts_that_judge_are_of_known_classes() -> None:
    assert {e.label for e in judging(ONE, ("sport",))} == {"sport"}
    assert len(judging(ONE * 10, ("linux", "sport"))) == SAMPLE
