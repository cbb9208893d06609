"""A linear opinion pool: one forecast out of several experts', weighted by what they foretold.

    p(y) = sum_h w_h p_h(y)          w = argmax  sum_n ln sum_h w_h p_h(y_n) + c sum_h v_h ln w_h

The weights carry over: those of the windows before, v, count as c events, and the c + n events together
choose anew by expectation-maximisation, which never lowers the sum above. Weights by the experts' evidence
alone (Bayesian model averaging) give all to the one that was best, as if it were true; a pool may find that
two together are better than either. Source: Stone, The opinion pool, 1961; Yao, Vehtari, Simpson and
Gelman, Using stacking to average Bayesian predictive distributions, 2018.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_ROUNDS: Final = 50  # of EM; what is left to gain then is far below a thousandth of a nat an event


def even(experts: int) -> Tensor:
    """Return the weights of experts of whom nothing is known, (H,), float64."""
    return torch.full((experts,), 1.0 / experts, dtype=torch.float64)


def pooled(log_p: Tensor, weights: Tensor) -> Tensor:
    """Return the pool's log-probabilities: log_p (H, ...) of the experts, weights (H,) -> (...)."""
    shaped = weights.double().log().view(-1, *(1 for _ in log_p.shape[1:]))
    return torch.logsumexp(log_p.double() + shaped, dim=0)


def reweighted(weights: Tensor, log_truth: Tensor, *, worth: float) -> Tensor:
    """Return the weights after events of which expert h said log p_h(truth), log_truth (H, n).

    `worth` is c, the events that the old weights count for. No event: the weights themselves. An event that
    every expert held impossible is not counted, for it says nothing about who is to be heard.
    """
    possible = log_truth > -torch.inf
    told = log_truth[:, possible.any(dim=0)].double()
    if not told.shape[1]:
        return weights
    new = weights
    for _ in range(_ROUNDS):
        share = torch.softmax(told + new.log().unsqueeze(1), dim=0).sum(dim=1)
        new = (share + worth * weights) / (told.shape[1] + worth)
    return new
