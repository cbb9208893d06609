"""BLoB: Bayesian low-rank adaptation by backpropagation (arXiv 2406.11675), made sequential.

W = W0 + s B A with q(A) = N(M, diag sd^2): mean and deviation are both learned by gradients through
samples, over class rows that are Gaussian too. Against the paper:

- The prior is an argument of the state's own type, not the number 0 with one scale: that is what lets
  yesterday's posterior be today's prior.
- One draw per sequence, not flipout signs per token, which destroy the covariance across tokens;
  `flipout` has them back, for comparison only.
- KL in its stable form and weighted by 1/N_t; no second optimiser whose step size sets the balance.
- B. A prior over A means something only together with the B it was learned beside. So B is either
  Gaussian too (`b="gaussian"`); or frozen for good after a warm-up (`b="frozen"`): it moves, without a
  prior, until at least two classes were seen and its columns are independent, and while it moves the
  prior over A is the base prior, never a posterior learned beside another B; or a point on an anchor
  (`b="anchored"`): N(B_{t-1}, sd_up^2) is its prior, 0.5 |(B - B_{t-1}) / sd_up|^2 its charge, and B is
  the mode. Then the prior over A is about yesterday's B give or take sd_up, and sd_up never shrinks.
- A's base prior is centred on LoRA's random directions, not on 0: with a Gaussian B centred on 0 the
  point A = B = 0 is a saddle at which nothing is learned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.flipout import MEAN, SIGNS
from posterior.gaussian import Diagonal, Scales

_UP = ("up", "adapter_up")
_DOWN = ".A"  # how the name of a LoRA's or an adapter's first matrix ends
_ROWS = "mean/head"  # coordinates of the class rows' means
_FROZEN = "b_frozen"
_TWO_CLASSES = 2
_RANK_TOLERANCE = 1e-3  # smallest over largest singular value of B below which a column is no direction


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """The family; scales are prior standard deviations of one weight.

    `head_step` below 1 shortens the steps of the class rows' means. A step is so many prior deviations of
    each weight, and all inputs of a row move its logit together: by far more deviations of the logit, and
    rows have the widest prior. Where the optimum lies is another matter, and stays; in a few epochs, shorter
    steps keep more of earlier windows and follow a new one less closely.
    """

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    sd_prefix: float = 0.1
    head_step: float = 1.0
    b: Literal["frozen", "anchored", "gaussian"] = "gaussian"
    flipout: bool = False
    name: str = "blob"

    @property
    def _scales(self) -> Scales:
        return Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)

    def _is_point(self, slot: Slot) -> bool:
        return slot.role in _UP and self.b != "gaussian"

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Diagonal:
        """Return the state that was flattened."""
        return state_of(Diagonal, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Diagonal:
        """Return p_0: A around random directions, B and head around 0."""
        centre = {s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots}
        random = [s for s in slots if not self._is_point(s)]
        return Diagonal(
            mean={s.name: centre[s.name] for s in random},
            log_sd={s.name: torch.full(s.shape, math.log(self._scales.of(s))) for s in random},
            point={s.name: centre[s.name] for s in slots if self._is_point(s)},
            flags={_FROZEN: torch.zeros((), dtype=torch.int64)} if self.b == "frozen" else {},
        )

    def grow(self, state: Diagonal, base: Diagonal) -> Diagonal:
        """Return the state with new class rows at the base prior."""
        return gaussian.grow(state, base)

    def forget(self, state: Diagonal, base: Diagonal, *, beta: float) -> Diagonal:
        """Return the power prior; while B still moves, A starts again from its base (see above)."""
        prior = gaussian.forget(state, base, beta=beta)
        if self.b == "anchored" and beta < 1.0:
            return replace(prior, point=_between(state.point, base.point, beta=beta))
        if not self._warming(state):
            return prior
        down = [k for k in state.mean if k.removesuffix(_DOWN) + ".B" in state.point]
        return replace(
            prior,
            mean=dict(prior.mean) | {k: base.mean[k] for k in down},
            log_sd=dict(prior.log_sd) | {k: base.log_sd[k] for k in down},
        )

    def _warming(self, state: Diagonal) -> bool:
        return self.b == "frozen" and not bool(state.flags[_FROZEN])

    def origin(self, prior: Diagonal) -> Tensors:
        """Return zero coordinates; B has some only while it may move."""
        moving = sorted(prior.point) if self.b == "anchored" or self._warming(prior) else []
        return gaussian.origin(prior, moving=moving)

    def open(self, state: Diagonal, tasks: Sequence[str]) -> Diagonal:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def place(self, prior: Diagonal, coordinates: Tensors, *, shape: Diagonal) -> Diagonal:
        """Return the state at whitened coordinates."""
        del shape
        slowed = {k: v * self.head_step if k == _ROWS else v for k, v in coordinates.items()}
        return gaussian.place(prior, slowed, point_scale=self.sd_up)

    def noise(self, state: Diagonal) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per random weight, and one that flipout's signs are keyed by."""
        return dict(gaussian.noise(state)) | ({SIGNS: (1,)} if self.flipout else {})

    def sample(self, state: Diagonal, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of weights per sequence."""
        del tasks
        draw = gaussian.sample(state, noise)
        if not self.flipout:
            return draw
        means = {MEAN + k: m.unsqueeze(0) for k, m in state.mean.items() if k.endswith(_DOWN)}
        return dict(draw) | means | {SIGNS: noise[SIGNS]}

    def mean(self, state: Diagonal, tasks: Sequence[str]) -> Draw:
        """Return the mean weights."""
        del tasks
        return gaussian.mean(state)

    def kl(self, state: Diagonal, prior: Diagonal) -> Tensor:
        """Return KL over A, head and (if Gaussian) B, or B's anchor; with B frozen it is the KL over W."""
        nats = gaussian.kl(state, prior)
        return nats + _pull(state.point, prior.point, sd=self.sd_up) if self.b == "anchored" else nats

    def marginal(self, state: Diagonal, slots: Collection[str]) -> Diagonal:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Diagonal, state: Diagonal, rows: Tensors) -> tuple[Diagonal, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Diagonal, prior: Diagonal, posterior: Diagonal, facts: Facts) -> Diagonal:
        """Freeze B once two classes were seen and its columns are independent."""
        del state, prior
        if not self._warming(posterior) or facts.classes_seen < _TWO_CLASSES:
            return posterior
        if not all(_full_rank(b) for b in posterior.point.values()):
            return posterior
        flags = {_FROZEN: torch.ones((), dtype=torch.int64)}
        return replace(posterior, flags=flags)


def _between(point: Tensors, base: Tensors, *, beta: float) -> dict[str, Tensor]:
    """Return the centre of N(b, sd^2)^beta N(b0, sd^2)^(1-beta): the deviation is both's and stays."""
    return {k: (beta * v.double() + (1 - beta) * base[k].double()).to(v.dtype) for k, v in point.items()}


def _pull(point: Tensors, anchor: Tensors, *, sd: float) -> Tensor:
    """Return 0.5 sum z^2 in nats, z the way from the anchor in its deviations."""
    total = torch.zeros((), dtype=torch.float64)
    for k, v in point.items():
        total = total + 0.5 * ((v.double() - anchor[k].double()) / sd).square().sum()
    return total


def _full_rank(b: Tensor) -> bool:
    values = torch.linalg.svdvals(b.double())
    return bool(values[-1] > _RANK_TOLERANCE * values[0])
