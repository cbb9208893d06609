"""A class head that generates the pieces of a text: frequencies of each class's own, exact Bayes.

    theta_k ~ Dirichlet(a, ..., a) over V pieces      the n different pieces of a text of class k ~ theta_k

What is carried is in how many texts of a class a piece stood: whole numbers, so windows add up exactly, in
any order and any cut, and a class that a window does not hold keeps its row. With theta integrated out it is
Polya's urn,

    log p(x | k) = ln G(aV + C_k) - ln G(aV + C_k + n) + sum_i ln(a + c_k(v_i)),      C_k = sum_v c_k(v)

A piece counts once a text: the second time it stands there it is hardly news (Church and Gale's burstiness),
and a naive count would take it for as much again. Pieces of a text depend on each other all the same, so a
panel gives each of them a fraction of its weight. No weight of a model is in it: nothing goes stale.
Source: Madsen, Kauchak and Elkan, Modeling word burstiness using the Dirichlet distribution, 2005, for the
urn; presence instead of counts and the constant are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SMOOTHING: Final = 0.03  # a; of .01, .03, .1, .3 and 1 the best for foretelling the mails


@dataclass(frozen=True)
class Dictionary:
    """Counts made ready to be asked: log(a + c) (K, V) and the urns' sizes aV + C (K,), float64."""

    log_counts: Tensor
    size: Tensor


def nothing(vocabulary: int) -> Tensor:
    """Return the counts of no class, (0, V), int32."""
    return torch.zeros(0, vocabulary, dtype=torch.int32)


def counted(counts: Tensor, pieces: Sequence[Tensor], labels: Tensor, *, classes: int) -> Tensor:
    """Return counts (K, V) with texts added: of text i the different `pieces[i]`, under row labels[i]."""
    missing = max(0, classes - len(counts))
    after = torch.cat([counts, counts.new_zeros(missing, counts.shape[1])])
    for shown, row in zip(pieces, labels.tolist(), strict=True):
        after[row, shown] += 1
    return after


def ready(counts: Tensor) -> Dictionary:
    """Return the belief that counts amount to."""
    smoothed = counts.double() + SMOOTHING
    return Dictionary(smoothed.log(), smoothed.sum(dim=1))


def log_densities(belief: Dictionary, pieces: Sequence[Tensor]) -> Tensor:
    """Return log p(the pieces of a text | k), (n, K), float64; a text of no pieces is as likely anywhere."""
    drawn = torch.tensor([len(shown) for shown in pieces], dtype=torch.float64).unsqueeze(1)
    level = torch.lgamma(belief.size) - torch.lgamma(belief.size + drawn)
    return level + torch.stack([belief.log_counts[:, shown].sum(dim=1) for shown in pieces])
