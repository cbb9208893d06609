"""Other families walk as their names alone give them; who retrains windowly ends where retraining does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.mails_stream import demo_settings
from benchmarks.study.chain import Frozen
from benchmarks.study.methods import EACH_WINDOW, OTHER_FAMILIES, RETRAINED, methods
from benchmarks.study.streams import Example
from posterior.families import PARTS
from tests.app.encoders import small_encoder
from trainers.activations import Activations
from trainers.model import AdaptedModel, ModelSpec

TEXTS = [
    Example(f"{text} {i}", label, 0)
    for i in range(4)
    for text, label in (("kernel patch", "linux"), ("late goal", "sport"))
]


@pytest.mark.parametrize("name", OTHER_FAMILIES)
def test_a_family_learns_and_foretells_at_its_parts(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    frozen = Frozen(model, Activations(model))
    method = methods(demo_settings(tmp_path))[name]
    learner = method.make(lambda: frozen, 1)
    before = learner.carried()
    learner.learn(TEXTS)
    (said,) = learner.foretell(["a kernel"])
    assert method.said["parts"] == PARTS.get(name, ("lora",))
    assert said is not None
    assert set(said) == {"linux", "sport"}
    assert before == 0 < learner.carried()


def test_a_hybrid_adapts_more_than_lora(tmp_path: Path) -> None:
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    frozen, known, carried = Frozen(model, Activations(model)), methods(demo_settings(tmp_path)), {}
    for name in ("blob", "bhpeft"):
        learner = known[name].make(lambda: frozen, 1)
        learner.learn(TEXTS)
        carried[name] = learner.carried()
    assert carried["bhpeft"] > 1.2 * carried["blob"]


def test_who_retrains_after_each_window_ends_where_retraining_on_all_does(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    frozen, known = Frozen(model, Activations(model)), methods(demo_settings(tmp_path))
    windowly, at_once = (known[name].make(lambda: frozen, 1) for name in (EACH_WINDOW, RETRAINED[1]))
    assert windowly.foretell(["a kernel"]) == [None]
    windowly.learn(TEXTS[:4])
    before, tensors = windowly.recall(["a kernel"]), windowly.carried()
    windowly.learn(TEXTS[4:])
    at_once.learn(TEXTS)
    assert windowly.recall(["a kernel"]) == at_once.recall(["a kernel"]) != before
    assert windowly.carried() - tensors == sum(len(e.text) for e in TEXTS[4:])
