"""BH-PEFT: a hybrid of adapter, LoRA and prefix whose weights are distributions (arXiv 2508.02711).

    W x + (alpha / rank) B (A x)      FFN(x) + scale B relu(A x)      attention over [P_K ; K], [P_V ; V]

with one mean-field Gaussian over A, B, P_K, P_V and the class rows, and yesterday's posterior as today's
prior. Which parts there are is the model's affair (`model.parts`; all three if nothing is said). Where we
differ from the paper and its code:

- Every factor is random. In the released code only the adapter's way down and the first layer of a prefix
  generator are; the way up, the generator's second layer and the class head are points that no prior
  holds, and LoRA's branch does not run. A prior over A beside a B that moves freely is a prior over
  nothing in particular, and yesterday's posterior then says little about today's function.
- The prefix is the keys and values themselves. A generator is a way to make points trainable; over
  generated values a Gaussian on the generator's weights is no Gaussian.
- KL is a sum over weights, divided by N_t, not .001 of a mean over weights: that is 1e-7 to 1e-3 of what
  the evidence bound asks for, so what is "posterior" there is a maximum-likelihood fit that jitters.
- One draw per sequence, not one for the whole batch: the same expectation with less noise.
- q starts at its prior. The paper starts at deviations of .00125 to .0025 beside a prior of .1: 3.5 nats
  for every weight before any evidence, which is far more than a window could pay for.
- The way down is centred on random directions, for around A = B = 0 nothing has a slope. `centre="zero"`
  with all deviations .1 is the paper's prior.

The way up can be held, at the price of a poorer belief: `up="anchored"` keeps its deviation for good, so
that its charge is 0.5 |(B - B_{t-1}) / sd|^2 and old evidence never firms it; `up="frozen"` fixes it at
random directions, a point from the first window on, and learns A alone, around 0.

Exact: on orthogonal linear-Gaussian designs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Diagonal

_DOWN: Final = ("down", "adapter_down")
_UP: Final = ("up", "adapter_up")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BhPeft:
    """The family; `sd_ROLE` is the prior standard deviation of one weight of a slot of that role."""

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_adapter_down: float = 0.02
    sd_adapter_up: float = 0.02
    sd_prefix_key: float = 0.1
    sd_prefix_value: float = 0.1
    sd_head: float = 0.1
    centre: Literal["random", "zero"] = "random"
    up: Literal["gaussian", "anchored", "frozen"] = "gaussian"
    name: str = "bhpeft"

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Diagonal:
        """Return the state that was flattened."""
        return state_of(Diagonal, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Diagonal:
        """Return p_0: the site changes nothing at its mean, whichever factor is 0 there."""
        frozen = [s for s in slots if self.up == "frozen" and s.role in _UP]
        random = [s for s in slots if s not in frozen]
        return Diagonal(
            mean={s.name: self._centre(s, seed=seed, centres=centres) for s in random},
            log_sd={s.name: torch.full(s.shape, math.log(self._sd(s))) for s in random},
            point={s.name: centres.get(s.name, _outward(s, seed=seed)) for s in frozen},
            flags={},
        )

    def _sd(self, slot: Slot) -> float:
        sd: float = getattr(self, f"sd_{slot.role}")
        return sd

    def _centre(self, slot: Slot, *, seed: int, centres: Tensors) -> Tensor:
        still = self.centre == "zero" or (self.up == "frozen" and slot.role in _DOWN)
        if still and slot.name not in centres:
            return torch.zeros(slot.shape)
        return gaussian.centre(slot, seed=seed, centres=centres)

    def grow(self, state: Diagonal, base: Diagonal) -> Diagonal:
        """Return the state with new class rows at the base prior."""
        return gaussian.grow(state, base)

    def forget(self, state: Diagonal, base: Diagonal, *, beta: float) -> Diagonal:
        """Return the power prior; what is frozen stays."""
        return gaussian.forget(state, base, beta=beta)

    def open(self, state: Diagonal, tasks: Sequence[str]) -> Diagonal:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Diagonal) -> Tensors:
        """Return zero coordinates; an anchored deviation has none."""
        free = gaussian.origin(prior, moving=[])
        return {k: v for k, v in free.items() if not self._held(k)}

    def _held(self, coordinate: str) -> bool:
        return self.up == "anchored" and coordinate.startswith("log_sd/") and coordinate.endswith(".B")

    def place(self, prior: Diagonal, coordinates: Tensors, *, shape: Diagonal) -> Diagonal:
        """Return the belief at whitened coordinates."""
        del shape
        held = {f"log_sd/{k}": torch.zeros_like(v) for k, v in prior.log_sd.items()}
        return gaussian.place(prior, {**held, **coordinates}, point_scale=0.0)

    def noise(self, state: Diagonal) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per random weight."""
        return gaussian.noise(state)

    def sample(self, state: Diagonal, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of weights per sequence."""
        del tasks
        return gaussian.sample(state, noise)

    def mean(self, state: Diagonal, tasks: Sequence[str]) -> Draw:
        """Return the mean weights."""
        del tasks
        return gaussian.mean(state)

    def kl(self, state: Diagonal, prior: Diagonal) -> Tensor:
        """Return the sum over every random weight of every part."""
        return gaussian.kl(state, prior)

    def marginal(self, state: Diagonal, slots: Collection[str]) -> Diagonal:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Diagonal, state: Diagonal, rows: Tensors) -> tuple[Diagonal, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Diagonal, prior: Diagonal, posterior: Diagonal, facts: Facts) -> Diagonal:
        """Return where the window ended."""
        del state, prior, facts
        return posterior


def _outward(slot: Slot, *, seed: int) -> Tensor:
    """Return random directions for the way up: uniform(-1/sqrt(d_out), 1/sqrt(d_out)), (d_out, rank).

    Scaled by what comes out, so that a column is about as long as a row of A would be.
    """
    return gaussian.directions(Slot(slot.name, slot.shape[::-1], slot.role), seed=seed).T.contiguous()
