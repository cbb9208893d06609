"""The one likelihood whose posteriors are known in closed form: y = X w + noise of deviation 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior.family import Draw


@final
@dataclass(frozen=True, slots=True)
class Regression:
    """Weights are the D entries of one slot, row after row; no bias. X (N, D), y (N,)."""

    x: Tensor
    y: Tensor
    slot: str = "head"

    @property
    def outputs(self) -> int:
        """One output per example."""
        return 1

    def _fitted(self, positions: Sequence[int], draw: Draw) -> Tensor:
        return (self.x[list(positions)].unsqueeze(1) @ draw[self.slot].flatten(1).unsqueeze(2)).flatten()

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed nll up to its constant."""
        return (self.y[list(positions)] - self._fitted(positions, draw)).square().sum() / 2

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_n f_n z_n: the Hessian of the nll in the output is 1."""
        return (self._fitted(positions, draw) * signs[:, 0]).sum()


def windows(count: int, *, examples: int, features: int, orthogonal: bool, seed: int) -> list[Regression]:
    """Return windows of one regression; `orthogonal` designs make mean-field exact."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.linspace(-1, 1, features)
    out = []
    for _ in range(count):
        x = torch.randn(examples, features, generator=rng)
        if orthogonal:
            x = torch.linalg.qr(x)[0] * examples**0.5
        else:
            x = x @ (torch.eye(features) + 0.6 * torch.ones(features, features).triu(1))
        out.append(Regression(x, x @ w + torch.randn(examples, generator=rng)))
    return out
