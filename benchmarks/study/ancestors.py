"""Regimes that come back: where an earlier belief explains a window better than the last, it is the prior.

    prior_t = q_a  if  cost(q_{t-1}) - cost(q_a) > 2 standard errors,  a < t-1,  else  q_{t-1}

Cost is what a window's texts of known classes cost class rows, by the mixture of a few draws at its best
temperature, each class counting the same: what `beta: auto` asks of how much to forget. Only adapters and
class rows go back, and only to an ancestor that knew the same classes; what a panel has counted stays, for it
forgets nothing. What rows and adapters have learned in between is given up: a step back is paid with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import torch
from torch import Tensor

from benchmarks.study.chain import Belief, Chain, Frozen, Labels, bytes_of
from benchmarks.study.streams import Example
from posterior import panel
from posterior.families import make_family
from posterior.family import ONE_TASK, Tensors
from stream.plan import Forecast, window_seed
from trainers.evaluate import draws_of
from trainers.keeping import DRAWS, kept_share
from trainers.noise import key
from trainers.question import WhichClass
from trainers.update import spread_over
from trainers.window import FamilySpec, LearnSpec

SAMPLE: Final = 64  # texts of a window that judge, as many as `learn.beta_sample`
LAST: Final = 1.0  # the last belief's place among the candidates: the largest stands unless beaten


@final
@dataclass(slots=True)
class Ancestral:
    """A belief whose ancestors are kept, and which it may go back to."""

    frozen: Frozen
    family: FamilySpec
    spec: LearnSpec
    seed: int
    ancestors: list[Belief] = field(default_factory=list)
    head: Belief = field(default_factory=Belief)
    went_back: list[int] = field(default_factory=list)  # windows before which it did

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the last belief with the draws of the predictive."""
        return self._chain.asked(self.head, texts, self.family, self.spec)

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask its mean."""
        return self._chain.asked(self.head, texts, self.family, replace(self.spec, draws=0))

    def learn(self, window: Sequence[Example]) -> None:
        """Choose whose adapters and rows are the prior, and learn the window on top of them."""
        chosen = self._chosen(window)
        if chosen is not None:
            self.went_back.append(self.head.windows)
        prior = self.head if chosen is None else self._with_rows_of(chosen)
        self.ancestors.append(self.head)
        self.head = self._chain.learned(prior, window, self.family, self.spec)

    def carried(self) -> int:
        """Count the last belief's bytes, and the family's of every ancestor."""
        return bytes_of(self.head.tensors) + sum(bytes_of(own_of(a.tensors)) for a in self.ancestors)

    @property
    def _chain(self) -> Chain:
        return Chain(self.frozen, self.seed)

    def _chosen(self, window: Sequence[Example]) -> Belief | None:
        """Return the ancestor that explains the window better than the last belief, beyond chance."""
        able = [a for a in self.ancestors if a.labels and a.labels == self.head.labels]
        judges = judging(window, self.head.labels)
        if not able or not judges:
            return None
        named = {LAST: self.head, **{-float(i): a for i, a in enumerate(able)}}
        costs = {name: self._costs(belief, judges) for name, belief in named.items()}
        classes = torch.tensor([self.head.labels.index(e.label) for e in judges])
        _, best = kept_share(costs, classes)
        return None if best == LAST else named[best]

    def _costs(self, belief: Belief, judges: Sequence[Example]) -> Tensor:
        """Return what each text costs a belief's rows, the same noise for every candidate."""
        made = make_family(self.family.name, self.family.options)
        count, seed = min(self.spec.draws, DRAWS), window_seed(self.seed, self.head.windows)
        whose = [ONE_TASK] * len(judges)
        draws = draws_of(
            made, made.restore(own_of(belief.tensors)), tasks=whose, count=count, seed=key(seed, "ancestor")
        )
        rows = WhichClass(self.frozen.model, self.frozen.activations)
        return rows.costs([(e.text, e.label) for e in judges], whose, draws, belief.labels)

    def _with_rows_of(self, ancestor: Belief) -> Belief:
        """Return the last belief with an ancestor's adapters and rows."""
        return replace(self.head, tensors={**self.head.tensors, **own_of(ancestor.tensors)})


def judging(window: Sequence[Example], labels: Labels) -> list[Example]:
    """Return texts of known classes, from all over the window."""
    of_known = [e for e in window if e.label in labels]
    return [of_known[i] for i in spread_over(len(of_known), SAMPLE)]


def own_of(tensors: Tensors) -> dict[str, Tensor]:
    """Return the family's tensors, without a panel's."""
    return panel.restore(tensors)[1]
