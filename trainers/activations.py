"""What the frozen prefix makes of texts, kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

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
        self._bytes = 0

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the activations of texts, computing those not held."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Tensor:
        if text in self._held:
            self._held.move_to_end(text)
            return self._held[text]
        made = self._held[text] = self._model.activate(text)
        self._bytes += made.numel() * made.element_size()
        while self._bytes > self._limit and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            self._bytes -= gone.numel() * gone.element_size()
        return made
