"""The one objective, and the only place that knows its scale.

Per window, with N_t the number of NEW labelled examples whatever the number of epochs:

    loss = mean nll + (T / N_t) * KL(q || p_t)

`nll_sum` is the sum over this step's examples, so shards of any size add up; KL is a total in nats.
BLoB's cyclic schedule (arXiv 2406.11675) charges the same total unevenly over the M + 1 steps of a cycle:
pi_i = 2^i / (2^(M+1) - 1), i = 0..M. The paper's sum starts at i = 1 and its cycle at a length of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

KlSchedule = Literal["constant", "cyclic"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How likelihood and divergence meet: N_t new examples, temperature T (1 for propagation)."""

    new_examples: float
    temperature: float = 1.0

    def likelihood(self, nll_sum: Tensor, batch: int) -> Tensor:
        """Return the batch's share of the mean nll."""
        return nll_sum / batch

    def divergence(self, kl: Tensor, *, pace: float = 1.0) -> Tensor:
        """Return T/N_t times the divergence, times the step's `pace`."""
        return kl * (self.temperature / self.new_examples * pace)


def kl_pace(schedule: KlSchedule, step: int, steps: int) -> float:
    """Return how hard a step of a cycle is charged; over the cycle's `steps` the mean is 1."""
    if schedule == "constant":
        return 1.0
    return steps * 2.0 ** (step - steps) / (1 - 2.0**-steps)  # no power that could overflow
