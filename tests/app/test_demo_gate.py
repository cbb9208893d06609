"""The demo's bad candidate is bad through and through: rows, views and pieces are all moved on."""

from __future__ import annotations

from dataclasses import replace

import torch

from priorflow.demo_gate import confused
from tests.trainers.conftest import SPEC
from tests.trainers.orders import LEARN, order
from trainers.model import AdaptedModel
from trainers.window import FamilySpec, Local


def test_whatever_was_known_of_a_class_is_told_of_its_neighbour() -> None:
    """Two classes, well apart: what is foretold of one is now foretold of the other."""
    local, learn = Local(AdaptedModel(SPEC)), replace(LEARN, draws=0, panel=True)
    blob = FamilySpec(name="blob", options={"sd_head": 0.1})
    parent = local.carry_out(replace(order(0, {}, known=False, family=blob), learn=learn)).tensors
    sound, bad = (
        torch.tensor(
            local.carry_out(replace(order(1, state, known=True, family=blob), learn=learn)).forecasts
        )
        for state in (parent, confused(parent))
    )
    assert torch.allclose(bad[:, :2], sound[:, :2].flip(1), atol=1e-6)
    assert float((sound[:, 0] - sound[:, 1]).abs().mean()) > 0.1
