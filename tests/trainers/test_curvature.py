"""What the trainer counts as curvature: of draws, of every example, and of a sample for them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import pytest
import torch
from torch import Tensor

from posterior.family import Draw, Slot
from posterior.gaussian_lowrank import GaussianLowRank
from posterior.lowrank import Joint
from tests.posterior.cases import dense_lowrank
from tests.trainers.listening import Listening
from tests.trainers.regression import Regression
from trainers.update import InProcess, Likelihood, Schedule, update

N, SD = 600, 1.0
HEAD = (Slot("head", (1, 1), "head"),)
FAMILY = GaussianLowRank(rank=4, sd_head=SD)


@final
@dataclass(frozen=True, slots=True)
class Coin:
    """Two classes with logits 0 and x w: the Hessian in the one output f = x w is p (1 - p)."""

    x: float

    @property
    def outputs(self) -> int:
        """One output per example."""
        return 1

    def _outputs(self, positions: Sequence[int], draw: Draw) -> Tensor:
        return self.x * draw["head"].flatten().expand(len(positions))

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed nll of class 0."""
        return torch.nn.functional.softplus(self._outputs(positions, draw)).sum()

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_n f_n sqrt(p (1 - p)) z_n."""
        f = self._outputs(positions, draw)
        p = torch.sigmoid(f.detach())
        return (f * (p * (1 - p)).sqrt() * signs[:, 0]).sum()


def learn(likelihood: Likelihood, schedule: Schedule, *, world: int = 1) -> Joint:
    prior = FAMILY.open(FAMILY.base(HEAD, seed=1, centres={}), [""])
    return update(
        FAMILY, prior, likelihood, examples=N, schedule=schedule, seed=1, window=0, ranks=InProcess(world)
    )[0]


@pytest.mark.parametrize("world", [1, 3])
def test_curvature_is_that_of_draws_not_of_their_mean(world: int) -> None:
    """With logits N(0, 3^2) it is .115 an example, and .25 at the mean."""
    counted = dense_lowrank(learn(Coin(3.0), Schedule(epochs=0), world=world).state).precision
    w = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    p = torch.sigmoid(3.0 * w)
    expected = (p * (1 - p) * torch.exp(-0.5 * w.square())).sum() * (w[1] - w[0]) / math.sqrt(2 * math.pi)
    assert float(expected) < 0.125
    assert float(counted - SD**-2) / (9.0 * N) == pytest.approx(float(expected), rel=0.1)


def test_a_sample_stands_for_all_examples() -> None:
    """While a window is learned, draws are as narrow as all its examples will make them."""
    heard = Listening(Regression(torch.ones(N, 1), torch.zeros(N)))
    learn(heard, Schedule(epochs=1, lr=0.0, batch=50, curvature_sample=6))
    assert float(heard.rows().std()) == pytest.approx((SD**-2 + N) ** -0.5, rel=0.15)
