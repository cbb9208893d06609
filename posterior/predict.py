"""The predictive mixture, and what its doubt is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def mixture(log_probs: Tensor) -> Tensor:
    """Average probabilities over draws in log space: (draws, n, classes) -> (n, classes).

    Averaging logits instead would be another, overconfident model.
    """
    return torch.logsumexp(log_probs.double(), dim=0) - math.log(log_probs.shape[0])


@dataclass(frozen=True, slots=True)
class Doubt:
    """Uncertainty in nats, each of shape (n,): total = aleatoric + epistemic.

    total H[mean_k p_k] · aleatoric mean_k H[p_k] · epistemic the mutual information between them.
    """

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy over the last axis in nats; log-probabilities of -inf contribute 0."""
    log_p = log_probs.double()
    terms = torch.where(torch.isinf(log_p), torch.zeros_like(log_p), log_p.exp() * log_p)
    return -terms.sum(dim=-1)


def doubt(log_probs: Tensor) -> Doubt:
    """Split the uncertainty of log-probabilities of shape (draws, n, classes)."""
    total = entropy(mixture(log_probs))
    aleatoric = entropy(log_probs).mean(dim=0)
    # Mutual information is >= 0; rounding may leave -1e-17.
    return Doubt(total, aleatoric, (total - aleatoric).clamp_min(0.0))
