"""Flipout, BLoB's way of drawing A: one deviation E whose signs every token draws anew. For comparison only.

    A_t x_t = M x_t + s_t * (E (r_t * x_t))          r_t (d_in,), s_t (rank,) of +-1, * elementwise

Each token alone sees a draw from q(A), so gradients of a mean over tokens vary less. But tokens t != t'
see independent deviations: E[s_t s_t'] = 0, and their covariance, which says how sure a belief is of a
whole text, is gone. A draw in this form gives every slot one whole draw, and beside them, under names that
no slot has, the means and one number per sequence that signs are keyed by.
"""

from __future__ import annotations

import zlib
from typing import Final

import torch
from torch import Tensor

from posterior.family import Draw

SIGNS: Final = "~signs"  # (n, 1): what a sequence's signs are keyed by
MEAN: Final = "~mean/"  # before a slot's name: its mean, (1, *shape)


def low(x: Tensor, draw: Draw, name: str) -> Tensor:
    """Return A x for tokens x (batch, T, d_in) under the draw of the slot `name`: (batch, T, rank)."""
    whole = draw[name]
    x = x.to(whole.dtype)
    if SIGNS not in draw or MEAN + name not in draw:
        return x @ whole.transpose(1, 2)
    centre = draw[MEAN + name]
    inputs, outputs = _signs(draw[SIGNS], name, (x.shape[1], x.shape[2], whole.shape[1]))
    moved = (x * inputs) @ (whole - centre).transpose(1, 2)
    return x @ centre.transpose(1, 2) + moved * outputs


def _signs(keys: Tensor, name: str, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return r (n, T, d_in) and s (n, T, rank); a sequence's are a function of its key and the slot.

    Drawn token by token, so that the padding a batch needs leaves the signs of real tokens as they are.
    """
    tokens, wide, narrow = sizes
    site, rows = zlib.crc32(name.encode()), []
    for bits in keys[:, 0].detach().float().view(torch.int32).tolist():
        rng = torch.Generator().manual_seed((site << 31) ^ (bits & 0x7FFFFFFF))
        rows.append(torch.randint(0, 2, (tokens, wide + narrow), generator=rng) * 2 - 1)
    signs = torch.stack(rows).to(keys.dtype)
    return signs[..., :wide], signs[..., wide:]
