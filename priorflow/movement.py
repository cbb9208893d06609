"""How far a belief moved between two snapshots, site by site."""

from __future__ import annotations

from typing import Any

import torch

from posterior.tensors import from_bytes


def moved(before: bytes, after: bytes) -> list[dict[str, Any]]:
    """Return how far each tensor went, as root mean square, and how many rows it gained."""
    one, two = from_bytes(before), from_bytes(after)
    rows: list[dict[str, Any]] = []
    for name in sorted({*one, *two}):
        if name not in one or name not in two:
            rows.append({"site": name, "rms": None, "rows_gained": None})
            continue
        a, b = one[name].double(), two[name].double()
        shared = tuple(slice(0, min(x, y)) for x, y in zip(a.shape, b.shape, strict=True))
        step = (b[shared] - a[shared]).square()
        gained = b.shape[0] - a.shape[0] if a.dim() else 0
        rms = float(torch.sqrt(step.mean())) if step.numel() else 0.0
        rows.append({"site": name, "rms": rms, "rows_gained": gained})
    return rows
