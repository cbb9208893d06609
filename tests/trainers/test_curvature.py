"""What the trainer counts as curvature: of draws, of every example, and of a sample for them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from trainers.likelihood import softmax_root
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


@final
@dataclass(frozen=True, slots=True)
class Dice:
    """Three classes with logits W x, rows of W being those of one slot."""

    x: Tensor

    @property
    def outputs(self) -> int:
        """One output per class."""
        return 3

    def _logits(self, positions: Sequence[int], draw: Draw) -> Tensor:
        return (draw["head"] @ self.x[list(positions)].unsqueeze(2)).squeeze(2)

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed nll of class 0."""
        return -torch.log_softmax(self._logits(positions, draw), dim=-1)[:, 0].sum()

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_n f_n . R_n z_n."""
        logits = self._logits(positions, draw)
        return (logits * softmax_root(torch.softmax(logits.detach(), dim=-1), signs)).sum()


def test_several_classes_are_counted_as_the_generalised_gauss_newton_matrix_has_them() -> None:
    """By the one random row an example that production takes: along every direction within a tenth.

    In the mean of all directions within a fiftieth, so that no evidence is invented.
    """
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(4000, 3, generator=rng) @ torch.diag(torch.tensor([2.0, 1.0, 0.5]))
    family = GaussianLowRank(rank=9, sd_head=SD)
    state = family.base((Slot("head", (3, 3), "head"),), seed=1, centres={})
    for window, part in enumerate(torch.tensor_split(x, 8)):
        # Each window's draws are of the base, so that all count what the base says.
        prior = replace(family.open(state, [""]), low=torch.zeros(0, 9), gain=torch.zeros(0, 9))
        posterior, _ = update(
            family,
            prior,
            Dice(part),
            examples=len(part),
            schedule=Schedule(epochs=0),
            seed=window,
            window=window,
            ranks=InProcess(),
        )
        state = posterior.state
    counted = dense_lowrank(state).precision - SD**-2 * torch.eye(9, dtype=torch.float64)
    wanted = torch.zeros(9, 9, dtype=torch.float64)
    for _ in range(25):  # draws of the prior for each example
        w = torch.randn(len(x), 3, 3, generator=rng, dtype=torch.float64) * SD
        p = torch.softmax((w @ x.double().unsqueeze(2)).squeeze(2), dim=-1)
        spread = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        wanted += torch.einsum("nij,nk,nl->ikjl", spread, x.double(), x.double()).reshape(9, 9) / 25
    values, vectors = torch.linalg.eigh(wanted)
    stiff = vectors[:, values > 0.01 * values.max()]  # all but the common move of the rows, which is free
    assert stiff.shape[1] == 6
    ratio = ((stiff.T @ counted) * stiff.T).sum(dim=1) / ((stiff.T @ wanted) * stiff.T).sum(dim=1)
    assert float((ratio - 1).abs().max()) < 0.1
    assert float(counted.trace() / wanted.trace()) == pytest.approx(1, abs=0.02)


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
