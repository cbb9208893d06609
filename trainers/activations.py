"""What the frozen model makes of texts, kept: the activations of its prefix, and what a panel is shown."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior.sight import Sight
from trainers.model import AdaptedModel


@dataclass(slots=True)
class _Text:
    """One text: its activation, the views on the way there; all views and pieces once they are asked for."""

    activation: Tensor
    passed: list[Tensor]
    shown: tuple[Tensor, Tensor] | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is held of it."""
        return (self.activation, *self.passed, *(self.shown or ()))


@final
class Activations:
    """Frozen-prefix activations and sights by text, bounded in bytes of all of them, oldest out first.

    Safe to share between windows, families and processes, for an activation depends on its text alone.
    """

    def __init__(self, model: AdaptedModel, *, limit_bytes: int = 512 << 20) -> None:
        """Start empty."""
        self._model, self._limit = model, limit_bytes
        self._held: OrderedDict[str, _Text] = OrderedDict()
        self._bytes = 0

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the activations of texts, computing those not held."""
        return [self._one(text).activation for text in texts]

    def sight(self, texts: Sequence[str]) -> Sight:
        """Return what there is to see of texts where nothing is adapted."""
        views, pieces = zip(*(self._shown(text) for text in texts), strict=True)
        return Sight(torch.stack(views), pieces, self._model.vocabulary)

    def _shown(self, text: str) -> tuple[Tensor, Tensor]:
        held = self._one(text)
        if held.shown is None:
            held.shown = self._model.views(held.activation, held.passed), self._model.pieces(text)
            self._count(held.shown)
        return held.shown

    def _one(self, text: str) -> _Text:
        if text in self._held:
            self._held.move_to_end(text)
            return self._held[text]
        made = self._held[text] = _Text(*self._model.enter(text))
        self._count(made.tensors)
        return made

    def _count(self, more: Iterable[Tensor]) -> None:
        """Count what the newest text has come to hold; the oldest go where that is too much."""
        self._bytes += _size(more)
        while self._bytes > self._limit and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1].tensors)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
