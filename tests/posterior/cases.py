"""Families, slots and random states the laws run over."""

from __future__ import annotations

from typing import Any

import torch

from posterior.blob import Blob
from posterior.families import STATES
from posterior.family import Family, Slot, Tensors, state_of, tensors_of
from posterior.point import Point

FAMILIES: dict[str, Family[Any]] = {
    "blob": Blob(),
    "blob, B frozen": Blob(b="frozen"),
    "point": Point(),
}


def slots(classes: int) -> tuple[Slot, ...]:
    """Return two adapted layers and a head."""
    return (
        Slot("q.A", (2, 5), "down"),
        Slot("q.B", (4, 2), "up"),
        Slot("v.A", (2, 5), "down"),
        Slot("v.B", (4, 2), "up"),
        Slot("head", (classes, 5), "head"),
    )


def normals(shapes: dict[str, tuple[int, ...]], n: int, seed: int) -> dict[str, torch.Tensor]:
    """Return noise as the trainer would."""
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.randn((n, *shape), generator=rng) for k, shape in shapes.items()}


def moved(family: Family[Any], state: Any, *, seed: int, size: float = 0.5) -> Any:
    """Return a random state near another, reached through the family's own coordinates."""
    rng = torch.Generator().manual_seed(seed)
    at = {k: size * torch.randn(v.shape, generator=rng) for k, v in sorted(family.origin(state).items())}
    return family.place(state, at)


def as_double(family: Family[Any], state: Any) -> Any:
    """Return the state in float64."""
    name = "point" if isinstance(family, Point) else "blob"
    tensors: Tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors_of(state).items()}
    return state_of(*STATES[name], tensors)
