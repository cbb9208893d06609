"""A class head that generates the pieces of a text: frequencies of each class's own, exact Bayes.

    theta_k ~ Dirichlet(A g)            g_v = (b + C_v) / (b V + C),   C_v = sum_k c_k(v)
    the n different pieces of a text of class k ~ theta_k

What is carried is in how many texts of a class a piece stood, c_k(v): whole numbers, so windows add up
exactly, in any order and any cut, and a class that a window does not hold keeps its row. With theta
integrated out it is Polya's urn,

    log p(x | k) = ln G(A + C_k) - ln G(A + C_k + n) + sum_i ln(A g(v_i) + c_k(v_i)),    C_k = sum_v c_k(v)

Before its own evidence a class speaks as all of them do. Under a flat prior, every piece as likely, a class
of a few texts pays for each common word that it has not shown yet, and a text of it, however typical, goes
to the classes that have shown everything; under g such a word says nothing, and what is rare elsewhere and
was seen here says much. g itself is the mean of a Dirichlet posterior over all classes, flat at first.

A piece counts once a text: the second time it stands there it is hardly news (Church and Gale's burstiness),
and a naive count would take it for as much again. Pieces of a text depend on each other all the same, so a
panel gives each of them a fraction of its weight. No weight of a model is in it: nothing goes stale.
Sources: Madsen, Kauchak and Elkan, Modeling word burstiness using the Dirichlet distribution, 2005, for the
urn; MacKay and Peto, A hierarchical Dirichlet language model, 1995, for the shared mean, there inferred
together with the classes, here read off their counts; presence instead of counts and the constants are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

# Chosen together on the foretold mails, vader and r8; the mails would have more of A, r8 less.
SHARED: Final = 1_000.0  # A, pieces that the mean of all classes is worth in each: some twenty texts
FLAT: Final = 4.0  # b, how often every piece is taken to have stood somewhere before any text was seen


@dataclass(frozen=True)
class Dictionary:
    """Counts made ready to be asked: log(A g + c) (K, V) and the urns' sizes A + C_k (K,), float64."""

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
    urns = counts.double() + SHARED * shared(counts)
    return Dictionary(urns.log(), urns.sum(dim=1))


def shared(counts: Tensor) -> Tensor:
    """Return g, how frequent each piece is among all classes, (V,), float64."""
    everywhere = counts.sum(dim=0, dtype=torch.float64) + FLAT
    return everywhere / everywhere.sum()


def log_densities(belief: Dictionary, pieces: Sequence[Tensor]) -> Tensor:
    """Return log p(the pieces of a text | k), (n, K), float64; a text of no pieces is as likely anywhere."""
    drawn = torch.tensor([len(shown) for shown in pieces], dtype=torch.float64).unsqueeze(1)
    level = torch.lgamma(belief.size) - torch.lgamma(belief.size + drawn)
    return level + torch.stack([belief.log_counts[:, shown].sum(dim=1) for shown in pieces])
