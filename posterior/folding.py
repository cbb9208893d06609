"""Rows of a label map that bear one name are one class: a mixture of what each of them holds.

    log p(class | x) = logsumexp over its rows k of log p(k | x)

Merging two classes moves no tensor, then: the map names two rows alike. What is said of every other class
stands, and so do all ratios between those. Of scores before a softmax the same is true as of
log-probabilities, for it takes off the same number from all.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def once(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a label map, in order of first sight."""
    return tuple(dict.fromkeys(labels))


def first_rows(labels: Sequence[str]) -> tuple[int, ...]:
    """Return for each row the first row of its class, which stands for the class."""
    return tuple(map(labels.index, labels))


def folded(log_p: Tensor, rows: Sequence[Hashable]) -> Tensor:
    """Return what is said of classes, (..., C), of what is said of rows, (..., K).

    `rows` names the class of each row; classes are in order of first sight. Without two rows of one class,
    or without names, the argument itself comes back; a class of one row keeps its bits in any case.
    """
    places: dict[Hashable, list[int]] = {}
    for row, name in enumerate(rows):
        places.setdefault(name, []).append(row)
    if len(places) == len(rows):  # also of none
        return log_p
    return torch.stack([_together(log_p[..., own]) for own in places.values()], dim=-1)


def _together(log_p: Tensor) -> Tensor:
    return log_p[..., 0] if log_p.shape[-1] == 1 else torch.logsumexp(log_p, dim=-1)
