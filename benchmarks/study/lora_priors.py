"""Sequential LoRA with two priors: weights lie around the base's, and classes are as frequent as so far.

    learning     loss_t = -1/N_t sum_n log softmax_k[f_k(x_n; w) + log pi_t(k)](y_n)
                          + 1/N_t sum_i (w_i - w_i(0))^2 / (2 sd_i^2)
    foretelling  p(k | x) ~ exp(f_k(x; w)) pi_1..t(k)             pi(k) = (n_k + 1) / sum_j (n_j + 1)

with n_k the texts of class k in the window alone (pi_t), or in all windows so far (pi_1..t), counts that are
carried. What a window's frequencies explain is taken out of the rows, so that they learn what divides classes
however busy each is, and rows of classes that a window lacks are hardly pushed. The Gaussian, of strength 1,
is around the base's weights (random directions, zeros), not yesterday's: of those only the start is kept. Its
deviations are `blob`'s, .02 for adapters and .1 for class rows. A step is sequential LoRA's.

Sources: Ren et al., NeurIPS 2020, arXiv:2007.10740 (balanced softmax); Menon et al., ICLR 2021,
arXiv:2007.07314 (logit adjustment).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from benchmarks.study.chain import Belief, Chain, Frozen, Labels, mapped
from benchmarks.study.streams import Example
from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Scales, grow_rows
from stream.plan import Forecast
from trainers.model import HEAD
from trainers.window import FamilySpec, LearnSpec

FAMILY: Final = "benchmarks.study.lora_priors:LoraPriors"


@dataclass(frozen=True)
class Anchored:
    """Weights, where the base has them, and the prior's deviation of a weight (one number by slot)."""

    point: Tensors
    anchor: Tensors
    sd: Tensors


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPriors:
    """The family. `class_logs` is what is added to each row's logit; scales are deviations of one weight."""

    class_logs: tuple[float, ...] = ()
    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    scale: float = 0.02
    name: str = FAMILY

    @property
    def curved(self) -> bool:
        """There is no spread."""
        return False

    def restore(self, tensors: Tensors) -> Anchored:
        """Return the state that was flattened."""
        return state_of(Anchored, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Anchored:
        """Return random directions for A and zeros elsewhere, each weight on its anchor."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_head, head=self.sd_head)
        point = {s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots}
        return Anchored(point, dict(point), {s.name: torch.tensor(scales.of(s)) for s in slots})

    def grow(self, state: Anchored, base: Anchored) -> Anchored:
        """Return the state with new class rows at 0."""
        point = {k: grow_rows(v, base.point[k]) for k, v in state.point.items()}
        anchor = {k: grow_rows(v, base.anchor[k]) for k, v in state.anchor.items()}
        return Anchored(point, anchor, state.sd)

    def forget(self, state: Anchored, base: Anchored, *, beta: float) -> Anchored:
        """Return the state: a point carries no belief that could be weakened."""
        del base, beta
        return state

    def open(self, state: Anchored, tasks: Sequence[str]) -> Anchored:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Anchored) -> Tensors:
        """Return zero coordinates for every slot."""
        return {f"point/{k}": torch.zeros_like(v) for k, v in prior.point.items()}

    def place(self, prior: Anchored, coordinates: Tensors, *, shape: Anchored) -> Anchored:
        """Return the weights moved by scale times the coordinates."""
        moved = {k: v + self.scale * coordinates[f"point/{k}"] for k, v in prior.point.items()}
        return Anchored(moved, shape.anchor, shape.sd)

    def noise(self, state: Anchored) -> Mapping[str, tuple[int, ...]]:
        """Return nothing: a point needs no noise."""
        del state
        return {}

    def sample(self, state: Anchored, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del noise
        return self.mean(state, tasks)

    def mean(self, state: Anchored, tasks: Sequence[str]) -> Draw:
        """Return the weights, each class row's bias raised by its class's log frequency."""
        del tasks
        draw = {k: v.unsqueeze(0) for k, v in state.point.items()}
        if not self.class_logs:
            return draw
        raised = torch.zeros_like(draw[HEAD])
        raised[0, :, -1] = torch.tensor(self.class_logs, dtype=raised.dtype)
        return draw | {HEAD: draw[HEAD] + raised}

    def kl(self, state: Anchored, prior: Anchored) -> Tensor:
        """Return -log of the prior at these weights, in nats up to its constant."""
        total = torch.zeros((), dtype=torch.float64)
        for k, v in state.point.items():
            apart = (v.double() - prior.anchor[k].double()) / prior.sd[k].double()
            total = total + 0.5 * apart.square().sum()
        return total

    def marginal(self, state: Anchored, slots: Collection[str]) -> Anchored:
        """Return the part of the state."""
        return part_of(state, slots)

    def absorb(self, prior: Anchored, state: Anchored, rows: Tensors) -> tuple[Anchored, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Anchored, prior: Anchored, posterior: Anchored, facts: Facts) -> Anchored:
        """Return where the window ended."""
        del state, prior, facts
        return posterior


@final
class Adjusted:
    """Sequential LoRA under both priors, and the counts that it carries."""

    def __init__(self, frozen: Frozen, learn: LearnSpec, *, seed: int) -> None:
        """Start from the base, without a class."""
        self._chain, self._learn = Chain(frozen, seed), learn
        self._belief, self._counts = Belief(), Counter[str]()

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class), as frequent as it was so far."""
        said = adjusted(self._counts, self._belief.labels)
        return self._chain.asked(self._belief, texts, said, self._learn)

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Learn the rows beside the window's frequencies, and count it in."""
        own = Counter(e.label for e in window)
        said = adjusted(own, mapped(self._belief.labels, window))
        self._belief = self._chain.learned(self._belief, window, said, self._learn)
        self._counts.update(own)

    def carried(self) -> int:
        """Count the weights' bytes and a number for each class; anchors come from a seed."""
        point = [v for name, v in self._belief.tensors.items() if name.startswith("point/")]
        return sum(v.numel() * v.element_size() for v in point) + 8 * len(self._counts)


def adjusted(counts: Mapping[str, int], labels: Labels) -> FamilySpec:
    """Return the family whose rows are beside these frequencies."""
    raised = [counts.get(label, 0) + 1 for label in labels]
    logs = tuple(math.log(n / sum(raised)) for n in raised)
    return FamilySpec(name=FAMILY, options={"class_logs": logs})
