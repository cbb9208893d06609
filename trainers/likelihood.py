"""How well weights explain the examples of a window, and how curved that is in the model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior.family import Draw
from posterior.folding import folded
from trainers.model import AdaptedModel


@final
@dataclass(frozen=True, slots=True)
class Classification:
    """Softmax over classes: outputs are their logits, and the nll's Hessian in them is diag p - p p'.

    `labels` names the class of each row where one has several; its logit is their logsumexp, so rows of a
    class share evidence by what each of them makes of a text.
    """

    model: AdaptedModel
    texts: Sequence[Tensor]
    targets: Sequence[int]
    classes: int
    labels: Sequence[str] = ()

    @property
    def outputs(self) -> int:
        """Number of classes the targets may name."""
        return self.classes

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed cross-entropy."""
        logits = self._logits(positions, draw)
        truth = torch.tensor([self.targets[i] for i in positions])
        return torch.nn.functional.cross_entropy(logits, truth, reduction="sum")

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_n f_n . R_n z_n, with R_n held fixed."""
        logits = self._logits(positions, draw)
        return (logits * softmax_root(torch.softmax(logits.detach(), dim=-1), signs)).sum()

    def _logits(self, positions: Sequence[int], draw: Draw) -> Tensor:
        return folded(self.model.logits([self.texts[i] for i in positions], draw), self.labels)


def softmax_root(probs: Tensor, signs: Tensor) -> Tensor:
    """Return R z with R = diag(sqrt p) - p sqrt(p)', so that R R' = diag p - p p'; all (n, K)."""
    turned = probs.sqrt() * signs
    return turned - probs * turned.sum(dim=-1, keepdim=True)
