"""Standard normals keyed by example, never by rank.

The noise of an example in an epoch is a function of (seed, epoch, position in the plan): the same
whoever computes it, so one worker and two see the same draws, and replay sees them again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """Hash parts to 63 bits; neighbours share nothing, unlike sums of small integers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def normals(
    shapes: Mapping[str, tuple[int, ...]],
    keys: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return standard normals (len(keys), *shape) for every name; row i depends on keys[i] alone."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    rows = torch.empty(len(keys), sum(sizes), dtype=dtype)
    for row, seed in zip(rows, keys, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    parts = rows.split_with_sizes(sizes, dim=1)
    return {
        name: part.reshape(len(keys), *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def shuffled(count: int, seed: int) -> list[int]:
    """Return a permutation of range(count) that depends on the seed alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
