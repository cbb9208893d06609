"""Tensors as bytes that anyone may load: safetensors, sorted, without a trace of when or where."""

from __future__ import annotations

import torch
from safetensors.torch import load, save
from torch import Tensor

from posterior.family import NotFinite, Tensors


def to_bytes(tensors: Tensors) -> bytes:
    """Serialise; equal tensors give equal bytes, whatever order they were made in."""
    return save({k: tensors[k].detach().contiguous().cpu() for k in sorted(tensors)})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Load what `to_bytes` wrote, bit for bit."""
    return dict(sorted(load(data).items()))


def require_finite(tensors: Tensors, *, where: str) -> None:
    """Raise NotFinite naming the first site that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            msg = f"{bad} of {tensor.numel()} values of site {name!r} are not finite ({where})"
            raise NotFinite(msg)
