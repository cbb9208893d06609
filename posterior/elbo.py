"""The one objective, and the only place that knows its scale.

Per window, with N_t the number of NEW labelled examples whatever the number of epochs:

    loss = mean nll + (T / N_t) * KL(q || p_t)

`nll_sum` is the sum over this step's examples, so shards of any size add up; KL is a total in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scale:
    """How likelihood and divergence meet: N_t new examples, temperature T (1 for propagation)."""

    new_examples: float
    temperature: float = 1.0

    def likelihood(self, nll_sum: Tensor, batch: int) -> Tensor:
        """Return the batch's share of the mean nll."""
        return nll_sum / batch

    def divergence(self, kl: Tensor) -> Tensor:
        """Return T/N_t times the divergence."""
        return kl * (self.temperature / self.new_examples)
