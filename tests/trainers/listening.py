"""A likelihood that remembers the weights it was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from posterior.family import Draw
from trainers.update import Likelihood


@final
@dataclass(frozen=True)
class Listening:
    """`heard` has one row for each example and draw: the weights of the slot `head`, (D,)."""

    to: Likelihood
    heard: list[Tensor] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """Outputs of what is listened to."""
        return self.to.outputs

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the nll."""
        rows = draw["head"].detach().flatten(1)
        self.heard.extend(rows.expand(len(positions), -1))
        return self.to.nll(positions, draw)

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return the bent outputs."""
        return self.to.bend(positions, draw, signs)

    def rows(self) -> Tensor:
        """Return what was heard, (many, D)."""
        return torch.stack(self.heard)
