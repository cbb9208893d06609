"""What the frozen model makes of texts, kept: the activations of its prefix, and its features."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from trainers.model import AdaptedModel


@final
class Activations:
    """Frozen-prefix activations by text, bounded in bytes, oldest out first.

    Safe to share between windows, families and processes, for an activation depends on its text alone.
    """

    def __init__(self, model: AdaptedModel, *, limit_bytes: int = 512 << 20) -> None:
        """Start empty."""
        self._model, self._limit = model, limit_bytes
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._features: dict[str, Tensor] = {}
        self._bytes = 0

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the activations of texts, computing those not held."""
        return [self._one(text) for text in texts]

    def frozen(self, texts: Sequence[str]) -> Tensor:
        """Return the features of texts where nothing is adapted, (n, d)."""
        return torch.stack([self._frozen(text) for text in texts])

    def _frozen(self, text: str) -> Tensor:
        activation = self._one(text)  # first: it may put this text's features out
        if text not in self._features:
            self._features[text] = self._model.frozen(activation)
        return self._features[text]

    def _one(self, text: str) -> Tensor:
        if text in self._held:
            self._held.move_to_end(text)
            return self._held[text]
        made = self._held[text] = self._model.activate(text)
        self._bytes += made.numel() * made.element_size()
        while self._bytes > self._limit and len(self._held) > 1:
            old, gone = self._held.popitem(last=False)
            self._features.pop(old, None)
            self._bytes -= gone.numel() * gone.element_size()
        return made
